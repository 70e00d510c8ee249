"""Tests of `popd.server.offload`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from popd.server.offload import Offload

if TYPE_CHECKING:
    from collections.abc import Callable


class Desk:
    """As much of a reactor as threads need: what they hand in is done when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """Take a call."""
        self.calls.append((function, args))

    def run(self) -> None:
        """Do what was handed in."""
        while self.calls:
            function, args = self.calls.pop(0)
            function(*args)


class OffloadTests(SynchronousTestCase):
    """Work is done in other threads."""

    def setUp(self) -> None:
        """Start a pool."""
        self.desk = Desk()
        self.offload = Offload(self.desk)  # type: ignore[arg-type]
        self.offload.startService()

    def finish(self) -> None:
        """Stop the pool, which waits for its work, and hand over the results."""
        self.offload.stopService()
        self.desk.run()

    def test_result(self) -> None:
        """A function's result comes back, from another thread."""
        thread = self.offload(threading.get_ident)
        total = self.offload(sum, [1, 2], start=3)
        self.assertNoResult(total)
        self.finish()
        self.assertEqual(self.successResultOf(total), 6)
        self.assertNotEqual(self.successResultOf(thread), threading.get_ident())

    def test_error(self) -> None:
        """So does its exception."""
        result = self.offload(int, "x")
        self.finish()
        self.failureResultOf(result, ValueError)

    def test_stop(self) -> None:
        """Stopping waits for what is under way."""
        done = threading.Event()
        self.offload(done.set)
        self.offload.stopService()
        self.assertTrue(done.is_set())
