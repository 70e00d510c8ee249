"""The last hour, in samples."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Final

from popd.server import counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from popd.metrics import Sources

    Rate = Callable[["Sample", "Sample", float], float | None]

__all__ = ["SAMPLES", "SERIES", "STEP", "History", "Sample", "quantile"]

STEP: Final = 10.0
"""Seconds between two samples."""

SAMPLES: Final = 360
"""How many are kept."""

_SHORT: Final = 300.0
"""Seconds that one looks back on at least."""

_MEDIAN, _MOST = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of everything there had been by then.

    :param time: when, in seconds since 1970.
    :param sessions: sessions at that moment.
    :param let_in: log-ins that succeeded.
    :param refused: log-ins with wrong credentials, or too soon.
    :param in_use: log-ins to maildrops that another session had.
    :param failed: other log-ins that failed although nothing was wrong with them.
    :param limited: how often each limit was hit, as `popd.server.counts.LIMITED` has them.
    :param deaths: workers that died.
    :param cpu: seconds of processor time of all processes that there are.
    """

    time: float
    sessions: int
    let_in: int
    refused: int
    in_use: int
    failed: int
    messages: int
    octets: int
    limited: tuple[int, ...]
    deaths: int
    cpu: float
    login: tuple[int, ...]
    retr: tuple[int, ...]


def _per_second(name: str) -> Rate:
    return lambda one, other, seconds: (getattr(other, name) - getattr(one, name)) / seconds


def _time(name: str, bounds: Sequence[float], part: float) -> Rate:
    def rate(one: Sample, other: Sample, _seconds: float) -> float | None:
        pairs = zip(getattr(one, name), getattr(other, name), strict=True)
        return quantile([late - early for early, late in pairs], bounds, part)

    return rate


SERIES: Final[dict[str, Rate]] = {
    "sessions": lambda _one, other, _seconds: float(other.sessions),
    "logins_per_second": _per_second("let_in"),
    "refused_per_second": _per_second("refused"),
    "in_use_per_second": _per_second("in_use"),
    "failed_per_second": _per_second("failed"),
    "login_seconds_median": _time("login", counts.LOGIN_TIME.bounds, _MEDIAN),
    "login_seconds_95": _time("login", counts.LOGIN_TIME.bounds, _MOST),
    "messages_per_second": _per_second("messages"),
    "octets_per_second": _per_second("octets"),
    "retr_seconds_median": _time("retr", counts.RETR_TIME.bounds, _MEDIAN),
    "retr_seconds_95": _time("retr", counts.RETR_TIME.bounds, _MOST),
    "cpu": _per_second("cpu"),
}
"""What is shown of the time between two samples."""


def quantile(buckets: Sequence[int], bounds: Sequence[float], part: float) -> float | None:
    """Return below what that part of all values is, as far as a histogram tells; None of none.

    :param buckets: how many values each bucket has; the last has no bound.
    :param bounds: the upper ends of the others.
    """
    wanted = part * sum(buckets)
    if wanted <= 0:
        return None
    seen, lower = 0, 0.0
    for number, upper in zip(buckets, bounds, strict=False):
        if number and seen + number >= wanted:
            return lower + (upper - lower) * (wanted - seen) / number
        seen, lower = seen + number, upper
    return lower


class History:
    """Samples of the last hour.

    :param sources: what they are taken of.
    :param now: tells the seconds since 1970.
    """

    def __init__(self, sources: Sources, now: Callable[[], float]) -> None:
        self._sources = sources
        self._now = now
        self._samples: deque[Sample] = deque(maxlen=SAMPLES + 1)
        self._series: dict[str, deque[float | None]] = {
            name: deque(maxlen=SAMPLES) for name in SERIES
        }

    def take(self) -> None:
        """Take a sample."""
        numbers = self._sources.meter.sums()
        results = {result: 0 for _, result in counts.LOGINS.values}
        for (_, result), number in zip(
            counts.LOGINS.values, numbers[counts.LOGINS.first :], strict=False
        ):
            results[result] += number
        limits = len(counts.LIMITED.values)
        self._samples.append(
            Sample(
                time=self._now(),
                sessions=sum(counts.present(numbers)),
                let_in=results["success"],
                refused=results["credentials"] + results["too-soon"],
                in_use=results["in-use"],
                failed=results["temporary"] + results["permanent"],
                messages=numbers[counts.RETRIEVED.first] + numbers[counts.TOPS.first],
                octets=numbers[counts.SENT.first],
                limited=tuple(numbers[counts.LIMITED.first :][:limits]),
                deaths=self._sources.crew.deaths,
                cpu=sum(cpu for _, cpu, _ in self._sources.usages()),
                login=tuple(counts.LOGIN_TIME.buckets(numbers)),
                retr=tuple(counts.RETR_TIME.buckets(numbers)),
            )
        )
        if len(self._samples) > 1:
            latest = self._samples[-2], self._samples[-1]
            for name, rate in SERIES.items():
                self._series[name].extend(_points(rate, latest))

    @property
    def times(self) -> list[float]:
        """The end of the time that each point of a series is about."""
        return [sample.time for sample in self._samples][1:]

    def series(self, name: str) -> list[float | None]:
        """Return a series, the oldest first; None where there is nothing to tell."""
        return list(self._series[name])

    def coarse(self, name: str, steps: int) -> list[float | None]:
        """Return a series of which each point is about as many steps, the last ones first."""
        samples = list(self._samples)[::-1][::steps][::-1]
        return list(_points(SERIES[name], samples))[::-1]

    def coarse_times(self, steps: int) -> list[float]:
        """Return the ends of the times that the points of `coarse` are about."""
        return [sample.time for sample in list(self._samples)[::-1][::steps]][:-1]

    def since_first(self, name: str) -> int:
        """Return by how much something has grown in the last hour."""
        if not self._samples:
            return 0
        return max(0, int(getattr(self._samples[-1], name) - getattr(self._samples[0], name)))

    def limits(self) -> dict[str, int]:
        """Return how often each limit was hit in the last hour."""
        names = [limit for (limit,) in counts.LIMITED.values]
        if not self._samples:
            return dict.fromkeys(names, 0)
        first, last = self._samples[0].limited, self._samples[-1].limited
        return {name: b - a for name, a, b in zip(names, first, last, strict=True)}

    @property
    def span(self) -> float:
        """Seconds to look back on: an hour, or less as long as there are few samples."""
        known = len(self._samples) * STEP
        return min(SAMPLES * STEP, ceil(known / _SHORT) * _SHORT or _SHORT)


def _points(rate: Rate, samples: Sequence[Sample]) -> Iterator[float | None]:
    for one, other in pairwise(samples):
        value = rate(one, other, max(other.time - one.time, 1e-3))
        yield None if value is None else max(0.0, value)  # clocks are put back, workers die
