"""Tests of `popd.demo`."""

from __future__ import annotations

import os
import shlex
import stat
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.passwd import PasswordFile
from popd.config import ConfigError, settle
from popd.demo import Guide, layer, prepare
from popd.listen import Listener, Purpose
from popd.maildrop.template import MaildirStore
from popd.maildrop.user import UserName
from popd.server.tls import load_context

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class PrepareTests(SynchronousTestCase):
    """The directory is complete, and stays as it is."""

    def setUp(self) -> None:
        """Have a directory to be."""
        self.directory = Path(self.mktemp()).absolute()

    def messages(self) -> list[bytes]:
        """Return what was delivered."""
        return [
            path.read_bytes() for path in sorted(self.directory.glob("mail/demo/new/*.popd-demo"))
        ]

    def test_complete(self) -> None:
        """Every part of popd accepts its part of the demo."""
        password = prepare(self.directory)
        settings = settle(layer(self.directory))
        load_context(settings.certificate)
        file = PasswordFile(settings.auth[0].removeprefix("popd-passwd:"))
        self.assertTrue(file.verify("demo", password.encode()))
        maildrop = MaildirStore.from_template(settings.maildrop).maildrop(UserName("demo"))
        self.addCleanup(maildrop.release)
        self.assertEqual(len(maildrop.open()), 4)

    def test_private(self) -> None:
        """Nobody else may look, neither at the key nor at the password nor at the mail."""
        prepare(self.directory)
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        for name in ("server.pem", "passwd"):
            self.assertEqual(stat.S_IMODE((self.directory / name).stat().st_mode), 0o600)

    def test_again(self) -> None:
        """The next start changes nothing, whatever became of the mail."""
        password = prepare(self.directory)
        for path in self.directory.glob("mail/demo/new/*"):
            path.unlink()
        certificate = (self.directory / "server.pem").read_bytes()
        self.assertEqual(prepare(self.directory), password)
        self.assertEqual((self.directory / "server.pem").read_bytes(), certificate)
        self.assertEqual(self.messages(), [])

    def test_passwords_differ(self) -> None:
        """Every demo has a password of its own, fit for a command line."""
        self.directory.mkdir()
        passwords = {prepare(self.directory / str(number)) for number in range(3)}
        self.assertEqual(len(passwords), 3)
        for password in passwords:
            self.assertRegex(password, r"\A[A-Za-z0-9_-]{16}\Z")

    def test_mends(self) -> None:
        """What was removed is made anew, and nothing else."""
        password = prepare(self.directory)
        (self.directory / "server.pem").unlink()
        (self.directory / "mail" / "demo" / "tmp").rmdir()
        self.assertEqual(prepare(self.directory), password)
        self.assertTrue((self.directory / "server.pem").exists())
        self.assertTrue((self.directory / "mail" / "demo" / "tmp").exists())
        self.assertEqual(len(self.messages()), 4)

    def test_messages(self) -> None:
        """There are dots where they hurt, an attachment, 8-bit text, both kinds of line ends."""
        prepare(self.directory, NOW)
        messages = self.messages()
        self.assertTrue(any(b"\r\n\r\n." in message for message in messages))
        self.assertTrue(any(b"\r\n.\r\n" in message for message in messages))
        self.assertTrue(any(b"\r\n" not in message for message in messages))
        self.assertTrue(any(not message.isascii() for message in messages))
        parsed = [message_from_bytes(message) for message in messages]
        self.assertEqual(
            [part.get_filename() for mail in parsed for part in mail.walk() if part.get_filename()],
            ["mail.csv"],
        )
        self.assertEqual([mail.defects for mail in parsed], [[]] * 4)

    def test_certificate(self) -> None:
        """The certificate is for this machine by all its names, from now on."""
        prepare(self.directory, NOW)
        pem = (self.directory / "server.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        self.assertEqual(
            names.get_values_for_type(x509.IPAddress), [ip_address("127.0.0.1"), ip_address("::1")]
        )
        self.assertLess(certificate.not_valid_before_utc, NOW)
        self.assertGreater(certificate.not_valid_after_utc, NOW + timedelta(days=300))

    def test_expired(self) -> None:
        """An expired certificate is renewed."""
        prepare(self.directory, NOW)
        old = (self.directory / "server.pem").read_bytes()
        prepare(self.directory, NOW + timedelta(days=365))
        self.assertNotEqual((self.directory / "server.pem").read_bytes(), old)

    def test_nothing_left_over(self) -> None:
        """Nothing but the demo is in its directory."""
        prepare(self.directory)
        self.assertEqual(
            {path.name for path in self.directory.iterdir()}, {"mail", "passwd", "server.pem"}
        )


class UnusableTests(SynchronousTestCase):
    """A directory that cannot be used is named."""

    def setUp(self) -> None:
        """Have a directory to be."""
        self.directory = Path(self.mktemp()).absolute()

    def refused(self) -> str:
        """Return why the directory cannot be used."""
        with self.assertRaises(ConfigError) as caught:
            prepare(self.directory)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertIn(str(self.directory), text)
        return text

    def test_file(self) -> None:
        """A file is no directory."""
        self.directory.touch()
        self.assertIn("File exists", self.refused())

    def test_link(self) -> None:
        """A link may lead into somebody's trap."""
        trap = Path(self.mktemp()).absolute()
        trap.mkdir()
        self.directory.symlink_to(trap)
        self.assertIn("not a directory of yours", self.refused())

    def test_somebody_elses(self) -> None:
        """Somebody else's directory may be a trap."""
        self.directory.mkdir()
        self.patch(os, "geteuid", lambda: self.directory.stat().st_uid + 1)
        self.assertIn("not a directory of yours", self.refused())

    def test_no_password(self) -> None:
        """A password file in which the password cannot be seen says how to get a new one."""
        self.directory.mkdir()
        (self.directory / "passwd").write_text("demo:{SSHA}xxx\n")
        self.assertIn("remove it", self.refused())

    def test_no_certificate(self) -> None:
        """A certificate that is none says how to get a new one."""
        self.directory.mkdir()
        (self.directory / "server.pem").write_text("-----BEGIN-----\n")
        self.assertIn("remove it", self.refused())


class GuideTests(SynchronousTestCase):
    """What the terminal shows."""

    def guide(self, *places: tuple[Purpose, IAddress | None]) -> str:
        """Return the guide for a popd that listens at *places*."""
        listeners = []
        for purpose, address in places:
            endpoint = TCP4ServerEndpoint(MemoryReactorClock(), 0)
            listener = Listener(endpoint, Factory(), purpose, "", lambda _: None)
            listener.address = address
            listeners.append(listener)
        return Guide(Path("popd-demo"), ("popd-demo/server.pem",), "pass-word", listeners).text()

    def command(self, *places: tuple[Purpose, IAddress | None]) -> list[str]:
        """Return the one command in the guide, without what it always has."""
        text = self.guide(*places)
        (line,) = [line for line in text.splitlines() if line.startswith("curl")]
        words = shlex.split(line)
        at = words.index("--cacert")
        self.assertEqual(words[at + 1], str(Path("popd-demo/server.pem").absolute()))
        self.assertEqual(words[at + 2 : at + 4], ["--user", "demo:pass-word"])
        return [words[0], *words[3:at], *words[at + 4 :]]

    def test_tls(self) -> None:
        """The command uses implicit TLS where there is some."""
        self.assertEqual(
            self.command(
                (Purpose.STLS, IPv4Address("TCP", "127.0.0.1", 1110)),
                (Purpose.IMPLICIT_TLS, IPv4Address("TCP", "127.0.0.1", 1995)),
            ),
            ["curl", "pop3s://127.0.0.1:1995/"],
        )

    def test_stls(self) -> None:
        """Otherwise the command insists on STLS."""
        self.assertEqual(
            self.command((Purpose.STLS, IPv6Address("TCP", "::1", 1110))),
            ["curl", "--ssl-reqd", "pop3://[::1]:1110/"],
        )

    def test_wildcard(self) -> None:
        """Where popd listens everywhere the command uses a name from the certificate."""
        self.assertEqual(
            self.command((Purpose.IMPLICIT_TLS, IPv6Address("TCP", "::", 1995))),
            ["curl", "pop3s://localhost:1995/"],
        )

    def test_no_tcp(self) -> None:
        """Without TCP there is nothing for curl."""
        text = self.guide((Purpose.IMPLICIT_TLS, UNIXAddress("/x")), (Purpose.STLS, None))
        self.assertNotIn("curl", text)
        self.assertIn("/x, implicit TLS", text)

    def test_all_there(self) -> None:
        """The guide names the user, the password and where popd listens."""
        text = self.guide((Purpose.STLS, IPv4Address("TCP", "127.0.0.1", 1110)))
        self.assertIn("user demo, password pass-word\n", text)
        self.assertIn("127.0.0.1:1110, cleartext with STLS\n", text)
        self.assertIn(str(Path("popd-demo").absolute()), text)
