"""Credentials that were found good a short while ago, so that a hash need not be computed again."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from popd.auth.interfaces import IVersioned

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.account import Account

__all__ = ["DEFAULT_TTL", "LOOK", "MAX_ENTRIES", "CredentialCache"]

DEFAULT_TTL: Final = 300.0
"""Seconds that verified credentials count: longer than programs take from one poll to the next."""

MAX_ENTRIES: Final = 50_000
"""How many are remembered, at some 600 octets each; beyond that the least recently used go."""


LOOK: Final = 0.02
"""Seconds until it is looked again whether a checker has changed."""


class CredentialCache:
    """Remembers good credentials, never bad ones, and neither names nor passwords.

    What is kept is a keyed hash, whose key is in no file and dies with the process.

    :param ttl: how many seconds credentials count; 0 remembers nothing.
    :param clock: tells the time in seconds; must never go back.
    """

    def __init__(
        self, ttl: float = DEFAULT_TTL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl = ttl
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[float, IVersioned, object, Account]] = OrderedDict()
        self._versions: dict[IVersioned, tuple[float, object]] = {}  # and until when they count

    def get(self, username: bytes, password: bytes) -> Account | None:
        """Return the account that these credentials were good for, if they still are."""
        if not self._entries:
            return None
        digest = self._digest(username, password)
        entry = self._entries.get(digest)
        if entry is None:
            return None
        end, checker, version, account = entry
        now = self._clock()
        if now >= end or self._version(checker, now) != version:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return account

    def put(
        self, username: bytes, password: bytes, account: Account, checker: object, version: object
    ) -> None:
        """Remember good credentials, if *checker* can tell when they may be so no longer.

        :param version: what the checker's version was *before* it was asked.
        """
        if self._ttl > 0 and IVersioned.providedBy(checker):
            digest = self._digest(username, password)
            self._entries[digest] = (self._clock() + self._ttl, checker, version, account)
            self._entries.move_to_end(digest)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def _version(self, checker: IVersioned, now: float) -> object:
        until, version = self._versions.get(checker, (0.0, None))
        if now >= until:
            version = checker.version()
            self._versions[checker] = now + LOOK, version
        return version

    def _digest(self, username: bytes, password: bytes) -> bytes:
        data = b"%d:%b%b" % (len(username), username, password)
        return blake2b(data, digest_size=16, key=self._key).digest()
