"""Lines in the log about what strangers can make happen as often as they like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger, LogLevel

from popd.server.note import note

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Sparing"]

_log: Final = Logger()


class Sparing:
    """Writes one warning of each kind a second at most, and counts the others.

    :param clock: tells the time.
    :param pause: seconds between two lines of a kind.
    """

    def __init__(self, clock: IReactorTime, pause: float = 1.0) -> None:
        self._clock = clock
        self._pause = pause
        self._told: dict[str, tuple[float, int]] = {}  # when, and how many were not since

    def warn(self, kind: str, text: str) -> None:
        """Write *text*, unless one of its kind was written just now.

        :param kind: one of few.
        """
        now = self._clock.seconds()
        when, more = self._told.get(kind, (now - self._pause, 0))
        if now - when < self._pause:
            self._told[kind] = when, more + 1
            return
        self._told[kind] = now, 0
        note(_log, LogLevel.warn, f"{text} (and {more} more like this before)" if more else text)
