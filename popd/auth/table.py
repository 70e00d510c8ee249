"""Bounded tables in a piece of memory that several processes share.

Both tables are made of buckets of eight.  A key can be in one bucket only, and if that is full,
what matters least makes room there; so a table never grows, and looking something up costs the
same however much is in it.  Reading takes no lock: each word is read and written as a whole, so
whoever reads while another writes sees each word of a bucket as it was or as it will be.  If just
then one key takes another's place, he may for once be told the one's word for the other's.  Whoever
writes holds the lock that goes with the memory, and reads with it what he writes back changed.

Keys that strangers can choose must be hashed with a secret before they choose a bucket.  Whatever
is in the memory, also if it is garbage, reading it never fails.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WAYS", "Marks", "Scores"]

WAYS: Final = 8
"""How many keys a bucket holds."""

_WORD: Final = 8
_EIGHT: Final = Struct(f"{WAYS}Q")

_TICK: Final = 6
"""Marks tell the time in units of 2 to the power of this many seconds."""

_ROW: Final = 1 << 8
"""The bits of a key that are not in the word choose the bucket in a row."""

_MIDDLE_ROWS: Final = 16
"""Rows that are used up before all the others are, the first one included."""

_AGES: Final = (1 << 24) - 1
"""The time of a mark has 24 bits: some 34 years until it begins anew."""

_USED: Final = re.compile(b"\1")
_ONES: Final = bytes([0, *[1] * 255])
"""Whatever is not 0 is 1: a single octet is found ten times as fast as one of several."""


class Scores:
    """What is known about each of many keys: a word, which is greater the more it matters.

    A bucket is eight keys, then their eight words.  A word of 0 stands for nothing.

    :param occupied: an octet for each bucket, which says whether anything ever was in it.  A bucket
        that never held anything is not even looked at, so that it need not exist.
    :param memory: 128 octets for each bucket.
    """

    OCTETS: Final = 2 * WAYS * _WORD
    """Of a bucket."""

    def __init__(self, occupied: memoryview, memory: memoryview) -> None:
        self.buckets = len(occupied)
        self.occupied = occupied
        self._memory = memory
        self._words = memory.cast("Q")

    def get(self, key: int, bucket: int) -> int:
        """Return the word of *key*, 0 if there is none."""
        if not self.occupied[bucket]:
            return 0
        keys = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS)
        if key not in keys:
            return 0
        return self._words[(2 * bucket + 1) * WAYS + keys.index(key)]

    def put(self, key: int, bucket: int, word: int) -> None:
        """Set the word of *key*; it may take the place of the key with the least word."""
        self.occupied[bucket] = 1
        at = 2 * WAYS * bucket
        keys = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS)
        words = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS + WAYS * _WORD)
        way = keys.index(key) if key in keys else words.index(min(words))
        if keys[way] != key:
            self._words[at + WAYS + way] = 0  # what belonged to the other
            self._words[at + way] = key
        self._words[at + WAYS + way] = word

    def drop(self, key: int, bucket: int) -> bool:
        """Forget *key*; return whether anything was known about it."""
        known = self.get(key, bucket) != 0
        if known:
            self.put(key, bucket, 0)
        return known

    def clear(self) -> None:
        """Forget everything."""
        for bucket in self._in_use():
            for way in range(WAYS):
                self._words[(2 * bucket + 1) * WAYS + way] = 0
            self.occupied[bucket] = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield all keys of which something is known, with their words."""
        return self.every(1)

    def every(self, stride: int) -> Iterator[tuple[int, int]]:
        """Yield the same of every so many-th bucket."""
        for bucket in self._in_use(stride):
            keys = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS)
            words = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS + WAYS * _WORD)
            yield from (pair for pair in zip(keys, words, strict=True) if pair[1])

    @property
    def used(self) -> int:
        """In how many buckets there ever was anything."""
        return self.buckets - bytes(self.occupied).count(0)

    def _in_use(self, stride: int = 1) -> Iterator[int]:
        occupied = bytes(self.occupied[::stride]).translate(_ONES)
        return (stride * found.start() for found in _USED.finditer(occupied))


class Marks:
    """A set of keys of 48 bits, and when each was seen last; the oldest makes room for a new one.

    A key is one word: its upper 40 bits, and the time in 24.  Its lower 8 bits choose a bucket in
    each row of 256, and the others in which row it may be: the first; if the bucket there is full,
    one of the next 15; then one of the rest.  So few keys take few pages of memory.  A word that
    was taken once is never free again.

    :param memory: 64 octets for each bucket, of which there are whole rows.
    """

    OCTETS: Final = WAYS * _WORD
    """Of a bucket."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._words = memory.cast("Q")
        rows, rest = divmod(len(memory), _ROW * self.OCTETS)
        if rest or not rows:
            raise ValueError("marks need 256 buckets, or a multiple of that")
        tiers = ((0, 1), (1, min(rows, _MIDDLE_ROWS)), (_MIDDLE_ROWS, rows))
        self._tiers = [(first, end - first) for first, end in tiers if end > first]

    def age(self, key: int, now: float) -> float | None:
        """Return how many seconds ago *key* was seen, give or take a minute; None if never."""
        for bucket in self._buckets(key):
            words = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS)
            for word in words:
                if word >> 24 == key >> 8 and word:
                    return float(_age(word, now) << _TICK)
            if 0 in words:  # it would be here
                break
        return None

    def see(self, key: int, now: float) -> None:
        """Note that *key* was seen now."""
        places: list[tuple[int, int]] = []
        for bucket in self._buckets(key):
            words = _EIGHT.unpack_from(self._memory, bucket * self.OCTETS)
            for way, word in enumerate(words, bucket * WAYS):
                if word >> 24 == key >> 8 or not word:
                    self._mark(way, key, now)
                    return
                places.append((_age(word, now), way))
        self._mark(max(places)[1], key, now)

    def _buckets(self, key: int) -> Iterator[int]:
        """Yield where *key* may be, in the order in which it is put there."""
        for first, rows in self._tiers:
            yield (first + (key >> 8) % rows) * _ROW + key % _ROW

    def _mark(self, at: int, key: int, now: float) -> None:
        self._words[at] = key >> 8 << 24 | (int(now) >> _TICK & _AGES)

    def clear(self) -> None:
        """Forget everything."""
        for at, word in enumerate(self._words):
            if word:
                self._words[at] = 0


def _age(word: int, now: float) -> int:
    """Return how old a mark is, in its own units; one from the future is as good as new."""
    age = (int(now) >> _TICK) - word & _AGES
    return age if age <= _AGES >> 1 else 0
