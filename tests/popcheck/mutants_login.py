"""Mutants that let the wrong people in, or keep the right ones out, or speak TLS wrongly."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
from typing import Any

from tests.popcheck.maildrop import OK, Quit, Refused
from tests.popcheck.mutate import fallen, mutant, said, taken
from tests.popcheck.toy import PASSWORD, USER, Session

__all__ = ["MUTANTS"]


def _refused(*_: Any) -> bytes:
    raise Refused("no")


def _user_opens(self: Session, argument: bytes) -> bytes:
    self.open()
    return OK


def _known(self: Session, argument: bytes) -> bytes:
    return Session.do_USER(self, argument) if argument == USER else _refused()


def _keeps_user(self: Session, argument: bytes) -> bytes:
    user = self.user
    try:
        return Session.do_PASS(self, argument)
    finally:
        self.user = user


def _anybody(self: Session, argument: bytes) -> bytes:
    self.user = self.user or USER
    return Session.do_PASS(self, argument)


def _no_password(self: Session, argument: bytes) -> bytes:
    return Session.do_PASS(self, argument or PASSWORD)


def _first_name(self: Session, argument: bytes) -> bytes:
    return OK if self.user else Session.do_USER(self, argument)


def _wrong_is_final(self: Session, right: bool) -> bytes:
    if not right:
        raise Quit(b"-ERR [AUTH] wrong\r\n")
    return Session.let_in(self, right)


def _goes_on(self: Session, argument: bytes) -> bytes:
    with contextlib.suppress(Quit):
        Session.do_QUIT(self, argument)
    raise Quit(b"+OK bye\r\n+OK really\r\n")


def _impatient(self: Session) -> bytes:
    self.socket.settimeout(0.1 if self.files is not None else None)
    return Session.receive(self)


STATES: dict[str, Any] = {
    **{
        f"state.before-log-in.{verb}": taken(verb.upper().encode() + rb"\b.*", after=False)
        for verb in ("stat", "list", "retr", "dele", "noop", "rset", "uidl", "top")
    },
    **{
        f"state.after-log-in.{verb}": taken(verb.upper().encode() + rb"\b.*", before=False)
        for verb in ("user", "pass", "auth", "apop", "stls")
    },
    "state.user-only": mutant(do_USER=_user_opens),
    "user.ok": mutant(do_USER=_refused),
    "user.missing": taken(rb"USER"),
    "user.nobody": mutant(do_USER=_known),
    "user.changed-mind": mutant(do_USER=_first_name),
    "pass.wrong": mutant(right=lambda *_: True),
    "pass.wrong-no-maildrop": taken(rb"STAT", b"+OK 0 0\r\n", after=False),
    "pass.after-wrong": mutant(do_PASS=_keeps_user),
    "pass.try-again": mutant(let_in=_wrong_is_final),
    "pass.first": mutant(do_PASS=_anybody),
    "pass.missing": mutant(do_PASS=_no_password),
    "pass.case": mutant(right=lambda _, user, word: word.lower() == PASSWORD.lower()),
    "pass.auth-code": mutant(wrong="wrong"),
    "pass.code-announced": mutant(
        capabilities=[tag for tag in Session.capabilities if tag != b"AUTH-RESP-CODE"]
    ),
    "pass.with-space": mutant(right=lambda _, user, word: word.split(b" ")[0] == PASSWORD),
    "quit.before-log-in": taken(rb"QUIT", b"-ERR log in first\r\n", after=False),
    "quit.closes": mutant(do_QUIT=_goes_on),
    "idle.ten-minutes": mutant(receive=_impatient),
    "noop.ok": said("NOOP", rb"\+OK", b"-ERR"),
}


def _capa(change: Any, *, before: bool = True, after: bool = True) -> type[Session]:
    """Return a session with other capabilities, before or after log-in."""

    def capa(self: Session) -> list[bytes]:
        lines = Session.capa(self)
        return change(lines) if (before if self.files is None else after) else lines

    return mutant(capa=capa)


def _without(*tags: bytes) -> Any:
    return lambda lines: [line for line in lines if line.split(b" ")[0] not in tags]


def _instead(tag: bytes, line: bytes) -> Any:
    return lambda lines: [line if one.split(b" ")[0] == tag else one for one in lines]


CAPABILITIES: dict[str, Any] = {
    "capa.before-log-in": taken(rb"CAPA", b"-ERR no\r\n", after=False),
    "capa.after-log-in": taken(rb"CAPA", b"-ERR no\r\n", before=False),
    "capa.same-after-log-in": _capa(_without(b"USER"), before=False),
    "capa.sasl-after-log-in": _capa(_instead(b"SASL", b"SASL PLAIN"), before=False),
    "capa.line-length": _capa(_instead(b"IMPLEMENTATION", b"IMPLEMENTATION " + b"x" * 600)),
    "capa.characters": _capa(_instead(b"IMPLEMENTATION", b"IMPLEMENTATION  toy")),
    "capa.once-each": _capa(lambda lines: [*lines, b"TOP"]),
    "capa.registered": _capa(lambda lines: [*lines, b"X-TOY"]),
    "capa.argument": taken(rb"CAPA x", b"+OK\r\n.\r\n"),
    "capa.top": _capa(_without(b"TOP")),
    "capa.uidl": _capa(_without(b"UIDL")),
    "capa.user": _capa(_without(b"USER")),
    "capa.sasl": _capa(_instead(b"SASL", b"SASL PLAIN TOY")),
    "capa.resp-codes": _capa(_without(b"RESP-CODES")),
    "capa.auth-resp-code": _capa(_without(b"AUTH-RESP-CODE")),
    "capa.pipelining": _capa(_without(b"PIPELINING")),
    "capa.expire": _capa(_instead(b"EXPIRE", b"EXPIRE soon")),
    "capa.expire-after-log-in": _capa(_instead(b"EXPIRE", b"EXPIRE 7 USER"), before=False),
    "capa.login-delay": _capa(_instead(b"LOGIN-DELAY", b"LOGIN-DELAY long")),
    "capa.no-arguments": _capa(_instead(b"TOP", b"TOP 20")),
    "capa.implementation": _capa(_instead(b"IMPLEMENTATION", b"IMPLEMENTATION")),
}


def _upper_digest(self: Session, argument: bytes) -> bytes:
    name, _, digest = argument.partition(b" ")
    return Session.do_APOP(self, name + b" " + digest.upper())


def _any_stamp(self: Session, argument: bytes) -> bytes:
    stamps = self.server.memory.setdefault("stamps", [])
    digest = argument.rpartition(b" ")[2].decode()
    return self.let_in(
        any(
            hashlib.md5(stamp + PASSWORD, usedforsecurity=False).hexdigest() == digest
            for stamp in stamps
        )
    )


def _remembered(self: Session) -> bytes:
    self.server.memory.setdefault("stamps", []).append(self.stamp)
    return Session.greeting(self)


def _stamp_of_nothing(self: Session, argument: bytes) -> bytes:
    digest = hashlib.md5(PASSWORD, usedforsecurity=False).hexdigest().encode()
    return self.let_in(argument == USER + b" " + digest)


def _same_stamp(self: Session) -> bytes:
    self.stamp = b"<1@toy>"
    return Session.greeting(self)


APOP: dict[str, Any] = {
    "apop.log-in": mutant(do_APOP=_upper_digest),
    "apop.differs": mutant(greeting=_same_stamp),
    "apop.wrong": mutant(do_APOP=lambda self, _: self.let_in(right=True)),
    "apop.heard-before": mutant(do_APOP=_any_stamp, greeting=_remembered),
    "apop.arguments": fallen(rb"APOP.*"),
    "apop.unannounced": mutant(apop=False, do_APOP=_stamp_of_nothing),
}


def _no_initial(self: Session, initial: bytes | None) -> bytes:
    return Session.plain(self, None)


def _initial_only(self: Session, initial: bytes | None) -> bytes:
    return _refused() if initial is None else Session.plain(self, initial)


def _bare_plus(self: Session, data: bytes) -> None:
    Session.send(self, b"+\r\n" if data == b"+ \r\n" else data)


def _any_mechanism(self: Session, argument: bytes) -> bytes:
    if argument.upper() in (b"POPCHECK", b"ANONYMOUS"):
        return self.let_in(right=self.challenge(b"") is not None)
    return Session.do_AUTH(self, argument)


def _lenient(self: Session, data: bytes) -> bytes:
    """Skip what is no base64, and put in what is missing."""
    kept = re.sub(rb"[^A-Za-z0-9+/]", b"", data.partition(b"=")[0])
    return base64.b64decode(kept + b"=" * (-len(kept) % 4))


def _base64_falls(self: Session, data: bytes) -> bytes:
    try:
        return Session.decode(self, data)
    except Refused:
        raise Quit(b"") from None


def _plain_falls(self: Session, initial: bytes | None) -> bytes:
    response = self.challenge(b"") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3 or not all(parts[1:]) or not response.isascii():
        raise Quit(b"")
    return Session.plain(self, response)


def _authzid_is_nothing(self: Session, initial: bytes | None) -> bytes:
    response = self.challenge(b"") if initial is None else initial
    return Session.plain(self, b"\0" + response.partition(b"\0")[2])


def _authzid_is_too_much(self: Session, initial: bytes | None) -> bytes:
    response = self.challenge(b"") if initial is None else initial
    return Session.plain(self, response) if response.startswith(b"\0") else _refused()


def _user_of_plain(self: Session, initial: bytes | None) -> bytes:
    response = self.challenge(b"") if initial is None else initial
    self.user = response.split(b"\0")[1]
    return Session.plain(self, response)


def _command_in_between(self: Session) -> bytes | None:
    line = Session.line(self)
    if line == b"QUIT":
        raise Quit(b"+OK bye\r\n")
    return line


def _star_falls(self: Session) -> bytes | None:
    line = Session.line(self)
    if line == b"*":
        raise Quit(b"")
    return line


def _one_question(self: Session, initial: bytes | None) -> bytes:
    self.challenge(b"Username:")
    raise Refused("that is enough")


SASL: dict[str, Any] = {
    "sasl.plain-initial": mutant(plain=_no_initial),
    "sasl.plain": mutant(plain=_initial_only),
    "sasl.empty-challenge": mutant(send=_bare_plus),
    "sasl.lower-case": mutant(mechanism=lambda _, name: name),
    "sasl.cancel": mutant(line=_star_falls),
    "sasl.unknown": mutant(do_AUTH=_any_mechanism),
    "sasl.not-announced": mutant(do_AUTH=_any_mechanism),
    **{
        f"sasl.base64.{member}": mutant(decode=_lenient)
        for member in (
            *("junk-characters", "junk-at-the-end", "missing-padding", "data-behind-padding"),
            *("too-much-padding", "url-alphabet", "spaces"),
        )
    },
    "sasl.base64.nothing-of-it": mutant(decode=_base64_falls),
    **{
        f"sasl.plain.{member}": mutant(plain=_plain_falls)
        for member in (
            *("empty", "no-nul", "one-nul", "three-nul", "no-name", "no-password", "8-bit"),
        )
    },
    "sasl.wrong-password": mutant(right=lambda *_: True),
    "sasl.authzid-of-another": mutant(plain=_authzid_is_nothing),
    "sasl.authzid-own": mutant(plain=_authzid_is_too_much),
    "sasl.pass-behind-failure": mutant(plain=_user_of_plain),
    "sasl.not-a-command": mutant(line=_command_in_between),
    "sasl.long-response": mutant(limit=4096),
    "sasl.bare-auth": fallen(rb"AUTH"),
    "sasl.login": mutant(login=_one_question),
    "sasl.scram": mutant(scram=_refused),
    "sasl.scram-signature": mutant(last_word=lambda _, signature: b"v=" + b"A" * 44),
    "sasl.scram-wrong": mutant(proved=lambda *_: True),
    "sasl.scram-iterations": mutant(iterations=1000),
}


def _list_of_none(self: Session, argument: bytes) -> bytes:
    return Session.do_LANG(self, argument) if argument else b"+OK\r\n.\r\n"


def _eight_bit_grows(self: Session, stored: bytes) -> int:
    return len(self.wire(stored)) + (self.utf8 and not stored.isascii())


UTF8: dict[str, Any] = {
    "utf8.command": mutant(do_UTF8=_refused),
    "utf8.after-log-in": taken(rb"UTF8", before=False),
    "utf8.argument": taken(rb"UTF8 x"),
    "utf8.as-it-is": mutant(do_UTF8=lambda *_: OK),
    "utf8.size": mutant(size=_eight_bit_grows, whole=lambda self, at: self.wire(self.read(at))),
    "utf8.not-without": mutant(strict=lambda *_: False),
    "utf8.capability": _capa(_instead(b"UTF8", b"UTF8 YES")),
    "utf8.unannounced": _capa(_without(b"UTF8")),
    "lang.list": mutant(do_LANG=_list_of_none),
    "lang.chosen": mutant(do_LANG=lambda s, word: OK if word else Session.do_LANG(s, word)),
    "lang.unknown": taken(rb"LANG x-.*", b"+OK en\r\n"),
    "lang.unannounced": _capa(_without(b"LANG")),
}


def _tls(**overrides: Any) -> type[Session]:
    return mutant(stls=True, **overrides)


def _greets_again(self: Session, argument: bytes) -> bytes:
    return Session.do_STLS(self, argument) or self.greeting()


def _starts_twice(self: Session, argument: bytes) -> bytes:
    return OK if self.tls else Session.do_STLS(self, argument)


def _keeps_name(self: Session, argument: bytes) -> bytes:
    user = self.user
    reply = Session.do_STLS(self, argument)
    self.user = user
    return reply


def _keeps_plaintext(self: Session, argument: bytes) -> bytes:
    """CVE-2011-0411."""
    kept, self.buffer = self.buffer, b""
    reply = Session.do_STLS(self, argument)
    self.buffer = kept
    return reply


def _reads_plaintext(self: Session, argument: bytes) -> bytes:
    """Take what comes behind STLS as long as it is no handshake."""
    self.send(OK)
    kept = self.buffer
    while (first := self.socket.recv(1, socket.MSG_PEEK)) and first != b"\x16":
        kept += self.socket.recv(6)
    self.secure()
    self.buffer = kept
    return b""


def _stays_plain(self: Session, argument: bytes) -> bytes:
    return OK


def _only_plain(self: Session, right: bool) -> bytes:
    return _refused() if self.tls else Session.let_in(self, right)


def _plain_if_asked(self: Session, *, implicit: bool) -> None:
    first = self.socket.recv(1, socket.MSG_PEEK) if implicit else b""
    Session.run(self, implicit=implicit and first == b"\x16")


def _always_stls(self: Session) -> list[bytes]:
    return [*self.capabilities, b"STLS"]


TLS: dict[str, Any] = {
    "stls.starts": _tls(do_STLS=_refused),
    "stls.log-in": _tls(let_in=_only_plain),
    "stls.no-second-greeting": _tls(do_STLS=_greets_again),
    "stls.no-longer-announced": _tls(capa=_always_stls),
    "stls.twice": _tls(do_STLS=_starts_twice),
    "stls.lower-case": _tls(
        answer=lambda s, line: b"-ERR\r\n" if line == b"stls" else Session.answer(s, line)
    ),
    "stls.argument": _tls(none=staticmethod(lambda _: None)),
    "stls.user-forgotten": _tls(do_STLS=_keeps_name),
    **{
        f"stls.injected.{member}": _tls(do_STLS=_keeps_plaintext)
        for member in ("capa", "user", "quit", "half-a-line", "split")
    },
    "stls.injected.later": _tls(do_STLS=_reads_plaintext),
    "stls.plaintext-instead": _tls(do_STLS=_stays_plain),
    "tls.greeting": mutant(
        greeting=lambda s: b"* hello\r\n" if s.server.implicit else Session.greeting(s)
    ),
    "tls.log-in": mutant(let_in=_only_plain),
    "tls.no-stls": mutant(do_STLS=_starts_twice),
    "tls.not-announced": mutant(capa=_always_stls),
    "tls.plaintext": mutant(run=_plain_if_asked),
    "tls.refuses.1-0": mutant(),
    "tls.refuses.1-1": mutant(),
}
"""Those of ``tls.refuses`` are made with another context."""

MUTANTS: dict[str, Any] = {**STATES, **CAPABILITIES, **APOP, **SASL, **UTF8, **TLS}
