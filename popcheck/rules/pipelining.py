"""Several commands in one breath."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, same, wire
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, Failed, rule

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection


def _replies(connection: Connection, commands: list[bytes]) -> list[bytes]:
    """Send commands together; return the first lines of as many replies."""
    connection.send(b"".join(command + b"\r\n" for command in commands))
    return [connection.reply(command) for command in commands]


@rule("pipelining.order", "2449 6.6", mail=True)
def order(check: Check) -> None:
    """Replies come in the order of their commands.

    A client knows them by nothing else.
    """
    check.capability(b"PIPELINING")
    session = check.log_in(MAIL, MAIL * 2)
    sizes = session.sizes()
    said = _replies(session, [b"STAT", b"LIST 2", b"NOOP", b"LIST 1", b"DELE 2", b"STAT"])
    expected = [
        *(b"+OK 2 %d" % sum(sizes.values()), b"+OK 2 %d" % sizes[2], b"+OK"),
        *(b"+OK 1 %d" % sizes[1], b"+OK", b"+OK 1 %d" % sizes[1]),
    ]
    for got, wanted in zip(said, expected, strict=True):
        need(got.startswith(wanted), f"{shown(got)} instead of {shown(wanted)}")


@rule("pipelining.errors", "2449 6.6", mail=True)
def errors(check: Check) -> None:
    """A command that fails does not keep those behind it from being answered.

    A client waits for the replies to all that it has sent.
    """
    check.capability(b"PIPELINING")
    session = check.log_in(MAIL)
    commands = [b"NOOP", b"XYZZY", b"NOOP", b"RETR 9", b"DELE", b"NOOP", b"", b"NOOP"]
    said = b" ".join(reply[:3] for reply in _replies(session, commands))
    wanted = b"+OK -ER +OK -ER -ER +OK -ER +OK"
    need(said == wanted, f"the replies are {said!r} instead of {wanted!r}")


@rule("pipelining.log-in", "2449 6.6", mail=True)
def log_in(check: Check) -> None:
    """USER, PASS, STAT and QUIT may be sent together.

    STAT waits until PASS is through; a server that answers it earlier says -ERR, or somebody else's
    numbers.
    """
    check.capability(b"PIPELINING")
    check.stage(MAIL)
    check.target.free()
    connection = check.open()
    name, password = check.target.user, check.target.password
    said = _replies(connection, [b"USER " + name, b"PASS " + password, b"STAT", b"QUIT"])
    need(said[2].startswith(b"+OK 1 "), f"STAT was answered with {shown(said[2])}")
    need(said[3].startswith(b"+OK"), f"QUIT was answered with {shown(said[3])}")


@rule("pipelining.messages", "2449 6.6", mail=True)
def messages(check: Check) -> None:
    """Several RETR may be sent together; the messages come one after the other, each whole.

    That is what makes a slow line bearable.
    """
    check.capability(b"PIPELINING")
    stored = [MAIL + b"%d\n" % number * 5_000 for number in range(8)]
    session = check.log_in(*stored)
    session.send(b"".join(b"RETR %d\r\n" % number for number in range(1, 9)) + b"NOOP\r\n")
    for number, message in enumerate(stored, 1):
        session.reply(b"RETR %d" % number)
        got = session.body()
        same(got, wire(message), f"message {number}")
    need(session.reply(b"NOOP").startswith(b"+OK"), "NOOP behind them was refused")


@rule("pipelining.delete-and-quit", "2449 6.6", mail=True)
def delete_and_quit(check: Check) -> None:
    """RETR, DELE and QUIT may be sent together, and do what they do one by one.

    A client that fetches all on a slow line sends so.
    """
    check.capability(b"PIPELINING")
    files = [check.stage(MAIL), check.stage(MAIL * 2)]
    session = check.log_in()
    session.send(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    session.reply(b"RETR 1")
    same(session.body(), wire(MAIL))
    session.reply(b"DELE 1")
    need(session.reply(b"QUIT").startswith(b"+OK"), "QUIT was refused")
    need(check.maildir.current(files[0]) is None, "the message is still there")
    need(check.maildir.current(files[1]) is not None, "the other message is gone")


@rule("pipelining.many", "2449 6.6", ROBUST)
def many(check: Check) -> None:
    """Of 2,000 commands sent together each is answered once.

    There are servers that lose some when their buffer is full.
    """
    session = check.log_in()
    session.send(b"NOOP\r\n" * 2_000)
    for _ in range(2_000):
        need(session.reply(b"NOOP").startswith(b"+OK"), "a NOOP was refused")
    unasked = session.quiet(0.02)
    need(not unasked, f"a reply too many: {shown(unasked)}")


@rule("pipelining.odd-pieces", "2449 6.6", MUST)
def odd_pieces(check: Check) -> None:
    """Commands may come in pieces that end anywhere.

    TCP is a stream: networks cut it where they like.
    """
    session = check.log_in()
    stream = b"NOOP\r\nSTAT\r\nRSET\r\n" * 6
    for start in range(0, len(stream), 7):
        session.send(stream[start : start + 7])
        time.sleep(0.002)  # so that they are not put together again
    for _ in range(18):
        need(session.reply(b"a command").startswith(b"+OK"), "a command was refused")


_FLOOD: Final = 48 << 20
"""Octets of commands after which all buffers between two programs are full, if nobody reads the
replies.
"""

_STUCK: Final = 2.0
"""Seconds without an octet taken after which a server reads no more."""


@rule("pipelining.flood", "2449 6.6", ROBUST)
def flood(check: Check) -> None:
    """A server stops reading commands while the replies to others are not read.

    Where it goes on, it keeps the replies in memory: one client that does not read takes all of it.
    """
    session = check.log_in()
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    session.socket.settimeout(_STUCK)
    piece = b"CAPA\r\n" * 20_000
    sent = 0
    try:
        while sent < _FLOOD:
            sent += session.socket.send(piece[sent % len(piece) :])
    except OSError:
        _read_up(session)
        return
    raise Failed(f"{sent:,} octets of commands were taken, and no reply was read")


def _read_up(session: Connection) -> None:
    """Read what the server has to say, so that it is free for others."""
    session.socket.settimeout(0.3)
    end = time.monotonic() + 10
    with contextlib.suppress(OSError):
        while time.monotonic() < end and session.socket.recv(1 << 18):
            pass
