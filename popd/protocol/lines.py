"""Command lines out of a stream of octets, in bounded memory."""

from __future__ import annotations

import enum
from typing import Final, Literal

__all__ = ["LINE_LIMIT", "TOO_LONG", "LineBuffer", "TooLong"]

LINE_LIMIT: Final = 16_384
"""The longest line that is taken, in octets, its end included.  RFC 2449 section 4 asks for 255;
a SASL response may carry a token of several KiB (RFC 5034 section 4 sets no limit)."""


class TooLong(enum.Enum):
    """The type of `TOO_LONG`."""

    TOO_LONG = enum.auto()


TOO_LONG: Final = TooLong.TOO_LONG
"""Stands for a line of more than `LINE_LIMIT` octets, all of which are dropped."""


class LineBuffer:
    """Octets that came in and are not yet taken out as lines.

    Lines end in CRLF; a bare LF is tolerated.  Nothing is searched twice, and of a line that never
    ends no more than `LINE_LIMIT` octets are kept.
    """

    __slots__ = ("_at", "_data", "_searched", "dropped")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0  # where what is not taken out yet begins
        self._searched = 0  # up to where there is no line end in that
        self.dropped = 0
        """How many octets of the line that is coming in were dropped, since it is too long."""

    def __len__(self) -> int:
        """Return how many octets are held."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Add octets.  The caller bounds how much it feeds ahead of what it takes out."""
        if self._at < len(self._data):
            data = self._data[self._at :] + data
            self._searched -= self._at
        else:
            self._searched = 0
        self._at = 0
        self._data = data

    def next(self) -> bytes | Literal[TooLong.TOO_LONG] | None:
        """Take out the next line, without its end.

        Returns None if no line is complete yet, and `TOO_LONG`, once, for a line that is too long.
        """
        while True:
            end = self._data.find(b"\n", self._searched)
            if end < 0:
                return self._unfinished()
            line = self._data[self._at : end]
            self._at = self._searched = end + 1
            if self._at == len(self._data):
                self._data = b""  # which may have been a password
                self._at = self._searched = 0
            if self.dropped:  # the rest of a line that was answered already
                self.dropped = 0
                continue
            if len(line) >= LINE_LIMIT:
                return TOO_LONG
            return line.removesuffix(b"\r")

    def _unfinished(self) -> Literal[TooLong.TOO_LONG] | None:
        if not self.dropped and len(self) < LINE_LIMIT:
            self._searched = len(self._data)
            return None
        known = self.dropped
        self.dropped += len(self)
        self._data = b""
        self._at = self._searched = 0
        return None if known else TOO_LONG
