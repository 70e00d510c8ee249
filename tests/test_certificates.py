"""Tests of certificates that change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.certificates import INTERVAL, CertificateWatch, load
from popd.config import Settings
from popd.server.tls import Served, ServerTLS

AUTHORITY = trustme.CA()
NOW = datetime(2026, 11, 25, tzinfo=UTC)


class WatchTests(SynchronousTestCase):
    """Files are looked at, and so is the calendar."""

    def setUp(self) -> None:
        """Begin to watch a pair."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.certificate, self.key = self.directory / "c.pem", self.directory / "k.pem"
        self.renew()
        self.settings = Settings(certificate=(str(self.certificate),), private_key=(str(self.key),))
        self.renewed: list[ServerTLS] = []
        self.served: list[Served] = []
        self.now = NOW
        self.clock = Clock()
        self.watch = CertificateWatch(
            self.clock,
            lambda: self.settings,
            lambda: self.served,
            self.renewed.append,
            lambda: self.now,
        )

    def renew(self, *, key: bool = True) -> None:
        """Put another certificate there, with its key or without."""
        leaf = AUTHORITY.issue_cert("localhost")
        for path, content in (
            (self.certificate, leaf.cert_chain_pems[0].bytes()),
            (self.key, leaf.private_key_pem.bytes()),
        ):
            if path == self.certificate or key:
                fresh = path.with_suffix(".new")
                fresh.write_bytes(content)
                fresh.replace(path)

    def test_renewal(self) -> None:
        """A new pair is taken, half of one is not, and once said so."""
        self.watch.startService()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.renewed, [])
        with capturedLogs() as events:
            self.renew(key=False)
            self.clock.pump([INTERVAL] * 3)
            self.assertEqual(self.renewed, [])
            (event,) = events
            self.assertIn("does not belong", str(formatEvent(event)))
            self.renew()
            self.clock.pump([INTERVAL] * 3)
        self.assertEqual(len(self.renewed), 1)
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refreshed(self) -> None:
        """What a reload has read is not news."""
        self.watch.startService()
        self.renew()
        self.watch.refresh()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.renewed, [])
        self.watch.stopService()

    def test_gone(self) -> None:
        """Files that go away are an error, and what is in use stays."""
        self.watch.startService()
        with capturedLogs() as events:
            self.certificate.unlink()
            self.clock.advance(INTERVAL)
        self.assertIn("cannot be read", str(formatEvent(events[0])))
        self.watch.stopService()

    def test_expiry(self) -> None:
        """There is a warning each day from 14 days on."""
        self.served = [
            Served("/late.pem", (), NOW + timedelta(days=20)),
            Served("/soon.pem", (), NOW + timedelta(days=13)),
            Served("/past.pem", (), NOW - timedelta(days=1)),
        ]
        with capturedLogs() as events:
            self.watch.startService()
            self.clock.advance(INTERVAL)
            texts = [str(formatEvent(event)) for event in events]
            self.assertEqual(len(texts), 2)
            self.assertIn("/soon.pem: this certificate expires at 2026-12-08", texts[0])
            self.assertIn("/past.pem: this certificate has expired at 2026-11-24", texts[1])
            self.now += timedelta(days=1, seconds=1)
            self.clock.advance(INTERVAL)
        self.assertEqual(len(events), 4)
        self.watch.stopService()

    def test_blame(self) -> None:
        """An error names the option."""
        for option, settings in (
            ("certificate", Settings(certificate=("/none",))),
            ("certificate-dir", replace(self.settings, certificate_dir="/none")),
            ("client-ca", replace(self.settings, client_ca="/none")),
        ):
            error = self.assertRaises(ValueError, load, settings)
            self.assertTrue(str(error).startswith(f"--{option}: /none"), error)
        self.assertIsNone(load(Settings()))
