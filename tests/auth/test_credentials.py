"""Tests of the credentials that checkers are given."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.account import Client
from popd.auth.credentials import IScramOutcome, adapt
from popd.auth.interfaces import IBearerToken, IClientCertificate
from popd.protocol.credentials import (
    CertificateCredentials,
    DigestCredentials,
    PasswordCredentials,
    ScramCredentials,
    ScramKeys,
    TokenCredentials,
)

CLIENT = Client("192.0.2.1", tls=True)


class Adapted(SynchronousTestCase):
    """What clients show becomes what checkers know."""

    def test_interfaces(self) -> None:
        """Each kind of credentials is of one kind for checkers, and says whose it is."""
        certificate: Any = object()
        for shown, interface, attributes in (
            (
                PasswordCredentials(b"joe", b"secret", b"jane", "PLAIN"),
                IUsernamePassword,
                {"password": b"secret", "authzid": b"jane", "mechanism": "PLAIN"},
            ),
            (
                TokenCredentials(b"joe", b"token", "XOAUTH2"),
                IBearerToken,
                {"token": b"token", "mechanism": "XOAUTH2"},
            ),
            (
                DigestCredentials(b"joe", b"<1@x>", b"00", "APOP"),
                IUsernameHashedPassword,
                {"mechanism": "APOP"},
            ),
            (CertificateCredentials(b"joe"), IClientCertificate, {"certificate": certificate}),
            (
                ScramCredentials(
                    b"joe", b"jane", True, ScramKeys(b"", 1, b"", b""), "SCRAM-SHA-256"
                ),
                IScramOutcome,
                {"proven": True, "authzid": b"jane", "mechanism": "SCRAM-SHA-256"},
            ),
        ):
            claim = adapt(shown, CLIENT, certificate)
            kinds = (
                IUsernamePassword,
                IBearerToken,
                IUsernameHashedPassword,
                IClientCertificate,
                IScramOutcome,
            )
            self.assertEqual([kind for kind in kinds if kind.providedBy(claim)], [interface])
            verifyObject(interface, claim)
            found = {name: getattr(claim, name) for name in attributes}
            self.assertEqual(found, attributes)
            self.assertEqual((claim.username, claim.client), (b"joe", CLIENT))

    def test_renamed(self) -> None:
        """A copy for another name is the same but for that."""
        for shown in (
            PasswordCredentials(b"Joe", b"secret"),
            TokenCredentials(b"Joe", b"token", "XOAUTH2"),
            DigestCredentials(b"Joe", b"<1@x>", b"00", "APOP"),
            CertificateCredentials(b"Joe"),
        ):
            claim: Any = adapt(shown, CLIENT)
            copy = claim.renamed(b"joe@x", b"joe")
            self.assertEqual((copy.username, copy.bare), (b"joe@x", b"joe"))
            self.assertEqual(
                {**vars(copy), "username": b"", "bare": b""},
                {**vars(claim), "username": b"", "bare": b""},
            )


class Digests(SynchronousTestCase):
    """Digests are checked as the RFCs say, with their examples."""

    def check(self, mechanism: str, challenge: bytes, response: bytes, password: bytes) -> bool:
        """Tell whether a response is that of whoever knows *password*."""
        shown = DigestCredentials(b"x", challenge, response, mechanism)
        digest: Any = adapt(shown, CLIENT)
        return bool(digest.checkPassword(password))

    def test_examples(self) -> None:
        """CRAM-MD5 of RFC 2195 section 2, APOP of RFC 1939 section 7."""
        for mechanism, challenge, response, password in (
            (
                "CRAM-MD5",
                b"<1896.697170952@postoffice.reston.mci.net>",
                b"b913a602c7eda7a495b4e6e7334d3890",
                b"tanstaaftanstaaf",
            ),
            (
                "APOP",
                b"<1896.697170952@dbc.mtview.ca.us>",
                b"c4c9334bac560ecc979e58001b3e22fb",
                b"tanstaaf",
            ),
        ):
            self.assertTrue(self.check(mechanism, challenge, response, password))
            self.assertFalse(self.check(mechanism, challenge, response, password + b"x"))
            self.assertFalse(self.check(mechanism, challenge + b"x", response, password))
            self.assertFalse(self.check(mechanism, challenge, response[:-1], password))
            other = "APOP" if mechanism == "CRAM-MD5" else "CRAM-MD5"
            self.assertFalse(self.check(other, challenge, response, password))
