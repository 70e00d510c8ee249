"""Tests of `popd.server.watch`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.server.watch import Watch


class Sleeper:
    """Writes down when it was called."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.called: list[float] = []

    def check_time(self) -> None:
        """Write down the time."""
        self.called.append(self.clock.seconds())


class WatchTests(SynchronousTestCase):
    """Many wait, and one timer does it."""

    def setUp(self) -> None:
        """Set the clock to a crooked time."""
        self.clock = Clock()
        self.clock.advance(0.25)
        self.watch = Watch(self.clock)

    def test_not_before(self) -> None:
        """Nobody is called before his time, and all within a second after it."""
        sleepers = [Sleeper(self.clock) for _ in range(3)]
        for when, sleeper in zip((1.5, 2.0, 0.0), sleepers, strict=True):
            self.watch.add(when, sleeper)
        self.assertEqual(len(self.watch), 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.clock.pump([0.25] * 12)
        self.assertEqual([sleeper.called for sleeper in sleepers], [[2.0], [2.0], [0.25 + 0.25]])
        self.assertEqual(len(self.watch), 0)

    def test_removed(self) -> None:
        """Who is removed is not called, and may be removed again."""
        sleeper = Sleeper(self.clock)
        second = self.watch.add(3.0, sleeper)
        self.watch.remove(second, sleeper)
        self.watch.remove(second, sleeper)
        self.clock.advance(5)
        self.watch.remove(second, sleeper)
        self.assertEqual(sleeper.called, [])

    def test_one_fails(self) -> None:
        """An error of one keeps nobody else from his call."""
        good, bad = Sleeper(self.clock), Sleeper(self.clock)
        bad.called = None  # type: ignore[assignment]
        for sleeper in (good, bad):
            self.watch.add(1.0, sleeper)
        for _ in range(2):
            try:
                self.clock.advance(1)
            except AttributeError:
                continue
        self.assertEqual(len(good.called), 1)
