"""What is counted of wrong guesses, how it slows down what comes next, and under which keys.

A state is one word.  Its upper half says in whole seconds since 1970 when all will be forgotten, so
that of two states the greater one matters longer.  Its lower half says when the next turn is, in
milliseconds, as far as 32 bits go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address
from math import ceil
from typing import Final, NamedTuple, TypeAlias

from popd.auth.account import Client

__all__ = [
    "ACCOUNT",
    "MAX_WAIT",
    "NETWORK",
    "PAIR",
    "SITE",
    "Key",
    "Keys",
    "Origin",
    "Rule",
    "next_turn",
    "state_of",
]

MAX_WAIT: Final = 15.0
"""Seconds that an attempt waits for its turn at most."""


@dataclass(frozen=True)
class Rule:
    """How wrong guesses at, or from, one thing slow it down.

    :param kind: in the upper 16 bits of a key; 0 for a network that is a key itself.
    :param free: how many wrong guesses change nothing.
    :param fades: seconds after which there is one less.
    :param first: seconds between two attempts after one more than *free*; each more doubles it.
    :param longest: seconds that this grows to.
    :param most: how many are counted at most.
    """

    kind: int
    free: int
    fades: int
    first: float
    longest: float
    most: int

    def count(self, state: int, now: float) -> float:
        """Return how many guesses *state* stands for by now; none if that cannot be."""
        count = max((state >> 32) - now, 0.0) / self.fades
        # It can be a little more than the most if the clock was put right.
        return min(count, self.most) if count <= 2 * self.most else 0.0

    def interval(self, state: int, now: float) -> float:
        """Return the seconds that there have to be between two attempts."""
        over = ceil(self.count(state, now) - self.free)
        # Beyond 2 to the 20th anything has reached its longest.
        return min(self.longest, self.first * 2.0 ** min(over - 1, 20)) if over > 0 else 0.0

    def one_more(self, state: int, now: float) -> int:
        """Return what becomes of *state* by one more wrong guess."""
        count = min(self.count(state, now) + 1, self.most)
        return state_of(now + count * self.fades, next_turn(state, now))


def state_of(end: float, turn: float) -> int:
    """Return the state that is forgotten at *end*, and whose next turn is at *turn*."""
    return int(end) << 32 | int(turn * 1000) & 0xFFFF_FFFF


def next_turn(state: int, now: float) -> float:
    """Return when the next turn is; one that nobody can have been waiting for is now."""
    ahead = (state - int(now * 1000) & 0xFFFF_FFFF) / 1000
    return now + ahead if state and ahead <= 2 * MAX_WAIT else now


# IPv6 networks are keys as they are; none of them has the upper octet ff, as that is multicast.
NETWORK: Final = Rule(0xFF01, free=10, fades=300, first=0.5, longest=15.0, most=100)
SITE: Final = Rule(0xFF02, free=50, fades=60, first=0.25, longest=4.0, most=500)
ACCOUNT: Final = Rule(0xFF03, free=20, fades=300, first=0.5, longest=5.0, most=100)
PAIR: Final = Rule(0xFF04, free=5, fades=600, first=0.5, longest=15.0, most=50)

Key: TypeAlias = tuple[int, int]
"""A key, and the bucket in which it is."""


class Origin(NamedTuple):
    """Where clients come from.

    :param mark: a keyed hash of the network, of 48 bits.
    """

    network: Key
    site: Key | None
    mark: int


class Keys:
    """Finds the keys of what is counted.

    :param secret: the key of all hashes: without it nobody can fill a certain bucket.
    :param buckets: how many there are.
    """

    def __init__(self, secret: bytes, buckets: int) -> None:
        self._secret = secret
        self._buckets = buckets
        self.origin = lru_cache(4096)(self._origin)
        """See `_origin`."""
        self.account = lru_cache(1024)(self._account)
        """See `_account`."""

    def of(self, rule: Rule, mark: int) -> Key:
        """Return the key for *rule* of what has this mark.

        An account's mark XOR a network's is that of the pair.
        """
        return rule.kind << 48 | mark, mark % self._buckets

    def guess(self, username: bytes, secret: bytes) -> int:
        """Return the mark of a password, or whatever was tried, for an account."""
        return self._hash(b"%d:%b%b" % (len(username), username, secret), b"guess")

    def _account(self, username: bytes) -> int:
        """Return the mark of an account."""
        return self._hash(username, b"account")

    def _origin(self, address: str) -> Origin | None:
        """Return where the client with this address is; None if it has none."""
        ip = Client(address).ip
        if ip is None:
            return None
        mark = self._hash(ip.packed[:8], b"network")
        if isinstance(ip, IPv4Address):
            return Origin((NETWORK.kind << 48 | int(ip), mark % self._buckets), None, mark)
        upper = int(ip) >> 64
        site = self._hash(ip.packed[:6], b"site")
        return Origin(
            (upper, mark % self._buckets),
            (SITE.kind << 48 | upper >> 16, site % self._buckets),
            mark,
        )

    def _hash(self, data: bytes, what: bytes) -> int:
        digest = blake2b(data, digest_size=6, key=self._secret, person=what).digest()
        return int.from_bytes(digest, "little")
