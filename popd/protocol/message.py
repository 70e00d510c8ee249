"""A stored message on its way to the wire: line ends, byte-stuffing, sizes and TOP.

A file in a Maildir has lines that end in LF, in CRLF, or in both by turns; its last line may have
no end at all.  On the wire every line ends in CRLF (RFC 1939 section 3), a line that begins with a
dot gets a second one, and a lone dot ends the reply.  What this module decides, and nothing else:

- LF and CRLF are line ends; a CR that stands alone is an octet like any other.
- A message whose last line has no end gets one.  An empty message stays empty.
- The size of a message is the octets of all that, without the stuffed dots (RFC 1939 section 11).

Input comes in chunks of any length.  What a chunk leaves open (a CR that may be half of a CRLF,
whether the next octet begins a line) is carried to the next, so that where a chunk ends changes
nothing.
"""

from __future__ import annotations

import re

__all__ = ["TERMINATOR", "MessageEncoder", "OctetCounter", "encode"]

TERMINATOR = b".\r\n"
"""What ends a multi-line reply (RFC 1939 section 3)."""

_CR = 0x0D
_LF = 0x0A

_FEW = 16
"""Up to so many dots that begin a line are dealt with one by one.  Most messages have none."""

_DOT = re.compile(rb"\n\.")
"""A dot that begins a line.  To look for it so takes a third of the time that ``in`` takes."""


def wire_octets(message: bytes) -> int:
    """Return what an `OctetCounter` says of a whole message."""
    octets = len(message) + message.count(b"\n")
    if message.find(b"\r") >= 0:  # `in` makes an exception first, and forgets it
        octets -= message.count(b"\r\n")
    return octets if not message or message.endswith(b"\n") else octets + 2


class OctetCounter:
    """The size of a message in octets as RETR sends it, from its stored octets."""

    __slots__ = ("_last", "_octets")

    def __init__(self) -> None:
        self._octets = 0
        self._last = _LF

    def feed(self, chunk: bytes) -> None:
        """Count the next stored octets."""
        if chunk:
            self._octets += len(chunk) + chunk.count(b"\n")
            if chunk.find(b"\r") >= 0:
                self._octets -= chunk.count(b"\r\n")
            if self._last == _CR and chunk[0] == _LF:
                self._octets -= 1
            self._last = chunk[-1]

    def octets(self) -> int:
        """Return the size of what was fed, in octets, its last line ended."""
        return self._octets if self._last == _LF else self._octets + 2


def _to_lf(chunk: bytes) -> bytes:
    """Make every CRLF an LF, in half the time if there is no other CR and no other LF."""
    lines = chunk.translate(None, b"\r")
    if lines.replace(b"\n", b"\r\n") == chunk:
        return lines
    return chunk.replace(b"\r\n", b"\n")


class MessageEncoder:
    """Turns the stored octets of one message into the body of a RETR or TOP reply.

    Feed it the message chunk by chunk and send what comes back, then send what `finish` returns.

    :param body_lines: how many lines of the body to send behind the header and the blank line
        (TOP, RFC 1939 section 7), or None for the whole message (RETR, section 5).
    """

    __slots__ = ("_held", "_in_header", "_line_start", "_lines", "_whole", "complete", "octets")

    def __init__(self, body_lines: int | None = None) -> None:
        self._whole = body_lines is None
        self._lines = body_lines or 0
        self._in_header = True
        self._held = b""
        self._line_start = True
        self.octets = 0
        """Octets encoded so far, without the stuffed dots: after `finish`, what LIST says."""
        self.complete = False
        """Whether TOP has all the lines it asked for, so that no more need be fed."""

    def feed(self, chunk: bytes) -> bytes:
        """Return the next stored octets as they go on the wire; they may be none."""
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if chunk.endswith(b"\r"):  # half of a CRLF, perhaps: the next octet tells
            self._held = b"\r"
            chunk = chunk[:-1]
        if chunk.find(b"\r") >= 0:
            chunk = _to_lf(chunk)
        return self._encode(chunk)

    def finish(self) -> bytes:
        """Return what ends the reply: the end of an unended last line, and the terminator."""
        tail = self._encode(self._held)
        if not self._line_start:
            self.octets += 2
            tail += b"\r\n"
        return tail + TERMINATOR

    def _encode(self, lines: bytes) -> bytes:
        """Encode octets in which every line end is an LF."""
        if not self._whole:
            lines = self._cut(lines)
        if not lines:
            return b""
        encoded = lines.replace(b"\n", b"\r\n")
        self.octets += len(encoded)
        if _DOT.search(lines):
            encoded = encoded.replace(b"\n.", b"\n..")
        if self._line_start and lines.startswith(b"."):
            encoded = b"." + encoded
        self._line_start = lines.endswith(b"\n")
        return encoded

    def _cut(self, lines: bytes) -> bytes:
        """Leave out what stands behind the last line that TOP asked for."""
        if self.complete:
            return b""
        header = b""
        if self._in_header:
            if self._line_start and lines.startswith(b"\n"):
                end = 1
            elif (blank := lines.find(b"\n\n")) >= 0:
                end = blank + 2
            else:
                return lines
            self._in_header = False
            header, lines = lines[:end], lines[end:]
        *ended, rest = lines.split(b"\n", self._lines)
        if len(ended) == self._lines:
            self.complete = True
            lines = lines[: len(lines) - len(rest)]
        self._lines -= len(ended)
        return header + lines


def encode(message: bytes, body_lines: int | None) -> tuple[list[bytes], int]:
    """Return what `MessageEncoder` makes of a whole message, in pieces, and its `octets` then.

    :param message: all its stored octets.
    :param body_lines: see `MessageEncoder`.
    """
    if body_lines is None and message.find(b"\r") < 0 and message.endswith(b"\n"):
        parts = message.split(b"\n.", _FEW)
        if len(parts) <= _FEW:
            body = b"\r\n..".join([part.replace(b"\n", b"\r\n") for part in parts])
            octets = len(body) - (len(parts) - 1)
            return [b"." if message.startswith(b".") else b"", body, TERMINATOR], octets
    encoder = MessageEncoder(body_lines)
    return [encoder.feed(message), encoder.finish()], encoder.octets
