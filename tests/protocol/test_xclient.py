"""Tests of XCLIENT: `popd.protocol.xclient`, and its part in a session."""

from __future__ import annotations

from popd.protocol.channel import Channel
from popd.protocol.offer import Offer
from popd.protocol.proxy import Introduction
from popd.protocol.session import Session
from tests.protocol.helpers import LOGIN, PROTECTED, ConversationCase, World

PROXY = Channel(tls=True, xclient=True)
UNKNOWN = b"S: -ERR unknown command, or not in this state"


class ProxyTests(ConversationCase):
    """What connects is trusted."""

    def test_dovecot(self) -> None:
        """Dovecot's proxy says who its client is, and goes on before it hears anything."""
        world = self.converse(
            b"C: XCLIENT ADDR=192.0.2.7 PORT=4321 SESSION=AbC+/1 TTL=4 FORWARD=Zm9v",
            b"S: +OK updated",
            *LOGIN,
            channel=PROXY,
        )
        self.assertEqual(world.introduced, [Introduction("192.0.2.7", 4321)])

    def test_transport(self) -> None:
        """It may say whether its client speaks TLS."""
        for word, tls in ((b"TLS", True), (b"tls", True), (b"insecure", False)):
            world = self.converse(
                b"C: xclient  addr=2001:DB8::7  client-transport=" + word,
                b"S: +OK updated",
                channel=PROXY,
            )
            self.assertEqual(world.introduced, [Introduction("2001:db8::7", 0, tls=tls)])

    def test_nonsense(self) -> None:
        """What makes no sense is refused, and changes nothing."""
        for arguments, reply in (
            (b"", b"the client's address is needed"),
            (b"PORT=12", b"the client's address is needed"),
            (b"ADDR=", b"that is no address"),
            (b"ADDR=192.0.2.256", b"that is no address"),
            (b"ADDR=fe80::1%eth0", b"that is no address"),
            (b"ADDR=\xff", b"that is no address"),
            (b"ADDR=192.0.2.7 PORT=65536", b"that is no port"),
            (b"ADDR=192.0.2.7 PORT=000001", b"that is no port"),
            (b"ADDR=192.0.2.7 PORT=x", b"that is no port"),
        ):
            world = self.converse(
                b"C: XCLIENT " + arguments,
                b"S: -ERR " + reply,
                channel=PROXY,
            )
            self.assertEqual(world.introduced, [])

    def test_once(self) -> None:
        """Who was introduced is, and introduces nobody else."""
        self.converse(
            b"C: XCLIENT ADDR=192.0.2.7",
            b"S: +OK updated",
            b"C: XCLIENT ADDR=192.0.2.8",
            UNKNOWN,
            channel=PROXY,
        )

    def test_not_after_credentials(self) -> None:
        """Whoever has begun to log in speaks for himself; so does whoever is logged in."""
        for begin, reply in (
            (b"C: USER joe", b"S: +OK send PASS"),
            (b"C: AUTH PLAIN AGpvZQB4", b"S: -ERR [AUTH] wrong user name or password"),
        ):
            world = self.converse(
                begin,
                reply,
                b"C: XCLIENT ADDR=192.0.2.7",
                UNKNOWN,
                *LOGIN,
                b"C: XCLIENT ADDR=192.0.2.7",
                UNKNOWN,
                channel=PROXY,
            )
            self.assertEqual(world.introduced, [])

    def test_stls(self) -> None:
        """Dovecot's proxy starts TLS first, if it is to."""
        world = World(channel=Channel(stls=True, xclient=True))
        world.say([b"STLS\r\n", b"XCLIENT ADDR=192.0.2.7\r\n"])
        self.assertTrue(world.output.endswith(b"+OK begin TLS\r\n+OK updated\r\n"))

    def test_greeting(self) -> None:
        """The greeting makes the offer, also where it holds a challenge, and under TLS too."""
        self.assertEqual(Session(PROXY).greeting, b"+OK [XCLIENT] POP3 server ready\r\n")
        offer = Offer.of(["APOP"], lambda: b"1@x")
        channel = Channel(tls=True, xclient=True, offer=offer)
        self.assertEqual(Session(channel).greeting, b"+OK [XCLIENT] POP3 server ready <1@x>\r\n")
        self.assertEqual(Session(PROTECTED).greeting, b"+OK POP3 server ready\r\n")


class OtherTests(ConversationCase):
    """What connects is not trusted."""

    def test_unknown(self) -> None:
        """There is no such command, and nobody is believed."""
        world = self.converse(
            b"C: XCLIENT ADDR=192.0.2.7",
            UNKNOWN,
            b"C: PROXY TCP4 192.0.2.7 192.0.2.8 1 2",
            UNKNOWN,
        )
        self.assertEqual(world.introduced, [])
