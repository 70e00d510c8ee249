"""Mutants that list or send mail wrongly."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING, Any

from tests.popcheck.maildrop import OK, Quit, Refused
from tests.popcheck.mutate import mutant, said
from tests.popcheck.toy import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MUTANTS"]


def _refused(*_: Any) -> bytes:
    raise Refused("no")


def _unchecked(self: Session, at: int) -> bytes:
    """Send what there is, whatever was said of it."""
    return self.wire(self.read(at))


def _blind(*verbs: str) -> type[Session]:
    """Do not see the marks, for some verbs."""

    def answer(self: Session, line: bytes) -> bytes:
        kept = self.deleted
        if line.split(b" ")[0].decode("latin-1") in verbs:
            self.deleted = set()
        try:
            return Session.answer(self, line)
        finally:
            self.deleted = kept | (self.deleted if "DELE" in verbs else set())

    return mutant(answer=answer)


def _half_list(self: Session, argument: bytes) -> bytes:
    lines = Session.do_LIST(self, argument).split(b"\r\n")
    return b"\r\n".join(lines[:500] + lines[-2:]) if len(lines) > 502 else b"\r\n".join(lines)


def _half_uidl(self: Session, argument: bytes) -> bytes:
    lines = Session.do_UIDL(self, argument).split(b"\r\n")
    return b"\r\n".join(lines[:200] + lines[-2:]) if len(lines) > 202 else b"\r\n".join(lines)


def _backwards(self: Session) -> list[int]:
    return [at for at in range(len(self.sizes)) if at not in self.deleted][::-1]


def _newest_first(self: Session, path: Path) -> int:
    return -int(path.name.split(".")[0])


LISTS: dict[str, Any] = {
    "stat.format": said("STAT", rb"\+OK ([0-9]+) .*\r", rb"+OK \1 messages\r"),
    "stat.nothing-more": said("STAT", rb"\r\n", b" octets\r\n"),
    "stat.empty": said("STAT", rb"\+OK 0 0", b"+OK 0 1"),
    "stat.sum": said("STAT", rb"\r\n", b"0\r\n"),
    "stat.without-deleted": _blind("STAT"),
    "list.format": said("LIST", rb"^([0-9]+) ", rb"\1: "),
    "list.nothing-more": said("LIST", rb"^([0-9]+ [0-9]+)\r", rb"\1 octets\r"),
    "list.one": said("LIST", rb"(?<=^\+OK 2 ).*\r", b"7\r"),
    "list.empty": said("LIST", rb"^\+OK\r\n\.", b"+OK\r\n0 0\r\n."),
    "list.in-order": mutant(left=_backwards),
    "list.oldest-first": mutant(sort_key=_newest_first),
    "list.without-deleted": _blind("LIST"),
    "list.one-deleted": _blind("LIST"),
    "list.many": mutant(do_LIST=_half_list),
}


def _sized(size: Callable[[Session, bytes], int]) -> type[Session]:
    return mutant(size=size, whole=_unchecked)


_FILE = _sized(lambda _, stored: len(stored))
_LINES = _sized(lambda _, stored: len(stored) + stored.count(b"\n"))

SIZES: dict[str, Any] = {
    **{
        f"size.{member}": _FILE
        for member in (
            *("lf", "mixed", "no-final-newline", "no-final-newline-crlf", "only-newlines"),
            *("bare-carriage-returns", "8-bit-and-nul", "long-line"),
        )
    },
    "size.crlf": _LINES,
    "size.dots": _sized(lambda self, stored: len(self.stuff(self.wire(stored)))),
    "size.empty": _sized(lambda self, stored: len(self.wire(stored)) or 2),
    "size.trailing-cr": _sized(lambda self, stored: len(self.wire(stored.rstrip(b"\r")))),
}


def _named(uid: Callable[[Session, Path], bytes]) -> type[Session]:
    return mutant(uid=uid, unique=lambda _, uids: uids)


def _raw_name(_: Session, path: Path) -> bytes:
    return os.fsencode(path.name.split(":")[0])


def _long_hash(_: Session, path: Path) -> bytes:
    return hashlib.sha512(os.fsencode(path.name.split(":")[0])).hexdigest().encode()


def _new_each_time(_: Session, path: Path) -> bytes:
    return secrets.token_hex(8).encode()


def _content_hash(_: Session, path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()


def _with_flags(_: Session, path: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path.name)).hexdigest().encode()


def _by_number(self: Session, uids: list[bytes]) -> list[bytes]:
    return [b"u%d" % at for at in range(len(uids))]


def _of_generation(self: Session, path: Path) -> bytes:
    generation = self.server.memory.get("generation", 0)
    return b"%d-%s" % (generation, path.name.split(":")[0].encode()[:50])


def _counted(self: Any) -> None:
    """Let a generation end with each session that is cut off."""
    if self.locked:
        memory = self.server.memory
        memory["generation"] = memory.get("generation", 0) + (not self.quitted)
    Session.leave(self)


def _quitted(self: Any, argument: bytes) -> bytes:
    self.quitted = True
    return Session.do_QUIT(self, argument)


def _fetched(self: Session, argument: bytes) -> bytes:
    self.uids[self.number(argument)] += b"-seen"
    return Session.do_RETR(self, argument)


def _reset(self: Session, argument: bytes) -> bytes:
    self.uids = [uid[::-1] + b"!" for uid in self.uids]
    return Session.do_RSET(self, argument)


UIDS: dict[str, Any] = {
    "uidl.format": said("UIDL", rb"^([0-9]+) ", rb"\1  "),
    "uidl.one": said("UIDL", rb"\+OK 2 ", b"+OK "),
    "uidl.empty": said("UIDL", rb"^\+OK\r\n\.", b"+OK\r\n0 x\r\n."),
    "uidl.all": mutant(do_UIDL=_half_uidl),
    "uidl.without-deleted": _blind("UIDL"),
    "uidl.one-deleted": _blind("UIDL"),
    "uidl.characters.usual": _named(_long_hash),
    "uidl.characters.name-with-size": _named(_new_each_time),
    **{
        f"uidl.characters.{member}": _named(_raw_name)
        for member in (
            *("long-name", "name-with-space", "name-with-8-bit", "name-with-control-character"),
        )
    },
    "uidl.distinct": _named(lambda *_: b"same"),
    "uidl.distinct-copies": _named(_content_hash),
    "uidl.same-name-twice": _named(_raw_name),
    "uidl.stays": _named(_new_each_time),
    "uidl.stays-without-quit": mutant(
        uid=_of_generation, leave=_counted, do_QUIT=_quitted, quitted=False
    ),
    "uidl.stays-when-seen": _named(_with_flags),
    "uidl.stays-when-others-go": mutant(unique=_by_number),
    "uidl.stays-when-fetched": mutant(do_RETR=_fetched),
    "uidl.not-used-again": _named(_content_hash),
    "uidl.same-after-rset": mutant(do_RSET=_reset),
}


def _sent(change: Callable[[bytes], bytes]) -> type[Session]:
    """Send something else than there is."""
    return mutant(whole=lambda self, at: change(Session.whole(self, at)))


_UNSTUFFED = mutant(stuff=lambda _, text: text)
_NOT_THE_FIRST = mutant(stuff=lambda _, text: re.sub(rb"(?<=\r\n)\.", b"..", text))


def _without_end(self: Session, argument: bytes) -> bytes:
    reply = Session.do_RETR(self, argument)
    raise Quit(reply.removesuffix(b"\r\n.\r\n") + b".\r\n")


def _with_crlf_again(_: Session, piece: bytes, at: int) -> bytes:
    return piece.replace(b"\n", b"\r\n")


def _crlf_or_nothing(_: Session, piece: bytes, at: int) -> bytes:
    return piece if b"\r\n" in piece else piece.replace(b"\n", b"\r\n")


def _second_time(self: Session, argument: bytes) -> bytes:
    if argument.decode() in self.server.memory:
        raise Refused("you have it")
    self.server.memory[argument.decode()] = True
    return Session.do_RETR(self, argument)


def _fetched_is_deleted(self: Any, argument: bytes) -> bytes:
    reply = Session.do_RETR(self, argument)
    self.fetched.append(self.number(argument))
    return reply


def _commit_fetched(self: Any, marked: list[int]) -> None:
    Session.commit(self, [*marked, *self.fetched])


RETR: dict[str, Any] = {
    "retr.plain": _sent(lambda text: text[: text.rstrip().rfind(b"\n") + 1]),
    "retr.dot-first": _NOT_THE_FIRST,
    "retr.dot-only-first": _NOT_THE_FIRST,
    "retr.only-a-dot": _NOT_THE_FIRST,
    "retr.dot-lines": _UNSTUFFED,
    "retr.dot-last": _UNSTUFFED,
    "retr.bait": _UNSTUFFED,
    "retr.bait-crlf": _UNSTUFFED,
    "retr.dot-inside": mutant(stuff=lambda _, text: text.replace(b".", b"..")),
    "retr.header-only": _sent(lambda text: text if b"\r\n\r\n" in text else text + b"\r\n"),
    "retr.blank-line-only": _sent(bytes.strip),
    "retr.8-bit": _sent(lambda text: bytes(octet & 127 for octet in text)),
    "retr.long-line": _sent(lambda text: re.sub(rb"([^\r\n]{998})", rb"\1\r\n", text)),
    "retr.many-lines": _sent(lambda text: text[:65_536] + b"\r\n"),
    "retr.no-final-newline": mutant(do_RETR=_without_end),
    "retr.no-final-newline-dot": _UNSTUFFED,
    "retr.empty": mutant(whole=lambda self, at: Session.whole(self, at) or _refused()),
    "retr.crlf": mutant(with_crlf=_with_crlf_again),
    "retr.mixed-line-ends": mutant(with_crlf=_crlf_or_nothing),
    "retr.line-ends-are-crlf": _sent(lambda text: text.replace(b"x\r\n", b"x\n")),
    "retr.bare-carriage-return": _sent(lambda text: re.sub(rb"\r(?!\n)", b"", text)),
    "retr.nul": _sent(lambda text: text.partition(b"\0")[0] + b"\r\n"),
    "retr.size-in-reply": said("RETR", rb"\A\+OK ([0-9]+)", rb"+OK 1\1"),
    "retr.twice": mutant(do_RETR=_second_time),
    "retr.each-its-own": mutant(whole=lambda s, at: Session.whole(s, len(s.sizes) - 1 - at)),
    "retr.keeps": mutant(do_RETR=_fetched_is_deleted, commit=_commit_fetched, fetched=[]),
    "retr.deleted": _blind("RETR"),
}


def _piecewise(size: int) -> type[Session]:
    """Stuff each piece by itself."""

    def stuff(self: Session, text: bytes) -> bytes:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        first, *rest = pieces or [b""]
        rest = [re.sub(rb"(?<=\r\n)\.", b"..", piece) for piece in rest]
        return Session.stuff(self, first) + b"".join(rest)

    return mutant(stuff=stuff)


def _multiple(size: int) -> type[Session]:
    return _sent(lambda text: text if len(text) % size else text[:-3] + b"\r\n")


def _head_in_pieces(size: int) -> type[Session]:
    def head(self: Session, text: bytes, count: int) -> bytes:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        found = any(b"\r\n\r\n" in piece for piece in pieces)
        return Session.head(self, text, count) if found else text

    return mutant(head=head)


EDGES: dict[str, Any] = {
    "edge.dot.anywhere": _piecewise(14_336),
    "edge.crlf.anywhere": mutant(chunk=14_336),
}
for edge in (1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072):
    EDGES[f"edge.dot.{edge}"] = _piecewise(edge)
    EDGES[f"edge.crlf.{edge}"] = mutant(chunk=edge)
    EDGES[f"edge.end.{edge}"] = _multiple(edge)
    if edge in (4096, 8192, 16_384, 65_536):
        EDGES[f"edge.header.{edge}"] = _head_in_pieces(edge)


def _more_lines(self: Session, text: bytes, count: int) -> bytes:
    return Session.head(self, text, count + 1)


def _fewer_lines(self: Session, text: bytes, count: int) -> bytes:
    return Session.head(self, text, max(0, count - 1))


def _no_more_than_there_are(self: Session, text: bytes, count: int) -> bytes:
    if count > text.partition(b"\r\n\r\n")[2].count(b"\n"):
        _refused()
    return Session.head(self, text, count)


def _short_count(self: Session, word: bytes) -> int:
    count = Session.count(self, word)
    return count if count < 2**30 else -1


def _head_with_lf(self: Session, argument: bytes) -> bytes:
    at = self.number(argument.split(b" ")[0])
    stored = self.read(at)
    if b"\r\n" in stored:
        return OK + self.stuff(self.wire(stored)) + b".\r\n"
    return Session.do_TOP(self, argument)


def _needs_body(self: Session, text: bytes, count: int) -> bytes:
    return Session.head(self, text, count) if b"\r\n\r\n" in text else _refused()


def _needs_header(self: Session, text: bytes, count: int) -> bytes:
    return Session.head(self, text.removeprefix(b"\r\n"), count)


def _whole_lines(self: Session, argument: bytes) -> bytes:
    stored = self.read(self.number(argument.split(b" ")[0]))
    text = self.wire(stored[: stored.rfind(b"\n") + 1])
    return OK + self.stuff(text) + b".\r\n"


def _marked_as_well(self: Session, argument: bytes) -> bytes:
    reply = Session.do_TOP(self, argument)
    self.deleted.add(self.number(argument.split(b" ")[0]))
    return reply


def _last_instead(self: Session, argument: bytes) -> bytes:
    number, _, count = argument.partition(b" ")
    if number.isdigit() and int(number) > len(self.sizes):
        number = b"1"
    return Session.do_TOP(self, number + b" " + count)


def _no_more_than_thirty(self: Session, argument: bytes) -> bytes:
    number, _, count = argument.partition(b" ")
    return Session.do_TOP(self, b"%d %s" % (min(30, int(number)), count))


TOP: dict[str, Any] = {
    "top.0": mutant(head=_more_lines),
    "top.1": mutant(head=_more_lines),
    "top.3": mutant(head=_fewer_lines),
    "top.all": mutant(head=_fewer_lines),
    "top.more": mutant(head=_no_more_than_there_are),
    "top.very-many": mutant(count=_short_count),
    "top.crlf": mutant(do_TOP=_head_with_lf),
    "top.no-body": mutant(head=_needs_body),
    "top.no-header": mutant(head=_needs_header),
    "top.empty": mutant(head=lambda s, text, n: Session.head(s, text, n) if text else _refused()),
    "top.dots": _UNSTUFFED,
    "top.first-of-retr": mutant(head=lambda *of: b"X-Toy: yes\r\n" + Session.head(*of)),
    "top.no-final-newline": mutant(do_TOP=_whole_lines),
    "top.deleted": _blind("TOP"),
    "top.no-such": mutant(do_TOP=_last_instead),
    "top.keeps": mutant(do_TOP=_marked_as_well),
    "top.each-its-own": mutant(do_TOP=_no_more_than_thirty),
}

MUTANTS: dict[str, Any] = {**LISTS, **SIZES, **UIDS, **RETR, **EDGES, **TOP}
