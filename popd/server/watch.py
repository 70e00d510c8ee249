"""One timer for many connections."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Watch", "Watched"]


_LONGEST: Final = 604_800.0
"""Seconds until somebody is told the time who would wait for ever, which reactors cannot."""


class Watched(Protocol):
    """What wants to be told the time."""

    def check_time(self) -> None:
        """Look at the clock."""


class Watch:
    """Tells when a time has come, to the full second that follows.

    A timer of the reactor's for each connection would cost more than many a session; here all that
    wait for the same second have one in common.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._slots: dict[int, set[Watched]] = {}
        self.in_line = 0
        """How many have more to do, and wait for their next turn."""

    def add(self, when: float, watched: Watched) -> int:
        """Call ``watched.check_time`` at *when*; return what `remove` wants to know.

        :param when: by the clock; infinity is in a week.
        """
        try:
            second = ceil(when)
        except OverflowError:  # it is infinite
            second = ceil(self._clock.seconds() + _LONGEST)
        slot = self._slots.get(second)
        if slot is None:
            slot = self._slots[second] = set()
            self._clock.callLater(max(0.0, second - self._clock.seconds()), self._ring, second)
        slot.add(watched)
        return second

    def remove(self, second: int, watched: Watched) -> None:
        """Call it no more.  A second call, or one that comes too late, does nothing."""
        if second in self._slots:
            self._slots[second].discard(watched)

    def __len__(self) -> int:
        """Return how many are waiting."""
        return sum(map(len, self._slots.values()))

    def _ring(self, second: int) -> None:
        for watched in self._slots.pop(second):
            self._clock.callLater(0, watched.check_time)  # each by itself, whatever the others do
