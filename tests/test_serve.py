"""Tests of `popd.serve`: what becomes of a configuration that is none any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.serve import SWEEP, Service


class FakeDoor:
    """A door that knows whether it is closed."""

    domain = ""
    closed = 0

    def close(self) -> None:
        """Close it."""
        self.closed += 1


class FakeFactory:
    """A factory; all of them have the same sessions."""

    tracer = None

    def __init__(self, visits: list[Any]) -> None:
        self.visits = visits


class RenewTests(SynchronousTestCase):
    """Doors are closed when nobody is there any more who came to them."""

    def setUp(self) -> None:
        """Have a service with a session."""
        self.clock = Clock()
        self.visits: list[Any] = []
        self.doors = [FakeDoor(), FakeDoor()]
        self.service = Service(self.clock, self.factory(), self.door(0), 30.0)
        self.come()

    def factory(self) -> Any:
        """Return a factory."""
        return FakeFactory(self.visits)

    def door(self, number: int) -> Any:
        """Return a door."""
        return self.doors[number]

    def come(self) -> None:
        """Connect."""
        self.visits.append(SimpleNamespace(factory=self.service.factory))

    def closed(self) -> list[int]:
        """Return how often each door was closed."""
        self.clock.pump([SWEEP] * 3)
        return [door.closed for door in self.doors]

    def test_closed(self) -> None:
        """The last session that came to a door keeps it open, and others do not."""
        self.service.renew(self.factory(), self.door(1), 30.0)
        self.assertEqual(self.closed(), [0, 0])
        self.come()
        del self.visits[0]
        self.assertEqual(self.closed(), [1, 0])
        self.assertEqual(self.closed(), [1, 0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_same_door(self) -> None:
        """After new certificates the door is the same, and stays open."""
        self.visits.clear()
        self.service.renew(self.factory(), self.door(0), 30.0)
        self.assertEqual(self.closed(), [0, 0])

    def test_shared(self) -> None:
        """A door to which sessions of two factories came is closed when both have none."""
        self.service.renew(self.factory(), self.door(0), 30.0)
        self.come()
        self.service.renew(self.factory(), self.door(1), 30.0)
        del self.visits[0]
        self.assertEqual(self.closed(), [0, 0])
        self.visits.clear()
        self.assertEqual(self.closed(), [1, 0])
