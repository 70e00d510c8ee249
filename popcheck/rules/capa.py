"""CAPA: what a server says that it can do, and whether it can."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need
from popcheck.client import shown
from popcheck.rule import MUST, SHOULD, Skipped, rule

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection

_REGISTERED: Final = {
    *(b"TOP", b"USER", b"SASL", b"RESP-CODES", b"LOGIN-DELAY", b"PIPELINING", b"EXPIRE", b"UIDL"),
    *(b"IMPLEMENTATION", b"AUTH-RESP-CODE", b"STLS", b"UTF8", b"LANG"),
}
_LINE_LIMIT: Final = 510
"""Octets of a line of CAPA, without CRLF (RFC 2449 section 4)."""


def _lines(connection: Connection) -> list[bytes]:
    """Return the lines of CAPA."""
    return connection.listing(b"CAPA")


def _tags(lines: list[bytes]) -> list[bytes]:
    return [line.split(b" ")[0].upper() for line in lines]


@rule("capa.before-log-in", "2449 5", SHOULD)
def before_log_in(check: Check) -> None:
    """There is CAPA before log-in.

    Without it clients guess what a server can do.
    """
    _lines(check.open())


@rule("capa.after-log-in", "2449 5")
def after_log_in(check: Check) -> None:
    """A server that has CAPA before log-in has it afterwards as well.

    RFC 2449 has it in both states.
    """
    _lines(check.open())
    _lines(check.log_in())


@rule("capa.same-after-log-in", "2449 5")
def same_after_log_in(check: Check) -> None:
    """What CAPA lists before log-in it lists afterwards as well.

    RFC 2449: what can be used in the AUTHORIZATION state has to be announced in both.  A client may
    ask once, in either.
    """
    before = set(_tags(_lines(check.open()))) - {b"STLS"}
    after = set(_tags(_lines(check.log_in())))
    need(before <= after, f"missing after log-in: {b' '.join(sorted(before - after))!r}")


@rule("capa.sasl-after-log-in", "5034 3")
def sasl_after_log_in(check: Check) -> None:
    """SASL stays in CAPA after log-in, with the same mechanisms.

    RFC 5034 wants it, so that a client that logged in under the protection of a mechanism can see
    that nobody had shortened the list.
    """
    before = check.capability(b"SASL")
    after = check.capabilities(check.log_in()).get(b"SASL")
    need(after == before, f"it was {before} and is {after}")


@rule("capa.line-length", "2449 4")
def line_length(check: Check) -> None:
    """A line of CAPA has 512 octets at most, CRLF included.

    Clients with a buffer of that size read the rest as another line.
    """
    for line in _lines(check.open()):
        need(len(line) <= _LINE_LIMIT, f"a line has {len(line) + 2} octets")


@rule("capa.characters", "2449 4")
def characters(check: Check) -> None:
    """A line of CAPA is words of printable ASCII with one space between them.

    RFC 2449 has a grammar for it, and clients split at spaces.
    """
    for line in _lines(check.open()):
        need(re.fullmatch(rb"[!-~]+( [!-~]+)*", line), f"a line is {shown(line)}")
        need(b"." not in line.split(b" ")[0], f"a line is {shown(line)}")


@rule("capa.once-each", "2449 5", SHOULD)
def once_each(check: Check) -> None:
    """Each capability is listed once.

    Of two lines a client takes the first, the last, or both.
    """
    tags = _tags(_lines(check.open()))
    twice = {tag for tag in tags if tags.count(tag) > 1}
    need(not twice, f"twice: {b' '.join(sorted(twice))!r}")


@rule("capa.registered", "2449 7")
def registered(check: Check) -> None:
    """Every capability is one that is registered.

    RFC 2449 has new ones defined in an RFC, and none that begins with X.
    """
    unknown = set(_tags(_lines(check.open()))) - _REGISTERED
    need(not unknown, f"not registered: {b' '.join(sorted(unknown))!r}")


@rule("capa.argument", "2449 5")
def argument(check: Check) -> None:
    """CAPA takes no argument.

    What is wrong in its syntax is answered by -ERR.
    """
    connection = check.open()
    connection.err(b"CAPA x")
    connection.ok(b"QUIT")


@rule("capa.top", "2449 6.1", mail=True)
def top(check: Check) -> None:
    """TOP is announced if, and only if, there is TOP.

    Clients that find it missing fetch all of a message to show its subject.
    """
    reply = check.log_in(MAIL).ask(b"TOP 1 0")
    need(
        reply.startswith(b"+OK") == (b"TOP" in check.target.announced),
        f"TOP was answered with {shown(reply)}",
    )


@rule("capa.uidl", "2449 6.8", mail=True)
def uidl(check: Check) -> None:
    """UIDL is announced if, and only if, there is UIDL.

    Clients that find it missing do not leave mail on the server.
    """
    reply = check.log_in(MAIL).ask(b"UIDL")
    need(
        reply.startswith(b"+OK") == (b"UIDL" in check.target.announced),
        f"UIDL was answered with {shown(reply)}",
    )


@rule("capa.user", "2449 6.2")
def user(check: Check) -> None:
    """USER is announced if, and only if, one may log in with USER and PASS.

    On the port for cleartext too, where clients ask first.
    """
    for connection in [check.open(), *([check.connect()] if check.target.port else [])]:
        announced = b"USER" in check.capabilities(connection)
        said = connection.ask(b"USER " + check.target.user)
        if announced:
            need(said.startswith(b"+OK"), f"it is announced, and answered with {shown(said)}")
        elif said.startswith(b"+OK"):
            said = connection.ask(b"PASS " + check.target.password)
            need(said.startswith(b"-ERR"), "it is not announced, and lets people in")


@rule("capa.sasl", "2449 6.3")
def sasl(check: Check) -> None:
    """Each mechanism in CAPA's SASL line can be begun.

    A client takes the best one that it knows, and does not try another if the server does not know
    it.
    """
    names = check.capability(b"SASL")
    need(names, "there is none in it")
    for name in names:
        connection = check.open()
        reply = connection.ask(b"AUTH " + name)
        need(reply.startswith(b"+ ") or name == b"EXTERNAL", f"{shown(name)}: {shown(reply)}")
        connection.close()


@rule("capa.resp-codes", "2449 6.4", SHOULD)
def resp_codes(check: Check) -> None:
    """RESP-CODES is announced.

    Without it a client cannot know that ``[IN-USE]`` is more than a text.
    """
    need(b"RESP-CODES" in check.target.announced, "it is not")


@rule("capa.auth-resp-code", "3206 6", SHOULD)
def auth_resp_code(check: Check) -> None:
    """AUTH-RESP-CODE is announced.

    Without it a client cannot tell a wrong password from a disk that is busy, and asks its user.
    """
    need(b"AUTH-RESP-CODE" in check.target.announced, "it is not")


@rule("capa.pipelining", "2449 6.6", SHOULD)
def pipelining(check: Check) -> None:
    """PIPELINING is announced.

    Without it a client waits for each reply: a minute for a few hundred messages on a phone.
    """
    need(b"PIPELINING" in check.target.announced, "it is not")


@rule("capa.expire", "2449 6.7")
def expire(check: Check) -> None:
    """EXPIRE has a number of days or NEVER, and USER behind it at most.

    A client warns its user by it.
    """
    values = b" ".join(check.capability(b"EXPIRE"))
    need(re.fullmatch(rb"([0-9]+|NEVER)( USER)?", values, re.IGNORECASE), f"it has {shown(values)}")


@rule("capa.expire-after-log-in", "2449 6.7", SHOULD)
def expire_after_log_in(check: Check) -> None:
    """EXPIRE is exact after log-in: without USER, and not less than before.

    Before log-in it is the smallest that any user has.
    """
    before = check.capability(b"EXPIRE")
    after = check.capabilities(check.log_in()).get(b"EXPIRE", [])
    need(after[1:] == [], f"it is {after} after log-in")
    if b"NEVER" not in (before[0].upper(), after[0].upper()):
        need(int(after[0]) >= int(before[0]), f"it was {before} and is {after}")


@rule("capa.login-delay", "2449 6.5")
def login_delay(check: Check) -> None:
    """LOGIN-DELAY has a number of seconds, and USER behind it at most.

    A client waits so long between two log-ins.
    """
    values = b" ".join(check.capability(b"LOGIN-DELAY"))
    need(re.fullmatch(rb"[0-9]+( USER)?", values, re.IGNORECASE), f"it has {shown(values)}")


@rule("capa.no-arguments", "2449 6", MUST)
def no_arguments(check: Check) -> None:
    """TOP, UIDL, USER, RESP-CODES, PIPELINING, STLS and AUTH-RESP-CODE stand by themselves.

    Strict clients compare the line.
    """
    plain = (b"TOP", b"UIDL", b"USER", b"RESP-CODES", b"PIPELINING", b"STLS", b"AUTH-RESP-CODE")
    for name, values in check.target.announced.items():
        need(name not in plain or not values, f"{shown(name)} has {values}")


@rule("capa.implementation", "2449 6.9", SHOULD)
def implementation(check: Check) -> None:
    """IMPLEMENTATION, if there is one, says something.

    It is for people who look for what is wrong.
    """
    values = check.capabilities(check.log_in()).get(b"IMPLEMENTATION")
    if values is None:
        raise Skipped("IMPLEMENTATION is not announced")
    need(values, "it has no value")
