"""Tests of certificates that change."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd import certificates
from popd.certificates import AGAIN, INTERVAL, CertificateWatch, load, state
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
        self.known = state(self.settings)
        self.busy = self.broken = False
        self.renewed: list[ServerTLS] = []
        self.served: list[Served] = []
        self.now = NOW
        self.clock = Clock()
        self.watch = CertificateWatch(
            self.clock,
            lambda: self.settings,
            lambda: self.known,
            lambda: self.served,
            self.take,
            lambda: self.now,
        )

    def take(self, tls: ServerTLS, files: object) -> bool:
        """Take over what is new, unless something else is under way, or that does not work."""
        if self.busy:
            return False
        self.renewed.append(tls)
        if not self.broken:
            self.known = files
        return True

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
        self.known = state(self.settings)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.renewed, [])
        self.watch.stopService()

    def test_busy(self) -> None:
        """A renewal is not lost because something else is under way."""
        self.busy = True
        self.watch.startService()
        self.renew()
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.renewed, [])
        self.busy = False
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(len(self.renewed), 1)
        self.watch.stopService()

    def test_tried_again(self) -> None:
        """Nor is it because it did not work: it is tried again after a while."""
        self.broken = True
        self.watch.startService()
        self.renew()
        self.clock.pump([INTERVAL] * 6)
        self.assertEqual(len(self.renewed), 1)
        self.broken = False
        self.clock.pump([INTERVAL] * round(AGAIN / INTERVAL))
        self.assertEqual(len(self.renewed), 2)
        self.clock.advance(10 * AGAIN)
        self.assertEqual(len(self.renewed), 2)
        self.watch.stopService()

    def test_written_meanwhile(self) -> None:
        """What is written while the files are read is not taken for what was read."""
        self.watch.startService()
        self.renew()

        def slowly(*arguments: Any) -> ServerTLS | None:
            tls = load(*arguments)
            if not self.renewed:
                self.renew()
            return tls

        self.patch(certificates, "load", slowly)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.renewed), 1)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.renewed), 2)
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


class DirectoryTests(SynchronousTestCase):
    """``--certificate-dir`` while its pairs are renewed, in whatever order their files come."""

    def setUp(self) -> None:
        """Have a default, a wildcard, and a pair for one name."""
        self.root = Path(self.mktemp())
        self.names = self.root / "names"
        self.pair = self.names / "mail.example.org"
        self.pair.mkdir(parents=True)
        default = AUTHORITY.issue_cert("default.example.org")
        (self.root / "c.pem").write_bytes(default.private_key_and_cert_chain_pem.bytes())
        wild = AUTHORITY.issue_cert("*.example.org")
        (self.names / "a-wild.pem").write_bytes(wild.private_key_and_cert_chain_pem.bytes())
        self.leaf = self.issue()
        self.write("fullchain.pem")
        self.write("privkey.pem")
        self.settings = Settings(
            certificate=(str(self.root / "c.pem"),), certificate_dir=str(self.names)
        )
        self.tls = self.loaded()
        self.known = state(self.settings)
        self.clock = Clock()
        self.watch = CertificateWatch(
            self.clock,
            lambda: self.settings,
            lambda: self.known,
            lambda: self.tls.served,
            self.take,
            lambda: NOW,
        )
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    @staticmethod
    def issue() -> trustme.LeafCert:
        """Return a new certificate."""
        return AUTHORITY.issue_cert("mail.example.org")

    def write(self, name: str) -> None:
        """Write one of the pair's files."""
        leaf = self.leaf
        pem = leaf.private_key_pem if name == "privkey.pem" else leaf.cert_chain_pems[0]
        fresh = self.root / "fresh"
        fresh.write_bytes(pem.bytes())
        fresh.replace(self.pair / name)

    def loaded(self) -> ServerTLS:
        """Return what is there."""
        tls = load(self.settings)
        assert tls is not None
        return tls

    def take(self, tls: ServerTLS, files: object) -> bool:
        """Take it over."""
        self.tls, self.known = tls, files
        return True

    def shown(self, name: str) -> int:
        """Return the serial number of the certificate that a client is shown."""
        server, client = (
            SSL.Connection(self.tls.context),
            SSL.Connection(SSL.Context(SSL.TLS_METHOD)),
        )
        server.set_accept_state()
        client.set_connect_state()
        client.set_tlsext_host_name(name.encode())
        for _ in range(4):
            for this, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    this.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(this.bio_read(1 << 20))
        certificate = client.get_peer_certificate()
        assert certificate is not None
        return certificate.get_serial_number()

    def serial(self) -> int:
        """Return that of the newest certificate for the name."""
        pem = self.leaf.cert_chain_pems[0].bytes()
        return x509.load_pem_x509_certificate(pem).serial_number

    def test_half_written(self) -> None:
        """A certificate is not taken before its key is there, nor the other way round."""
        for first, second in (
            ("fullchain.pem", "privkey.pem"),
            ("privkey.pem", "fullchain.pem"),
        ):
            with self.subTest(first):
                old = self.serial()
                self.leaf = self.issue()
                with capturedLogs() as events:
                    self.write(first)
                    self.clock.pump([INTERVAL] * 3)
                self.assertEqual(len(events), 1)
                self.assertIn("does not belong", str(formatEvent(events[0])))
                self.assertEqual(self.shown("mail.example.org"), old)
                self.write(second)
                self.clock.advance(INTERVAL)
                self.assertEqual(self.shown("mail.example.org"), self.serial())

    def test_half_gone(self) -> None:
        """A pair that lacks a half for a moment is not taken for removed, one that is gone is."""
        for name in ("fullchain.pem", "privkey.pem"):
            with self.subTest(name):
                (self.pair / name).unlink()
                with capturedLogs() as events:
                    self.clock.pump([INTERVAL] * 3)
                (event,) = events
                self.assertIn(f"{self.pair / name}: this file is missing", str(formatEvent(event)))
                self.assertEqual(self.shown("mail.example.org"), self.serial())
                self.write(name)
                self.clock.advance(INTERVAL)
                self.assertEqual(self.shown("mail.example.org"), self.serial())
        for name in ("fullchain.pem", "privkey.pem"):
            (self.pair / name).unlink()
        self.clock.advance(INTERVAL)
        self.assertNotEqual(self.shown("mail.example.org"), self.serial())

    def test_exact_name(self) -> None:
        """An exact name wins over a wildcard, whichever file comes first, the default's too."""
        wild = self.shown("other.example.org")
        self.assertEqual(self.shown("mail.example.org"), self.serial())
        (self.names / "a-wild.pem").rename(self.names / "z-wild.pem")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.shown("mail.example.org"), self.serial())
        self.assertEqual(self.shown("other.example.org"), wild)
        self.assertNotEqual(self.shown("default.example.org"), wild)
        self.assertEqual(self.shown("default.example.org"), self.shown("elsewhere.example.net"))
