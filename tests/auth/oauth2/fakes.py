"""Tokens, keys and providers for the tests of how bearer tokens are verified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account
from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2.settings import ClaimSettings

if TYPE_CHECKING:
    from popd.auth.oauth2.introspection import Introspection
    from popd.auth.oauth2.signatures import Signatures

NOW: Final = 1_800_000_000.0
ISSUER: Final = "https://login.example.org"
DISCOVERY: Final = f"{ISSUER}/.well-known/openid-configuration"
JWKS: Final = f"{ISSUER}/keys"
CLAIMS: Final = ClaimSettings(
    username="preferred_username",
    issuer=ISSUER,
    audience=frozenset({"popd", "mail"}),
    scope=frozenset({"pop", "read"}),
    fields={"disabled": "off", "allow_nets": "nets", "quota": "room"},
)
GOOD: Final[dict[str, Any]] = {
    "preferred_username": "Alice@example.org",
    "iss": ISSUER,
    "aud": "popd",
    "scope": "read pop openid",
    "exp": NOW + 60,
}
ALICE: Final = Account("alice@example.org")

RSA: Final = rsa.generate_private_key(65537, 2048)
EC: Final = ec.generate_private_key(ec.SECP256R1())
ED: Final = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    """Return the public half of a private key as JSON has it."""
    kinds = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    kind: Any = next(kinds[each] for each in kinds if isinstance(key, each))
    return {**kind.to_jwk(key.public_key(), as_dict=True), **more}


KEYS: Final = {"keys": [jwk(RSA, kid="r"), jwk(EC, kid="e"), jwk(ED, kid="d")]}


def sign(key: Any, algorithm: str, kid: str | None, **changes: Any) -> bytes:
    """Return a token with good claims, but for *changes*; those of the header begin with ``_``."""
    header = {"typ": "at+jwt", **({} if kid is None else {"kid": kid})}
    header |= {name[1:]: value for name, value in changes.items() if name[0] == "_"}
    claims = {**GOOD, **{name: value for name, value in changes.items() if name[0] != "_"}}
    return PyJWS().encode(json.dumps(claims).encode(), key, algorithm, header).encode()


class FakeHttp:
    """Answers requests by what the test says; a URL without answer means that nobody is there."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = answers
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []

    async def get(self, url: str) -> tuple[int, dict[str, Any]]:
        """Answer with a document, or with a status."""
        self.asked.append(url)
        if url not in self.answers:
            raise AuthUncertainError(f"nobody is at {url}")
        answer = await maybeDeferred(lambda: self.answers[url])
        return (answer, {}) if isinstance(answer, int) else (200, answer)

    async def post(
        self, url: str, form: dict[str, str], client: tuple[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Do the same."""
        self.forms.append({**form, "client": ":".join(client)})
        return await self.get(url)


class TokenCase(SynchronousTestCase):
    """What all these tests have in common."""

    def setUp(self) -> None:
        """Set the clock."""
        self.time = 0.0

    def clock(self) -> float:
        """Tell the time since the test began."""
        return self.time

    def now(self) -> float:
        """Tell the time."""
        return NOW + self.time

    def ask(self, verifier: Signatures | Introspection, token: bytes) -> Deferred[Account]:
        """Return what a verifier says of a token, later."""
        return Deferred.fromCoroutine(verifier.account(token))

    def assertRefused(self, answer: Deferred[Account], reason: str) -> None:
        """Assert that a token is refused for *reason*."""
        error = self.failureResultOf(answer, UnauthorizedLogin).value
        self.assertEqual(str(error), reason)
