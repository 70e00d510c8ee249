"""Tests of the last hour."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from popd.metrics import Meter, Sources
from popd.server.visit import Visit
from popd.status.history import SAMPLES, SERIES, STEP, History, quantile
from tests.test_metrics import FakeCrew


class QuantileTests(SynchronousTestCase):
    """What a histogram tells."""

    def test_inside(self) -> None:
        """Values are taken to be spread evenly over their bucket."""
        self.assertEqual(quantile([0, 10, 0, 0], [1.0, 2.0, 3.0], 0.5), 1.5)
        self.assertEqual(quantile([10, 10, 0, 0], [1.0, 2.0, 3.0], 0.75), 1.5)
        self.assertEqual(quantile([4, 0, 0, 0], [1.0, 2.0, 3.0], 0.25), 0.25)

    def test_beyond(self) -> None:
        """Of values beyond the last bound no more is known than that."""
        self.assertEqual(quantile([0, 0, 0, 7], [1.0, 2.0, 3.0], 0.5), 3.0)

    def test_none(self) -> None:
        """Of no values there is nothing to tell; nor of fewer than before."""
        self.assertIsNone(quantile([0, 0], [1.0], 0.5))
        self.assertIsNone(quantile([-3, 0], [1.0], 0.5))


class HistoryTests(SynchronousTestCase):
    """Samples and what they amount to."""

    def setUp(self) -> None:
        """Begin."""
        self.now = 1000.0
        self.meter = Meter()
        self.counts = self.meter.of(0)
        crew: Any = FakeCrew()
        self.crew = crew
        self.history = History(Sources(self.meter, crew, list, lambda: 0, 0.0), lambda: self.now)
        self.history.take()

    def step(self, seconds: float = STEP) -> None:
        """Let time pass."""
        self.now += seconds
        self.history.take()

    def test_begin(self) -> None:
        """One sample is no history yet."""
        for name in SERIES:
            self.assertEqual(self.history.series(name), [])
        self.assertEqual(self.history.times, [])
        self.assertEqual(self.history.coarse("cpu", 30), [])
        self.assertEqual(self.history.coarse_times(30), [])

    def test_empty(self) -> None:
        """Nothing has grown before the first sample."""
        history = History(Sources(self.meter, self.crew, list, lambda: 0, 0.0), lambda: 1.0)
        self.assertEqual(history.since_first("let_in"), 0)
        self.assertEqual(set(history.limits().values()), {0})

    def test_rates(self) -> None:
        """What there was between two samples, a second."""
        visit = Visit("x-1", "", 1.0)
        for _ in range(20):
            self.counts.began()
            self.counts.let_in("USER", 0.002, remembered=False)
        for result in ("credentials", "too-soon", "in-use", "temporary", "permanent"):
            self.counts.shut_out("PLAIN", result)
        self.counts.sent(5000, 0.1, whole=True)
        self.counts.sent(500, 0.1, whole=False)
        self.counts.ended(visit)
        self.step()
        last = {name: self.history.series(name)[-1] for name in SERIES}
        cpu = last.pop("cpu")
        self.assertGreaterEqual(cpu or 0.0, 0.0)
        self.assertAlmostEqual(last.pop("login_seconds_median") or 0.0, 0.00175)
        self.assertAlmostEqual(last.pop("login_seconds_95") or 0.0, 0.002425)
        self.assertAlmostEqual(last.pop("retr_seconds_median") or 0.0, 0.075)
        self.assertAlmostEqual(last.pop("retr_seconds_95") or 0.0, 0.0975)
        self.assertEqual(
            last,
            {
                "sessions": 20.0,
                "logins_per_second": 2.0,
                "refused_per_second": 0.2,
                "in_use_per_second": 0.1,
                "failed_per_second": 0.2,
                "messages_per_second": 0.2,
                "octets_per_second": 550.0,
            },
        )
        self.assertEqual(self.history.since_first("let_in"), 20)
        self.assertEqual(self.history.limits()["max-sessions"], 0)
        self.counts.limited("max-sessions")
        self.step()
        self.assertEqual(self.history.series("logins_per_second"), [2.0, 0.0])
        self.assertEqual(self.history.series("login_seconds_95")[-1], None)
        self.assertEqual(self.history.limits()["max-sessions"], 1)

    def test_bounded(self) -> None:
        """An hour is kept, and no more."""
        for _ in range(SAMPLES + 50):
            self.step()
        self.assertEqual(len(self.history.series("sessions")), SAMPLES)
        self.assertEqual(len(self.history.times), SAMPLES)
        self.assertEqual(self.history.times[-1] - self.history.times[0], 3600 - STEP)

    def test_coarse(self) -> None:
        """Several samples in one, the newest first."""
        for step in range(7):
            for _ in range(step):
                self.counts.let_in("USER", 0.1, remembered=False)
            self.step()
        self.assertEqual(self.history.coarse_times(3), [1070.0, 1040.0])
        values = self.history.coarse("logins_per_second", 3)
        self.assertEqual(values, [(4 + 5 + 6) / 30, (1 + 2 + 3) / 30])

    def test_backwards(self) -> None:
        """A clock that is put back, and processes that end, lead to no rate below none."""
        self.counts.let_in("USER", 0.1, remembered=False)
        self.step(-500)
        self.assertGreaterEqual(self.history.series("logins_per_second")[-1] or 0.0, 0.0)
        self.step(0)
        self.assertEqual(self.history.series("logins_per_second")[-1], 0.0)
