"""Tests of what a token must say."""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin

from popd.auth.oauth2.claims import account_of
from popd.auth.oauth2.settings import ClaimSettings
from tests.auth.oauth2.fakes import ALICE, CLAIMS, GOOD, ISSUER, NOW, TokenCase


class ClaimTests(TokenCase):
    """Which claims are good enough."""

    def assertGood(self, *, signed: bool = True, **changes: Any) -> None:
        """Assert that good claims are good even with *changes*."""
        account = account_of({**GOOD, **changes}, CLAIMS, NOW, signed=signed)
        self.assertEqual(account.name, "alice@example.org")

    def assertBad(self, reason: str, *, signed: bool = True, **changes: Any) -> None:
        """Assert that good claims are no longer good with *changes*."""
        claims = {**GOOD, **changes}
        error = self.assertRaises(UnauthorizedLogin, account_of, claims, CLAIMS, NOW, signed=signed)
        self.assertEqual(str(error), f"the token{reason}")

    def test_good(self) -> None:
        """The spellings of good claims."""
        for changes in (
            {},
            {"aud": ["other", "mail"]},
            {"scope": ["pop", "read"]},
            {"scope": None, "scp": "pop read"},
            {"exp": NOW - 29, "nbf": NOW + 29},
            {"preferred_username": "ALICE@EXAMPLE.ORG"},
        ):
            self.assertGood(**changes)

    def test_issuer_and_audience(self) -> None:
        """They must be there in a signed token, and right in any."""
        for issuer in (f"{ISSUER}/", "", [ISSUER]):
            for signed in (True, False):
                self.assertBad(" is another issuer's", signed=signed, iss=issuer)
        self.assertBad(" is another issuer's", iss=None)
        self.assertGood(signed=False, iss=None)
        for audience in (None, "other", "popd mail", ["other"], [["popd"]], {"popd": 1}, []):
            for signed in (True, False):
                self.assertBad(" is for another audience", signed=signed, aud=audience)

    def test_time(self) -> None:
        """A token counts for a time; a signed one says for how long."""
        self.assertBad(" has expired", exp=NOW - 30)
        self.assertBad(" has expired", signed=False, exp=NOW - 30)
        self.assertBad(" does not count yet", nbf=NOW + 31)
        self.assertBad(" does not say when it expires", exp=None)
        self.assertGood(signed=False, exp=None)
        for wrong in ("1900000000", True, float("nan"), float("inf"), 10**400, -1, [NOW + 60]):
            self.assertBad("'s exp is not a time", exp=wrong)
            self.assertBad("'s nbf is not a time", nbf=wrong)

    def test_scope(self) -> None:
        """All of it must have been granted, and none of it is found by chance."""
        for scope in (None, "pop", "popread", "xpop read", {"pop": 1, "read": 1}, 7):
            self.assertBad(" lacks a scope", scope=scope)

    def test_bound(self) -> None:
        """A token that is worth nothing without a key opens nothing (RFC 7800, RFC 9449)."""
        self.assertBad(" is bound to a key", cnf={"jkt": "x"})
        self.assertBad(" is bound to a key", cnf={})
        self.assertBad(" is bound to a key", signed=False, token_type="DPoP")

    def test_username(self) -> None:
        """Somebody must be named who can be a user."""
        names = (None, "", 7, ["alice"], "../alice", "a\0b", "a/b", "x" * 300)
        for name in names:
            claims: dict[str, Any] = {**GOOD, "preferred_username": name}
            error = self.assertRaises(
                UnauthorizedLogin, account_of, claims, CLAIMS, NOW, signed=True
            )
            self.assertEqual(str(error), "no user's name is in the token's preferred_username")

    def test_email(self) -> None:
        """An address that the provider did not verify is anybody's."""
        settings = ClaimSettings("email", audience=frozenset({"popd"}))
        for verified, good in ((True, True), ("true", True), (False, False), ([], False)):
            claims: dict[str, Any] = {
                "email": "alice@example.org",
                "aud": "popd",
                "email_verified": verified,
            }
            if good:
                self.assertEqual(account_of(claims, settings, NOW, signed=False), ALICE)
            else:
                self.assertRaises(
                    UnauthorizedLogin, account_of, claims, settings, NOW, signed=False
                )

    def test_fields(self) -> None:
        """Claims become fields of the account, whatever JSON makes of them."""
        claims = {**GOOD, "off": True, "nets": ["192.0.2.0/24", "::1"], "room": 10_000}
        account = account_of(claims, CLAIMS, NOW, signed=True)
        self.assertTrue(account.disabled)
        self.assertEqual([str(net) for net in account.networks], ["192.0.2.0/24", "::1/128"])
        self.assertEqual(account.quota, 10_000)
        self.assertFalse(account_of({**GOOD, "off": False}, CLAIMS, NOW, signed=True).disabled)
        self.assertEqual(account_of({**GOOD, "off": None}, CLAIMS, NOW, signed=True), ALICE)

    def test_broken_fields(self) -> None:
        """Someone about whom something is said that makes no sense does not get in."""
        cases: tuple[dict[str, Any], ...] = (
            {"off": {}},
            {"nets": "everywhere"},
            {"nets": [7]},
            {"room": -1},
        )
        for changes in cases:
            self.assertRaises(
                UnauthorizedLogin, account_of, {**GOOD, **changes}, CLAIMS, NOW, signed=True
            )
            self.assertEqual(len(self.flushLoggedErrors()), 0)
