"""Tests of the provider's keys."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2.jwks import KEEP, MAX_KEYS, REFRESH, RemoteKeys, read_keys
from popd.auth.oauth2.settings import JwtSettings
from popd.auth.oauth2.signatures import Signatures
from tests.auth.oauth2.fakes import (
    ALICE,
    CLAIMS,
    DISCOVERY,
    EC,
    ED,
    ISSUER,
    JWKS,
    KEYS,
    NOW,
    RSA,
    FakeHttp,
    TokenCase,
    jwk,
    sign,
)


class KeyTests(SynchronousTestCase):
    """Which keys of a set are for tokens."""

    def test_others(self) -> None:
        """Keys for something else, unsafe ones, and rubbish do not count."""
        good = jwk(RSA, kid="good", use="sig", alg="RS256", x5c=["..."])
        others = [
            jwk(RSA, use="enc"),
            jwk(RSA, key_ops=["sign"]),
            jwk(RSA, kid=7),
            {**jwk(RSA), "n": "!"},
            {**jwk(RSA), "n": "AA"},
            jwk(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - that is the point
            {**jwk(EC), "x": jwk(EC)["y"]},
            jwk(ec.generate_private_key(ec.SECP256K1())),
            {"kty": "oct", "k": "c2VjcmV0"},
            {"kty": "RSA"},
            {**jwk(ED), "crv": "Ed448"},
            json.loads(RSAAlgorithm.to_jwk(RSA)),
            "rubbish",
        ]
        (key,) = read_keys({"keys": [*others, good]})
        self.assertEqual(
            (key.kid, key.kind, key.curve, key.algorithm), ("good", "RSA", "", "RS256")
        )
        self.assertTrue(key.fits("RS256", "good"))
        self.assertFalse(key.fits("PS256", "good"))
        self.assertRaises(ValueError, read_keys, {"keys": others})

    def test_not_a_set(self) -> None:
        """Neither anything else, nor a set without end."""
        many = [jwk(EC, kid=str(number)) for number in range(MAX_KEYS)]
        self.assertEqual(len(read_keys({"keys": many})), MAX_KEYS)
        others: tuple[object, ...] = ({"keys": [*many, many[0]]}, {"keys": {}}, {"keys": []}, [])
        for document in others:
            self.assertRaises(ValueError, read_keys, document)


class RotationTests(TokenCase):
    """Keys are fetched when they are needed, and not more often."""

    def setUp(self) -> None:
        """Let the provider publish its keys."""
        super().setUp()
        self.http = FakeHttp()
        self.http.answers = {DISCOVERY: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: KEYS}
        self.signatures = self.verifier()
        self.token = sign(RSA, "RS256", "r", exp=NOW + 10 * KEEP)
        self.new_key = ec.generate_private_key(ec.SECP256R1())
        self.new_token = sign(self.new_key, "ES256", "new", exp=NOW + 10 * KEEP)

    def verifier(self, url: str = "") -> Signatures:
        """Return what verifies tokens by the provider's keys."""
        keys = RemoteKeys(self.http, ISSUER, url, 10, self.clock)  # type: ignore[arg-type]
        return Signatures(keys, JwtSettings(), CLAIMS, self.now)

    def rotate(self) -> None:
        """Let the provider have a new key, and no old one."""
        self.http.answers[JWKS] = {"keys": [jwk(self.new_key, kid="new")]}

    def assertGood(self, token: bytes) -> None:
        """Assert that a token is good now."""
        self.assertEqual(self.successResultOf(self.ask(self.signatures, token)), ALICE)

    def assertUnknown(self, token: bytes) -> None:
        """Assert that a token is signed by nobody who is known."""
        reason = "the token is signed with a key that is not the issuer's"
        self.assertRefused(self.ask(self.signatures, token), reason)

    def assertNotNow(self, token: bytes, reason: str) -> None:
        """Assert that it cannot be told whether a token is good."""
        error = self.failureResultOf(self.ask(self.signatures, token), AuthUncertainError).value
        self.assertEqual(str(error), reason)

    def test_fetched_once(self) -> None:
        """Keys are fetched at the first log-in, from where the issuer says."""
        self.assertEqual(self.http.asked, [])
        for _ in range(3):
            self.assertGood(self.token)
        self.assertEqual(self.http.asked, [DISCOVERY, JWKS])

    def test_given_url(self) -> None:
        """Or from where the settings say."""
        self.signatures = self.verifier(JWKS)
        self.assertGood(self.token)
        self.assertEqual(self.http.asked, [JWKS])

    def test_one_request(self) -> None:
        """Many who log in at once wait for one request; one who hangs up spoils nothing."""
        arrival: Deferred[Any] = Deferred()
        self.http.answers[DISCOVERY] = arrival
        answers = [self.ask(self.signatures, self.token) for _ in range(5)]
        answers[0].cancel()
        self.failureResultOf(answers[0])
        arrival.callback({"issuer": ISSUER, "jwks_uri": JWKS})
        for answer in answers[1:]:
            self.assertEqual(self.successResultOf(answer), ALICE)
        self.assertEqual(self.http.asked, [DISCOVERY, JWKS])

    def test_new_key(self) -> None:
        """A key that is not known is looked for, at once if that was not done lately."""
        self.assertGood(self.token)
        self.rotate()
        self.time = 9.9
        self.assertUnknown(self.new_token)
        self.time = 10
        self.assertGood(self.new_token)
        self.assertUnknown(self.token)
        self.assertEqual(self.http.asked, [DISCOVERY, JWKS] * 2)

    def test_made_up_keys(self) -> None:
        """However many keys a stranger makes up, the provider is asked now and then only."""
        self.assertGood(self.token)
        for second in range(100):
            self.time = float(second)
            self.assertUnknown(sign(RSA, "RS256", f"made up {second}"))
        self.assertEqual(len(self.http.asked), 2 * 10)

    def test_withdrawn_key(self) -> None:
        """A key that the provider no longer has counts for a time only."""
        self.assertGood(self.token)
        self.rotate()
        self.time = REFRESH - 1
        self.assertGood(self.token)
        self.time = REFRESH
        self.assertUnknown(self.token)

    def test_down(self) -> None:
        """While the provider is down its known keys count, for a day, and unknown ones may be."""
        self.assertGood(self.token)
        found, self.http.answers = self.http.answers, {}
        self.time = REFRESH
        self.assertGood(self.token)
        self.assertNotNow(self.new_token, f"nobody is at {DISCOVERY}")
        self.time = KEEP
        self.assertNotNow(self.token, f"nobody is at {DISCOVERY}")
        self.http.answers = found
        self.assertGood(self.token)

    def test_useless_answers(self) -> None:
        """What a provider says is not believed blindly."""
        for answers, reason in (
            ({}, f"nobody is at {DISCOVERY}"),
            ({DISCOVERY: 404}, f"{DISCOVERY}: the answer is 404"),
            (
                {DISCOVERY: {"issuer": "https://other.example", "jwks_uri": JWKS}},
                f"{DISCOVERY} is about another issuer",
            ),
            (
                {DISCOVERY: {"issuer": ISSUER, "jwks_uri": "http://login.example.org"}},
                f"{DISCOVERY} has no jwks_uri with https",
            ),
            (
                {DISCOVERY: {"issuer": ISSUER, "jwks_uri": [JWKS]}},
                f"{DISCOVERY} has no jwks_uri with https",
            ),
            (
                {DISCOVERY: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: {"keys": []}},
                f"{JWKS}: no key for signatures that popd can verify",
            ),
        ):
            self.http.answers = answers
            self.assertNotNow(self.token, reason)
