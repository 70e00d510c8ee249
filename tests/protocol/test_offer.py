"""Tests of `popd.protocol.offer` and of what is offered on a channel."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.credentials import CertificateCredentials
from popd.protocol.events import Authenticate, Reply
from popd.protocol.offer import STANDARD, WAYS, Offer
from popd.protocol.sasl.mechanisms import MECHANISMS
from popd.protocol.session import Session
from tests.protocol.helpers import ConversationCase

UNKNOWN = b"S: -ERR unknown command, or not in this state"
UNKNOWN_MECHANISM = b"S: -ERR unknown authentication mechanism"
ALL = Offer.of(WAYS, unique=lambda: b"1@x")


def offered(channel: Channel) -> list[bytes]:
    """Return what CAPA says of log-in."""
    lines = channel.capabilities().split(b"\r\n")
    return [line for line in lines if line == b"USER" or line.startswith(b"SASL")]


class OfferTests(SynchronousTestCase):
    """What a server has to offer."""

    def test_standard(self) -> None:
        """What any checker of passwords can serve is the standard."""
        self.assertEqual(Offer.of(["USER", "LOGIN", "PLAIN"]), STANDARD)

    def test_order(self) -> None:
        """However mechanisms are named, they are offered strongest first."""
        offer = Offer.of(["PLAIN", "SCRAM-SHA-256", "APOP", "SCRAM-SHA-256-PLUS"])
        self.assertEqual(offer.sasl, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"))
        self.assertEqual((offer.user, offer.apop), (False, True))

    def test_unknown(self) -> None:
        """A mechanism that does not exist is named."""
        error = self.assertRaises(ValueError, Offer.of, ["PLAIN", "plain", "NTLM"])
        self.assertEqual(str(error), "unknown authentication mechanism: NTLM, plain")

    def test_needs_unique(self) -> None:
        """Without unique octets no exchange that needs them begins."""
        session = Session(Channel(tls=True, offer=Offer(("SCRAM-SHA-256",))))
        session.feed(b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\r\n")
        self.assertRaises(RuntimeError, session.next_event)


class ChannelTests(ConversationCase):
    """What is offered where."""

    def announced(self, channel: Channel) -> None:
        """Make sure that CAPA and AUTH announce the same, and that just that can be done."""
        names = list(channel.mechanisms)
        sasl = [line for line in offered(channel) if line.startswith(b"SASL")]
        self.assertEqual(sasl, [b"SASL " + b" ".join(names)] if names else [])
        self.converse(
            *(b"C: AUTH", b"S: +OK", *(b"S: " + name for name in names), b"S: ."),
            channel=channel,
        )
        for name in MECHANISMS:
            session = Session(channel)
            session.feed(b"AUTH %b\r\n" % name.encode("ascii"))
            event = session.next_event()
            assert isinstance(event, Reply)
            self.assertEqual(event.data.startswith(b"+ "), name.encode("ascii") in names, name)

    def test_channels(self) -> None:
        """-PLUS needs a channel that can be bound to, EXTERNAL a certificate, all need TLS."""
        protected = Channel(tls=True, offer=ALL)
        bound = replace(protected, bindings=lambda _: None)
        certified = replace(bound, certificate=True)
        every = [name.encode("ascii") for name in ALL.sasl]
        self.assertEqual(list(certified.mechanisms), every)
        self.assertEqual(list(bound.mechanisms), every[1:])
        self.assertEqual(list(protected.mechanisms), every[2:])
        self.assertEqual(every[:2], [b"EXTERNAL", b"SCRAM-SHA-256-PLUS"])
        self.assertEqual(list(Channel(stls=True, offer=ALL).mechanisms), [])
        for channel in (
            *(
                protected,
                bound,
                certified,
                Channel(offer=ALL),
                Channel(offer=ALL, cleartext_login=True),
            ),
            *(Channel(tls=True), Channel(tls=True, offer=Offer(()))),
        ):
            self.announced(channel)

    def test_not_on_offer(self) -> None:
        """What is not on offer is as unknown as what does not exist."""
        channel = Channel(tls=True, offer=Offer.of(["PLAIN"]))
        self.assertEqual(offered(channel), [b"SASL PLAIN"])
        self.converse(
            *(b"C: AUTH LOGIN", UNKNOWN_MECHANISM, b"C: AUTH LOGIN am9l", UNKNOWN_MECHANISM),
            *(b"C: AUTH NTLM", UNKNOWN_MECHANISM, b"C: USER joe", UNKNOWN, b"C: PASS x", UNKNOWN),
            channel=channel,
        )

    def test_user_only(self) -> None:
        """Without a mechanism there is no SASL capability."""
        channel = Channel(tls=True, offer=Offer.of(["USER"]))
        self.assertEqual(offered(channel), [b"USER"])

    def test_certified(self) -> None:
        """EXTERNAL is offered once the client's certificate was verified."""
        session = Session(Channel(tls=True, offer=ALL))
        for commands, offered_now in ((b"CAPA\r\nAUTH EXTERNAL =\r\n", False), (b"CAPA\r\n", True)):
            session.feed(commands)
            replies = []
            while isinstance(event := session.next_event(), Reply):
                replies.append(event.data)
            self.assertEqual(b" EXTERNAL " in replies[0], offered_now)
            session.certified()
        session.feed(b"AUTH EXTERNAL =\r\n")
        self.assertEqual(session.next_event(), Authenticate(CertificateCredentials(b"")))

    def test_stls(self) -> None:
        """What TLS changes is offered after STLS."""
        session = Session(Channel(stls=True, offer=ALL))
        session.feed(b"STLS\r\n")
        session.next_event()
        session.tls_started(lambda _: None)
        session.feed(b"AUTH\r\n")
        event = session.next_event()
        assert isinstance(event, Reply)
        self.assertIn(b"\r\nSCRAM-SHA-256-PLUS\r\n", event.data)
