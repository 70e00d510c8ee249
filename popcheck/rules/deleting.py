"""DELE, RSET and QUIT: what is deleted, when, and nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from popcheck.check import MAIL, need
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, rule, rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from popcheck.check import Check
    from popcheck.client import Connection


def _session(check: Check, count: int = 3) -> tuple[Connection, list[Path]]:
    """Deliver so many messages and log in; return the session and the messages' files."""
    files = [check.stage(MAIL * (number + 1)) for number in range(count)]
    return check.log_in(), files


def _left(check: Check, files: list[Path]) -> list[int]:
    """Return which of the files are still there, counted from 1."""
    return [n for n, file in enumerate(files, 1) if check.maildir.current(file) is not None]


def _soon(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether *condition* becomes true within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@rule("dele.and-quit", "1939 6", mail=True)
def and_quit(check: Check) -> None:
    """What DELE marked is gone after QUIT, and nothing else is.

    That is what the two are for.
    """
    session, files = _session(check)
    session.ok(b"DELE 2")
    session.quit()
    left = _left(check, files)
    need(left == [1, 3], f"of three messages {left} are left")


@rule("dele.all", "1939 6", mail=True)
def all_of_them(check: Check) -> None:
    """All messages can be deleted in a session.

    As most clients do.
    """
    session, files = _session(check, 20)
    for number in range(20, 0, -1):
        session.ok(b"DELE %d" % number)
    need(session.stat() == (0, 0), f"STAT says {session.stat()} with all marked")
    session.quit()
    left = _left(check, files)
    need(not left, f"{left} are left")


@rule("dele.not-before-quit", "1939 5", mail=True)
def not_before_quit(check: Check) -> None:
    """DELE removes nothing: the file is there until QUIT.

    A connection that breaks would take mail with it.
    """
    session, files = _session(check)
    session.ok(b"DELE 1")
    session.ok(b"NOOP")
    need(_left(check, files) == [1, 2, 3], "the file is gone before QUIT")


@rule("dele.twice", "1939 5", mail=True)
def twice(check: Check) -> None:
    """DELE of a message that is marked already is answered by -ERR.

    A reference to it is an error until RSET.
    """
    session, _ = _session(check)
    session.ok(b"DELE 1")
    session.err(b"DELE 1")
    need(session.stat()[0] == 2, "another message was marked")  # noqa: PLR2004


@rule("dele.no-such", "1939 5", mail=True)
def no_such(check: Check) -> None:
    """DELE of a message that does not exist is answered by -ERR, and QUIT deletes nothing.

    Not the last one either.
    """
    session, files = _session(check)
    session.err(b"DELE 4")
    session.err(b"DELE 0")
    session.quit()
    need(_left(check, files) == [1, 2, 3], "a message was deleted")


@rule("dele.numbers-stay", "1939 5", mail=True)
def numbers_stay(check: Check) -> None:
    """Numbers stay what they are when a message is marked.

    With numbers that move up, a client that deletes 1, 2, 3 deletes 1, 3, 5.
    """
    session, files = _session(check)
    sizes = session.sizes()
    session.ok(b"DELE 1")
    need(session.sizes() == {2: sizes[2], 3: sizes[3]}, f"LIST was {sizes}, is {session.sizes()}")
    session.ok(b"DELE 2")
    session.quit()
    left = _left(check, files)
    need(left == [3], f"{left} are left")


@rules(
    "dele.without-quit",
    {
        "fin": "closes the connection",
        "reset": "cuts the connection off",
        "half": "closes its half of the connection",
    },
    "1939 6",
    MUST,
    mail=True,
    summary="Nothing is deleted if the client {} without QUIT",
)
def without_quit(check: Check, member: str) -> None:
    """A client whose connection broke may not have stored what it fetched.  RFC 1939: a session
    that ends without QUIT does not enter the UPDATE state and removes nothing.
    """
    session, files = _session(check)
    session.ok(b"DELE 1")
    if member == "reset":
        session.reset()
    elif member == "half":
        session.socket.shutdown(1)
        session.rest()
    else:
        session.close()
    after = check.log_in()
    need(_left(check, files) == [1, 2, 3], "the message is gone")
    need(after.stat()[0] == 3, "the message is not listed")  # noqa: PLR2004


@rule("dele.gone-next-time", "1939 6", mail=True)
def gone_next_time(check: Check) -> None:
    """What was deleted is not there in the next session, and the others are, in their order.

    Otherwise it is downloaded again.
    """
    session, _ = _session(check)
    sizes = session.sizes()
    session.ok(b"DELE 1")
    session.quit()
    after = check.log_in().sizes()
    need(after == {1: sizes[2], 2: sizes[3]}, f"LIST was {sizes} and is {after}")


@rule("rset.takes-marks-away", "1939 5", mail=True)
def rset(check: Check) -> None:
    """After RSET nothing is marked as deleted, and QUIT deletes nothing.

    Clients send it when something went wrong.
    """
    session, files = _session(check)
    before = session.stat()
    session.ok(b"DELE 1")
    session.ok(b"DELE 3")
    session.ok(b"RSET")
    need(session.stat() == before, f"STAT was {before} and is {session.stat()}")
    session.message(b"RETR 1")
    session.quit()
    left = _left(check, files)
    need(left == [1, 2, 3], f"{left} are left")


@rule("rset.then-dele", "1939 5", mail=True)
def rset_then_dele(check: Check) -> None:
    """What is marked after RSET is deleted, and what was marked before is not.

    RSET is not the end of deleting.
    """
    session, files = _session(check)
    session.ok(b"DELE 1")
    session.ok(b"RSET")
    session.ok(b"DELE 2")
    session.quit()
    left = _left(check, files)
    need(left == [1, 3], f"{left} are left")


@rule("rset.nothing", "1939 5")
def rset_nothing(check: Check) -> None:
    """RSET with nothing marked is answered by +OK.

    Clients that are careful begin with it.
    """
    check.log_in().ok(b"RSET")


@rule("rset.lists", "1939 5", mail=True)
def rset_lists(check: Check) -> None:
    """After RSET LIST has the sizes that it had.

    What was marked is whole again.
    """
    session, _ = _session(check)
    sizes = session.sizes()
    session.ok(b"DELE 2")
    session.ok(b"RSET")
    need(session.sizes() == sizes, f"LIST was {sizes} and is {session.sizes()}")


@rule("quit.at-once", "1939 6", ROBUST, mail=True)
def quit_at_once(check: Check) -> None:
    """DELE and QUIT count, even if the client closes its half of the connection right behind them.

    Clients do not always wait for the reply; they believe that the mail is gone, and find it again.
    """
    session, files = _session(check)
    session.send(b"DELE 1\r\nQUIT\r\n")
    session.socket.shutdown(1)
    limit = min(5.0, check.target.timeout)
    need(_soon(lambda: _left(check, files) == [2, 3], limit), f"{_left(check, files)} are left")


@rule("quit.done-when-said", "1939 6", mail=True)
def done_when_said(check: Check) -> None:
    """When QUIT is answered by +OK the messages are gone already.

    RFC 1939 has the removal before the reply, because the reply says how it went.
    """
    session, files = _session(check, 10)
    for number in range(1, 6):
        session.ok(b"DELE %d" % number)
    session.ok(b"QUIT")
    left = _left(check, files)
    need(left == [6, 7, 8, 9, 10], f"{left} are left")


@rule("quit.nothing-behind", "1939 6", mail=True)
def nothing_behind(check: Check) -> None:
    """What comes behind QUIT in the same breath is not carried out.

    The session is over.
    """
    session, files = _session(check)
    session.send(b"QUIT\r\nDELE 1\r\nQUIT\r\n")
    said = session.rest()
    need(said.count(b"\r\n") == 1, f"it was answered with {shown(said)}")
    need(_left(check, files) == [1, 2, 3], "a message was deleted")


@rule("quit.file-gone-already", "1939 6", ROBUST, mail=True)
def gone_already(check: Check) -> None:
    """QUIT deletes the other messages if one that is marked was removed by somebody else.

    What was to be gone is gone; that is no reason to leave the rest.
    """
    session, files = _session(check)
    session.ok(b"DELE 1")
    session.ok(b"DELE 2")
    current = check.maildir.current(files[0])
    need(current is not None, "DELE removed the file")
    if current is not None:
        current.unlink()
    session.ask(b"QUIT")
    session.rest()
    left = _left(check, files)
    need(left == [3], f"{left} are left")
