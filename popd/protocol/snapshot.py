"""What a maildrop held when it was opened: the frozen list that a session talks about."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["EMPTY", "Snapshot"]


class Snapshot:
    """The messages of a maildrop, in their order, as they were at log-in.

    A snapshot never changes: mail that arrives later is not in it, and a deletion mark is the
    session's own affair.  Index *i* (0-based) is message number *i + 1* (RFC 1939 section 5).

    :param sizes: octets of each message as RETR sends it, before byte-stuffing: every line end
        counted as two octets (RFC 1939 section 11).
    :param uids: the unique-id of each message: 1 to 70 octets of 0x21 to 0x7E, no two alike
        (RFC 1939 section 7, UIDL).
    """

    def __init__(self, sizes: Sequence[int], uids: Sequence[bytes]) -> None:
        if len(sizes) != len(uids):
            raise ValueError("a snapshot needs one unique-id for each size")
        self.sizes = sizes
        self.uids = uids

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self.sizes)

    @cached_property
    def octets(self) -> int:
        """The size of all messages together, in octets."""
        return sum(self.sizes)

    def scan_listing(self, without: Collection[int] = ()) -> bytes:
        """Return the body of a LIST reply (RFC 1939 section 5), but for the indices *without*.

        Each line is a message number, a space, the size in octets, CRLF.
        """
        return _rows(b"%d %d\r\n", self.sizes, without) if without else self._scan_listing

    def unique_id_listing(self, without: Collection[int] = ()) -> bytes:
        """Return the body of a UIDL reply (RFC 1939 section 7), but for the indices *without*.

        Each line is a message number, a space, the unique-id, CRLF.
        """
        return _rows(b"%d %s\r\n", self.uids, without) if without else self._unique_id_listing

    @cached_property
    def _scan_listing(self) -> bytes:
        return _rows(b"%d %d\r\n", self.sizes)

    @cached_property
    def _unique_id_listing(self) -> bytes:
        return _rows(b"%d %s\r\n", self.uids)


def _rows(row: bytes, column: Sequence[object], without: Collection[int] = ()) -> bytes:
    return b"".join([row % (i + 1, cell) for i, cell in enumerate(column) if i not in without])


EMPTY = Snapshot((), ())
"""The snapshot of a maildrop that holds nothing."""
