"""A disk that is mounted after the rules were made."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.sandbox.watch import INTERVAL, MountWatch


class FakeConfinement:
    """One that says what the test says."""

    mail = "/srv/mail"
    version = 7
    entered = False


class FakeMounts:
    """The kernel's table."""

    def __init__(self) -> None:
        self.lines = frozenset({b"1 /"})

    def above(self, path: bytes) -> frozenset[bytes]:
        """Return all of it."""
        assert path == b"/srv/mail"
        return self.lines


class MountWatchTests(SynchronousTestCase):
    """What is done about it."""

    def setUp(self) -> None:
        """Begin to look."""
        self.clock = Clock()
        self.confinement: Any = FakeConfinement()
        self.mounts = FakeMounts()
        mounts: Any = self.mounts
        self.reloads: list[float] = []
        self.watch = MountWatch(
            self.clock,
            lambda: self.confinement,
            lambda: self.reloads.append(self.clock.seconds()),
            mounts,
        )
        self.watch.startService()

    def look(self, *lines: bytes) -> list[str]:
        """Have the next look find this; return what the log says."""
        self.mounts.lines = frozenset({b"1 /", *lines})
        with capturedLogs() as events:
            self.clock.advance(INTERVAL)
        return [str(formatEvent(event)) for event in events]

    def test_nothing(self) -> None:
        """As long as nothing changes nothing happens, and nothing after the end."""
        self.assertEqual(self.look(), [])
        self.watch.stopService()
        self.assertEqual(self.look(b"2 /srv/mail"), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_workers(self) -> None:
        """Workers are replaced, once for each change."""
        (line,) = self.look(b"2 /srv/mail")
        self.assertIn("/srv/mail: something was mounted", line)
        self.assertEqual(self.look(b"2 /srv/mail"), [])
        self.look(b"3 /srv/mail")
        self.look()
        self.assertEqual(self.reloads, [INTERVAL, 3 * INTERVAL, 4 * INTERVAL])

    def test_alone(self) -> None:
        """One process can only say so."""
        self.confinement.entered = True
        (line,) = self.look(b"2 /srv/mail")
        self.assertIn("restart", line)
        self.assertEqual(self.reloads, [])

    def test_not_confined(self) -> None:
        """Who is not confined reaches it anyway."""
        self.confinement.version = 0
        self.assertEqual(self.look(b"2 /srv/mail"), [])
        self.assertEqual(self.reloads, [])
