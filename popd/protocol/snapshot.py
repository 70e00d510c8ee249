"""What a maildrop held when it was opened: the frozen list that a session talks about."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from popd.protocol.message import TERMINATOR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = ["EMPTY", "ROWS", "Snapshot"]

ROWS: Final = 256
"""How many messages are looked at for one piece of a listing; that takes less than 100 µs."""

_OK: Final = b"+OK\r\n"
_SCAN_ROW: Final = b"%d %d\r\n"
_UNIQUE_ID_ROW: Final = b"%d %b\r\n"


class Snapshot:
    """The messages of a maildrop, in their order, as they were at log-in.

    A snapshot never changes: mail that arrives later is not in it, and a deletion mark is the
    session's own affair.  Index *i* (0-based) is message number *i + 1* (RFC 1939 section 5).

    Listings are rendered once, and shared by all who talk about the same snapshot.

    :param sizes: octets of each message as RETR sends it, before byte-stuffing: every line end
        counted as two octets (RFC 1939 section 11).
    :param uids: the unique-id of each message: 1 to 70 octets of 0x21 to 0x7E, no two alike
        (RFC 1939 section 7, UIDL).
    :param like: an older snapshot of the same maildrop, of whose listings parts can be copied.
    :param same: how many messages, from the first on, are as they were in *like*.
    """

    __slots__ = ("_octets", "_old_scan", "_old_uidl", "_same", "_scan", "_uidl", "sizes", "uids")

    def __init__(
        self,
        sizes: Sequence[int],
        uids: Sequence[bytes],
        like: Snapshot | None = None,
        same: int = 0,
    ) -> None:
        if len(sizes) != len(uids):
            raise ValueError("a snapshot needs one unique-id for each size")
        self.sizes = sizes
        self.uids = uids
        self._octets: int | None = None
        self._scan = self._uidl = b""
        self._same = same
        self._old_scan = self._old_uidl = b""
        if like is not None:  # only what it has rendered is kept, not itself
            self._old_scan, self._old_uidl = like._scan, like._uidl  # noqa: SLF001 - our own class

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self.sizes)

    @property
    def octets(self) -> int:
        """The size of all messages together, in octets."""
        if self._octets is None:
            self._octets = sum(self.sizes)
        return self._octets

    def render(self) -> None:
        """Work out now what would else be worked out when it is asked for."""
        _ = self.octets, self.scan_listing(), self.unique_id_listing()

    def scan_listing(self) -> bytes:
        """Return a whole LIST reply (RFC 1939 section 5).

        Each line is a message number, a space, the size in octets, CRLF.
        """
        if not self._scan:
            self._scan = _listing(_SCAN_ROW, self.sizes, self._old_scan, self._same)
            self._old_scan = b""
        return self._scan

    def unique_id_listing(self) -> bytes:
        """Return a whole UIDL reply (RFC 1939 section 7).

        Each line is a message number, a space, the unique-id, CRLF.
        """
        if not self._uidl:
            self._uidl = _listing(_UNIQUE_ID_ROW, self.uids, self._old_uidl, self._same)
            self._old_uidl = b""
        return self._uidl

    def scan_listing_without(self, indices: Collection[int]) -> Iterator[bytes]:
        """Yield a LIST reply that leaves out *indices*, in small pieces, as they are asked for."""
        return _pieces(_SCAN_ROW, self.sizes, indices)

    def unique_id_listing_without(self, indices: Collection[int]) -> Iterator[bytes]:
        """Yield a UIDL reply that leaves out *indices*, in small pieces, as they are asked for."""
        return _pieces(_UNIQUE_ID_ROW, self.uids, indices)


def _listing(row: bytes, column: Sequence[object], old: bytes, same: int) -> bytes:
    """Render a whole listing, but for the first rows if an old one has the same."""
    if not old:
        old, same, end = _OK, 0, len(_OK)
    else:
        end = old.find(b"\n%d " % (same + 1)) + 1 or len(old) - len(TERMINATOR)
    rows = enumerate(islice(column, same, None), same + 1)
    return b"".join([memoryview(old)[:end], *_rendered(row, rows), TERMINATOR])


def _pieces(row: bytes, column: Sequence[object], without: Collection[int]) -> Iterator[bytes]:
    yield _OK
    cells = enumerate(column)
    while some := list(islice(cells, ROWS)):
        yield from _rendered(row, [(i + 1, cell) for i, cell in some if i not in without])
    yield TERMINATOR


def _rendered(row: bytes, cells: Iterable[tuple[int, object]]) -> Iterator[bytes]:
    """Render `ROWS` rows at a time; to format many at once takes half the time."""
    cells = iter(cells)
    while flat := tuple(chain.from_iterable(islice(cells, ROWS))):
        yield row * (len(flat) // 2) % flat


EMPTY = Snapshot((), ())
"""The snapshot of a maildrop that holds nothing."""
