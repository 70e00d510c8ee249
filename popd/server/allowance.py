"""How much each user has downloaded today."""

from __future__ import annotations

import mmap
import os
import secrets
from hashlib import blake2b
from typing import Final

from popd.auth.table import WAYS, Scores
from popd.auth.tablefile import Lock

__all__ = ["Allowance"]

_DAY: Final = 86_400
"""Seconds."""

_BUCKETS: Final = 8_192
"""65,536 users are remembered; where there are more in a bucket, those who downloaded least make
room."""

_SHIFT: Final = 44
_OCTETS: Final = (1 << _SHIFT) - 1
"""What one word can count, besides the day: 17 TB."""


class Allowance:
    """Octets by user and day (UTC), in memory that all processes share; to be made before a fork.

    A word is the day and the octets, so that yesterday's matter less than any of today's.
    """

    def __init__(self) -> None:
        octets = _BUCKETS * (1 + Scores.OCTETS)
        memory = memoryview(mmap.mmap(-1, octets))
        self._table = Scores(memory[:_BUCKETS], memory[_BUCKETS:])
        self._lock = Lock(os.memfd_create("popd-allowance", os.MFD_CLOEXEC))
        self._secret = secrets.token_bytes(16)

    def spent(self, user: bytes, now: float) -> int:
        """Return how many octets a user has downloaded today.

        :param now: seconds since 1970.
        """
        return _today(self._table.get(*self._key(user)), now)

    def spend(self, user: bytes, octets: int, now: float) -> None:
        """Count octets that a user has downloaded."""
        key = self._key(user)
        with self._lock:
            total = min(_today(self._table.get(*key), now) + octets, _OCTETS)
            self._table.put(*key, int(now) // _DAY << _SHIFT | total)

    def _key(self, user: bytes) -> tuple[int, int]:
        digest = blake2b(user, digest_size=8, key=self._secret).digest()
        key = int.from_bytes(digest, "little")
        return key, key // WAYS % _BUCKETS


def _today(word: int, now: float) -> int:
    return word & _OCTETS if word >> _SHIFT == int(now) // _DAY else 0
