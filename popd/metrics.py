"""All numbers about a popd: the counts of all its processes, and what is looked up when asked.

What each of them means to who runs popd is in ``docs/metrics.rst``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from popd.processes import usage
from popd.server.counts import CELLS, Counts, lose_all, present
from popd.server.seats import Seats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from popd.desk import Crew
    from popd.server.tls import Served

__all__ = ["GAUGES", "Gauge", "Meter", "Samples", "Sources"]

Samples: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"
"""The values of a metric's labels, and its number."""

MAX_CERTIFICATES: Final = 1000
"""How many certificates are told about: those that expire first."""


class Meter:
    """The counts of all processes.

    :param seats: where they are; rows of ``CELLS + 1`` numbers.
    """

    def __init__(self, seats: Seats | None = None) -> None:
        self._seats = seats or Seats(CELLS + 1)

    def of(self, seat: int) -> Counts:
        """Return what the process that has *seat* counts with."""
        row = self._seats.row(seat)
        row[CELLS] = 1  # it is in use, or was
        return Counts(row)

    def vacated(self, seat: int) -> None:
        """Note that the process that had *seat* died."""
        lose_all(self._seats.row(seat))

    def numbers(self, seat: int) -> Sequence[int]:
        """Return what was counted in a seat."""
        return list(self._seats.row(seat))

    def sums(self) -> list[int]:
        """Return the sums over all processes there ever were.

        A seat beyond all that were taken is not looked at, since that would take memory for it.
        """
        used = takewhile(lambda row: row[CELLS], self._seats)
        return [sum(column) for column in zip(*used, strict=True)] or [0] * CELLS


@dataclass(frozen=True)
class Sources:
    """Where everything is looked up.

    :param meter: the counts.
    :param crew: the processes that serve.
    :param certificates: returns what is known of the server's certificates.
    :param slowed: returns how many are slowed down because of guesses.
    :param since: when popd was started, in seconds since 1970.
    """

    meter: Meter
    crew: Crew
    certificates: Callable[[], Sequence[Served]]
    slowed: Callable[[], int]
    since: float

    def usages(self) -> Iterator[tuple[str, float, int]]:
        """Yield what each process is called, its seconds of CPU and its octets of memory."""
        pids = {f"worker-{process.seat}": process.pid for process in self.crew.processes()}
        if os.getpid() not in pids.values():
            pids["supervisor"] = os.getpid()
        for name, pid in pids.items():
            used = usage(pid)
            if used is not None:
                yield name, *used

    def soonest(self) -> list[Served]:
        """Return the certificates that expire first."""
        return sorted(self.certificates(), key=lambda one: one.not_after)[:MAX_CERTIFICATES]


@dataclass(frozen=True)
class Gauge:
    """A number that is looked up when somebody asks.

    :param name: as Prometheus calls it.
    :param text: what it says.
    :param labels: the names of its labels.
    :param look: returns it, once for each combination of labels.
    :param grows: whether it only grows, as a counter does.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    look: Callable[[Sources], Samples]
    grows: bool = False


def _workers(sources: Sources) -> Samples:
    states = [process.state for process in sources.crew.processes()]
    return [((state,), states.count(state)) for state in ("starting", "serving", "retiring")]


def _sessions(sources: Sources) -> Samples:
    numbers = present(sources.meter.sums())
    return zip((("authorization",), ("transaction",)), numbers, strict=True)


def _expiries(sources: Sources) -> Samples:
    seen = {
        (one.path, next(iter(one.names), "")): one.not_after.timestamp()
        for one in sources.soonest()
    }
    return seen.items()


GAUGES: Final = (
    Gauge(
        "popd_start_time_seconds",
        "When popd was started, in seconds since 1970.",
        (),
        lambda sources: [((), sources.since)],
    ),
    Gauge("popd_workers", "Processes that serve.", ("state",), _workers),
    Gauge(
        "popd_worker_restarts_total",
        "Workers that died and were replaced.",
        (),
        lambda sources: [((), sources.crew.deaths)],
        grows=True,
    ),
    Gauge("popd_sessions_active", "Sessions that there are now.", ("state",), _sessions),
    Gauge(
        "popd_guess_penalties",
        "Networks and accounts that have to wait because of wrong passwords; of many an estimate.",
        (),
        lambda sources: [((), sources.slowed())],
    ),
    Gauge(
        "popd_certificate_expiry_timestamp_seconds",
        "When a certificate of popd's expires, in seconds since 1970.",
        ("path", "name"),
        _expiries,
    ),
    Gauge(
        "popd_process_cpu_seconds_total",
        "Processor time that a process has used.",
        ("process",),
        lambda sources: [((name,), cpu) for name, cpu, _ in sources.usages()],
        grows=True,
    ),
    Gauge(
        "popd_process_resident_memory_bytes",
        "Memory that a process has in use, what it shares with others included.",
        ("process",),
        lambda sources: [((name,), memory) for name, _, memory in sources.usages()],
    ),
)
"""What is looked up rather than counted; `popd.server.counts.COUNTED` is the rest."""
