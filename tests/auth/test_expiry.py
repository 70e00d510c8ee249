"""Tests of when accounts expire, and of fields with two names."""

from __future__ import annotations

import time
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account, Client


class Fields(SynchronousTestCase):
    """Fields of a directory become an account."""

    def test_expires(self) -> None:
        """An expiry is a day or a time, in UTC unless it says otherwise."""
        for text, moment in (
            ("2027-01-01", 1798761600.0),
            ("2027-01-01T01:00:00", 1798765200.0),
            ("20270101T010000Z", 1798765200.0),
            ("2027-01-01T01:00:00+01:00", 1798761600.0),
        ):
            self.assertEqual(Account.read("a", {"expires": text}), Account("a", expires=moment))
        self.assertEqual(Account("a").expires, inf)
        for text in ("", "soon", "2027", "2027-02-30", "1798761600"):
            self.assertRaises(ValueError, Account.read, "a", {"expires": text})

    def test_two_names(self) -> None:
        """Of two names for one switch what keeps out counts, in either order."""
        for fields in (
            {"nologin": "", "disabled": "no"},
            {"disabled": "no", "nologin": ""},
            {"disabled": "", "nologin": "no"},
        ):
            self.assertTrue(Account.read("a", fields).disabled)
        self.assertFalse(Account.read("a", {"nologin": "no", "disabled": "no"}).disabled)


class Refusals(SynchronousTestCase):
    """Who may log in, and when."""

    def test_expiry(self) -> None:
        """From the moment on at which it expires, an account lets nobody in."""
        self.patch(time, "time", lambda: 1000.0)
        for expires, refused in ((999.0, True), (1000.0, True), (1000.5, False), (inf, False)):
            self.assertEqual(bool(Account("a", expires=expires).refusal(Client())), refused)
