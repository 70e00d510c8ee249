"""Who is being slowed down, for administrators to look at and to forgive."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import product
from math import ceil
from typing import TYPE_CHECKING, Final

from popd.auth.rules import ACCOUNT, NETWORK, PAIR, SITE, Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from popd.auth.rules import Key, Rule
    from popd.auth.tablefile import GuessTable

__all__ = ["MOST", "Penalty", "forgive", "penalties", "slowed"]

_MARK: Final = (1 << 48) - 1
_KINDS: Final = {
    NETWORK.kind: ("network", NETWORK),
    SITE.kind: ("site", SITE),
    ACCOUNT.kind: ("account", ACCOUNT),
    PAIR.kind: ("pair", PAIR),
}
_MAX_PAIRS: Final = 1_000_000
"""How many pairs of users and networks are tried out."""

MOST: Final = 1_000
"""How many buckets of the table `slowed` looks at, which must not take long."""


@dataclass(frozen=True)
class Penalty:
    """What is remembered about a network, an account, or an account at a network.

    :param kind: ``network``, ``site``, ``account`` or ``pair``.
    :param subject: a network as text, a user's name, or ``USER from NETWORK``.  Names
        are not stored: of one that is not known there is a ``#`` and twelve digits.
    :param guesses: wrong guesses that count by now.
    :param interval: seconds between two attempts; 0 if it is not slowed down yet.
    :param ends: when all will be forgotten, in seconds since 1970.
    """

    kind: str
    subject: str
    guesses: int
    interval: float
    ends: float


def penalties(
    table: GuessTable, now: float, users: Iterable[str] = (), subject: str = ""
) -> list[Penalty]:
    """Return what is remembered, the worst first.

    :param users: the names of users, in their canonical spelling, to be recognised.
    :param subject: an IP address, or a user's name in its canonical spelling, about which to return
        it; empty for everything.
    """
    found = _penalties(table, now, users, subject)
    return sorted(found, key=lambda p: (-p.interval, -p.ends, p.subject))


def slowed(table: GuessTable, now: float, most: int = MOST) -> int:
    """Return how many networks, accounts and pairs are slowed down now.

    Where there is too much to look at, it is told from a part of it; a hash says what is where.

    :param most: how many buckets are looked at, or a few more.
    """
    stride = ceil(table.scores.used / most) or 1
    found = table.scores.every(stride)
    return stride * sum(_kind(word)[1].interval(state, now) > 0 for word, state in found)


def forgive(table: GuessTable, subject: str = "") -> int:
    """Forget what is remembered.

    :param subject: about what, as for `penalties`.
    :return: how much there was to forget.
    """
    with table.lock:
        known = dict(table.scores)
        if not subject:
            table.scores.clear()
            table.wrong.clear()
            return len(known)
        return sum(table.scores.drop(*key) for key in _keys_of(table, known, subject))


def _keys_of(table: GuessTable, known: Iterable[int], subject: str) -> Iterator[Key]:
    """Yield the keys under which something about *subject* may be remembered."""
    keys = Keys(table.key, table.scores.buckets)
    origin = keys.origin(subject)
    if origin is None:
        account = keys.account(subject.encode())
        yield keys.of(ACCOUNT, account)
        for word in _networks(known):
            yield keys.of(PAIR, account ^ _network_mark(keys, word))
        return
    yield origin.network
    if origin.site:
        yield origin.site
    for word in known:
        if word >> 48 == ACCOUNT.kind:
            yield keys.of(PAIR, origin.mark ^ word & _MARK)


def _penalties(
    table: GuessTable, now: float, users: Iterable[str], about: str
) -> Iterator[Penalty]:
    keys = Keys(table.key, table.scores.buckets)
    known = {word: state for word, state in table.scores if state >> 32 > now}
    names = {keys.account(user.encode()): user for user in users}
    pairs = {}
    if names and len(names) * len(known) <= _MAX_PAIRS:
        networks = {_network_mark(keys, word): word for word in _networks(known)}
        for (account, name), (network, word) in product(names.items(), networks.items()):
            pairs[account ^ network] = f"{name} from {_shown(word)}"
    if about:
        wanted = {word for word, _ in _keys_of(table, known, about)}
        known = {word: state for word, state in known.items() if word in wanted}
    for word, state in known.items():
        kind, rule = _kind(word)
        recognised = {"account": names, "pair": pairs}.get(kind, {})
        subject = recognised.get(word & _MARK) or _shown(word)
        guesses, interval = round(rule.count(state, now)), rule.interval(state, now)
        yield Penalty(kind, subject, guesses, interval, float(state >> 32))


def _kind(word: int) -> tuple[str, Rule]:
    return _KINDS.get(word >> 48, ("network", NETWORK))


def _networks(known: Iterable[int]) -> Iterator[int]:
    return (word for word in known if _kind(word)[1] is NETWORK)


def _network_mark(keys: Keys, word: int) -> int:
    origin = keys.origin(str(_network(word).network_address))
    return origin.mark if origin else 0


def _shown(word: int) -> str:
    if word >> 48 in {ACCOUNT.kind, PAIR.kind}:
        return f"#{word & _MARK:012x}"
    return str(_network(word)).removesuffix("/32")


def _network(word: int) -> IPv4Network | IPv6Network:
    if word >> 48 == NETWORK.kind:
        return IPv4Network(word & 0xFFFF_FFFF)
    if word >> 48 == SITE.kind:
        return IPv6Network(((word & _MARK) << 80, 48))
    return IPv6Network((word << 64, 64))
