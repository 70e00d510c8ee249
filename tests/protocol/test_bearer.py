"""Tests of `popd.protocol.sasl.bearer`, and of the round in which a client is told why."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.credentials import TokenCredentials
from popd.protocol.events import Problem
from popd.protocol.offer import Offer
from popd.protocol.sasl.bearer import OAuthBearer, XOAuth2
from popd.protocol.sasl.exchange import Done, Failed
from tests.protocol.helpers import ConversationCase

CHANNEL = Channel(tls=True, offer=Offer.of(["OAUTHBEARER", "XOAUTH2", "USER"]))
LET_IN = b"S: +OK maildrop locked and ready"
DENIED = b"S: -ERR [AUTH] wrong user name or password"
LONG = b"good." + b"x" * 12_000
"""A token that fills a line of 16 KiB when it is in base64."""


def bearer(token: bytes, name: bytes = b"joe") -> bytes:
    """Return what an OAUTHBEARER client says (RFC 7628 section 4.1)."""
    header = b"n,a=" + name + b"," if name else b"n,,"
    return header + b"\x01host=x.example\x01port=995\x01auth=Bearer " + token + b"\x01\x01"


def xoauth2(token: bytes, name: bytes = b"joe") -> bytes:
    """Return what an XOAUTH2 client says."""
    return b"user=" + name + b"\x01auth=Bearer " + token + b"\x01\x01"


class ConversationTests(ConversationCase):
    """Whole exchanges."""

    def test_one_line_and_two(self) -> None:
        """A token may come with the command or by itself, and be long."""
        for name, message in ((b"OAUTHBEARER", bearer(LONG)), (b"XOAUTH2", xoauth2(LONG))):
            for begin in (
                (b"C: AUTH " + name + b" " + b64encode(message),),
                (b"C: AUTH " + name, b"S: + ", b"C: " + b64encode(message)),
            ):
                world = self.converse(*begin, LET_IN, channel=CHANNEL)
                expected = TokenCredentials(b"joe", LONG, name.decode("ascii"))
                self.assertEqual(world.credentials, [expected])

    def test_refused(self) -> None:
        """A client is told by a challenge; whatever it answers, the end is -ERR [AUTH], once."""
        for name, message, status in (
            (b"OAUTHBEARER", bearer(b"bad"), b'{"status":"invalid_token"}'),
            (b"XOAUTH2", xoauth2(b"bad"), b'{"status":"400","schemes":"Bearer"}'),
        ):
            begin = (b"C: AUTH " + name + b" " + b64encode(message), b"S: + " + b64encode(status))
            for answer in (b"AQ==", b"", b"=", b"*", b"\x01", b"QUIT"):
                world = self.converse(
                    *(*begin, b"C: " + answer, DENIED, b"C: USER joe", b"S: +OK send PASS"),
                    *(b"C: PASS secret", LET_IN),
                    channel=CHANNEL,
                )
                self.assertEqual(len(world.credentials), 2)

    def test_refused_often(self) -> None:
        """Each refused token counts as one error."""
        said = (
            *(b"C: AUTH XOAUTH2 " + b64encode(xoauth2(b"bad")),),
            *(b"S: + " + b64encode(b'{"status":"400","schemes":"Bearer"}'), b"C: ", DENIED),
        )
        self.assertIsNone(self.converse(*said * 9, channel=CHANNEL).closed)
        self.assertIsNotNone(self.converse(*said * 10, channel=CHANNEL).closed)

    def test_too_long_an_answer(self) -> None:
        """An over-long line is an answer as well."""
        self.converse(
            *(b"C: AUTH XOAUTH2 " + b64encode(xoauth2(b"bad")),),
            *(b"S: + " + b64encode(b'{"status":"400","schemes":"Bearer"}'),),
            *(b"C: " + b"x" * 20_000, b"S: -ERR line too long", b"C: QUIT", b"S: +OK bye"),
            channel=CHANNEL,
        )

    def test_problems(self) -> None:
        """A directory that is down is told at once, and leaves nothing behind."""
        for problem in (Problem.TEMPORARY, Problem.PERMANENT, Problem.IN_USE):
            failed = b"S: " + problem.value.removesuffix(b"\r\n")
            self.converse(
                *(b"C: AUTH XOAUTH2 " + b64encode(xoauth2(b"bad")), failed),
                *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS x", failed),
                channel=CHANNEL,
                login_problem=problem,
            )


class SyntaxTests(SynchronousTestCase):
    """What the messages look like."""

    def test_bearer(self) -> None:
        """OAUTHBEARER's pairs are taken in any order, and unknown ones are ignored."""
        for message, name in (
            (b"n,a=jo=2Ce@x.example,\x01auth=Bearer t0k/-._~+=\x01\x01", b"jo,e@x.example"),
            (b"n,,\x01auth=bearer  t0k/-._~+=\x01\x01", b""),
            (b"y,,\x01x=y=z\x01port=1\x01auth=BEARER t0k/-._~+=\x01host=\x01\x01", b""),
        ):
            done = Done(TokenCredentials(name, b"t0k/-._~+=", "OAUTHBEARER"), OAuthBearer.regret)
            self.assertEqual(OAuthBearer().step(message), done, message)

    def test_xoauth2(self) -> None:
        """XOAUTH2's user may be left empty; he is in UTF-8."""
        for name in (b"", b"joe@x.example", "jürgen".encode()):
            done = Done(TokenCredentials(name, b"tok", "XOAUTH2"), XOAuth2.regret)
            self.assertEqual(XOAuth2().step(xoauth2(b"tok", name)), done)

    def test_malformed_bearer(self) -> None:
        """OAUTHBEARER without header, token or form fails."""
        for message in (
            *(b"", b"\x01", b"n,,", b"n,,\x01", b"n,,\x01\x01", xoauth2(b"tok")),
            *(b"n,,\x01auth=Bearer tok\x01", b"n,,auth=Bearer tok\x01\x01"),
            *(b"n,,\x01auth=Bearer tok", b"n,,\x01auth=Bearer tok\x01\x01\x01"),
            *(b"p=tls-exporter,,\x01auth=Bearer tok\x01\x01", b"auth=Bearer tok\x01\x01"),
            *(bearer(b""), bearer(b" "), bearer(b"t k"), bearer(b"\xff"), bearer(b"t\0")),
            *(b"n,,\x01auth=tok\x01\x01", b"n,,\x01auth=Basic tok\x01\x01"),
            *(b"n,,\x01host=x\x01\x01", b"n,,\x01Auth=Bearer tok\x01\x01"),
            *(b"n,,\x01port=x\x01auth=Bearer tok\x01\x01", b"n,,\x01=\x01auth=Bearer tok\x01\x01"),
            b"n,,\x01port=123456\x01auth=Bearer tok\x01\x01",
            b"n,,\x01host=a b\x01auth=Bearer tok\x01\x01",
            b"n,,\x01auth=Bearer tok\x01auth=Bearer tok\x01\x01",
            b"n,,\x01x=\xff\x01auth=Bearer tok\x01\x01",
            *(bearer(b"tok", b"a="), bearer(b"tok", b"\xff"), bearer(b"tok", b"a\0")),
        ):
            self.assertEqual(OAuthBearer().step(message), Failed(), message)

    def test_malformed_xoauth2(self) -> None:
        """XOAUTH2 without user, token or form fails."""
        for message in (
            *(b"", b"\x01", b"user=joe\x01\x01", b"auth=Bearer tok\x01\x01", bearer(b"tok")),
            *(xoauth2(b""), xoauth2(b"t k"), xoauth2(b"tok", b"\xff"), xoauth2(b"tok", b"a\nb")),
            *(b"user=joe\x01user=ann\x01auth=Bearer tok\x01\x01", b"joe\x01auth=Bearer t\x01\x01"),
            *(b"user=joe\x01auth=Bearer tok\x01", b"\x01" + xoauth2(b"tok")),
        ):
            self.assertEqual(XOAuth2().step(message), Failed(), message)

    @given(
        st.lists(
            st.sampled_from([b"n,,", b"\x01", b"auth=Bearer ", b"user=", b"host=", b"x="])
            | st.binary(max_size=5)
        ).map(b"".join)
    )
    def test_arbitrary(self, message: bytes) -> None:
        """Arbitrary octets fail, or have a token that is not empty and has no spaces."""
        for mechanism in (OAuthBearer(), XOAuth2()):
            match mechanism.step(message):
                case Done(TokenCredentials(_, token)):
                    self.assertRegex(token, rb"\A[!-~]+\Z")
                case outcome:
                    self.assertEqual(outcome, Failed())

    def test_secret(self) -> None:
        """Tokens stay out of logs."""
        self.assertNotIn("t0ken", repr(XOAuth2().step(xoauth2(b"t0ken"))))
