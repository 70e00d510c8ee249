"""Threats to a running server that no other test meets whole; ``docs/security.rst`` lists all."""

from __future__ import annotations

import base64
import time
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.credentials import Attempt, Digest
from popd.auth.schemes import parse
from popd.protocol.channel import Channel
from popd.protocol.credentials import DigestCredentials
from popd.protocol.offer import Offer
from popd.protocol.sasl.scram import Scram
from tests.e2e.server import PASSWORDS, Client, ServerCase
from tests.e2e.test_tls import ALERT, hello
from tests.protocol.scram import ScramClient, derive

TOO_LONG = b"-ERR line too long"
DENIED = b"-ERR [AUTH] wrong user name or password"
CHANNEL = Channel(tls=True, offer=Offer.of(["SCRAM-SHA-256"], lambda: b"1@x"))


class LongLineTests(ServerCase):
    """Lines that do not end, before log-in and after it."""

    options = ("--cleartext-login", "always")

    def long(self, client: Client) -> None:
        """Send lines that are too long, with commands at their ends."""
        for line in (b"x" * 100_000, b"AUTH PLAIN " + b"A" * 20_000, b"USER " + b"u" * 50_000):
            client.send(line + b" QUIT\r\nQUIT " + line + b"\r\n")
            self.assertEqual([client.line(), client.line()], [TOO_LONG] * 2)
        client.expect(b"CAPA")
        client.body()

    def test_before_and_after(self) -> None:
        """Each is one error, no part of it is carried out, and the session goes on."""
        client = self.client()
        self.long(client)
        client.log_in()
        self.long(client)
        client.expect(b"QUIT")


class SlowTests(ServerCase):
    """Clients that do nothing, or little, for as long as they can."""

    options = ("--login-timeout", "1")

    def test_handshake(self) -> None:
        """Half a handshake is given up when log-in is, on both ports."""
        half = hello(self.site.client_context())[:100]
        clients = []
        for stls in (False, True):
            client = self.client() if stls else self.raw_client()
            if stls:
                client.expect(b"STLS")
            client.send(half)
            clients.append(client)
        begun = time.monotonic()
        for client in clients:
            self.assertIn(client.rest()[:1], {b"", ALERT})
        self.assertLess(time.monotonic() - begun, 4)

    def test_trickle(self) -> None:
        """Commands, and octets of one, do not put the end off."""
        client, other = self.client(), self.client()
        begun = time.monotonic()
        with self.assertRaises((OSError, AssertionError)):
            while time.monotonic() - begun < 10:
                client.expect(b"CAPA")
                client.body()
                other.send(b"C")
                time.sleep(0.05)
        self.assertLess(time.monotonic() - begun, 6)
        self.assertEqual(other.rest(), b"")


class EnumerationTests(ServerCase):
    """Nobody learns from replies who has an account."""

    options = ("--cleartext-login", "local")

    def test_replies(self) -> None:
        """A wrong password gets the same reply whoever it is for, whatever state he is in."""
        with self.site.passwords.open("a", encoding="ascii") as file:
            file.write("off@example.org:{PLAIN}x::::::nologin\n")
        self.site.add_user("lost")
        (self.site.maildir("lost") / "new").rmdir()
        with self.logged_in("bob"):
            replies: dict[bytes, set[bytes]] = {}
            for name in (b"alice", b"nobody", b"off", b"lost", b"bob", b"\xe9\xff", b"../../x"):
                encoded = base64.b64encode(b"\0" + name + b"\0wrong")
                with Client(self.server.port, source="127.0.0.9") as client:
                    for command in (b"USER " + name, b"PASS wrong", b"AUTH PLAIN " + encoded):
                        reply = client.ask(command)
                        replies.setdefault(command.partition(b" ")[0], set()).add(reply)
        expected = {b"USER": {b"+OK send PASS"}, b"PASS": {DENIED}, b"AUTH": {DENIED}}
        self.assertEqual(replies, expected)

    def test_right_password(self) -> None:
        """Only who knows the password hears that the maildrop is in use."""
        with self.logged_in("bob"), self.client() as client:
            client.expect(b"USER bob")
            client.expect(b"PASS wrong", DENIED)
            client.expect(b"USER bob")
            client.expect(b"PASS " + PASSWORDS["bob"].encode(), b"-ERR [IN-USE]")


class ExchangeTests(ServerCase):
    """SASL exchanges that go wrong harm nobody else."""

    options = ("--cleartext-login", "always", "--max-sessions-per-ip", "0")

    def test_others(self) -> None:
        """While hundreds leave in the middle, or send nonsense, others log in."""
        bad = (b"!!!!", b"=", b"A", b"QUJD=QUJD", b"AAAA", b"A" * 9_000, b"*", b"\xff", b"")
        with Client(self.server.port, source="127.0.0.2") as honest:
            for number in range(200):
                with Client(self.server.port, source="127.0.0.3") as client:
                    client.expect(b"AUTH PLAIN", b"+ ")
                    if number % 4 == 0:
                        client.expect(bad[number // 4 % len(bad)], b"-ERR")
                if number % 10 == 0:
                    honest.expect(b"CAPA")
                    honest.body()
                    with Client(self.server.port, source="127.0.0.2") as client:
                        client.log_in("alice")
                        client.expect(b"QUIT")
        self.assertNotIn("Traceback", self.server.log)


class CompareTests(SynchronousTestCase):
    """What is secret is compared in a time that says nothing."""

    def test_passwords(self) -> None:
        """Passwords that are stored as they are, or as a digest."""
        with mock.patch("popd.auth.credentials.compare_digest", return_value=True) as compare:
            self.assertTrue(Attempt(b"joe", b"wrong").checkPassword(b"secret"))
        compare.assert_called_once_with(b"wrong", b"secret")
        for stored in ("{PLAIN}secret", "{SSHA}ZkqrFCwHTSmN9yPoelOOhKHfpGxhYmNk"):
            with mock.patch("popd.auth.schemes.compare_digest", return_value=True) as compare:
                self.assertTrue(parse(stored).verify(b"wrong"))
            compare.assert_called_once()

    def test_digests(self) -> None:
        """What clients computed of a challenge: CRAM-MD5, APOP."""
        for mechanism in ("CRAM-MD5", "APOP"):
            shown = DigestCredentials(b"joe", b"<1@x>", b"0" * 32, mechanism)
            with mock.patch("popd.auth.credentials.compare_digest", return_value=True) as compare:
                self.assertTrue(Digest(shown).checkPassword(b"secret"))
            compare.assert_called_once()

    def test_scram(self) -> None:
        """Proofs."""
        exchange, client = Scram("SCRAM-SHA-256", CHANNEL), ScramClient(b"wrong")
        exchange.step(client.first)
        challenge = exchange.found(derive(b"secret", b"salt", 1))
        with mock.patch("popd.protocol.sasl.scram.compare_digest", return_value=True) as compare:
            exchange.step(client.final(challenge.data))
        compare.assert_called_once()
