"""Many idle sessions, logged in by TLS, and what they cost."""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.attack.footprint import KB, MB, memory
from tests.e2e.server import Client, RunningServer

if TYPE_CHECKING:
    from tests.e2e.server import Site

__all__ = ["LIMIT", "OPTIONS", "Idle", "hold"]

LIMIT: Final = 60 * KB
"""Octets that each may cost: 10,000 of them 600 MB."""

OPTIONS: Final = (
    *("--max-sessions", "0", "--max-sessions-per-ip", "0", "--idle-timeout", "3600"),
    *("--control", "none"),
)

_ACTIVE: Final = 100
"""How many of them say something at the end."""


@dataclass(frozen=True)
class Idle:
    """What it was like.

    :param sessions: how many were logged in.
    :param octets: the memory of all processes of the server together.
    :param grown: how much of that came with them.
    :param rate: how many logged in in a second, one after the other.
    :param slowest: seconds until the slowest of some had its answer to STAT.
    """

    sessions: int
    octets: int
    grown: int
    rate: float
    slowest: float

    def __str__(self) -> str:
        """Return a line about it."""
        return (
            f"{self.sessions} idle sessions with TLS: {self.octets / MB:.0f} MB,"
            f" {self.grown / self.sessions / KB:.1f} KB each; {self.rate:.0f} a second came in, one"
            f" after the other; slowest STAT of {_ACTIVE}: {self.slowest * 1e3:.1f} ms"
        )


def hold(server: RunningServer, users: list[str]) -> Idle:
    """Log all of these users in, and say nothing any more."""
    context = server.site.client_context()
    # A client that keeps no more than it must, for both ends are on this machine.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        log_in(server, context, users[0]).close()
        before, begun = memory(server), time.monotonic()
        clients = [stack.enter_context(log_in(server, context, user)) for user in users]
        rate = len(users) / (time.monotonic() - begun)
        time.sleep(1)
        octets = memory(server)
        slowest = 0.0
        for client in clients[:: max(1, len(clients) // _ACTIVE)]:
            begun = time.monotonic()
            client.expect(b"STAT")
            slowest = max(slowest, time.monotonic() - begun)
        return Idle(len(users), octets, octets - before, rate, slowest)


def log_in(server: RunningServer, context: ssl.SSLContext, user: str) -> Client:
    """Return a client that is logged in; its password is its name."""
    client = Client(server.tls_port, context)
    client.send(b"USER %b\r\nPASS %b\r\n" % (user.encode(), user.encode()))
    lines = client.line(), client.line()
    assert all(line.startswith(b"+OK") for line in lines), lines
    return client


def users(site: Site, count: int) -> list[str]:
    """Make so many users."""
    names = [f"user{number}" for number in range(count)]
    for name in names:
        site.add_user(name)
    return names
