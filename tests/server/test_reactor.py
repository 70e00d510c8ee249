"""Tests of `popd.server.reactor`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.server.reactor import LeanReactor, make_lean, make_steady

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure


class Reader:
    """Something to read from a pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.data = b""
        self.then: Callable[[], object] = lambda: None
        self.lost: BaseException | None = None

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self.descriptor

    def doRead(self) -> None:
        """Read."""
        self.data += os.read(self.descriptor, 99)
        self.then()

    def connectionLost(self, reason: Failure) -> None:
        """Take note of why."""
        self.lost = reason.value


class LeanTests(SynchronousTestCase):
    """A reactor that was made lean."""

    def setUp(self) -> None:
        """Make one, which never runs, with a reader."""
        self.reactor: Any = EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        make_lean(self.reactor)
        source, self.sink = os.pipe()
        self.addCleanup(os.close, source)
        self.addCleanup(os.close, self.sink)
        self.reader = Reader(source)
        self.reactor.addReader(self.reader)

    def test_read(self) -> None:
        """What can be read is read by whom it is for, in the reactor's own round."""
        os.write(self.sink, b"hello")
        self.reactor.doIteration(0)
        self.assertEqual(self.reader.data, b"hello")
        self.assertIsInstance(self.reactor, LeanReactor)

    def test_again(self) -> None:
        """A running reactor goes on until there is something else to do."""
        self.reactor.running = True
        os.write(self.sink, b"hello")
        self.reader.then = lambda: self.reactor.callLater(0, lambda: None)
        self.reactor.doIteration(None)
        self.assertEqual(self.reader.data, b"hello")

    def test_in_time(self) -> None:
        """It is back when a call is due."""
        self.reactor.running = True
        called: list[bool] = []
        self.reactor.callLater(0.01, called.append, True)
        self.reactor.runUntilCurrent()
        os.write(self.sink, b"hello")
        while not called:
            self.reactor.doIteration(self.reactor.timeout())
            self.reactor.runUntilCurrent()
        self.assertEqual(self.reader.data, b"hello")

    def test_error(self) -> None:
        """Whoever fails to read is told that it is lost, and the log why."""

        def fail() -> None:
            raise LookupError

        self.reader.then = fail
        os.write(self.sink, b"hello")
        self.reactor.doIteration(0)
        self.assertIsInstance(self.reader.lost, LookupError)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertNotIn(self.reader, self.reactor.getReaders())

    def test_gone(self) -> None:
        """An event for somebody who has just gone is nobody's."""
        with mock.patch.object(self.reactor, "_selectables", {-1: None}):
            os.write(self.sink, b"hello")
            self.reactor.doIteration(0)
        self.assertEqual(self.reader.data, b"")

    def test_interrupted(self) -> None:
        """A signal ends the wait."""
        with mock.patch.object(self.reactor, "_poller") as poller:
            poller.poll.side_effect = InterruptedError
            self.reactor.doIteration(None)
        poller.poll.assert_called_once_with(-1, len(self.reactor._selectables))

    def test_steady(self) -> None:
        """When the time of day is put on or back, what is due comes neither sooner nor later."""
        now = time.time()
        self.patch(EPollReactor, "seconds", lambda _: now)
        make_steady(self.reactor)
        called: list[float] = []
        self.reactor.callLater(600, called.append, 600)
        now += 86_400
        self.reactor.callLater(0, called.append, 0)
        self.reactor.runUntilCurrent()
        now -= 2 * 86_400
        self.reactor.callLater(0, called.append, 1)
        self.reactor.runUntilCurrent()
        self.assertEqual(called, [0, 1])

    def test_not_of_twisted(self) -> None:
        """What is no reactor of Twisted's keeps its clock."""
        clock = Clock()
        make_steady(clock)
        self.assertEqual(clock.seconds(), 0)

    def test_other(self) -> None:
        """Another kind of reactor stays what it is."""
        clock = Clock()
        make_lean(clock)
        self.assertIs(type(clock), Clock)
