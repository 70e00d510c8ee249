"""Tests of asking the provider."""

from __future__ import annotations

from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2 import introspection
from popd.auth.oauth2.introspection import Introspection
from popd.auth.oauth2.settings import IntrospectionSettings
from tests.auth.oauth2.fakes import ALICE, CLAIMS, GOOD, ISSUER, NOW, FakeHttp, TokenCase


class IntrospectionTests(TokenCase):
    """What the provider says is believed, and for how long."""

    URL = f"{ISSUER}/introspect"

    def setUp(self) -> None:
        """Let the provider know a token."""
        super().setUp()
        self.http = FakeHttp()
        self.http.answers = {self.URL: {**GOOD, "active": True, "exp": NOW + 1000}}
        settings = IntrospectionSettings(self.URL, "popd", "secret", 60)
        self.introspection = Introspection(
            self.http,  # type: ignore[arg-type]
            settings,
            CLAIMS,
            self.clock,
            self.now,
        )

    def assertGood(self, token: bytes = b"t") -> None:
        """Assert that a token is good now."""
        self.assertEqual(self.successResultOf(self.ask(self.introspection, token)), ALICE)

    def test_asked(self) -> None:
        """The question is that of RFC 7662."""
        self.assertGood(b"a+b/~c==")
        form = {"token": "a+b/~c==", "token_type_hint": "access_token", "client": "popd:secret"}
        self.assertEqual(self.http.forms, [form])

    def test_remembered(self) -> None:
        """A good token counts for a minute, even if it is revoked, and no other one with it."""
        self.assertGood()
        self.http.answers[self.URL] = {"active": False}
        self.time = 59
        self.assertGood()
        self.assertRefused(self.ask(self.introspection, b"u"), "the token is not active")
        self.time = 60
        self.assertRefused(self.ask(self.introspection, b"t"), "the token is not active")

    def test_not_beyond_expiry(self) -> None:
        """A token that has expired is not remembered any more."""
        self.http.answers[self.URL] = {**GOOD, "active": True, "exp": NOW + 5}
        self.assertGood()
        self.time = 5
        self.http.answers[self.URL] = {"active": False}
        self.assertRefused(self.ask(self.introspection, b"t"), "the token is not active")

    def test_bad_not_remembered(self) -> None:
        """A token that is not good yet may be so soon."""
        self.http.answers[self.URL] = {"active": False}
        self.assertRefused(self.ask(self.introspection, b"t"), "the token is not active")
        self.http.answers[self.URL] = {**GOOD, "active": True}
        self.assertGood()

    def test_bounded(self) -> None:
        """Those that were used least lately are forgotten, and no token is in memory."""
        self.patch(introspection, "MAX_ENTRIES", 2)
        for token in (b"secret-1", b"secret-2", b"secret-1", b"secret-3", b"secret-1", b"secret-2"):
            self.assertGood(token)
        asked = [form["token"] for form in self.http.forms]
        self.assertEqual(asked, ["secret-1", "secret-2", "secret-3", "secret-2"])
        self.assertNotIn("secret", repr(vars(self.introspection)["_good"]))

    def test_claims(self) -> None:
        """That a token is active does not mean that it is for popd."""
        self.http.answers[self.URL] = {**GOOD, "active": True, "aud": "other"}
        self.assertRefused(self.ask(self.introspection, b"t"), "the token is for another audience")

    def test_not_active(self) -> None:
        """Anything but a plain yes is a no."""
        answers: tuple[object, ...] = (False, None, "true", 1, [])
        for active in answers:
            self.http.answers[self.URL] = {**GOOD, "active": active}
            self.assertRefused(self.ask(self.introspection, b"t"), "the token is not active")

    def test_refused_question(self) -> None:
        """A provider that finds the token malformed is not down; one that does not know popd is."""
        self.http.answers[self.URL] = 400
        self.assertRefused(
            self.ask(self.introspection, b"t"), "the provider does not accept the question"
        )
        for status in (302, 401, 403, 404):
            self.http.answers[self.URL] = status
            answer = self.ask(self.introspection, b"t")
            error = self.failureResultOf(answer, AuthUncertainError).value
            self.assertIn(f"{self.URL}: the answer is {status}: are client-id", str(error))

    def test_down(self) -> None:
        """Nobody can tell."""
        self.http.answers = {}
        self.failureResultOf(self.ask(self.introspection, b"t"), AuthUncertainError)
