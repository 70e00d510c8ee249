"""Tests of `popd.server.insider`, and of how a server treats the insider."""

from __future__ import annotations

import os

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.credentials import Attempt, BearerToken
from popd.maildrop.interfaces import IPromptMaildrop
from popd.maildrop.user import UserName
from popd.protocol.offer import Offer
from popd.server.insider import NAME, Insider
from tests.server.helpers import LOGGED_IN, ServerCase, Wire


class InsiderTests(SynchronousTestCase):
    """Who it is, and who is not."""

    def test_name(self) -> None:
        """No user can have its name, in any spelling."""
        self.assertIsNone(UserName.parse(NAME))
        self.assertIsNone(UserName.parse(NAME, "example.org"))

    def test_secret(self) -> None:
        """Its password has 256 bits, and is never the same."""
        first, second = Insider(), Insider()
        self.assertEqual(len(bytes.fromhex(first.password.decode())), 32)
        self.assertNotEqual(first.password, second.password)

    def test_credentials(self) -> None:
        """Name and password open an empty maildrop, and nothing else does."""
        insider = Insider()
        maildrop = insider.maildrop(Attempt(NAME, insider.password))
        verifyObject(IPromptMaildrop, maildrop)
        snapshot = maildrop.open_promptly()
        assert snapshot is not None
        self.assertEqual(len(snapshot.sizes), 0)
        self.assertIsNone(maildrop.read_promptly(0, 1))
        self.assertTrue(maildrop.release_promptly())
        for wrong in (
            Attempt(NAME, b""),
            Attempt(NAME, insider.password + b"0"),
            Attempt(b"ada", insider.password),
            BearerToken(NAME, insider.password),
        ):
            with self.assertRaises(UnauthorizedLogin):
                insider.maildrop(wrong)

    def test_place(self) -> None:
        """It is known by where it comes from, and by nothing like it."""
        insider = Insider()
        for place, others in (
            (
                IPv4Address("TCP", "127.0.0.1", 50000),
                [
                    IPv4Address("TCP", "127.0.0.1", 5000),
                    IPv4Address("TCP", "127.0.0.1", 50001),
                    IPv4Address("TCP", "127.0.0.2", 50000),
                ],
            ),
            (IPv6Address("TCP", "::1", 50000), [IPv6Address("TCP", "::", 50000)]),
            (UNIXAddress(b"\0abcde"), [UNIXAddress(b"\0abcdf"), UNIXAddress(None)]),
        ):
            self.assertFalse(insider.is_at(place))
            insider.announce(place)
            self.assertTrue(insider.is_at(place))
            for other in others:
                self.assertFalse(insider.is_at(other), f"{other} for {place}")
            insider.announce(None)
            self.assertFalse(insider.is_at(place))

    def test_scope(self) -> None:
        """A link-local address is written with its interface or without."""
        insider = Insider()
        insider.announce(IPv6Address("TCP", "fe80::1", 50000))
        self.assertTrue(insider.is_at(IPv6Address("TCP", "fe80::1%eth0", 50000)))

    def test_nameless(self) -> None:
        """A UNIX client without a name, as almost all are, is never it."""
        insider = Insider()
        insider.announce(UNIXAddress(None))
        self.assertFalse(insider.is_at(UNIXAddress(None)))

    def test_shared(self) -> None:
        """Where it comes from is known to processes that were forked before."""
        insider = Insider()
        place = IPv4Address("TCP", "127.0.0.1", 50000)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.read(ours, 1)
            finally:
                os._exit(7 if insider.is_at(place) else 1)
        insider.announce(place)
        os.write(theirs, b"x")
        _, status = os.waitpid(pid, 0)
        os.close(ours)
        os.close(theirs)
        self.assertEqual(os.waitstatus_to_exitcode(status), 7)


class ServedTests(ServerCase):
    """The insider as a client."""

    cleartext_login = "never"

    def setUp(self) -> None:
        """Have a server that lets nobody in by USER and PASS, nor without TLS."""
        super().setUp()
        self.factory.offer = Offer.of({"PLAIN"})
        self.offload.hold = True  # no thread does anything

    def login(self, password: bytes) -> bytes:
        """Return what a log-in as the insider is answered with."""
        self.protocol, self.wire = self.connect()
        self.protocol.dataReceived(b"USER %s\r\nPASS %s\r\n" % (NAME, password))
        return bytes(self.wire.value())

    def announce(self) -> None:
        """Say that the insider comes from where all clients here come from."""
        self.factory.insider.announce(Wire().getPeer())

    def test_all(self) -> None:
        """It logs in and out, whatever is offered to others and however busy the threads are."""
        self.announce()
        self.assertEqual(self.login(self.factory.insider.password), LOGGED_IN)
        self.wire.clear()
        self.protocol.dataReceived(b"STAT\r\nQUIT\r\n")
        self.assertTrue(self.wire.value().startswith(b"+OK 0 0\r\n+OK"), self.wire.value())
        self.assertTrue(self.wire.disconnecting)

    def test_unseen(self) -> None:
        """It is not logged, not counted, and not among the sessions."""
        self.announce()
        with capturedLogs() as events:
            self.login(self.factory.insider.password)
            self.assertEqual(len(self.factory.visits), 0)
            self.protocol.dataReceived(b"QUIT\r\n")
            self.lose(self.protocol)
        self.assertEqual((list(events), list(self.factory.journal.recent)), ([], []))
        self.assertTrue(self.protocol.visit.insider)

    def test_elsewhere(self) -> None:
        """Who comes from elsewhere and knows the secret is nobody."""
        self.factory.insider.announce(Wire("192.0.2.77").getPeer())
        self.assertIn(b"-ERR", self.login(self.factory.insider.password))
        self.assertEqual(len(self.factory.visits), 1)
        self.assertFalse(self.protocol.visit.insider)
        self.factory.offer, self.factory._cleartext_login = Offer.of({"USER"}), "always"
        self.offload.hold = False
        self.assertIn(b"-ERR [AUTH]", self.login(self.factory.insider.password))

    def test_without_secret(self) -> None:
        """Who comes from there and does not know it is refused."""
        self.announce()
        self.assertIn(b"-ERR [AUTH]", self.login(b"guess"))

    def test_users(self) -> None:
        """Nor is any other user let in from there."""
        self.announce()
        protocol, wire = self.connect()
        protocol.dataReceived(b"USER joe\r\nPASS secret\r\n")
        self.assertIn(b"-ERR [AUTH]", wire.value())
