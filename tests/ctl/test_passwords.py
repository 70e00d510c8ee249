"""Tests of what popctl makes of a new password."""

from __future__ import annotations

import unicodedata

from twisted.trial.unittest import SynchronousTestCase

from popd.auth import schemes
from popd.ctl.passwords import hashed
from popd.ctl.store import RefusedError


class Passwords(SynchronousTestCase):
    """New passwords."""

    def test_both(self) -> None:
        """An argon2id hash and SCRAM keys are stored, both of the same password."""
        for password in (b"correct horse", b" x ", "pässwörd".encode()):
            hashes = hashed(password)
            self.assertNotIn(password.decode(), repr(hashes))
            for field, scheme in (
                (hashes.password, "ARGON2ID"),
                (hashes.scram_sha_256, "SCRAM-SHA-256"),
            ):
                stored = schemes.parse(field)
                self.assertEqual(stored.scheme, scheme)
                self.assertTrue(stored.verify(password))
                self.assertFalse(stored.verify(password + b" "))

    def test_spellings(self) -> None:
        """The hash is of the octets; SCRAM prepares them, so that it knows no two spellings."""
        spellings = [unicodedata.normalize(form, "é").encode() for form in ("NFC", "NFD")]
        hashes = hashed(spellings[1])
        for field, known in (
            (hashes.password, [False, True]),
            (hashes.scram_sha_256, [True, True]),
        ):
            stored = schemes.parse(field)
            self.assertEqual([stored.verify(spelling) for spelling in spellings], known)

    def test_refused(self) -> None:
        """What nobody can log in with is no password."""
        for password, reason in (
            (b"", "empty"),
            (b"x" * 1025, "more than 1024 octets"),
            (b"SECRET\xff", "not UTF-8"),
            (b"SECRET\0", "SASLprep"),
            (b"SECRET\r", "SASLprep"),
            ("SECRET🐙".encode(), "SASLprep"),
            ("\N{SOFT HYPHEN}".encode(), "nothing in it"),
        ):
            error = self.assertRaises(RefusedError, hashed, password)
            self.assertIn(reason, str(error))
            self.assertNotIn("SECRET", str(error))
        hashed(b"x" * 1024)
