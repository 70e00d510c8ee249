"""Tests of `popd.protocol.message`: line ends, byte-stuffing, sizes, TOP."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.message import TERMINATOR, MessageEncoder, OctetCounter
from popd.protocol.message import encode as encode_at_once

CONTENT = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\0", b"\xff", b"\n.\n", b"\r\n.\r\n"]
    )
).map(b"".join)


def encode(message: bytes, body_lines: int | None = None, step: int = 1 << 30) -> bytes:
    """Return a message as it goes on the wire, fed in chunks of *step* octets."""
    encoder = MessageEncoder(body_lines)
    wire = b"".join(
        encoder.feed(message[i : i + step]) for i in range(0, max(len(message), 1), step)
    )
    return wire + encoder.finish()


def octets(message: bytes, step: int = 1 << 30) -> int:
    """Return the size of a message, counted in chunks of *step* octets."""
    counter = OctetCounter()
    for i in range(0, len(message), step):
        counter.feed(message[i : i + step])
    return counter.octets()


def unstuff(wire: bytes) -> bytes:
    """Read a multi-line body as a client does, and insist that it ends where the data ends."""
    lines = wire.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end:] == [b".", b""], "the reply ends before its end"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])


def normalise(message: bytes) -> bytes:
    """Return what a client should get to see: an independent, slow statement of the rules."""
    result = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return result if not result or result.endswith(b"\n") else result + b"\r\n"


class LineEndTests(SynchronousTestCase):
    """What becomes of line ends."""

    def test_table(self) -> None:
        """Each kind of line end comes out as CRLF; a CR alone stays what it is."""
        for stored, wire in (
            (b"", b""),
            (b"a\nb\n", b"a\r\nb\r\n"),
            (b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"a\r\nb\n", b"a\r\nb\r\n"),
            (b"a\rb\n", b"a\rb\r\n"),
            (b"a\r\r\n", b"a\r\r\n"),
            (b"\n\r", b"\r\n\r\r\n"),
            (b"no end", b"no end\r\n"),
            (b"\r", b"\r\r\n"),
            (b"\n", b"\r\n"),
            (b"nul\0\xff\n", b"nul\0\xff\r\n"),
        ):
            for step in (1, 2, 3, 1000):
                self.assertEqual(encode(stored, step=step), wire + TERMINATOR, (stored, step))
                self.assertEqual(octets(stored, step), len(wire), (stored, step))

    def test_empty_chunk(self) -> None:
        """A chunk of nothing changes nothing."""
        counter = OctetCounter()
        for chunk in (b"", b"a\r", b"", b"\n", b""):
            counter.feed(chunk)
        self.assertEqual(counter.octets(), 3)

    def test_large(self) -> None:
        """A line of 200 KB and a message of 20 MB have the size that they are sent with."""
        for stored in (b"x" * 200_000, (b"x" * 77 + b"\n.") * 250_000):
            encoder = MessageEncoder()
            wire = sum(
                len(encoder.feed(stored[i : i + 65_536])) for i in range(0, len(stored), 65_536)
            )
            wire += len(encoder.finish())
            stuffed = stored.count(b"\n.")
            self.assertEqual(wire - stuffed - len(TERMINATOR), octets(stored, 65_536))
            self.assertEqual(encoder.octets, octets(stored))


class StuffingTests(SynchronousTestCase):
    """Mail content cannot end its own reply."""

    def test_first_octet(self) -> None:
        """A dot at octet 0 is stuffed."""
        self.assertEqual(encode(b".\n"), b"..\r\n.\r\n")
        self.assertEqual(encode(b".\r\n+OK forged\r\n"), b"..\r\n+OK forged\r\n.\r\n")

    def test_every_chunk_edge(self) -> None:
        """A dot that begins a line is stuffed wherever a chunk ends."""
        for stored in (b"ab\n.\ncd", b"ab\r\n.\r\ncd", b"a\n\n..b\r\n.", b".\n.\n."):
            for step in range(1, len(stored) + 1):
                self.assertEqual(encode(stored, step=step), encode(stored), (stored, step))

    def test_usual_chunk_sizes(self) -> None:
        """A dot behind a line end at 16 or 64 KiB is stuffed, with chunks of that size."""
        for edge in (16_384, 32_768, 65_536):
            for offset in range(-3, 4):
                stored = b"x" * (edge + offset - 1) + b"\n.\n+OK forged\n"
                self.assertEqual(unstuff(encode(stored, step=edge)), normalise(stored))

    def test_dot_elsewhere(self) -> None:
        """A dot within a line, or behind a CR that stands alone, stays single."""
        self.assertEqual(encode(b"a.b\n\r.c\n"), b"a.b\r\n\r.c\r\n.\r\n")


class TopTests(SynchronousTestCase):
    """TOP sends the header, the blank line and so many body lines."""

    def test_table(self) -> None:
        """The header, the blank line and exactly n lines come, wherever chunks end."""
        for stored, lines, wire in (
            (b"H: 1\n\na\nb\nc\n", 0, b"H: 1\r\n\r\n"),
            (b"H: 1\n\na\nb\nc\n", 1, b"H: 1\r\n\r\na\r\n"),
            (b"H: 1\n\na\nb\nc\n", 3, b"H: 1\r\n\r\na\r\nb\r\nc\r\n"),
            (b"H: 1\n\na\nb\nc\n", 99, b"H: 1\r\n\r\na\r\nb\r\nc\r\n"),
            (b"H: 1\r\n\r\na\r\nb", 2, b"H: 1\r\n\r\na\r\nb\r\n"),
            (b"H: 1\r\n\na\n", 0, b"H: 1\r\n\r\n"),
            (b"H: 1\n\r\na\n", 0, b"H: 1\r\n\r\n"),
            (b"\na\nb\n", 0, b"\r\n"),
            (b"\r\na\nb\n", 1, b"\r\na\r\n"),
            (b"H: 1\n", 5, b"H: 1\r\n"),
            (b"H: 1", 0, b"H: 1\r\n"),
            (b"", 3, b""),
            (b"H: 1\n\n\n\n.\n", 2, b"H: 1\r\n\r\n\r\n\r\n"),
            (b"H: 1\n\n.\n..\n", 1, b"H: 1\r\n\r\n..\r\n"),
            (b"H: 1\n\r\r\na\n", 0, b"H: 1\r\n\r\r\na\r\n"),
            (b"H: 1\n\na\r", 0, b"H: 1\r\n\r\n"),
            (b"H: 1\n\na\r", 1, b"H: 1\r\n\r\na\r\r\n"),
        ):
            for step in (1, 2, 3, 4, 5, 6, 7, 1000):
                self.assertEqual(encode(stored, lines, step), wire + TERMINATOR, (stored, step))

    def test_separator_at_every_offset(self) -> None:
        """The body is cut right however far from a chunk's end the separator falls."""
        for length in range(16_380, 16_390):
            stored = b"H: " + b"x" * length + b"\n\n" + b"body\n" * 3
            wire = encode(stored, 1, 16_384)
            self.assertTrue(wire.endswith(b"x\r\n\r\nbody\r\n.\r\n"), length)

    def test_complete(self) -> None:
        """What TOP needs no more of is not encoded, and it says so."""
        encoder = MessageEncoder(1)
        self.assertEqual(encoder.feed(b"H: 1\n\na\nb\n"), b"H: 1\r\n\r\na\r\n")
        self.assertTrue(encoder.complete)
        self.assertEqual(encoder.feed(b"c\n"), b"")
        self.assertEqual(encoder.finish(), TERMINATOR)

    def test_huge_count(self) -> None:
        """More lines than any message has are no trouble."""
        self.assertEqual(encode(b"H: 1\n\na\n", 9_999_999_999), b"H: 1\r\n\r\na\r\n.\r\n")


class PropertyTests(SynchronousTestCase):
    """What holds for whatever a message is made of."""

    @given(CONTENT | st.binary(), st.integers(1, 7))
    def test_round_trip(self, stored: bytes, step: int) -> None:
        """A client gets the message back, its line ends normalised, in LIST's number of octets."""
        received = unstuff(encode(stored, step=step))
        self.assertEqual(received, normalise(stored))
        self.assertEqual(octets(stored, step), len(received))

    @given(CONTENT, st.integers(0, 4), st.integers(1, 7))
    def test_top(self, stored: bytes, lines: int, step: int) -> None:
        """TOP is RETR up to the n-th line behind the first empty one."""
        everything = normalise(stored).split(b"\r\n")
        blank = everything.index(b"") if b"" in everything else len(everything)
        expected = b"".join(line + b"\r\n" for line in everything[:-1][: blank + 1 + lines])
        self.assertEqual(unstuff(encode(stored, lines, step)), expected)

    @given(CONTENT, st.none() | st.integers(0, 4))
    def test_at_once(self, stored: bytes, lines: int | None) -> None:
        """A message that is encoded at once is the same as one in chunks."""
        encoder = MessageEncoder(lines)
        body = encoder.feed(stored) + encoder.finish()
        pieces, octets = encode_at_once(stored, lines)
        self.assertEqual((b"".join(pieces), octets), (body, encoder.octets))
