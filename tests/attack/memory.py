"""How much memory attackers can have popd use, and what honest clients notice of them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

from tests.attack.crowd import KINDS, Crowd, user
from tests.attack.footprint import KB, MB, memory, raise_limit
from tests.e2e.server import Client, RunningServer, Site
from tests.e2e.test_limits import processor_time

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LIMITS", "OPTIONS", "Cost", "alone", "mixed", "prepare", "together"]

LIMITS: Final = {False: 64 * KB, True: 256 * KB}
"""Octets that a connection may cost, before log-in and after it."""

OPTIONS: Final = (
    *("--cleartext-login", "always", "--max-sessions", "0", "--max-sessions-per-ip", "0"),
    *("--login-timeout", "600", "--idle-timeout", "600", "--control", "none"),
)

_BIG: Final = 50 * MB
"""Octets of the message that is read slowly."""

_PAUSE: Final = 0.2
"""Seconds between two looks at the memory."""

_LONG: Final = 10
"""Seconds after which a server that is still at work will never be done."""

_MESSAGES: Final = 30
"""Small messages that each attacker has beside it."""


@dataclass(frozen=True)
class Cost:
    """What some attackers cost.

    :param kind: what they did.
    :param octets: how much memory each of them took at most.
    :param limit: how much it may be.
    :param left: how many popd had not thrown out by then.
    :param sent: octets that they could send.
    """

    kind: str
    octets: float
    limit: int
    left: int
    sent: int

    def __str__(self) -> str:
        """Return a line about it."""
        return (
            f"{self.kind}: {self.octets / KB:.1f} KB a connection of {self.limit // KB} allowed;"
            f" {self.sent / MB:.0f} MB sent, {self.left} still connected"
        )


def prepare(site: Site, kind: str, count: int) -> None:
    """Make the users as whom attackers log in, with messages, of which one is long."""
    if not KINDS[kind].log_in:
        return
    for number in range(count):
        name = user(kind, number)
        site.add_user(name)
        for one in range(_MESSAGES if "pipeline" in kind else 1):
            _sparse(site.maildir(name) / "new", one, 100 if one else _BIG)


def _sparse(directory: Path, number: int, size: int) -> None:
    """Deliver a message that takes no space, and whose name says how long it is."""
    path = directory / f"{1_700_000_000 + number}.P1.host,S={size},W={size + 1}"
    with path.open("wb") as file:
        file.truncate(size - 1)
        file.seek(0, 2)
        file.write(b"\n")


def alone(server: RunningServer, kind: str, count: int, seconds: float = 20) -> Cost:
    """Return what attackers of one kind cost at most, while they attack.

    :param seconds: how long those attack who are always heard.
    """
    return _cost(server, [kind], count, seconds)


def mixed(server: RunningServer, count: int, seconds: float) -> Cost:
    """Return what attackers of all kinds cost together, so many of each."""
    for kind in KINDS:
        prepare(server.site, kind, count)
    return _cost(server, list(KINDS), count, seconds)


def _cost(server: RunningServer, kinds: list[str], count: int, seconds: float) -> Cost:
    _honest(server)
    before = memory(server)
    most, left, sent = _attack(server, kinds, count, seconds)
    limit = sum(LIMITS[KINDS[kind].log_in] for kind in kinds) // len(kinds)
    return Cost(", ".join(kinds), (most - before) / count / len(kinds), limit, left, sent)


def _honest(server: RunningServer) -> None:
    """Have popd make what it makes once."""
    for context in (None, server.site.client_context()) * 10:
        with Client(server.tls_port if context else server.port, context) as client:
            client.send(b"CAPA\r\nUSER bob\r\nPASS secret-of-bob\r\nLIST\r\nUIDL\r\nQUIT\r\n")
            client.rest()


def _attack(
    server: RunningServer, kinds: list[str], count: int, seconds: float
) -> tuple[int, int, int]:
    """Attack; return memory at its most, how many were not thrown out, and how much they sent."""
    with contextlib.ExitStack() as stack:
        crowds = [stack.enter_context(_crowd(server, kind, count, seconds)) for kind in kinds]
        most = memory(server)
        for crowd in crowds:
            while not crowd.ready(_PAUSE):
                most = max(most, memory(server))
        end = time.monotonic() + _LONG
        while _busy(server) and time.monotonic() < end:
            most = max(most, memory(server))
        most = max(most, memory(server))
        return most, sum(crowd.left for crowd in crowds), sum(crowd.sent for crowd in crowds)


def _crowd(server: RunningServer, kind: str, count: int, seconds: float) -> Crowd:
    tls = KINDS[kind].tls or kind == "hello"
    port = server.tls_port if tls else server.port
    return Crowd(kind, count, port, str(server.site.ca), seconds)


def log_ins(server: RunningServer, seconds: float) -> list[float]:
    """Return how long honest clients took from the connection to the reply to STAT."""
    times = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        with Client(server.port) as client:
            client.send(b"USER user\r\nPASS user\r\nSTAT\r\nQUIT\r\n")
            assert client.rest().count(b"+OK") == 4
        times.append(time.monotonic() - begun)
        time.sleep(0.005)
    return times


def p99(times: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(times, n=100)[-1]


def _told(times: list[float]) -> str:
    return f"{1e3 * median(times):.1f} ms, 99th percentile {1e3 * p99(times):.1f} ms"


def together(site: Site, count: int, seconds: float = 20) -> bool:
    """Have *count* attackers of all kinds attack at once; say what it was like.

    Returns whether it was within bounds.
    """
    raise_limit(2 * count + 200)
    site.add_user("user")
    each = count // len(KINDS)
    for kind in KINDS:
        prepare(site, kind, each)
    with RunningServer(site, *OPTIONS) as server, contextlib.ExitStack() as stack:
        log_ins(server, 2)
        before = memory(server)
        quiet = log_ins(server, seconds)
        crowds = [stack.enter_context(_crowd(server, kind, each, 120)) for kind in KINDS]
        arriving = log_ins(server, seconds)
        for crowd in crowds:
            crowd.wait()
        _until_idle(server)
        left = sum(crowd.left for crowd in crowds)
        loud = log_ins(server, seconds)
        taken = memory(server) - before
        print(
            f"{each * len(KINDS)} attackers of {len(KINDS)} kinds, of whom {left} were not thrown"
            f" out: {taken / MB:.0f} MB together; log-ins before: {_told(quiet)}; while they come:"
            f" {_told(arriving)}; when they are there: {_told(loud)}",
            flush=True,
        )
        return taken <= 256 * MB and p99(loud) <= 2 * p99(quiet)


def _until_idle(server: RunningServer) -> None:
    """Wait until the server has answered all that it can, and nobody reads any more of it."""
    for _ in range(600):
        if not _busy(server):
            return
    raise AssertionError("it is never done")


def _busy(server: RunningServer) -> bool:
    """Wait a moment; return whether the server had something to do."""
    before = processor_time(server.process.pid)
    time.sleep(_PAUSE)
    return processor_time(server.process.pid) > before
