"""Twisted's epoll reactor, without what it does at every event for its old way of logging."""

from __future__ import annotations

from typing import Any

from twisted.internet.epollreactor import EPollReactor

__all__ = ["LeanReactor", "make_lean"]


class LeanReactor(EPollReactor):
    """The epoll reactor, leaner: events go to whom they are for, and that is all."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, and let those read or write whom they are for."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except InterruptedError:
            return
        for descriptor, event in events:
            selectable = self._selectables.get(descriptor)
            if selectable is not None:
                self._doReadOrWrite(selectable, descriptor, event)

    doIteration = doPoll


def make_lean(reactor: Any) -> None:
    """Make the reactor of this process lean, if it is Twisted's epoll reactor."""
    if type(reactor) is EPollReactor:
        reactor.__class__ = LeanReactor
