"""Mixed honest load for some seconds; ``python -m tests.load.soak`` does it for long."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.load.holdings import growth
from tests.load.soak import soak

SECONDS = 5.0


class SoakTests(SynchronousTestCase):
    """What is delivered is retrieved, and what popd takes, it gives back."""

    def test_some_seconds(self) -> None:
        """Each message is retrieved once, and whole; descriptors and timers are what they were."""
        outcome = soak(SECONDS, size=3, kept=4)
        self.assertEqual(outcome.wrong, [])
        self.assertEqual(outcome.done["retrievals"], outcome.done["deliveries"])
        for what in (
            "cut off in RETR",
            "cut off before QUIT",
            "wrong passwords",
            "renames",
            "deletions of old mail",
        ):
            self.assertGreater(outcome.done[what], 0, what)

    def test_growth(self) -> None:
        """Growth is told for an hour, and ups and downs are none."""
        self.assertEqual(growth([(0.0, 100), (1.0, 101), (2.0, 102)]), 3600.0)
        self.assertEqual(growth([(0.0, 7), (1.0, 8), (2.0, 8), (3.0, 7)]), 0.0)
        self.assertEqual(growth([(0.0, 7)]), 0.0)
