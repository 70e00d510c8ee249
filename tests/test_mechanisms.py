"""Tests of `popd.mechanisms`; how ways to log in are chosen is tested with the options."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from popd.mechanisms import unique_on


class UniqueTests(SynchronousTestCase):
    """What makes each greeting and challenge another."""

    def test_form(self) -> None:
        """It is as RFC 1939 section 7 shows it; Perl's Mail::Transport::POP3 wants digits."""
        unique = unique_on("mail.example.org")
        for _ in range(50):
            self.assertRegex(unique(), rb"^\d+\.\d+@mail\.example\.org$")

    def test_unique(self) -> None:
        """No two are alike, nor do two processes that part have the same."""
        unique, other = unique_on("a"), unique_on("a")
        self.assertEqual(len({make() for _ in range(50) for make in (unique, other)}), 100)

    def test_host(self) -> None:
        """A name that is none is made one."""
        self.assertTrue(unique_on("a b\u00fc>")().endswith(b"@a-b--"))
        self.assertTrue(unique_on("")().endswith(b"@localhost"))
        self.assertLessEqual(len(unique_on(500 * "a")()), 200)
