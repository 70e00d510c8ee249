"""The rows of the table: what is measured, with which mail, and what popd has to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from maildrops import Mailset

Work = Literal["login", "poll", "retr", "pipe", "hold", "stall"]
TLS = Literal[0, 1, 2]
CLEARTEXT: Final = 0
FULL: Final = 1
RESUMED: Final = 2


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :param name: its stable name.
    :param title: what a session does, in words.
    :param work: what the load generator is told to do.
    :param mail: the maildrops.
    :param target: how many times more Dovecot is to cost; of memory: KB that popd may take;
        None if nothing is demanded.
    :param tls: none, full handshakes, or resumed ones.
    :param processes: how many clients run at the same time.
    :param sessions: how many sessions a client runs at most.
    :param deliver: whether one message arrives before each session.
    :param cold: whether the servers start anew and know nothing of the maildrops.
    :param ask: a command whose reply the clients do not read to its end.
    :param stop: how many octets of it they read.
    """

    name: str
    title: str
    work: Work
    mail: Mailset
    target: float | None
    tls: TLS = 0
    processes: int = 4
    sessions: int = 1_000_000
    deliver: bool = False
    cold: bool = False
    ask: str = ""
    stop: int = 0

    @property
    def of_memory(self) -> bool:
        """Whether memory is measured, not CPU."""
        return self.work in {"hold", "stall"}


POLLED: Final = Mailset("small", 8, 50, 11_000)
_LARGE: Final = Mailset("large", 2, 10_000, 7_400)
HUGE: Final = Mailset("huge", 2, 100_000, 700)
_IDLE: Final = Mailset("idle", 1_000, 50, 1_000, distinct=50)

_BIG: Final = Mailset("big", 100, 1, 50_000_000, distinct=1)
_LISTED: Final = Mailset("listed", 10, 100_000, 700, distinct=1_000)

WARM: Final = Mailset("warm", 4, 1, 500)
"""Maildrops to warm up with."""

WARM_BIG: Final = Mailset("warmbig", 4, 1, 200_000)
"""Maildrops to warm up with for what large messages need besides, such as threads."""

ROWS: Final = (
    Row("login", "USER PASS QUIT", "login", POLLED, 5),
    Row("poll50", "USER PASS STAT UIDL LIST QUIT, 50 messages of 11 KB", "poll", POLLED, 4),
    Row("retr50", "the same and RETR of all 50, one by one", "retr", POLLED, 2),
    Row("pipe50", "RETR pipelined, window 32", "pipe", POLLED, 2),
    Row(
        "pipe10000",
        "RETR pipelined, 10,000 messages of 7.4 KB",
        "pipe",
        _LARGE,
        1.3,
        processes=2,
    ),
    Row("tls", "TLS 1.3 full handshake, log in, QUIT (RSA 2048)", "login", POLLED, 2, tls=1),
    Row("tls-resume", "the same with session resumption", "login", POLLED, 2.5, tls=2),
    Row("tls-retr50", "TLS, RETR of all 50", "retr", POLLED, 2, tls=1),
    Row("poll100k", "poll of 100,000 messages, nothing changed", "poll", HUGE, 50, processes=2),
    Row(
        "poll100k-new",
        "poll of 100,000 messages, one new",
        "poll",
        HUGE,
        5,
        processes=2,
        sessions=3,
        deliver=True,
    ),
    Row(
        "first100k",
        "first poll ever of 100,000 messages (no cache, no sizes in names)",
        "poll",
        HUGE,
        1.2,
        processes=2,
        sessions=1,
        cold=True,
    ),
    Row("memory-idle", "memory of an idle logged-in session", "hold", _IDLE, 8),
    Row("memory-idle-tls", "the same with TLS", "hold", _IDLE, 40, tls=1),
    Row(
        "memory-slow",
        "memory of a client that stops reading a message of 50 MB",
        "stall",
        _BIG,
        64,
        ask="RETR 1",
        stop=1_000_000,
    ),
    Row(
        "memory-slow-tls",
        "the same with TLS",
        "stall",
        _BIG,
        64,
        tls=1,
        ask="RETR 1",
        stop=1_000_000,
    ),
    Row(
        "memory-slow-uidl",
        "memory of a client that stops reading UIDL of 100,000 messages",
        "stall",
        _LISTED,
        None,
        ask="UIDL",
        stop=1_000,
    ),
)

_TINY: Final = {
    "small": (8, 5, 11_000),
    "large": (2, 20, 7_400),
    "huge": (2, 30, 700),
    "idle": (5, 3, 1_000),
    "big": (3, 1, 2_000_000),
    "listed": (2, 200, 700),
}


NAMES: Final = tuple(row.name for row in ROWS)


def chosen(names: list[str], *, smoke: bool) -> list[Row]:
    """Return the rows called *names*.

    :param smoke: make them tiny.
    """
    rows = [row for row in ROWS if row.name in names]
    return [replace(row, mail=shrunk(row.mail)) for row in rows] if smoke else rows


def shrunk(mail: Mailset) -> Mailset:
    """Return a tiny set instead of *mail*, for the smoke run."""
    users, messages, stored = _TINY[mail.name]
    return replace(mail, users=users, messages=messages, stored=stored)
