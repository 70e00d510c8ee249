"""How many sessions there are in all processes of one popd: in all, by address, by user.

Each process writes how many it has itself, in shared memory and where no other writes, and then
adds up what all have written.  So nobody waits for anybody, and of two processes that count at the
same time at least one sees the other: for once both may be kept out, but a limit is never exceeded.
"""

from __future__ import annotations

import mmap
import secrets
import sys
from hashlib import blake2b
from struct import Struct
from threading import Lock
from typing import Final

from popd.server.seats import SEATS

__all__ = ["MAX_SESSIONS", "Census", "Entry", "LimitError", "Row", "Tally", "settle"]

_WAYS: Final = 16
_BUCKETS: Final = 8_192
_WORD: Final = 8
_BUCKET: Final = _WAYS * _WORD
_SEAT: Final = _BUCKETS * _BUCKET
_WORDS: Final = Struct(f"{_WAYS}Q")

MAX_SESSIONS: Final = 49_152
"""How many sessions one process can have at most, whatever the limits are.  If all have different
keys, six of them share a bucket of sixteen on average."""

_BITS: Final = 16
"""A word's lower bits, which count."""

_COUNT: Final = (1 << _BITS) - 1
_MARK: Final = 6
"""Octets of a mark, which is the rest of a word."""

_MARK_AT: Final = _WORD - _MARK if sys.byteorder == "little" else 0
"""Where in a word they are."""

_IDLE: Final = 1_024
"""Keys that a process may keep its place for though it has none of them: who polls comes again."""

_order: Final = Lock()


def settle() -> None:
    """Write what was written before anything is read: taking a lock makes a processor do so."""
    with _order:
        pass


class LimitError(Exception):
    """There are as many as there may be."""


class Tally:
    """How often each of many keys is there, in all processes together.

    A process has 8,192 buckets of sixteen words: 48 bits of a key's hash, and how often the process
    has it.  The hash has a secret, so that nobody can choose who shares a bucket with whom; and two
    keys are taken for one only if all bits agree, those that choose the bucket included.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self.octets = mmap.mmap(-1, SEATS * _SEAT)  # forked processes share it
        self.words = memoryview(self.octets).cast("Q")

    def row(self, seat: int) -> Row:
        """Return the row of the process on a seat, for it alone to write to."""
        return Row(self, seat)

    def clear(self, seat: int) -> None:
        """Forget what the process on a seat had, and give the memory back."""
        self.octets.madvise(mmap.MADV_REMOVE, seat * _SEAT, _SEAT)

    def count(self, entry: Entry, seats: int, but: int) -> int:
        """Return how often a key is there, in the processes on the first seats but for one."""
        total = 0
        for seat in range(seats):
            if seat == but:
                continue
            begin = seat * _SEAT + entry.bucket
            row = self.octets[begin : begin + _BUCKET]
            at = row.find(entry.octets)
            while at >= 0 and at % _WORD != _MARK_AT:
                at = row.find(entry.octets, at + 1)
            if at >= 0:
                word = self.words[(begin + at) // _WORD]
                if word >> _BITS == entry.word >> _BITS:  # it may just have gone
                    total += word & _COUNT
        return total

    def find(self, key: bytes) -> tuple[int, bytes, int]:
        """Return what an `Entry` for a key is made of."""
        digest = blake2b(key, digest_size=_WORD, key=self._secret).digest()
        number = int.from_bytes(digest, "little")
        mark = number >> _BITS or 1  # what is 0 is free
        return mark << _BITS, mark.to_bytes(_MARK, sys.byteorder), number % _BUCKETS * _BUCKET


class Entry:
    """A key that a process has.

    :param word: what the process wrote for it: the mark, and how often it has the key.
    :param octets: the mark.
    :param bucket: where its bucket begins in each row.
    """

    __slots__ = ("bucket", "octets", "place", "word")

    def __init__(self, word: int, octets: bytes, bucket: int) -> None:
        self.word = word
        self.octets = octets
        self.bucket = bucket
        self.place = 0
        """Where the word is."""


class Row:
    """What one process has in a tally.

    :param tally: the tally.
    :param seat: which of the processes this is.
    """

    def __init__(self, tally: Tally, seat: int) -> None:
        self._tally = tally
        self._seat = seat
        self._words = tally.words
        self._entries: dict[bytes, Entry] = {}
        self._idle = 0  # how many of them are there no more

    def enter(self, key: bytes, limit: int, seats: int) -> Entry | None:
        """Count one more of *key*; return what `leave` wants to know.

        It could not be counted if the bucket is full: that is for no more than one in some
        thousands, if a process is as full as it can be.  Then the result is None.

        :param seats: how many of the first seats may be in use.
        :raises LimitError: that would be more than *limit*.
        """
        entry = self._entries.get(key) or self._place(key)
        if entry is None:
            return None
        if not entry.word & _COUNT:
            self._idle -= 1
        entry.word += 1
        self._words[entry.place] = entry.word
        total = entry.word & _COUNT
        if seats > 1:
            settle()
            total += self._tally.count(entry, seats, self._seat)
        if total > limit:
            self.leave(entry)
            raise LimitError
        return entry

    def leave(self, entry: Entry) -> None:
        """Count one less of what was counted with `enter`."""
        entry.word -= 1
        self._words[entry.place] = entry.word
        if not entry.word & _COUNT:
            self._idle += 1
            if self._idle > _IDLE:
                self._forget()

    def _place(self, key: bytes) -> Entry | None:
        """Find a place for a key; return None if there is none in its bucket."""
        entry = Entry(*self._tally.find(key))
        begin = self._seat * _SEAT + entry.bucket
        words = _WORDS.unpack_from(self._tally.octets, begin)
        if 0 not in words and self._idle:
            self._forget()
            words = _WORDS.unpack_from(self._tally.octets, begin)
        if 0 not in words:
            return None
        entry.place = begin // _WORD + words.index(0)
        self._entries[key] = entry
        self._idle += 1
        return entry

    def _forget(self) -> None:
        """Give up the places of keys that are there no more."""
        for key, entry in list(self._entries.items()):
            if not entry.word & _COUNT:
                self._words[entry.place] = 0
                del self._entries[key]
        self._idle = 0


class Census:
    """All that is counted; to be made before a fork, and kept as long as any process lives."""

    def __init__(self) -> None:
        self.addresses = Tally()
        self.users = Tally()
        self._octets = mmap.mmap(-1, SEATS * (_WORD + 1))
        memory = memoryview(self._octets)
        self.sessions = memory[: SEATS * _WORD].cast("Q")
        """How many sessions the process on each seat has; it alone writes there."""
        self.taken = memory[SEATS * _WORD :]
        """Which seats are in use: 1 or 0."""

    def take(self, seat: int) -> None:
        """Begin to count on a seat."""
        self.vacate(seat)
        self.taken[seat] = 1

    def vacate(self, seat: int) -> None:
        """Forget what the process on a seat had, which is no more."""
        if self.taken[seat]:
            self.sessions[seat] = 0
            self.addresses.clear(seat)
            self.users.clear(seat)
            self.taken[seat] = 0

    @property
    def seats(self) -> int:
        """How many of the first seats may be in use."""
        return self._octets.rfind(b"\1", SEATS * _WORD) - SEATS * _WORD + 1
