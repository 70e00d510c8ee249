"""Tests of SASLprep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.saslprep import saslprep


class Saslprep(SynchronousTestCase):
    """Passwords are prepared as RFC 4013 has it."""

    def test_examples(self) -> None:
        """The examples of its section 3 come out as they are there."""
        for given_, expected in (
            ("I\N{SOFT HYPHEN}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\N{FEMININE ORDINAL INDICATOR}", "a"),
            ("\N{ROMAN NUMERAL NINE}", "IX"),
            ("a\N{NO-BREAK SPACE}b", "a b"),
            ("e\N{COMBINING ACUTE ACCENT}", "é"),
            ("\u0627\u0628\u0629", "\u0627\u0628\u0629"),
            ("\N{SOFT HYPHEN}", ""),
        ):
            self.assertEqual(saslprep(given_), expected)

    def test_refused(self) -> None:
        """What is prohibited, mixed in its direction or unassigned (Unicode 3.2) is refused."""
        for text in (
            "\7",
            "a\0",
            "\x7f",
            "\ue000",
            "\ufffd",
            "\u0627\u0031",
            "\u0627a\u0627",
            "🐙",
        ):
            error = self.assertRaises(ValueError, saslprep, text)
            self.assertNotIn(text, str(error))

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
    def test_ascii(self, text: str) -> None:
        """Printable ASCII stays as it is."""
        self.assertEqual(saslprep(text), text)

    @given(st.text())
    def test_idempotent(self, text: str) -> None:
        """What was prepared stays as it is."""
        try:
            prepared = saslprep(text)
        except ValueError:
            return
        self.assertEqual(saslprep(prepared), prepared)
