"""Tests of `popd.maildrop.user`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop import user as user_module
from popd.maildrop.user import MAX_NAME_OCTETS, UserName


class SpellingTests(SynchronousTestCase):
    """One spelling for each user."""

    def test_not_remembered(self) -> None:
        """What is far too long for a name is not even looked at, and not remembered."""
        before = user_module._parse.cache_info()
        self.assertIsNone(UserName.parse(b"x" * (4 * MAX_NAME_OCTETS + 1)))
        self.assertEqual(user_module._parse.cache_info(), before)

    def test_parts(self) -> None:
        """The domain is what stands behind the last @."""
        for given_name, user in (
            (b"alice", UserName("alice")),
            (b"alice@example.org", UserName("alice", "example.org")),
            (b"a@b@c", UserName("a@b", "c")),
            ("alice", UserName("alice")),
        ):
            self.assertEqual(UserName.parse(given_name), user)

    def test_text(self) -> None:
        """A name is written as it is read."""
        self.assertEqual(str(UserName("a", "b")), "a@b")
        self.assertEqual(str(UserName("a")), "a")

    def test_default_domain(self) -> None:
        """A bare name, and no other, is completed."""
        self.assertEqual(UserName.parse(b"a", "Example.ORG"), UserName("a", "example.org"))
        self.assertEqual(UserName.parse(b"a@b", "example.org"), UserName("a", "b"))

    def test_same_user(self) -> None:
        """Letter case and compatibility forms make no other user."""
        for given_name in ("ALICE@Example.ORG", "\uff41lice@example.org", "\u24d0lice@EXAMPLE.org"):
            self.assertEqual(UserName.parse(given_name), UserName("alice", "example.org"))
        self.assertEqual(UserName.parse("J\xd6RG"), UserName.parse("jo\u0308rg"))


class NoUserTests(SynchronousTestCase):
    """Names that nobody has."""

    def test_hostile(self) -> None:
        """A name that could leave a directory, or forge a log line, is nobody's."""
        for given_name in (
            "../../etc/passwd",
            "..",
            ".",
            "",
            "@",
            "a@",
            "@b",
            "a/b",
            "/etc",
            "a\0b",
            "user@../x",
            "user@a/b",
            "user@..",
            ".hidden",
            "a@.b",
            "\uff0e\uff0e\uff0fx",
            "\u2025",
            "a\nb",
            "a\r",
            "\x1b[2J",
            "a\x7f",
            "a\x85b",
            "a\u2028b",
            "a\u2029b",
            "a\u202eb",
            "a\u200bb",
            "a\ufeffb",
            "a\ue000b",
            " a",
            "a ",
            "a\u00a0",
            "\ud800",
        ):
            self.assertIsNone(UserName.parse(given_name), ascii(given_name))

    def test_not_utf8(self) -> None:
        """A name that is not UTF-8 is nobody's."""
        for given_name in (b"\xff", b"a\xc0\xaf", b"\xed\xa0\x80"):
            self.assertIsNone(UserName.parse(given_name))

    def test_too_long(self) -> None:
        """A name of more octets than a file name takes is nobody's, its domain included."""
        self.assertIsNotNone(UserName.parse("x" * MAX_NAME_OCTETS))
        self.assertIsNone(UserName.parse("x" * (MAX_NAME_OCTETS + 1)))
        self.assertIsNone(UserName.parse("\xe9" * 128))
        self.assertIsNone(UserName.parse("x" * MAX_NAME_OCTETS, "b"))

    @given(st.text() | st.binary(), st.sampled_from(["", "example.org"]))
    def test_any_name(self, given_name: str | bytes, domain: str) -> None:
        """Whatever is given, a name that comes of it is harmless, and its own only spelling."""
        user = UserName.parse(given_name, domain)
        if user is None:
            return
        self.assertEqual(UserName.parse(str(user)), user)
        for part in (user.local, user.domain or "x", str(user)):
            self.assertTrue(part.isprintable() and part[0] != "." and "/" not in part)
        self.assertLessEqual(len(str(user).encode()), MAX_NAME_OCTETS)
