"""Tests of `popd.server.visit`: what sessions are called."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from popd.server import visit
from popd.server.visit import Visits


class IdentTests(SynchronousTestCase):
    """No two sessions have one name, in whatever process they are."""

    def test_unlike(self) -> None:
        """Processes have other names by their seats, and by when they begin."""
        names = set()
        client: Any = object()
        for now in (1_800_000_000.0, 1_800_000_000.03, 1_800_000_001.0):
            self.patch(visit, "time", lambda now=now: now)
            for seat in (0, 1, 255):
                visits = Visits(seat)
                names |= {visits.begin(client, "", 0.0).ident for _ in range(3)}
        self.assertEqual(len(names), 27)
