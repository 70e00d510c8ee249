"""Tests of `popd.protocol.lines`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.lines import LINE_LIMIT, TOO_LONG, LineBuffer, TooLong


def lines_of(*chunks: bytes) -> list[bytes | TooLong]:
    """Return the lines that come out of *chunks*."""
    buffer = LineBuffer()
    lines: list[bytes | TooLong] = []
    for chunk in chunks:
        buffer.feed(chunk)
        while (line := buffer.next()) is not None:
            lines.append(line)
        assert len(buffer) < LINE_LIMIT
    return lines


class LineTests(SynchronousTestCase):
    """Lines are taken out of a stream."""

    def test_ends(self) -> None:
        """CRLF and a bare LF end a line; a CR elsewhere belongs to it."""
        self.assertEqual(lines_of(b"a\r\nb\nc\rd\r\r\n\r\n\n"), [b"a", b"b", b"c\rd\r", b"", b""])

    def test_unfinished(self) -> None:
        """A line without end is kept until its end comes."""
        self.assertEqual(lines_of(b"ab"), [])
        self.assertEqual(lines_of(b"ab", b"c\r", b"\nd"), [b"abc"])

    def test_forgotten(self) -> None:
        """Nothing is kept of lines that were taken out: one may have been a password."""
        buffer = LineBuffer()
        buffer.feed(b"PASS secret\r\n")
        self.assertEqual(buffer.next(), b"PASS secret")
        self.assertEqual(buffer._data, b"")

    def test_longest(self) -> None:
        """A line of the limit, its end included, is taken; one octet more is not."""
        longest = b"x" * (LINE_LIMIT - 1)
        self.assertEqual(lines_of(longest + b"\nnext\n"), [longest, b"next"])
        self.assertEqual(lines_of(longest + b"x\nnext\n"), [TOO_LONG, b"next"])

    def test_too_long(self) -> None:
        """An over-long line is reported once, however it comes, and what follows it is taken."""
        endless = b"x" * (LINE_LIMIT * 3)
        self.assertEqual(lines_of(endless), [TOO_LONG])
        self.assertEqual(lines_of(endless, endless, b"USER a\nnext\n"), [TOO_LONG, b"next"])
        self.assertEqual(lines_of(endless + b"\n" + endless + b"\n"), [TOO_LONG, TOO_LONG])

    def test_dropped(self) -> None:
        """How much of a line was dropped is known until it ends."""
        buffer = LineBuffer()
        buffer.feed(b"x" * LINE_LIMIT)
        self.assertIs(buffer.next(), TOO_LONG)
        buffer.feed(b"x" * 10)
        self.assertIsNone(buffer.next())
        self.assertEqual(buffer.dropped, LINE_LIMIT + 10)
        buffer.feed(b"x\na\n")
        self.assertEqual(buffer.next(), b"a")
        self.assertEqual(buffer.dropped, 0)

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"ab", b"x" * (LINE_LIMIT // 2), b"USER a"])))
    def test_chunks(self, parts: list[bytes]) -> None:
        """The same lines come out however a stream is cut."""
        self.assertEqual(lines_of(*parts), lines_of(b"".join(parts)))
