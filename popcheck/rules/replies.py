"""The greeting, and what replies look like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import need
from popcheck.client import shown
from popcheck.rule import ROBUST, SHOULD, rule

if TYPE_CHECKING:
    from popcheck.check import Check

_REPLY_LIMIT: Final = 510
"""Octets of a reply's first line, without CRLF (RFC 1939 section 3)."""

_CODE: Final = re.compile(rb"\[[!-.0-\\^-~]+(/[!-.0-\\^-~]+)*\]( |\Z)")
"""A response code as RFC 2449 section 8 wants it."""

_CODES: Final = (b"IN-USE", b"LOGIN-DELAY", b"SYS/TEMP", b"SYS/PERM", b"AUTH", b"UTF8")


def _sample(check: Check) -> list[bytes]:
    """Return replies of all kinds that cost nothing: the greeting, and those before and after
    log-in.
    """
    connection = check.open()
    said = [connection.greeting, connection.ask(b"PASS x"), connection.ask(b"STAT")]
    said.append(connection.ask(b"USER " + check.target.user))
    session = check.log_in()
    commands = (b"STAT", b"NOOP", b"RSET", b"XYZZY", b"RETR 999999", b"DELE", b"QUIT")
    return said + [session.ask(command) for command in commands]


def _text(reply: bytes) -> bytes:
    return reply.partition(b" ")[2]


@rule("greeting.ok", "1939 4")
def greeting_ok(check: Check) -> None:
    """The server greets with +OK.

    The client reads one line and goes on if it begins so; whatever else comes first makes it give
    up.
    """
    greeting = check.open().greeting
    need(re.match(rb"\+OK( |\Z)", greeting), f"the greeting is {shown(greeting)}")


@rule("greeting.one-line", "1939 4")
def greeting_one_line(check: Check) -> None:
    """The greeting is one line, and nothing more comes before the client has spoken.

    A second line is taken for the reply to the first command, and from then on every reply belongs
    to the command before: a client that asks DELE believes what was said to RETR.
    """
    unasked = check.open().quiet()
    need(not unasked, f"unasked came {shown(unasked)}")


@rule("greeting.length", "1939 3")
def greeting_length(check: Check) -> None:
    """The greeting has 512 octets at most, CRLF included.

    Clients with a buffer of that size read the rest as another reply.
    """
    length = len(check.open().greeting)
    need(length <= _REPLY_LIMIT, f"it has {length + 2} octets")


@rule("greeting.no-angle-brackets", "1939 7", SHOULD)
def greeting_no_angle_brackets(check: Check) -> None:
    """There are angle brackets in the greeting only around what APOP needs.

    APOP has no capability: a client knows of it by ``<...@...>`` in the greeting (RFC 2449 section
    6).  A server that has brackets there for decoration makes clients try APOP and fail.
    """
    greeting = check.open().greeting
    if re.search(rb"<[^<> ]+@[^<> ]+>", greeting) is None:
        need(b"<" not in greeting, f"the greeting is {shown(greeting)}")


@rule("reply.status-upper-case", "1939 3")
def status_upper_case(check: Check) -> None:
    """Every reply begins with +OK or -ERR, in upper case, and a space if anything follows.

    Many clients compare four octets and nothing else.
    """
    for reply in _sample(check):
        need(re.match(rb"(\+OK|-ERR)( |\Z)", reply), f"a reply is {shown(reply)}")


@rule("reply.length", "1939 3")
def reply_length(check: Check) -> None:
    """The first line of a reply has 512 octets at most, CRLF included.

    Clients with a buffer of that size read the rest as another reply.
    """
    for reply in _sample(check):
        need(len(reply) <= _REPLY_LIMIT, f"a reply has {len(reply) + 2} octets")


@rule("reply.code-syntax", "2449 8")
def code_syntax(check: Check) -> None:
    """A reply text begins with [ only if that is a response code.

    Who announces RESP-CODES lets clients act on them.  A text such as ``[info] wrong`` is none, and
    confuses them.
    """
    check.capability(b"RESP-CODES")
    for reply in [*_sample(check), *check.target.wrong_login.values()]:
        text = _text(reply)
        need(not text.startswith(b"[") or _CODE.match(text), f"a reply is {shown(reply)}")


@rule("reply.code-known", "2449 8")
def code_known(check: Check) -> None:
    """Response codes are those that are registered.

    The meaning of others is for each client to guess.
    """
    check.capability(b"RESP-CODES")
    for reply in [*_sample(check), *check.target.wrong_login.values()]:
        match = re.match(rb"\[([^]]*)\]", _text(reply))
        need(match is None or match[1].upper() in _CODES, f"a reply is {shown(reply)}")


@rule("reply.no-echo-before-log-in", "1939 3", ROBUST)
def no_echo_before_log_in(check: Check) -> None:
    """What a stranger sends is not sent back.

    A web page can make a browser send lines of its choice to a mail server; sent back, they are a
    script that runs in the name of that machine (the ALPACA attack).
    """
    connection = check.open()
    reply = connection.ask(b"<script>alert(1)</script>")
    need(b"script" not in reply.lower(), f"the reply is {shown(reply)}")


@rule("reply.no-echo", "1939 3", ROBUST)
def no_echo(check: Check) -> None:
    """What a client sends after log-in is not sent back.

    As before log-in; besides, it makes replies longer than clients allow for.
    """
    reply = check.log_in().ask(b"<script>alert(1)</script>")
    need(b"script" not in reply.lower(), f"the reply is {shown(reply)}")


@rule("reply.no-control-characters", "1939 3", ROBUST)
def no_control_characters(check: Check) -> None:
    """Replies are printable, whatever was sent.

    RFC 1939 has printable ASCII in commands; a client shows error texts to its user, and an escape
    sequence that comes back changes his terminal.
    """
    session = check.log_in()
    for command in (b"X\x1b[2J", b"RETR \x1b[2J", b"X\x07\x08"):
        reply = session.ask(command)
        need(re.fullmatch(rb"[\x20-\x7e]*", reply), f"the reply is {shown(reply)}")


@rule("reply.length-of-errors", "1939 3")
def length_of_errors(check: Check) -> None:
    """The reply to a long command that does not exist is not longer than 512 octets.

    Servers that repeat what they did not understand make it as long as the client likes.
    """
    reply = check.log_in().ask(b"X" * 1500)
    need(len(reply) <= _REPLY_LIMIT, f"the reply has {len(reply) + 2} octets")
