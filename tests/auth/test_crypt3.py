"""Tests of the system's crypt(3)."""

from __future__ import annotations

from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from popd.auth import crypt3


class SystemCrypt(SynchronousTestCase):
    """crypt(3) hashes as the method's authors say."""

    @skipUnless(crypt3.knows(b"$6$"), "this system's crypt(3) does not know SHA512-CRYPT")
    def test_known_answer(self) -> None:
        """SHA512-CRYPT answers as in Ulrich Drepper's specification."""
        self.assertEqual(
            crypt3.crypt(b"Hello world!", b"$6$saltstring"),
            b"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBF"
            b"dcbYEdFCoEOfaS35inz1",
        )

    @skipUnless(crypt3.knows(b"$6$"), "this system's crypt(3) does not know SHA512-CRYPT")
    def test_failure(self) -> None:
        """A setting that crypt(3) refuses is an error, never a hash that something may equal."""
        self.assertRaises(OSError, crypt3.crypt, b"password", b"$6$rounds=1$salt$")


class WithoutSystemCrypt(SynchronousTestCase):
    """A system without crypt(3) knows no method."""

    def setUp(self) -> None:
        """Look for crypt_r where it is not, and forget all about that afterwards."""
        for cached in (crypt3.knows, crypt3._crypt_r):
            cached.cache_clear()
            self.addCleanup(cached.cache_clear)

    def test_no_library(self) -> None:
        """Without the library, crypt says so and no method is known."""
        self.patch(crypt3, "_LIBRARIES", ("libno-such-library.so.0",))
        self.assertRaises(OSError, crypt3.crypt, b"password", b"$6$salt$")
        self.assertFalse(crypt3.knows(b"$6$"))

    def test_no_function(self) -> None:
        """A library without crypt_r is as good as none."""
        self.patch(crypt3, "_LIBRARIES", ("libm.so.6",))
        self.assertFalse(crypt3.knows(b"$y$"))
