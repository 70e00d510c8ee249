"""What makes guessing passwords slow: wrong ones are counted, and attempts wait for their turn.

Nobody is ever locked out.  What is counted wears off with time, each by a rule of its own (`Rule`):

- for a *network*, an IPv4 address or an IPv6 /64, and more laxly for a *site*, an IPv6 /48;
- for an *account*, whether it exists or not, while the network is not being slowed down itself;
- for a *pair* of an account and a network, where a password was right before, or is not known.

Networks, sites and pairs have queues: each attempt takes the next turn before it is known what will
come of it, so attempts made at the same time come one after the other.  A user who logged in from a
network before does not stand in the queue of that network, but in his own.

A wrong password that was wrong before costs nothing: nobody learns anything from it.  Reasons and
figures are in ``docs/authentication-guessing.rst``.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from popd.auth.rules import (
    ACCOUNT,
    MAX_WAIT,
    NETWORK,
    PAIR,
    SITE,
    Keys,
    next_turn,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.account import Client
    from popd.auth.rules import Key, Origin, Rule
    from popd.auth.tablefile import GuessTable

__all__ = ["HOLD", "Guard"]

HOLD: Final = 5.0
"""Seconds that an attempt whose turn would come too late should be kept before it is refused.  The
client could keep the connection anyway, and to keep it costs less than what would come next."""

TRUST: Final = 90 * 86_400.0
"""Seconds that it counts that a user logged in from a network."""

REMEMBER: Final = 30 * 86_400.0
"""Seconds from when a wrong password was last tried until it counts once more."""

UNNAMED: Final = 3600.0
"""Seconds for which failures without a password, of one account and from one network, count once
for the network; for the pair of the two each of them counts."""

CROWD: Final = 32
"""Attempts from one network that may be under way in a process before they take turns."""

RECOUNT: Final = 60.0
"""Seconds until all that is under way is taken to be over."""

MAX_UNDER_WAY: Final = 65_536
"""Networks of which that many attempts under way are counted."""

CROWD_INTERVAL: Final = 0.05
"""Seconds between the turns of more than that: about what it takes to hash a password."""


class Guard:
    """Tells how long attempts to log in have to wait.

    Everything is called in one thread, never blocks, and does next to nothing while all is well.
    For each attempt `delay` is called, and one of `failed`, `succeeded` and `unanswered` when it is
    over; but of one that is known to be right, and `passes`, nothing is noted.

    :param table: what is remembered, which other processes may share.
    :param clock: tells the seconds since 1970, for all of them the same.
    """

    def __init__(self, table: GuessTable, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._scores = table.scores
        self._clock = clock
        self._keys = Keys(table.key, table.scores.buckets)
        self._under_way: dict[Key, int] = {}
        self._counted_since = clock()

    def passes(self, client: Client, username: bytes) -> bool:
        """Tell whether an attempt would not have to wait.  It is not taken for made.

        :param username: as for `delay`.
        """
        origin = self._keys.origin(client.address)
        if origin is None:
            return True
        if self._under_way.get(origin.network, 0) >= CROWD:
            return False
        mark = self._keys.account(username)
        if not self._knows_something(origin, mark):
            return True
        now = self._clock()
        queues, trusted = self._queues(origin, mark ^ origin.mark, now)
        if not trusted:
            queues.append((ACCOUNT, self._keys.of(ACCOUNT, mark)))
        return not self._slows(queues, now)

    def delay(self, client: Client, username: bytes) -> float:
        """Return how many seconds an attempt has to wait before anybody is asked about it.

        :param username: the user's canonical name, whether or not there is such a user.
        :return: seconds; infinity if it would be too many.  Then nobody must be asked.
        """
        origin = self._keys.origin(client.address)
        if origin is None:
            return 0.0
        mark = self._keys.account(username)
        count = self._under_way.get(origin.network, 0) + 1
        if count > CROWD or len(self._under_way) > MAX_UNDER_WAY:
            count = self._recount(count)
        self._under_way[origin.network] = count
        if count <= CROWD and not self._knows_something(origin, mark):
            return 0.0
        return self._wait(origin, mark, count > CROWD)

    def failed(self, client: Client, username: bytes, secret: bytes | None) -> None:
        """Note that an attempt was wrong.

        :param secret: the wrong password, or token; None if it is not known.
        """
        origin = self._keys.origin(client.address)
        if origin is None:
            return
        self._over(origin)
        mark, now = self._keys.account(username), self._clock()
        guess = mark ^ origin.mark
        if secret is not None:
            guess = self._keys.guess(username, secret)
        with self._table.lock:
            age = self._table.wrong.age(guess, now)
            again = age is not None and age < (UNNAMED if secret is None else REMEMBER)
            if secret is not None or not again:
                self._table.wrong.see(guess, now)
            if secret is None or (not again and self._trusts(mark ^ origin.mark, now)):
                self._count(PAIR, self._keys.of(PAIR, mark ^ origin.mark), now)
            if not again:
                self._count_new(origin, mark, now)

    def succeeded(self, client: Client, username: bytes) -> None:
        """Note that an attempt was right."""
        origin = self._keys.origin(client.address)
        if origin is None:
            return
        self._over(origin)
        now, pair = self._clock(), self._keys.account(username) ^ origin.mark
        age = self._table.proven.age(pair, now)
        if age is None or age > TRUST / 90:
            with self._table.lock:
                self._table.proven.see(pair, now)
        key = self._keys.of(PAIR, pair)
        if self._scores.get(*key):
            with self._table.lock:
                self._scores.drop(*key)

    def unanswered(self, client: Client) -> None:
        """Note that an attempt is over of which nobody knows whether it was right."""
        origin = self._keys.origin(client.address)
        if origin is not None:
            self._over(origin)

    def _knows_something(self, origin: Origin, mark: int) -> bool:
        """Tell, at next to no cost, whether anything at all may have been counted of these."""
        occupied, buckets = self._scores.occupied, self._scores.buckets
        return bool(
            occupied[origin.network[1]]
            or occupied[mark % buckets]
            or occupied[(mark ^ origin.mark) % buckets]
            or (origin.site and occupied[origin.site[1]])
        )

    def _recount(self, count: int) -> int:
        """Begin to count anew, now and then, what is under way: the end of some may be missed."""
        now = self._clock()
        if abs(now - self._counted_since) < RECOUNT:
            return count
        self._counted_since = now
        self._under_way.clear()
        return 1

    def _over(self, origin: Origin) -> None:
        left = self._under_way.pop(origin.network, 1) - 1
        if left > 0:
            self._under_way[origin.network] = left

    def _wait(self, origin: Origin, mark: int, crowded: bool) -> float:
        now = self._clock()
        queues, trusted = self._queues(origin, mark ^ origin.mark, now)
        crowded = crowded and not trusted
        wait = 0.0
        if crowded or self._slows(queues, now):
            with self._table.lock:
                wait = self._take_turns(queues, now, CROWD_INTERVAL if crowded else 0.0)
        if wait > MAX_WAIT:
            return inf
        if not trusted:
            state = self._scores.get(*self._keys.of(ACCOUNT, mark))
            wait = max(wait, ACCOUNT.interval(state, now))
        return wait

    def _queues(self, origin: Origin, pair: int, now: float) -> tuple[list[tuple[Rule, Key]], bool]:
        """Return in which queues an attempt stands, and whether the user was here before."""
        queues = [(PAIR, self._keys.of(PAIR, pair))]
        trusted = self._trusts(pair, now)
        if not trusted:
            queues.append((NETWORK, origin.network))
            if origin.site:
                queues.append((SITE, origin.site))
        return queues, trusted

    def _slows(self, queues: list[tuple[Rule, Key]], now: float) -> bool:
        """Tell whether there has to be time between two attempts in any of these."""
        return any(rule.interval(self._scores.get(*key), now) for rule, key in queues)

    def _take_turns(self, queues: list[tuple[Rule, Key]], now: float, least: float) -> float:
        """Take the next turn in all *queues*, unless one is too far away.

        Those who wait are taken to be wrong, so what comes behind them is as far away again.

        :param least: seconds between two turns in the network's queue, whatever was counted.
        :return: seconds until the last of the turns.
        """
        wait = 0.0
        new: list[tuple[Key, int]] = []
        for rule, key in queues:
            state = self._scores.get(*key)
            turn = next_turn(state, now)
            interval = rule.interval(state, now)
            if interval:
                interval = max(interval, min(turn - now, rule.longest))
            elif rule is NETWORK:
                interval = least
            if interval:
                wait = max(wait, turn - now)
                new.append((key, state_of(max(state >> 32, now), turn + interval)))
        if wait <= MAX_WAIT:
            for key, state in new:
                self._scores.put(*key, state)
        return wait

    def _count_new(self, origin: Origin, mark: int, now: float) -> None:
        """Count a guess that was not made before."""
        slow = self._count(NETWORK, origin.network, now)
        if origin.site:
            slow = self._count(SITE, origin.site, now) or slow
        if not slow:
            self._count(ACCOUNT, self._keys.of(ACCOUNT, mark), now)

    def _count(self, rule: Rule, key: Key, now: float) -> bool:
        """Count a wrong guess; return whether it was more than is free."""
        state = rule.one_more(self._scores.get(*key), now)
        self._scores.put(*key, state)
        return rule.interval(state, now) > 0

    def _trusts(self, pair: int, now: float) -> bool:
        age = self._table.proven.age(pair, now)
        return age is not None and age <= TRUST
