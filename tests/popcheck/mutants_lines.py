"""Mutants that read lines, numbers and arguments wrongly, or say something else."""

from __future__ import annotations

import re
import threading
import unicodedata
from typing import TYPE_CHECKING, Any

from tests.popcheck.maildrop import OK, Quit
from tests.popcheck.mutate import fallen, mutant, parsing, said, taken
from tests.popcheck.toy import Session

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MUTANTS"]


def _echo(*, before: bool) -> type[Session]:
    def refuse(self: Session, text: str, line: bytes) -> bytes:
        here = (self.files is None) is before
        return b"-ERR unknown: " + line + b"\r\n" if here else Session.refuse(self, text, line)

    return mutant(refuse=refuse)


def _reading(repair: Callable[[bytes], bytes]) -> type[Session]:
    """Repair lines before they are looked at."""
    return mutant(answer=lambda self, line: Session.answer(self, repair(line)))


def _case_exact(self: Session, line: bytes) -> tuple[str, bytes]:
    verb, _, argument = line.partition(b" ")
    return verb.decode("latin-1"), argument


def _case_one(self: Session, line: bytes) -> tuple[str, bytes]:
    verb, argument = _case_exact(self, line)
    return (verb.upper() if verb.isupper() or verb.islower() else verb), argument


def _folded(self: Session, line: bytes) -> tuple[str, bytes]:
    verb, _, argument = line.partition(b" ")
    return unicodedata.normalize("NFKC", verb.decode("utf-8", "replace")).upper(), argument


def _shortened(self: Session, line: bytes) -> tuple[str, bytes]:
    verb, argument = Session.split(self, line)
    longer = [name for name in self.after if verb and name.startswith(verb)]
    return (longer or [verb])[0], argument


def _lengthened(self: Session, line: bytes) -> tuple[str, bytes]:
    verb, argument = Session.split(self, line)
    return verb[:4], argument


def _getattr(self: Session, line: bytes) -> bytes:
    return OK if hasattr(self, line.decode("latin-1").lower()) else Session.answer(self, line)


def _lf_falls(self: Session) -> bytes | None:
    line = Session.line(self)
    if line == b"NOOP" and self.buffer.startswith(b"NOOP"):
        raise Quit(b"")
    return line


def _whole_segments(self: Session) -> bytes:
    data = Session.receive(self)
    if data and not data.endswith(b"\n"):
        raise Quit(b"-ERR incomplete\r\n")
    return data


def _cr_ends(self: Session) -> bytes:
    return re.sub(rb"\r(?!\n)", b"\n", Session.receive(self))


def _whole_lines_only(self: Session) -> bytes:
    while data := Session.receive(self):
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            return whole
    return b""


def _cut(*, before: bool) -> type[Session]:
    """Take the rest of a line too long for more lines."""

    def line(self: Session) -> bytes | None:
        if (self.files is None) is not before:
            return Session.line(self)
        while not re.search(rb"[\r\n]", self.buffer):
            data = self.receive()
            if not data:
                return None
            self.buffer += data
        found, _, self.buffer = re.sub(rb"\r\n?", b"\n", self.buffer).partition(b"\n")
        return found

    return mutant(line=line, bad=10**9)


_AT_A_TIME = threading.Lock()


def _one_client(self: Session, *, implicit: bool) -> None:
    with _AT_A_TIME:
        Session.run(self, implicit=implicit)


def _any_argument(argument: bytes) -> None:
    """Take any argument for none."""


def _first_argument(self: Session, argument: bytes) -> int:
    return Session.number(self, argument.split(b" ")[0] or b"1")


def _top_filled(self: Session, argument: bytes) -> bytes:
    words = [*argument.split(b" "), b"", b""]
    return Session.do_TOP(self, (words[0] or b"1") + b" " + (words[1] or b"0"))


def _strict_list(self: Session, argument: bytes) -> bytes:
    if argument.startswith(b" "):
        raise Quit(b"")
    return Session.do_LIST(self, argument)


def _text(word: bytes) -> int:
    return int(word.decode("utf-8", "replace"))


def _leading(word: bytes) -> int:
    match = re.match(rb"[0-9]+", word)
    return int(match[0]) if match else 0


def _digits(word: bytes) -> int:
    return sum(unicodedata.digit(digit, 0) for digit in word.decode("utf-8", "replace"))


_JUNK = b"+OK " + b"x" * 600

MUTANTS: dict[str, Any] = {
    "greeting.ok": mutant(greeting=lambda _: b"* hello\r\n"),
    "greeting.one-line": mutant(greeting=lambda _: b"+OK one\r\n+OK two\r\n"),
    "greeting.length": mutant(greeting=lambda _: _JUNK + b"\r\n"),
    "greeting.no-angle-brackets": mutant(greeting=lambda _: b"+OK <toy> here\r\n"),
    "reply.status-upper-case": said("NOOP", rb"\+OK", b"+Ok"),
    "reply.length": said("NOOP", rb"\+OK", _JUNK),
    "reply.code-syntax": mutant(wrong="[info: no] wrong"),
    "reply.code-known": mutant(wrong="[TOY] wrong"),
    "reply.no-echo-before-log-in": _echo(before=True),
    "reply.no-echo": _echo(before=False),
    "reply.no-control-characters": _echo(before=False),
    "reply.length-of-errors": _echo(before=False),
    "command.lower-case": mutant(split=_case_exact),
    "command.mixed-case": mutant(split=_case_one),
    "command.unknown": taken(rb"XYZZY.*"),
    "command.shortened": mutant(split=_shortened),
    "command.lengthened": mutant(split=_lengthened),
    "command.with-colon": fallen(rb".*:.*"),
    "command.with-nul": _reading(lambda line: line.partition(b"\0")[0]),
    "command.with-8-bit": _reading(lambda line: re.sub(rb"[\x80-\xff]", b"", line)),
    "command.with-carriage-return": _reading(lambda line: line.partition(b"\r")[0]),
    "command.folded-in-unicode": mutant(split=_folded),
    "command.with-vertical-tab": _reading(lambda line: line.strip()),
    "command.internal": mutant(answer=_getattr),
    "command.unstated": taken(rb"LAST", b"+OK 0\r\n"),
    "command.empty-line": fallen(rb""),
    "command.bare-lf": mutant(line=_lf_falls),
    "command.octet-by-octet": mutant(receive=_whole_segments),
    "command.split-before-lf": mutant(receive=_cr_ends),
    "line.longest": mutant(limit=200),
    "line.too-long.before-log-in": _cut(before=True),
    "line.too-long.after-log-in": _cut(before=False),
    "line.endless": mutant(limit=1 << 30),
    **{
        f"argument.none.{verb}": mutant(none=staticmethod(_any_argument))
        for verb in ("stat", "noop", "rset", "quit")
    },
    **{
        f"argument.count.{verb}": mutant(number=_first_argument)
        for verb in ("retr", "dele", "list", "uidl")
    },
    "argument.count.top": mutant(do_TOP=_top_filled),
    "argument.second-space": mutant(do_LIST=_strict_list),
    "limit.bad-commands": mutant(bad=10**9),
    "limit.parallel": mutant(run=_one_client),
    "limit.http": taken(rb"Host: .*"),
    "number.zero": parsing(int, wrap=True),
    "number.minus": parsing(int, wrap=True),
    "number.plus": parsing(int),
    "number.beyond": parsing(lambda word: min(int(word), 11)),
    "number.letters": parsing(lambda word: _leading(word) or 1),
    "number.letters-behind": parsing(_leading),
    "number.underscore": parsing(int),
    "number.hexadecimal": parsing(lambda word: int(word, 0)),
    "number.exponent": parsing(lambda word: int(float(word))),
    "number.fraction": parsing(lambda word: int(float(word))),
    "number.wraps-at-2-32": parsing(lambda word: int(word) % 2**32),
    "number.wraps-at-2-64": parsing(lambda word: int(word) % 2**64),
    "number.wraps-at-2-31": parsing(lambda word: int(word) & 0x7FFFFFFF),
    "number.very-long": parsing(lambda word: int(word[:1])),
    "number.superscript": parsing(_digits),
    "number.arabic-digit": parsing(_text),
    "number.full-width-digit": parsing(_text),
    "number.nul-behind": parsing(lambda word: int(word.partition(b"\0")[0])),
    "number.tab-behind": parsing(int),
    "number.vertical-tab": parsing(int),
    "number.no-break-space": parsing(_text),
    "number.carriage-return-behind": parsing(int),
    "number.list": parsing(_leading),
    "number.wild-card": parsing(lambda word: 1 if word == b"*" else int(word)),
    "number.quoted": parsing(lambda word: int(word.strip(b"\"'()"))),
    "number.of-none": mutant(number=lambda *_: 0, sizes=[0], do_LIST=lambda *_: b"+OK 1 0\r\n"),
    **{
        f"top.lines.{member}": mutant(count=lambda _, word: _leading(word))
        for member in ("missing", "minus", "plus", "letters", "fraction")
    },
}


def _reversed(self: Session) -> bytes | None:
    """Take the last of the lines that have come first."""
    line = Session.line(self)
    if line is None or not self.buffer.endswith(b"\r\n"):
        return line
    rest = [*self.buffer.split(b"\r\n")[:-1]]
    self.buffer = b"".join(one + b"\r\n" for one in [line, *rest[:-1]])
    return rest[-1]


def _errors_forget(self: Session, text: str, line: bytes) -> bytes:
    self.buffer = b""
    return Session.refuse(self, text, line)


def _log_in_forgets(self: Session, argument: bytes) -> bytes:
    self.buffer = b""
    return Session.do_PASS(self, argument)


def _hurried_message(self: Session, argument: bytes) -> bytes:
    reply = Session.do_RETR(self, argument)
    return reply[:-9] + b"\r\n.\r\n" if self.buffer else reply


def _hurried_mark(self: Session, argument: bytes) -> bytes:
    return OK if self.buffer else Session.do_DELE(self, argument)


def _small_buffer(self: Session) -> bytes:
    return Session.receive(self)[:4096]


def _collecting(self: Session) -> bytes:
    """Read on and on, and keep what would have to be said."""
    data = Session.receive(self)
    while len(data) > 1_000:
        if not Session.receive(self):
            return b""
    return data


MUTANTS |= {
    "pipelining.order": mutant(line=_reversed),
    "pipelining.errors": mutant(refuse=_errors_forget),
    "pipelining.log-in": mutant(do_PASS=_log_in_forgets),
    "pipelining.messages": mutant(do_RETR=_hurried_message),
    "pipelining.delete-and-quit": mutant(do_DELE=_hurried_mark),
    "pipelining.many": mutant(receive=_small_buffer),
    "pipelining.odd-pieces": mutant(receive=_whole_lines_only),
    "pipelining.flood": mutant(receive=_collecting),
}
