"""Tests of CRAM-MD5, APOP and EXTERNAL: those that most servers have switched off."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from popd.protocol.channel import Channel
from popd.protocol.credentials import CertificateCredentials, DigestCredentials
from popd.protocol.offer import Offer
from popd.protocol.sasl.digests import CramMD5
from popd.protocol.sasl.exchange import Done, Failed
from popd.protocol.sasl.external import External
from popd.protocol.session import GREETING, Session
from tests.protocol.helpers import ConversationCase

LET_IN = b"S: +OK maildrop locked and ready"
DENIED = b"S: -ERR [AUTH] wrong user name or password"
MALFORMED = b"S: -ERR [AUTH] malformed credentials"
UNKNOWN = b"S: -ERR unknown command, or not in this state"
NEEDS_TLS = b"S: -ERR [AUTH] log-in needs TLS: send STLS first"


def channel(name: str, unique: bytes) -> Channel:
    """Return a channel on which only this is offered."""
    return Channel(tls=True, stls=True, offer=Offer.of([name], lambda: unique))


class CramMD5Tests(ConversationCase):
    """CRAM-MD5 (RFC 2195)."""

    channel = channel("CRAM-MD5", b"1896.697170952@postoffice.reston.mci.net")
    challenge = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
    response = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"

    def test_example(self) -> None:
        """The example of RFC 2195 section 2."""
        world = self.converse(
            *(b"C: AUTH CRAM-MD5", b"S: + " + self.challenge, b"C: " + self.response, LET_IN),
            channel=self.channel,
        )
        expected = DigestCredentials(
            b"tim",
            b"<1896.697170952@postoffice.reston.mci.net>",
            b"b913a602c7eda7a495b4e6e7334d3890",
            "CRAM-MD5",
        )
        self.assertEqual(world.credentials, [expected])

    def test_refused(self) -> None:
        """A wrong digest, one that is none, and one without a name are refused."""
        for said, answer in (
            (b"tim " + b"0" * 32, DENIED),
            (b"tim " + b"B913A602C7EDA7A495B4E6E7334D3890", MALFORMED),
            *((said, MALFORMED) for said in (b"", b"tim", b"tim ", b"tim " + b"0" * 31)),
            *((said, MALFORMED) for said in (b" " + b"0" * 32, b"0" * 32, b"tim " + b"0" * 33)),
        ):
            self.converse(
                *(b"C: AUTH CRAM-MD5", b"S: + " + self.challenge, b"C: " + b64encode(said), answer),
                channel=self.channel,
            )

    def test_initial_response(self) -> None:
        """The server speaks first: an initial response, even an empty one, is refused."""
        for initial in (b"=", self.response):
            self.converse(b"C: AUTH CRAM-MD5 " + initial, MALFORMED, channel=self.channel)

    @given(st.binary(), st.binary())
    def test_arbitrary(self, name: bytes, digest: bytes) -> None:
        """Arbitrary octets fail, but for a name before 32 hexadecimal digits."""
        for response in (name, name + b" " + digest, name + b" " + digest.hex().encode()):
            exchange = CramMD5(self.channel.offer)
            exchange.step(None)
            match exchange.step(response):
                case Done(DigestCredentials(username, _, text, "CRAM-MD5")):
                    self.assertEqual(username + b" " + text, response)
                    self.assertEqual(len(text), 32)
                case outcome:
                    self.assertEqual(outcome, Failed())


class ApopTests(ConversationCase):
    """APOP (RFC 1939 section 7)."""

    channel = channel("APOP", b"1896.697170952@dbc.mtview.ca.us")
    digest = b"c4c9334bac560ecc979e58001b3e22fb"

    def test_example(self) -> None:
        """The example of RFC 1939 section 7."""
        challenge = b"<1896.697170952@dbc.mtview.ca.us>"
        self.assertTrue(Session(self.channel).greeting.endswith(b" " + challenge + b"\r\n"))
        for command in (b"APOP mrose ", b"apop mrose "):
            for behind in (b"", b" "):
                world = self.converse(
                    *(b"C: " + command + self.digest + behind, LET_IN), channel=self.channel
                )
                expected = DigestCredentials(b"mrose", challenge, self.digest, "APOP")
                self.assertEqual(world.credentials, [expected])

    def test_refused(self) -> None:
        """A wrong digest is denied, one that is none is an error; a second try is possible."""
        bad = b"S: -ERR a user name and a digest are needed"
        self.converse(
            *(b"C: APOP mrose " + b"0" * 32, DENIED, b"C: APOP mrose " + b"x" * 32, bad),
            *(b"C: APOP", bad, b"C: APOP mrose", bad, b"C: APOP " + self.digest, bad),
            *(b"C: APOP mrose " + self.digest, LET_IN),
            channel=self.channel,
        )

    def test_unique(self) -> None:
        """No two greetings are alike."""
        numbers = iter((b"1@x", b"2@x"))
        offer = replace(self.channel.offer, unique=lambda: next(numbers))
        greetings = {Session(replace(self.channel, offer=offer)).greeting for _ in range(2)}
        self.assertEqual(len(greetings), 2)

    def test_off(self) -> None:
        """Where APOP is off there is neither a timestamp nor the command."""
        self.assertEqual(Session(Channel(tls=True)).greeting, GREETING)
        self.converse(b"C: APOP mrose " + self.digest, UNKNOWN)

    def test_without_tls(self) -> None:
        """Where log-in needs TLS a client is not invited, not even to come back with TLS."""
        plain = replace(self.channel, tls=False)
        self.assertEqual(Session(plain).greeting, GREETING)
        self.converse(b"C: APOP mrose " + self.digest, UNKNOWN, channel=plain)
        world = self.converse(b"C: CAPA", *self.capabilities(plain), channel=plain)
        world.say([b"STLS\r\n", b"APOP mrose " + self.digest + b"\r\n"])
        self.assertTrue(world.output.endswith(UNKNOWN[3:] + b"\r\n"))

    def test_after_stls(self) -> None:
        """Where log-in needs no TLS, the greeting's challenge is good under TLS as well."""
        world = self.converse(channel=replace(self.channel, tls=False, cleartext_login=True))
        world.say([b"STLS\r\n", b"APOP mrose " + self.digest + b"\r\n"])
        self.assertTrue(world.output.endswith(LET_IN[3:] + b"\r\n"))

    def capabilities(self, of: Channel) -> list[bytes]:
        """Return the lines of a CAPA reply."""
        return [b"S: " + line for line in of.capabilities().split(b"\r\n")[:-1]]


class ExternalTests(ConversationCase):
    """EXTERNAL (RFC 4422 appendix A)."""

    channel = replace(channel("EXTERNAL", b""), certificate=True)

    def test_forms(self) -> None:
        """The client names somebody or nobody, at once or when it is asked."""
        for said, authzid in (
            ((b"C: AUTH EXTERNAL =",), b""),
            ((b"C: AUTH EXTERNAL", b"S: + ", b"C: "), b""),
            ((b"C: AUTH EXTERNAL " + b64encode(b"joe"),), b"joe"),
            ((b"C: AUTH EXTERNAL", b"S: + ", b"C: " + b64encode(b"joe")), b"joe"),
        ):
            world = self.converse(*said, LET_IN, channel=self.channel)
            self.assertEqual(world.credentials, [CertificateCredentials(authzid)])

    def test_malformed(self) -> None:
        """A name is UTF-8 without NUL."""
        for response in (b"\xff", b"jo\0e", b"\0"):
            self.assertEqual(External().step(response), Failed())
