"""The messages of a Maildir as they were found: a list that never changes, and makes the next one.

Sessions share it, and many are kept in memory.  So it is columns, not an object for each message:
that takes some 70 octets a message, and what is the same in the next list is copied at one go.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import merge
from itertools import accumulate, chain, compress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from popd.maildrop.names import time_digits
from popd.maildrop.stored import Facts, Measured
from popd.maildrop.uidl import unique_id
from popd.protocol.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

__all__ = ["NOTHING", "SINGLE", "Change", "Found", "Row", "Stock", "Twin"]

Place: TypeAlias = tuple[bytes, bytes]
"""The directory of a file, and what follows the base name in its name: a colon and flags."""

Found: TypeAlias = tuple[bytes, bytes, int]
"""A message file as a listing shows it: its directory, its name, its inode number.  (A bare tuple:
of those, unlike others, Python's collector of garbage need not keep track.)"""

_FEW: Final = 64

_CODES: Final = "BHIQq"
"""The kinds of columns, narrowest first: 1, 2, 4 and 8 octets, and 8 with a sign."""


_FEW_PLACES: Final = 8

_RUN: Final = 4096
"""How many keys are sorted in one call: as long as it takes, no other thread runs."""


class Twin(NamedTuple):
    """What tells a message from others that have had its base name, see `popd.maildrop.uidl`."""

    identity: bytes = b""
    """The SHA-256 of its content in hex, or nothing if there are no others."""

    number: int = 0
    """Which of them it is."""


SINGLE: Final = Twin()
"""A message whose base name no other has."""

# Of these, too, there is one for all.
_NO_TWINS: Final[Mapping[int, Twin]] = {}
_NO_OTHERS: Final[Mapping[int, bytes]] = {}

Row: TypeAlias = tuple[Found, Measured, Twin]
"""A message."""


class Change(NamedTuple):
    """What is different between a stock and the files that are there now."""

    gone: list[int]
    """The indices of the messages that are not there any more, lowest first."""

    moved: dict[int, Found]
    """Where messages are whose files were renamed, by their indices."""

    added: list[Found]
    """The files that are no message of the stock."""

    def __bool__(self) -> bool:
        """Tell whether anything is different."""
        return bool(self.gone or self.moved or self.added)


class _UniqueIds(Sequence[bytes]):
    """The unique-ids of a stock: its base names, but for those where it is something else."""

    __slots__ = ("_names", "_others", "_starts")

    def __init__(self, names: bytes, starts: array[int], others: Mapping[int, bytes]) -> None:
        self._names = names
        self._starts = starts
        self._others = others

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # nobody needs slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        other = self._others.get(index)
        if other is not None:
            return other
        return self._names[self._starts[index] : self._starts[index + 1] - 1]

    def __iter__(self) -> Iterator[bytes]:
        names = self._names.split(b"\0")
        del names[-1]
        for index, other in self._others.items():
            names[index] = other
        return iter(names)


class _Columns(NamedTuple):
    """What is known of the messages of a stock, in their order."""

    names: bytes
    """The base names, NUL behind each."""

    starts: array[int]
    """Where in `names` each begins, and where the last ends."""

    where: tuple[Place, ...]
    """Each place that a file has."""

    others: Mapping[int, bytes]
    """The unique-ids that are not the base name, by index."""

    places: array[int]
    """By message, an index into `where`."""

    inodes: array[int]
    """The inode numbers."""

    sizes: array[int]
    """Octets stored."""

    modified: array[int]
    """The mtimes, in nanoseconds."""

    octets: array[int]
    """Octets as RETR sends them."""


class Stock:
    """The messages of a Maildir, in their order.  Make one with `of` or `after`.

    :param columns: what is known of them.
    :param twins: those whose base names others have had, by index.
    :param like: a snapshot that begins with the same messages, if there is one.
    :param same: how many are the same.
    """

    __slots__ = ("_columns", "snapshot", "twins")

    def __init__(
        self,
        columns: _Columns,
        twins: Mapping[int, Twin],
        like: Snapshot | None = None,
        same: int = 0,
    ) -> None:
        self._columns = columns
        self.twins = twins
        uids = _UniqueIds(columns.names, columns.starts, columns.others)
        self.snapshot = Snapshot(columns.octets, uids, like, same)
        """What a session is shown."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Stock:
        """Return the stock of *rows*, which may come in any order."""
        where: dict[Place, int] = {}
        bases: list[bytes] = []
        lists: list[list[int]] = [[], [], [], [], []]
        places, inodes, sizes, modified, octets = lists
        twins: dict[int, Twin] = {}
        keys: list[bytes] = []
        for (directory, name, inode), (size, mtime, wire), twin in rows:
            base, colon, info = name.partition(b":")
            if twin.identity:
                twins[len(bases)] = twin
            keys.append(_key(base, mtime, twin))
            bases.append(base)
            places.append(where.setdefault((directory, colon + info), len(where)))
            inodes.append(inode)
            sizes.append(size)
            modified.append(mtime)
            octets.append(wire)
        order = _order(keys)
        bases = [bases[i] for i in order]
        twins = {new: twins[old] for new, old in enumerate(order) if old in twins} if twins else {}
        ids = list(map(unique_id, bases))
        for i, twin in twins.items():
            ids[i] = unique_id(bases[i], *twin)
        others = {i: uid for i, uid in enumerate(ids) if uid is not bases[i]} or _NO_OTHERS
        arrays = [_array(column, order) for column in lists]
        columns = _Columns(*_joined(bases), _shared(tuple(where)), others, *arrays)
        return cls(columns, twins or _NO_TWINS)

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self._columns.inodes)

    @property
    def names(self) -> bytes:
        """The base names, NUL behind each."""
        return self._columns.names

    @property
    def columns(self) -> list[array[int]]:
        """By message: inode number, octets stored, mtime in nanoseconds, octets on the wire."""
        return list(self._columns[-4:])

    @property
    def weight(self) -> int:
        """About how many octets of memory it takes, with what is rendered of it."""
        return (
            1500 + 60 * len(self) + 2 * len(self._columns.names) + 200 * len(self._columns.others)
        )

    def row(self, index: int, found: Found | None = None) -> Row:
        """Return a message.

        :param found: where it is, if not where it was found.
        """
        directory, info = self._columns.where[self._columns.places[index]]
        was = directory, self.base(index) + info, self._columns.inodes[index]
        return found or was, self.facts(index), self.twins.get(index, SINGLE)

    def base(self, index: int) -> bytes:
        """Return the base name of a message."""
        return self._columns.names[
            self._columns.starts[index] : self._columns.starts[index + 1] - 1
        ]

    def locate(self, index: int) -> tuple[bytes, int]:
        """Return where the file of a message was found, behind the Maildir's path, and its size."""
        columns = self._columns
        directory, info = columns.where[columns.places[index]]
        starts = columns.starts
        base = columns.names[starts[index] : starts[index + 1] - 1]
        return b"/%b/%b%b" % (directory, base, info), columns.sizes[index]

    def facts(self, index: int) -> Facts:
        """Return what was found out about a message."""
        return Facts(
            self._columns.sizes[index], self._columns.modified[index], self._columns.octets[index]
        )

    def only(self, bases: Collection[bytes]) -> Stock:
        """Return the stock of the messages that have these base names."""
        return Stock.of(self.row(i) for i in range(len(self)) if self.base(i) in bases)

    def compare(
        self,
        files: Mapping[bytes, Mapping[bytes, int]],
        is_same: Callable[[Found, Facts], bool] = lambda _found, _facts: True,
    ) -> Change:
        """Compare the stock with listings of some directories: inode numbers by file names.

        A file is the same message if it has its base name and its inode number, and stands a test.

        :param is_same: the test.
        """
        gone: list[int] = []
        added: list[Found] = []
        where, inodes = self._columns.where, self._columns.inodes
        for directory, listed in files.items():
            fresh = dict(listed)
            here = [place[0] == directory for place in where]
            for index, place in enumerate(self._columns.places) if any(here) else ():
                if here[place]:
                    name = self.base(index) + where[place][1]
                    found = directory, name, inodes[index]
                    if fresh.get(name) == found[2] and is_same(found, self.facts(index)):
                        del fresh[name]
                    else:
                        gone.append(index)
            added += [(directory, name, inode) for name, inode in fresh.items()]
        moved: dict[int, Found] = {}
        if gone and added:
            whose = {(self.base(index), inodes[index]): index for index in gone}
            new, added = added, []
            for found in new:
                index = whose.get((_base(found), found[2]), -1)
                if index >= 0 and is_same(found, self.facts(index)):
                    moved[index] = found
                else:
                    added.append(found)
            gone = [index for index in gone if index not in moved]
        return Change(sorted(gone), moved, added)

    def shares_names(self, change: Change) -> bool:
        """Tell whether a base name that *change* adds is another's as well."""
        bases = set(map(_base, change.added))
        if len(bases) < len(change.added):
            return True
        suspects = bases.difference(map(self.base, change.gone))
        if len(suspects) > _FEW:
            return not suspects.isdisjoint(self.names.split(b"\0")[:-1])
        around = b"\0" + self.names if suspects else b""
        return any(b"\0%b\0" % base in around for base in suspects)

    def after(self, change: Change, facts: Callable[[Found], Measured]) -> Stock:
        """Return the stock that *change* makes of this one.  No base name may be shared.

        :param facts: finds out about a file.
        """
        more = Stock.of((found, facts(found), SINGLE) for found in change.added)
        keep = bytearray(b"\1") * len(self)
        for index in change.gone:
            keep[index] = 0
        last = keep.rfind(b"\1")
        if last < 0:
            return more
        crowded = len(self._columns.where) > len(self) + _FEW
        if crowded or (len(more) and more.key(0) < self.key(last)):
            kept = compress(range(len(self)), keep)
            rows = (self.row(index, change.moved.get(index)) for index in kept)
            return Stock.of(chain(rows, map(more.row, range(len(more)))))
        return self._spliced(change, keep, more)

    def key(self, index: int) -> bytes:
        """Return what a message is sorted by."""
        twin = self.twins.get(index, SINGLE)
        return _key(self.base(index), self._columns.modified[index], twin)

    def _spliced(self, change: Change, keep: bytearray, more: Stock) -> Stock:
        """Do what `after` does where all that is added comes last."""
        (names, starts, where, others, places, *rest), gone = self._columns, change.gone
        numbers = {place: number for number, place in enumerate(where)}
        if change.moved:
            places = array("I", places)  # there may be more than fit in so narrow a column
            for index, (directory, name, _) in change.moved.items():
                _, colon, info = name.partition(b":")
                places[index] = numbers.setdefault((directory, colon + info), len(numbers))
        columns = [places, *rest]
        if gone:
            names, starts = _joined(list(compress(names.split(b"\0"), keep)))
            others = {i - bisect_left(gone, i): uid for i, uid in others.items() if keep[i]}
            columns = [array(column.typecode, compress(column, keep)) for column in columns]
        if len(more):
            kept, new = len(starts) - 1, more._columns
            others = {**others, **{kept + i: uid for i, uid in new.others.items()}}
            starts = _chained(starts[:-1], _narrow([len(names) + start for start in new.starts]))
            names += new.names
            theirs = [numbers.setdefault(place, len(numbers)) for place in new.where]
            new_places = _narrow([theirs[place] for place in new.places])
            columns = list(map(_chained, columns, (new_places, *more.columns)))
        spliced = _Columns(names, starts, tuple(numbers), others or _NO_OTHERS, *columns)
        return Stock(spliced, _NO_TWINS, self.snapshot, gone[0] if gone else len(self))


def _shared(where: tuple[Place, ...]) -> tuple[Place, ...]:
    """Return the same tuple for the same few places, which many Maildirs have."""
    return _remembered(where) if len(where) <= _FEW_PLACES else where


@lru_cache(256)
def _remembered(where: tuple[Place, ...]) -> tuple[Place, ...]:
    return where


def _base(found: Found) -> bytes:
    return found[1].partition(b":")[0]


def _key(base: bytes, modified: int, twin: Twin) -> bytes:
    """Return what a message is sorted by: delivery time, name, then what else never changes."""
    digits = time_digits(base)
    if digits is None:
        seconds, rest = divmod(max(0, modified), 10**9)
        digits = b"%d" % seconds, b"%d" % (rest // 1000)
    key = digits[0].rjust(12, b"0") + digits[1].rjust(6, b"0") + base
    return key + b"\0%d%b" % (twin.number > 0, unique_id(base, *twin)) if twin.identity else key


def _array(column: list[int], order: list[int]) -> array[int]:
    """Return a column in an order, as narrow as it can be.

    No call takes long, see `_order`: to make an array of a list would be one.
    """
    narrow = array(_code(column))
    for start in range(0, len(order), _RUN):
        narrow.extend(map(column.__getitem__, order[start : start + _RUN]))
    return narrow[:]  # without the room to grow


def _code(column: list[int]) -> str:
    """Return the narrowest kind of column that takes these numbers."""
    if not column:
        return _CODES[0]
    if min(column) < 0:
        return _CODES[-1]
    octets = (max(column).bit_length() + 7) // 8
    return next(code for code in _CODES if array(code).itemsize >= octets)


def _narrow(column: list[int]) -> array[int]:
    """Return a short column, as narrow as it can be."""
    return array(_code(column), column)


def _chained(one: array[int], other: array[int]) -> array[int]:
    wide = max(one.typecode, other.typecode, key=_CODES.index)
    first, second = (c if c.typecode == wide else array(wide, c) for c in (one, other))
    return first + second


def _joined(bases: list[bytes]) -> tuple[bytes, array[int]]:
    ends = accumulate([len(base) + 1 for base in bases], initial=0)
    return b"".join([base + b"\0" for base in bases]), _narrow(list(ends))


def _order(keys: list[bytes]) -> list[int]:
    """Return the indices of keys in their order.

    No call takes long: the thread that serves others cannot run in one.
    """
    runs = [
        sorted(range(i, min(len(keys), i + _RUN)), key=keys.__getitem__)
        for i in range(0, len(keys), _RUN)
    ]
    return list(merge(*runs, key=keys.__getitem__))


NOTHING: Final = Stock.of([])
"""The stock of a Maildir that holds nothing, or of which nothing is known."""
