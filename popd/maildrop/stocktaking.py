"""Finding out what a Maildir holds, at a cost that grows with what changed in it."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import closing
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar

from popd.maildrop.facts import load
from popd.maildrop.files import open_directory, shown, temporarily
from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.scan import DIRECTORIES, PASSES, scan
from popd.maildrop.snapshots import Opened
from popd.maildrop.stock import NOTHING, SINGLE, Stock, Twin
from popd.maildrop.stored import Facts, identify, measure, resembles

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.maildrop.facts import Known
    from popd.maildrop.scan import Key
    from popd.maildrop.snapshots import SnapshotCache
    from popd.maildrop.stock import Found, Row
    from popd.maildrop.stored import Measured
    from popd.maildrop.uidl import Ledger

__all__ = ["take_stock"]

_NONE: Final[frozenset[bytes]] = frozenset()

_T = TypeVar("_T")


def take_stock(
    root: bytes, which: tuple[int, int], ledger: Ledger, cache: SnapshotCache, *, local: bool
) -> Opened:
    """Find out what the Maildir at *root* holds.

    Only directories that may have changed since it was opened last are listed, only files about
    which nothing is known are looked into.  A file that vanishes meanwhile was removed or renamed,
    and only a new look can tell which.

    What is known of a file counts for one of the same base name and inode number.  On a local disk
    size and mtime must be the same as well, since inode numbers are given to other files soon;
    on a network to look at each file would take minutes.

    :param which: the Maildir's device and inode number.
    :param cache: what is known about it already.
    :param local: whether it is on a disk of this machine.
    :raises MaildropTemporaryError: a directory or a file cannot be read; or the files come and go
        so fast that there is no telling what is there.
    """
    before = cache.get(root)
    if before is not None and before.which != which:
        before = None
    with closing(_Files(root, before, local=local)) as files:
        for _ in range(PASSES):
            stock = before.stock if before else NOTHING
            known = dict(zip(DIRECTORIES, before.keys, strict=True)) if before else None
            seen = scan(root, known, cache.margin, cache.now)
            try:
                change = stock.compare(seen.files, files.is_same)
                shared = bool(ledger) or stock.shares_names(change)
                if not shared:
                    stock = stock.after(change, files.facts) if change else stock
                elif before:  # this takes all of them, and more than was listed
                    before = None
                    continue
                else:
                    rows = [(found, files.facts(found), SINGLE) for found in change.added]
                    stock = Stock.of(_numbered(root, rows, ledger))
            except FileNotFoundError:
                continue
            keys = () if shared else tuple(seen.keys[directory] for directory in DIRECTORIES)
            return files.opened(stock, keys, which)
    raise MaildropTemporaryError(f"{shown(root)}: its files come and go too fast to list them")


class _Files:
    """What is known about the files of a Maildir, and what is found out.

    :param root: the Maildir.
    :param before: how it was when it was opened last, if that is remembered.
    :param local: whether it is on a disk of this machine.
    """

    def __init__(self, root: bytes, before: Opened | None, *, local: bool) -> None:
        self._root = root
        self._folders = {directory: b"%b/%b/" % (root, directory) for directory in DIRECTORIES}
        self._descriptors: dict[bytes, int] = {}  # of those, as far as one was needed
        self._before = before
        self._local = local
        self._known: Known | None = None
        self._measured: dict[bytes, tuple[int, Measured]] = {}  # by base name, for an inode

    def facts(self, found: Found) -> Measured:
        """Return what there is to know about a file.

        :raises FileNotFoundError: it has vanished.
        :raises MaildropTemporaryError: it cannot be read.
        """
        if self._known is None:
            self._known = load(self._root, self._before.signature if self._before else None)
        directory, name, inode = found
        base = name.partition(b":")[0]
        measured = self._measured.get(base)
        if measured and measured[0] == inode:
            facts: Measured | None = measured[1]
        else:
            facts = self._known.get(base, inode)
        if facts is not None and self.is_same(found, Facts(*facts)):
            return facts
        try:
            folder = self._descriptors.get(directory, -1)
            if folder < 0:
                folder = self._descriptors[directory] = open_directory(self._folders[directory])
            facts = measure(name, folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise temporarily(self._folders[directory] + name, error) from error
        self._measured[base] = inode, facts
        return facts

    def is_same(self, found: Found, facts: Facts) -> bool:
        """Tell whether a file of the right base name and inode number is the one that is known.

        :raises FileNotFoundError: it has vanished.
        :raises MaildropTemporaryError: it cannot be looked at.
        """
        if not self._local:
            return True
        directory, name, _ = found
        return _look(self._folders[directory] + name, lambda path: resembles(path, facts))

    def close(self) -> None:
        """Find out no more."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def opened(self, stock: Stock, keys: tuple[Key | None, ...], which: tuple[int, int]) -> Opened:
        """Return the Maildir as it is now."""
        before, known = self._before, self._known
        recent, unsaved, signature = _NONE, bool(self._measured), None
        if before:
            recent, signature = before.recent, before.signature
            unsaved = unsaved or before.unsaved
        if known:
            recent, signature = recent | known.recent, known.signature
        # Without a main file all that is known will be written: no need to ask what is new.
        recent = recent.union(self._measured) if signature else _NONE
        recent = recent or _NONE  # many are kept, and each empty one takes 200 octets
        return Opened(stock, keys, which, recent, unsaved, signature, self._local)


def _numbered(root: bytes, rows: list[Row], ledger: Ledger) -> list[Row]:
    """Give the messages that share a base name their numbers.

    :raises FileNotFoundError: one has vanished.
    :raises MaildropTemporaryError: one cannot be read.
    """
    by_base: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        by_base[row[0][1].partition(b":")[0]].append(row)
    numbered: list[Row] = []
    for base, group in by_base.items():
        if len(group) == 1 and base not in ledger:
            numbered += group
            continue
        twins = []
        for found, facts, _ in group:
            directory, name, _ = found
            identity = _look(b"%b/%b/%b" % (root, directory, name), identify)
            twins.append((facts[1], identity, found, facts))
        twins.sort(key=itemgetter(0, 1))
        numbers = ledger.numbers(base, [identity for _, identity, _, _ in twins])
        numbered += [
            (found, facts, Twin(identity, number))
            for (_, identity, found, facts), number in zip(twins, numbers, strict=True)
        ]
    return numbered


def _look(path: bytes, into: Callable[[bytes], _T]) -> _T:
    """Look into a file.

    :raises FileNotFoundError: it has vanished.
    :raises MaildropTemporaryError: it cannot be read.
    """
    try:
        return into(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise temporarily(path, error) from error
