"""Tests of signed tokens."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from twisted.cred.error import UnauthorizedLogin

from popd.auth.oauth2.jwks import FileKeys
from popd.auth.oauth2.settings import JwtSettings
from popd.auth.oauth2.signatures import Signatures
from tests.auth.oauth2.fakes import ALICE, CLAIMS, EC, ED, KEYS, RSA, TokenCase, jwk, sign


class SignatureTests(TokenCase):
    """Which signatures are good."""

    def setUp(self) -> None:
        """Make keys in a file."""
        super().setUp()
        self.path = Path(self.mktemp())
        self.path.write_text(json.dumps(KEYS))
        self.signatures = self.verifier()

    def verifier(self, **settings: Any) -> Signatures:
        """Return what verifies tokens."""
        keys = FileKeys(str(self.path))
        return Signatures(keys, JwtSettings(**settings), CLAIMS, self.now)

    def test_good(self) -> None:
        """Every algorithm for a key will do, and a key need not be named."""
        for key, algorithm, kid in (
            (RSA, "RS256", "r"),
            (RSA, "RS512", "r"),
            (RSA, "PS256", "r"),
            (EC, "ES256", "e"),
            (ED, "EdDSA", "d"),
            (RSA, "RS256", None),
            (ED, "EdDSA", None),
        ):
            token = sign(key, algorithm, kid)
            self.assertEqual(self.successResultOf(self.ask(self.signatures, token)), ALICE)

    def test_claims(self) -> None:
        """What the token says is looked at, not only who says it."""
        token = sign(RSA, "RS256", "r", aud="other")
        self.assertRefused(self.ask(self.signatures, token), "the token is for another audience")

    def test_wrong_signature(self) -> None:
        """A token that was changed, or cut off, or signed by someone else's key."""
        head, content, signature = sign(RSA, "RS256", "r").split(b".")
        other = sign(RSA, "RS256", "r", preferred_username="bob@example.org").split(b".")[1]
        stranger = rsa.generate_private_key(65537, 2048)
        for token in (
            b".".join((head, other, signature)),
            b".".join((head, content, signature[:336])),
            b".".join((head, content, b"")),
            sign(stranger, "RS256", "r"),
        ):
            self.assertRefused(self.ask(self.signatures, token), "the token's signature is wrong")

    def test_unknown_key(self) -> None:
        """A token whose key is not there, or is there for another purpose."""
        for token in (
            sign(RSA, "RS256", "x"),
            sign(RSA, "RS256", "e"),
            sign(EC, "ES256", "d"),
            sign(rsa.generate_private_key(65537, 2048), "RS256", None),
        ):
            self.assertRefused(
                self.ask(self.signatures, token),
                "the token is signed with a key that is not the issuer's",
            )

    def test_forged_algorithm(self) -> None:
        """Neither an unsigned token counts, nor one signed with a public key as the secret."""
        pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        header = base64.urlsafe_b64encode(b'{"typ":"at+jwt","kid":"r","alg":"HS256"}').rstrip(b"=")
        signed = header + b"." + sign(RSA, "RS256", "r").split(b".")[1]
        mac = HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed, pem)
        for token in (
            sign(None, "none", "r"),
            signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"="),
            sign(RSA, "RS384", "r", _alg="RS384"),
        ):
            verifier = self.verifier(algorithms=frozenset({"RS256"}))
            self.assertRefused(
                self.ask(verifier, token),
                "the token is signed with an algorithm that is not allowed",
            )

    def test_type(self) -> None:
        """Another kind of token of the same issuer, such as an ID token, is none for popd."""
        for kind, types, good in (
            ("application/AT+JWT", {}, True),
            ("JWT", {}, False),
            (None, {}, False),
            ("JWT", {"types": frozenset({"jwt"})}, True),
            (None, {"types": frozenset({"jwt"})}, True),
            ("at+jwt", {"types": frozenset({"jwt"})}, False),
        ):
            answer = self.ask(self.verifier(**types), sign(RSA, "RS256", "r", _typ=kind))
            if good:
                self.assertEqual(self.successResultOf(answer), ALICE)
            else:
                self.assertRefused(answer, "the token is of a type that is not allowed")

    def test_not_understood(self) -> None:
        """What claims to matter, but is not known here, is not passed over (RFC 7515, 4.1.11)."""
        token = sign(RSA, "RS256", "r", _crit=["exp"], _exp=1)
        self.assertRefused(self.ask(self.signatures, token), "the token is no JWT")

    def test_rubbish(self) -> None:
        """Whatever a stranger sends is no token."""
        for head in (b"[" * 5000, b"{}", b"{", b'{"alg":7}', b'{"alg":"RS256","kid":[]}', b"7"):
            token = base64.urlsafe_b64encode(head).rstrip(b"=") + b".e30.AAAA"
            self.failureResultOf(self.ask(self.signatures, token), UnauthorizedLogin)
        for content in (b"[]", b"7", b"\xff", b"[" * 5000):
            token = PyJWS().encode(content, RSA, "RS256", {"kid": "r", "typ": "at+jwt"}).encode()
            self.assertRefused(
                self.ask(self.signatures, token), "the token's content is no JSON object"
            )

    def test_file_changes(self) -> None:
        """New keys in the file count at once; a file that is lost changes nothing."""
        new = rsa.generate_private_key(65537, 2048)
        self.path.write_text(json.dumps({"keys": [jwk(new, kid="a new one")]}))
        token = sign(new, "RS256", "a new one")
        self.assertEqual(self.successResultOf(self.ask(self.signatures, token)), ALICE)
        for spoil in (lambda: self.path.write_text("{"), self.path.unlink):
            spoil()
            self.assertEqual(self.successResultOf(self.ask(self.signatures, token)), ALICE)
