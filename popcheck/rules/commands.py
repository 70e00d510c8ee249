"""What a command is: letters, line ends, lengths, arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, Failed, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection


@rule("command.lower-case", "1939 3")
def lower_case(check: Check) -> None:
    """Commands may be written in lower case.

    RFC 1939 has keywords without regard to case, and there are clients that write them so.
    """
    session = check.log_in()
    session.ok(b"stat")
    session.listing(b"list")


@rule("command.mixed-case", "1939 3")
def mixed_case(check: Check) -> None:
    """Commands may be written in lower and upper case mixed.

    As in lower case.
    """
    session = check.log_in()
    session.ok(b"nOoP")
    session.ok(b"Stat")


@rule("command.unknown", "1939 3")
def unknown(check: Check) -> None:
    """A command that does not exist is answered by -ERR.

    A client asks for what a server may not have, and has to hear that it has not.
    """
    check.open().err(b"XYZZY")
    check.log_in().err(b"XYZZY 1")


_NEAR: Final = {
    "shortened": (b"NOO", b"STA"),
    "lengthened": (b"NOOPX", b"STATS"),
    "with-colon": (b"XYZ:q", b"NOOP:"),
    "with-nul": (b"NOOP\0", b"STAT\0", b"NO\0OP"),
    "with-8-bit": (b"NO\xffOP", b"STAT\xa0"),
    "with-carriage-return": (b"NOOP\rNOOP", b"STAT\r1"),
    "folded-in-unicode": ("\u017ftat".encode(), "\uff2e\uff2f\uff2f\uff30".encode()),
    "with-vertical-tab": (b"NOOP\x0b", b"\x0cSTAT"),
    "internal": (b"__CLASS__", b"__INIT__", b"SELF", b"NONE"),
    "unstated": (b"LAST", b"XTND XMIT", b"HELP"),
}


@rules(
    "command",
    {
        "shortened": "one letter short",
        "lengthened": "with a letter more",
        "with-colon": "with a colon",
        "with-nul": "with a NUL",
        "with-8-bit": "with an octet that is not ASCII",
        "with-carriage-return": "with a CR inside",
        "folded-in-unicode": "that is one in Unicode's upper case only",
        "with-vertical-tab": "with white space that is no space",
        "internal": "that is a name inside of programs",
        "unstated": "of another standard, which CAPA does not announce,",
    },
    "1939 3",
    summary="A command {} is answered by one -ERR, and the session goes on",
)
def near(check: Check, member: str) -> None:
    """A server that cuts, folds or repairs what it was sent does what nobody asked for; one that
    stumbles over it closes the connection or dies, and others' connections with it.
    """
    session = check.log_in()
    for command in _NEAR[member]:
        session.err(command)
    session.ok(b"NOOP")
    unasked = session.quiet(0.02)
    need(not unasked, f"more than one reply to a line: {shown(unasked)}")


@rule("command.empty-line", "1939 3", ROBUST)
def empty_line(check: Check) -> None:
    """An empty line is answered by one -ERR, and the session goes on.

    It has made servers crash.
    """
    session = check.log_in()
    session.err(b"")
    session.ok(b"NOOP")
    connection = check.open()
    connection.err(b"")
    connection.ok(b"QUIT")


@rule("command.bare-lf", "1939 3", ROBUST)
def bare_lf(check: Check) -> None:
    """A line that ends with LF alone does no harm: it is a command, or part of the next line.

    People who look at a server by hand send such lines.
    """
    session = check.log_in()
    session.send(b"NOOP\nNOOP\r\n")
    first = session.reply(b"NOOP")
    if first.startswith(b"+OK"):
        need(session.reply(b"NOOP").startswith(b"+OK"), "the second of two NOOP was refused")
    session.ok(b"STAT")


@rule("command.octet-by-octet", "1939 3")
def octet_by_octet(check: Check) -> None:
    """A command may come octet by octet.

    TCP is a stream: networks cut it where they like.
    """
    session = check.log_in()
    for octet in b"STAT\r\n":
        session.send(bytes([octet]))
        early = b"" if octet == ord("\n") else session.quiet(0.004)
        need(not early, f"a reply before the line's end: {shown(early)}")
    need(session.reply(b"STAT").startswith(b"+OK"), "STAT was refused")
    unasked = session.quiet(0.05)
    need(not unasked, f"more than one reply: {shown(unasked)}")


@rule("command.split-before-lf", "1939 3")
def split_before_lf(check: Check) -> None:
    """A command may be cut between CR and LF, and there is no reply until LF has come.

    A server that takes CR for the end, and LF for another line, is a reply ahead of its client.
    """
    session = check.log_in()
    session.send(b"NOOP\r")
    early = session.quiet(0.05)
    need(not early, f"a reply before LF: {shown(early)}")
    session.send(b"\n")
    need(session.reply(b"NOOP").startswith(b"+OK"), "NOOP was refused")
    unasked = session.quiet(0.05)
    need(not unasked, f"more than one reply: {shown(unasked)}")


_LINE: Final = 255
"""Octets of a command line that a server has to take, CRLF included (RFC 2449 section 4)."""


@rule("line.longest", "2449 4")
def longest(check: Check) -> None:
    """A command line of 255 octets is taken.

    RFC 2449 lets clients send so much; user names and SASL responses are that long.
    """
    check.target.free()
    connection = check.open()
    padding = _LINE - len(b"USER \r\n")
    connection.ask(b"USER " + b"x" * padding)
    check.target.log_in(connection)
    connection.ok(b"NOOP")


def _long(connection: Connection, command: bytes) -> None:
    """Make sure that a line too long has one reply at most, and that no part of it is a command."""
    connection.send(command + b"\r\nQUIT\r\n")
    said = connection.rest()
    replies = said.split(b"\r\n")[:-1]
    need(len(replies) <= 2, f"there are {len(replies)} replies to a line too long and QUIT")  # noqa: PLR2004
    if replies:
        need(replies[0].startswith(b"-ERR"), f"it was answered with {shown(replies[0])}")


@rules(
    "line.too-long",
    {
        "before-log-in": "before log-in",
        "after-log-in": "after log-in",
    },
    "2449 4",
    ROBUST,
    summary="A line that is too long has one -ERR or closes the connection, {}",
)
def too_long(check: Check, member: str) -> None:
    """A server that cuts such a line into pieces takes the rest of it for commands.  They are there
    because somebody put them there: into a user name, into a form.
    """
    for size in (600, 1_100, 5_000, 17_000, 70_000):
        tail = b"\rCAPA" * (size // 5)
        connection = check.open() if member == "before-log-in" else check.log_in()
        _long(connection, b"X" * 7 + tail)
        connection.close()


@rule("line.endless", "2449 4", ROBUST)
def endless(check: Check) -> None:
    """A line that does not end is given up within a megabyte, before log-in.

    A server that goes on to collect it lends its memory to everybody who connects.
    """
    connection = check.open()
    for _ in range(16):
        connection.send(b"x" * 65_536)
    if connection.quiet(0.2):
        return
    try:
        connection.send(b"\r\n")
        connection.socket.settimeout(0.2)
        late = connection.socket.recv(1)
    except (TimeoutError, OSError):
        return
    need(not late, "a megabyte without a line end was collected")


_NONE: Final = {"stat": b"STAT", "noop": b"NOOP", "rset": b"RSET", "quit": b"QUIT"}


@rules(
    "argument.none",
    {member: command.decode() for member, command in _NONE.items()},
    "1939 5",
    summary="{} takes no argument",
)
def no_argument(check: Check, member: str) -> None:
    """What is wrong in its syntax has to be answered by -ERR (RFC 1939 section 3).  Who sends an
    argument means something else by it, and QUIT with one could have been half of another line.
    """
    session = check.log_in()
    session.err(_NONE[member] + b" 1")
    session.ok(b"NOOP")


_ARGUMENTS: Final = {
    "retr": (b"RETR", b"RETR 1 1"),
    "dele": (b"DELE", b"DELE 1 1"),
    "list": (b"LIST 1 1",),
    "uidl": (b"UIDL 1 1",),
    "top": (b"TOP", b"TOP 1", b"TOP 1 1 1"),
}


@rules(
    "argument.count",
    {member: member.upper() for member in _ARGUMENTS},
    "1939 5",
    MUST,
    mail=True,
    summary="{} with too few or too many arguments is answered by -ERR and does nothing",
)
def argument_count(check: Check, member: str) -> None:
    """A server that takes what it can get out of such a line deletes or sends a message that was
    not meant; one that stumbles over it closes the connection.
    """
    if member in ("top", "uidl"):
        check.capability(member.upper().encode())
    session = check.log_in(MAIL)
    for command in _ARGUMENTS[member]:
        session.err(command)
    need(session.stat()[0] == 1, "a message was marked as deleted")


@rule("argument.second-space", "1939 3", ROBUST, mail=True)
def second_space(check: Check) -> None:
    """Spaces too many do no harm: the command is carried out as it is meant, or refused.

    There are clients that send them.
    """
    session = check.log_in(MAIL)
    for command in (b"LIST  1", b"LIST 1 "):
        reply = session.ask(command)
        if reply.startswith(b"+OK"):
            number = session.numbers(command, reply[4:])[0]
            need(number == 1, f"{shown(command)} was taken for message {number}")
    session.ok(b"NOOP")


@rule("limit.bad-commands", "1939 13", ROBUST)
def bad_commands(check: Check) -> None:
    """Who sends nothing but nonsense before log-in is cut off in the end.

    A browser that was made to talk to a mail server, or a scanner, could go on for ever.
    """
    connection = check.open()
    try:
        for _ in range(300):
            connection.err(b"X: nonsense")
    except (Failed, OSError):
        return
    raise Failed("300 bad commands, and the connection is still open")


@rule("limit.parallel", "1939 4", ROBUST)
def parallel(check: Check) -> None:
    """Five connections at a time are greeted and answered, each for itself.

    One that keeps others waiting is a server for one client.
    """
    connections = [check.open() for _ in range(5)]
    for connection in reversed(connections):
        connection.err(b"STAT")
    for connection in connections:
        connection.ok(b"QUIT")


@rule("limit.http", "1939 3", ROBUST)
def http(check: Check) -> None:
    """An HTTP request is not carried out: no line of it is answered by +OK, and it is not repeated.

    Browsers can be made to send one, with lines of POP3 in it.
    """
    connection = check.open()
    connection.send(b"POST /x HTTP/1.1\r\nHost: popcheck.example\r\nA: b\r\n\r\n")
    said = connection.quiet(0.15)
    need(re.search(rb"^\+OK", said, re.MULTILINE) is None, f"it was answered with {shown(said)}")
    need(b"popcheck.example" not in said, "the request was repeated")
