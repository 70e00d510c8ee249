"""Numbers that the processes of one popd have in common.

Each process that serves has a seat: a row of numbers that it alone writes to, without a lock, and
that all of them can read.  A seat outlives its process, so that what was counted there goes on
being counted by the next one that takes it.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SEATS", "Seats"]

SEATS: Final = 256
"""How many processes can serve at the same time, those that only finish their sessions included."""

_WORD: Final = 8


class Seats:
    """Rows of whole numbers from 0 to 2**64 - 1 in memory that forked processes share.

    Memory is taken only for rows that were written to.

    :param cells: how many numbers a row has.
    """

    def __init__(self, cells: int) -> None:
        octets = -(-cells * _WORD // mmap.PAGESIZE) * mmap.PAGESIZE  # a page has one owner
        self._rows = memoryview(mmap.mmap(-1, octets * SEATS)).cast("Q")
        self._stride = octets // _WORD
        self._cells = cells

    def row(self, seat: int) -> memoryview:
        """Return the numbers of a seat, counted from 0."""
        begin = seat * self._stride
        return self._rows[begin : begin + self._cells]

    def total(self, cell: int) -> int:
        """Return the sum of one number over all seats."""
        return sum(self._rows[cell :: self._stride])

    def __iter__(self) -> Iterator[memoryview]:
        """Yield all rows."""
        return map(self.row, range(SEATS))
