"""The maildrops that were opened lately, kept so that to open them again costs little."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from popd.maildrop.scan import TICK

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.maildrop.facts import Signature
    from popd.maildrop.scan import Key
    from popd.maildrop.stock import Stock

__all__ = ["DEFAULT_CACHE_SIZE", "DEFAULT_CLOCK_SKEW", "Opened", "SnapshotCache"]

DEFAULT_CLOCK_SKEW: Final = 1.0
"""Seconds that the clocks of machines that share a Maildir may differ."""

DEFAULT_CACHE_SIZE: Final = 128.0
"""Megabytes of memory for maildrops that were opened lately, in each process."""


@dataclass(slots=True, eq=False)
class Opened:
    """A Maildir as it was when it was opened last.

    A session has it to itself while it has the lock.
    """

    stock: Stock
    """Its messages."""

    keys: tuple[Key | None, ...]
    """What vouches for the listings that they were found in, in the order of `DIRECTORIES`; empty
    if nothing does."""

    which: tuple[int, int]
    """The device and inode number of the Maildir itself."""

    recent: frozenset[bytes]
    """The base names about which the cache's main file, if there is one, says nothing."""

    unsaved: bool
    """Whether something was found out that no file says."""

    signature: Signature
    """Which file that main file is."""

    local: bool
    """Whether it is on a disk of this machine."""

    without_ledger: Key = (0, 0)
    """The Maildir's own times when it had no ledger, if they vouch for that."""


class SnapshotCache:
    """Remembers the maildrops that were opened last.  Threads may share it.

    :param octets: how much memory they may take, about; what was not used for longest goes.
    :param clock_skew: seconds that the clocks of machines that share a Maildir may differ.
    :param now: tells the time in nanoseconds since 1970, as file systems do.
    """

    def __init__(
        self,
        octets: float = 0,
        clock_skew: float = DEFAULT_CLOCK_SKEW,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.margin = max(TICK, int(clock_skew * 1e9))
        """How old, in nanoseconds, a directory's times must be to vouch for a listing."""
        self.now = now
        self._octets = octets
        self._taken = 0
        self._opened: OrderedDict[bytes, Opened] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, root: bytes) -> Opened | None:
        """Return what is remembered about the Maildir at *root*."""
        with self._guard:
            opened = self._opened.get(root)
            if opened is not None:
                self._opened.move_to_end(root)
            return opened

    def put(self, root: bytes, opened: Opened) -> None:
        """Remember a Maildir in place of what was remembered about it."""
        with self._guard:
            self._remove(root)
            self._opened[root] = opened
            self._taken += opened.stock.weight
            while self._taken > self._octets:
                self._remove(next(iter(self._opened)))

    def discard(self, root: bytes) -> None:
        """Forget a Maildir."""
        with self._guard:
            self._remove(root)

    def _remove(self, root: bytes) -> None:
        opened = self._opened.pop(root, None)
        if opened is not None:
            self._taken -= opened.stock.weight
