"""How the cost grows: with messages in a maildrop, idle sessions, users in the password file.

Each curve takes minutes, and is measured only when asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

import maildrops
from maildrops import Mailset
from measure import MeasureError, recover, told
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measure import Bench
    from servers import Server

_KB: Final = 1024
_ROUNDS: Final = 3
_BUDGET: Final = 240.0
"""Seconds for one server in one curve: when they are over, it gets no further point."""

_DOVECOT_SESSIONS: Final = 1_000
"""Dovecot has a process for each session; more of them say nothing new, and fill the machine."""

_REST: Final = 0.2
_LIMIT: Final = 60.0


@dataclass
class Line:
    """One quantity of one server, in dependence on what grows.

    :param name: the server, and what is special about it.
    :param quantity: what it is, with its unit.
    :param points: its values.
    """

    name: str
    quantity: str
    points: dict[int, float] = field(default_factory=dict)


@dataclass
class Curve:
    """What one thing costs while it grows.

    :param title: a headline.
    :param grows: what grows.
    :param lines: the costs.
    :param failures: where it failed: the server's name and how much there was of what grows.
    """

    title: str
    grows: str
    lines: list[Line] = field(default_factory=list)
    failures: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, name: str, quantity: str, count: int, value: float) -> None:
        """Take note of a measurement."""
        for line in self.lines:
            if (line.name, line.quantity) == (name, quantity):
                line.points[count] = value
                return
        self.lines.append(Line(name, quantity, {count: value}))

    def fail(self, name: str, count: int, error: str) -> None:
        """Take note of a failure."""
        self.failures[name, count] = error
        if not any(line.name.startswith(name) for line in self.lines):
            self.lines.append(Line(name, "failed"))

    def table(self) -> list[list[str]]:
        """Return the table, with its head."""
        counts = {count for line in self.lines for count in line.points}
        counts.update(count for _, count in self.failures)
        lines = sorted(self.lines, key=lambda line: line.name)
        head = [self.grows, *(f"{line.name}: {line.quantity}" for line in lines)]
        return [head, *([f"{c:,}", *self._cells(lines, c)] for c in sorted(counts))]

    def _cells(self, lines: list[Line], count: int) -> Iterator[str]:
        for line in lines:
            if count in line.points:
                value = line.points[count]
                yield f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004
            else:
                failed = any(line.name.startswith(name) and count == c for name, c in self.failures)
                yield "failed" if failed else ""


def measure(names: list[str], servers: list[Server], bench: Bench, *, smoke: bool) -> list[Curve]:
    """Measure the curves called *names*.

    :param smoke: a few small steps only.
    """
    return [_CURVES[name](servers, bench, smoke) for name in names]


def _measure(
    curve: Curve,
    servers: list[Server],
    bench: Bench,
    counts: list[int],
    point: Callable[[Server, int], None],
) -> Curve:
    """Measure the points of a curve, for each server as far as it gets."""
    left = {server.name: _BUDGET for server in servers}
    for count in counts:
        for server in servers:
            if left[server.name] <= 0:
                continue
            begun = time.monotonic()
            try:
                with told(server, f"{count} {curve.grows}"):
                    point(server, count)
                bench.tell(curve.grows, server.name, count, f"{time.monotonic() - begun:.1f} s")
            except MeasureError as error:
                bench.tell(error)
                curve.fail(server.name, count, str(error))
                left[server.name] = 0
                recover(server)
            left[server.name] -= time.monotonic() - begun
    return curve


def _powers(largest: int, smallest: int = 1) -> list[int]:
    return [10**exponent for exponent in range(smallest, largest + 1)]


def _messages(servers: list[Server], bench: Bench, smoke: bool) -> Curve:
    """Poll maildrops of 10 to 1,000,000 messages in which nothing changed."""
    counts = _powers(2 if smoke else 6)
    # Links, so that a million messages take little of the disk.
    mails = {c: Mailset(f"of{c}-", 1, c, 700, distinct=max(10, c // 1000)) for c in counts}
    names = [name for mail in mails.values() for name in mail.names()]
    maildrops.write_passwords(servers[0].site.passwords, names)
    for mail in mails.values():
        maildrops.make(servers[0].site.mail, mail)
    curve = Curve("How the cost of a poll grows with the messages in a maildrop", "messages")

    def point(server: Server, count: int) -> None:
        row = Row(f"poll{count}", "", "poll", mails[count], None, processes=1)
        costs, begun = [], time.monotonic()
        while len(costs) < _ROUNDS and time.monotonic() - begun < _LIMIT:
            costs.append(bench.sample(server, row).cost)
        curve.add(server.name, "ms CPU a poll", count, median(costs) * 1000)

    return _measure(curve, servers, bench, counts, point)


def _idle(servers: list[Server], bench: Bench, smoke: bool) -> Curve:
    """Take 1 to 10,000 idle sessions, in the clear and with TLS."""
    counts = [10] if smoke else _powers(4, 0)
    mail = Mailset("many", counts[-1], 10, 700, distinct=10)
    maildrops.write_passwords(servers[0].site.passwords, mail.names())
    maildrops.make(servers[0].site.mail, mail)
    curve = Curve("How the memory of the whole server grows with its idle sessions", "sessions")

    def point(server: Server, count: int) -> None:
        if server.name == "Dovecot" and count > _DOVECOT_SESSIONS:
            return
        for tls in (0, 1):
            row = Row("idle", "", "hold", mail, None, tls=tls, sessions=count)
            name = f"{server.name} TLS" if tls else server.name
            curve.add(name, "MB", count, bench.idle(server, row) / _KB**2)

    return _measure(curve, servers, bench, counts, point)


def _users(servers: list[Server], bench: Bench, smoke: bool) -> Curve:
    """Have 1 to 1,000,000 users in the password file."""
    row = Row("users", "", "login", Mailset("user", 1, 1, 700), None, processes=1)
    curve = Curve("How the cost grows with the users in the password file", "users")

    def point(server: Server, count: int) -> None:
        path = server.site.passwords
        server.stop()
        maildrops.write_passwords(path, [f"user{number}" for number in range(count)])
        begun = time.monotonic()
        server.start()
        curve.add(server.name, "s to start", count, time.monotonic() - begun)
        login = bench.sample(server, row).cost
        curve.add(server.name, "MB", count, server.meter.memory() / _KB**2)
        curve.add(server.name, "ms CPU a log-in", count, login * 1000)
        maildrops.write_passwords(path, [f"user{number}" for number in range(count + 1)])
        before = _at_rest(server)
        bench.log_in(server, row)
        reload = _at_rest(server) - before
        curve.add(server.name, "ms CPU to reload", count, reload * 1000)

    return _measure(curve, servers, bench, [10] if smoke else _powers(6, 0), point)


def _at_rest(server: Server) -> float:
    """Wait until a server does nothing any more; return the CPU that it has used."""
    end = time.monotonic() + _LIMIT
    used = server.meter.cpu()
    while time.monotonic() < end:
        time.sleep(_REST)
        before, used = used, server.meter.cpu()
        if used - before < _REST / 50:
            break
    return used


_CURVES: Final[dict[str, Callable[[list[Server], Bench, bool], Curve]]] = {
    "messages": _messages,
    "idle": _idle,
    "users": _users,
}
NAMES: Final = tuple(_CURVES)
