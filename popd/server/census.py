"""How many sessions there are in all processes of one popd: in all, by address, by user.

Each process writes how many it has itself, in shared memory and where no other writes, and then
adds up what all have written.  So nobody waits for anybody, and of two processes that count at the
same time at least one sees the other: for once both may be kept out, but a limit is never exceeded.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from threading import Lock
from typing import Final

from popd.server.seats import SEATS

__all__ = ["MAX_SESSIONS", "Census", "Tally"]

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

_CACHED: Final = 4_096
"""Keys whose places are remembered."""

_order: Final = Lock()


def _settle() -> None:
    """Write what was written before anything is read: taking a lock makes a processor do so."""
    with _order:
        pass


def _memory(name: str, octets: int) -> mmap.mmap:
    """Return memory that forked processes share, and of which pages are taken as they are used."""
    descriptor = os.memfd_create(f"popd-{name}", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, octets)
        return mmap.mmap(descriptor, octets)
    finally:
        os.close(descriptor)


class Tally:
    """How often each of many keys is there, in all processes together.

    A process has 8,192 buckets of sixteen words: 48 bits of a key's hash, and how often the process
    has it.  The hash has a secret, so that nobody can choose who shares a bucket with whom; and two
    keys are taken for one only if all bits agree, those that choose the bucket included.

    :param name: what is counted, as the kernel lists it.
    """

    def __init__(self, name: str) -> None:
        self._secret = secrets.token_bytes(16)
        self._octets = _memory(name, SEATS * _SEAT)
        self._words = memoryview(self._octets).cast("Q")
        self._find = lru_cache(_CACHED)(self._hash)

    def enter(self, seat: int, key: bytes, limit: int, seats: int) -> bool | None:
        """Count one more of *key*, unless that is more than *limit*.

        Returns whether it is not; None if it could not be counted, since the bucket is full: that
        is for no more than one in some thousands, if a process is as full as it can be.

        :param seats: how many of the first seats may be in use.
        """
        mark, octets, bucket = self._find(key)
        place = self._place(seat, octets, bucket)
        if place is None:
            begin = seat * _SEAT + bucket
            words = _WORDS.unpack_from(self._octets, begin)
            if 0 not in words:
                return None
            place = begin // _WORD + words.index(0)
            self._words[place] = mark << _BITS | 1
        else:
            self._words[place] += 1
        _settle()
        total = 0
        for other in range(seats):
            there = self._place(other, octets, bucket)
            if there is not None:
                word = self._words[there]
                if word >> _BITS == mark:  # it may just have gone
                    total += word & _COUNT
        if total <= limit:
            return True
        self._drop(place)
        return False

    def leave(self, seat: int, key: bytes) -> None:
        """Count one less of what was counted with `enter`."""
        _, octets, bucket = self._find(key)
        place = self._place(seat, octets, bucket)
        if place is not None:
            self._drop(place)

    def clear(self, seat: int) -> None:
        """Forget what the process on a seat had, and give the memory back."""
        self._octets.madvise(mmap.MADV_REMOVE, seat * _SEAT, _SEAT)

    def _place(self, seat: int, octets: bytes, bucket: int) -> int | None:
        """Return which of the words a mark is in, in the row of a seat."""
        begin = seat * _SEAT + bucket
        row = self._octets[begin : begin + _BUCKET]
        at = row.find(octets)
        while at >= 0:
            if at % _WORD == _MARK_AT:
                return (begin + at) // _WORD
            at = row.find(octets, at + 1)
        return None

    def _drop(self, place: int) -> None:
        word = self._words[place]
        self._words[place] = word - 1 if word & _COUNT > 1 else 0

    def _hash(self, key: bytes) -> tuple[int, bytes, int]:
        """Return a key's mark, the same in octets, and where the bucket begins in a row."""
        digest = blake2b(key, digest_size=_WORD, key=self._secret).digest()
        number = int.from_bytes(digest, "little")
        mark = number >> _BITS or 1  # what is 0 is free
        return mark, mark.to_bytes(_MARK, sys.byteorder), number % _BUCKETS * _BUCKET


class Census:
    """All that is counted; to be made before a fork, and kept as long as any process lives."""

    def __init__(self) -> None:
        self.addresses = Tally("addresses")
        self.users = Tally("users")
        memory = memoryview(_memory("sessions", SEATS * (_WORD + 1)))
        self._sessions = memory[: SEATS * _WORD].cast("Q")
        self._taken = memory[SEATS * _WORD :]

    def take(self, seat: int) -> None:
        """Begin to count on a seat."""
        self.vacate(seat)
        self._taken[seat] = 1

    def vacate(self, seat: int) -> None:
        """Forget what the process on a seat had, which is no more."""
        if self._taken[seat]:
            self._sessions[seat] = 0
            self.addresses.clear(seat)
            self.users.clear(seat)
            self._taken[seat] = 0

    @property
    def seats(self) -> int:
        """How many of the first seats may be in use."""
        return bytes(self._taken).rfind(1) + 1

    def publish(self, seat: int, sessions: int) -> None:
        """Tell how many sessions the process on a seat has."""
        self._sessions[seat] = sessions
        _settle()

    def sessions(self) -> int:
        """Return how many there are in all processes."""
        return sum(self._sessions[: self.seats])
