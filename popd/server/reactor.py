"""Twisted's reactor, with a clock that nobody sets, and with less work for the same."""

from __future__ import annotations

import sys
import time
from select import EPOLLIN
from typing import Any, Final

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

__all__ = ["LeanReactor", "make_lean", "make_steady"]

_LONGEST: Final = 2_147_483.0
"""Seconds that epoll_wait(2) can wait at most."""


class LeanReactor(EPollReactor):
    """The epoll reactor, leaner: events go to whom they are for, and that is all.

    Twisted's does much at every event for its old way of logging.
    """

    _newTimedCalls: list[Any]
    _pendingTimedCalls: list[Any]
    threadCallQueue: list[Any]

    def doPoll(self, timeout: float | None) -> None:
        """Let events read or write whom they are for, until there is something else to do."""
        while True:
            try:
                events = self._poller.poll(
                    -1 if timeout is None else timeout, len(self._selectables)
                )
            except InterruptedError:
                return
            for descriptor, event in events:
                selectable = self._selectables.get(descriptor)
                if selectable is None:
                    continue
                if event == EPOLLIN:
                    self._read(selectable)
                else:
                    self._doReadOrWrite(selectable, descriptor, event)
            if (
                not self.running
                or not events
                or self.threadCallQueue
                or self._newTimedCalls
                or self._justStopped
            ):
                return
            timeout = None
            if self._pendingTimedCalls:
                timeout = min(self._pendingTimedCalls[0].time - self.seconds(), _LONGEST)
                if timeout <= 0:
                    return

    doIteration = doPoll

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more that is about to be closed: the kernel notices by itself."""
        self._reads.discard(descriptor)
        self._writes.discard(descriptor)
        self._selectables.pop(descriptor, None)

    def _read(self, selectable: Any) -> None:
        try:
            why = selectable.doRead()
        except BaseException:  # noqa: BLE001 - whatever it was, the other connections go on
            why = sys.exc_info()[1]
            log.err()
        if why:
            self._disconnectSelectable(selectable, why, isRead=True)


def make_lean(reactor: Any) -> None:
    """Make the reactor of this process lean, if it is Twisted's epoll reactor."""
    if type(reactor) is EPollReactor:
        reactor.__class__ = LeanReactor


def make_steady(reactor: Any) -> None:
    """Let a reactor of Twisted's, on which nothing waits yet, measure time with a steady clock.

    Its own goes by the time of day.  When that is put on all time-outs come at once, and when it is
    put back none comes until it is what it was.
    """
    if isinstance(reactor, ReactorBase):
        reactor.seconds = time.monotonic
