"""A Maildir as a maildrop: the implementation of `IMaildrop` that real mail is in.

Nothing here assumes that this is the only program, or the only machine, at work on the Maildir.
Any file may be renamed or removed at any moment.  One that is not where it was is looked for under
its other names, and is gone only if both directories can still be read and do not hold it.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from zope.interface import implementer

from popd.maildrop import facts
from popd.maildrop.beneath import unlink_beneath
from popd.maildrop.files import open_regular, shown, sync_directory, temporary
from popd.maildrop.ground import Ground
from popd.maildrop.interfaces import (
    IPlacedMaildrop,
    IPromptMaildrop,
    MaildropError,
    MaildropInUseError,
    MaildropTemporaryError,
    MessageGoneError,
)
from popd.maildrop.local import is_local
from popd.maildrop.lock import MaildropLock
from popd.maildrop.mounts import disk_of
from popd.maildrop.scan import DIRECTORIES, PASSES, directory_key, scan
from popd.maildrop.snapshots import SnapshotCache
from popd.maildrop.stock import NOTHING
from popd.maildrop.stocktaking import take_stock
from popd.maildrop.stored import OpenMessage, content_hash, identify, read_from_memory, resembles
from popd.maildrop.uidl import LEDGER_FILE, Ledger
from popd.protocol.snapshot import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from io import FileIO

    from popd.maildrop.files import Durability
    from popd.maildrop.interfaces import Place
    from popd.maildrop.scan import Key
    from popd.maildrop.snapshots import Opened
    from popd.maildrop.stock import Stock
    from popd.protocol.snapshot import Snapshot

__all__ = ["Maildir"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_NO_LEDGER: Final = Ledger(b"", {})
"""That of a maildrop without duplicates, in which nothing is ever written down."""

_LARGE: Final = 1000
"""From so many messages on, the listings are rendered where it may take time."""


@implementer(IPromptMaildrop, IPlacedMaildrop)
class Maildir:
    """The maildrop of one user, in the Maildir at *root*.

    Log-in creates nothing but files of popd's own in *root*; their names begin with ``popd-``.

    :param root: the absolute path of the Maildir, in which ``new`` and ``cur`` are.
    :param ground: the directory that it stands on, which knows whether it may be missing.  By
        default it may not.
    :param cache: the maildrops that were opened lately.  By default, nothing is remembered.
    :param durability: whether what `commit` calls removed stays removed after a power cut.
    """

    __slots__ = (
        "_cache",
        "_doubtful",
        "_durability",
        "_ground",
        "_ledger",
        "_lock",
        "_opened",
        "_paths",
        "_place",
        "_root",
    )

    def __init__(
        self,
        root: bytes,
        ground: Ground | None = None,
        cache: SnapshotCache | None = None,
        durability: Durability = "full",
    ) -> None:
        self._root = root
        self._ground = ground or Ground(os.path.dirname(root), "error")
        self._cache = cache or SnapshotCache()
        self._durability = durability
        self._place: Place | None = None
        self._lock = MaildropLock(root)
        self._ledger = _NO_LEDGER
        self._opened: Opened | None = None
        self._paths: dict[int, bytes | None] = {}  # by now, where not as opened; None: gone
        self._doubtful = False  # a file is not as it was when it was measured

    def open(self) -> Snapshot:
        """See `IMaildrop.open`."""
        if not self._exists():
            self._ground.allow_missing(self._root)
            return EMPTY
        lock = MaildropLock(self._root)
        lock.acquire()
        try:
            ledger = Ledger.load(self._root)
            local = is_local(*(os.path.join(self._root, name) for name in DIRECTORIES))
            opened = take_stock(self._root, lock.which, ledger, self._cache, local=local)
            self._ground.prove()
        except BaseException:
            lock.release()
            raise
        try:
            ledger.secure()
        except MaildropTemporaryError as error:
            _log.warning("%s; until it can be written no duplicate is removed", error)
        snapshot = opened.stock.snapshot
        if len(snapshot) >= _LARGE:
            snapshot.render()
        if opened.keys:
            self._cache.put(self._root, opened)
        self._lock, self._opened = lock, opened
        self._ledger = ledger if opened.stock.twins else _NO_LEDGER
        return snapshot

    def open_promptly(self) -> Snapshot | None:
        """See `IPromptMaildrop.open_promptly`.

        It takes no time if it was opened lately, is on a local disk, and has not changed.
        """
        opened = self._cache.get(self._root)
        if opened is None or not opened.local:
            return None
        try:
            times = self._lock.acquire()
            if self._lock.which == opened.which and self._unchanged(opened, times):
                self._opened = opened
                return opened.stock.snapshot
        except MaildropInUseError:
            raise
        except MaildropError:  # `open` finds out, and says what it is
            pass
        self._lock.release()
        return None

    def read_promptly(self, index: int, limit: int) -> bytes | None:
        """See `IPromptMaildrop.read_promptly`.

        A duplicate is told by its content, which takes time; so does any call on a network.
        """
        opened = self._has(index)
        path, size = opened.stock.locate(index)
        if not opened.local or size > limit or index in opened.stock.twins:
            return None
        if index not in self._paths:
            return read_from_memory(self._root + path, size)
        moved = self._paths[index]
        return moved and read_from_memory(moved, size)

    def release_promptly(self) -> bool:
        """See `IPromptMaildrop.release_promptly`."""
        opened = self._opened
        prompt = opened is not None and opened.local and not (opened.unsaved or self._doubtful)
        if prompt:
            self.release()
        return prompt

    def message(self, index: int) -> OpenMessage:
        """See `IMaildrop.message`."""
        self._has(index)
        return self._wherever_it_is(index, self._open)

    def commit(self, deleted: Iterable[int]) -> Collection[int]:
        """See `IMaildrop.commit`.

        With full durability what counts as removed stays removed after a power cut, whoever it was
        that removed it.
        """
        indices = set(deleted)
        for index in indices:
            self._has(index)
        failures: dict[int, MaildropTemporaryError] = {}
        removed = self._unlink(indices, failures)
        if self._durability == "full":
            failures |= self._sync(removed)
        failures |= self._retire(indices - failures.keys())
        if failures:
            first = next(iter(failures.values()))
            _log.warning("%d messages not removed; %s", len(failures), first)
        return failures

    def _unlink(
        self, indices: Iterable[int], failures: dict[int, MaildropTemporaryError]
    ) -> dict[bytes, list[int]]:
        """Unlink messages; return them by the directories they were in.  Take note of failures."""
        # Duplicates last: the ledger must be safe before one goes, and the others make room for it.
        twins = self._stock.twins
        removed: dict[bytes, list[int]] = defaultdict(list)
        for index in sorted(indices, key=lambda index: (index in twins, index)):
            try:
                if index in twins:
                    self._ledger.secure()
                directory = self._wherever_it_is(index, self._remove)
            except MaildropTemporaryError as error:
                failures[index] = error
            except MessageGoneError:  # another program was there first, and where is not known
                for name in DIRECTORIES:
                    removed[self._root + b"/" + name].append(index)
            else:
                self._paths[index] = None
                removed[directory].append(index)
        return removed

    def _sync(self, removed: dict[bytes, list[int]]) -> dict[int, MaildropTemporaryError]:
        """Make removals durable, with one fsync for each directory; return what went wrong."""
        failures: dict[int, MaildropTemporaryError] = {}
        for directory, messages in removed.items():
            try:
                with temporary(directory):
                    sync_directory(directory)
            except MaildropTemporaryError as error:
                failures |= dict.fromkeys(messages, error)
        return failures

    def release(self) -> None:
        """See `IMaildrop.release`."""
        opened, self._opened = self._opened, None
        try:
            if self._doubtful:
                self._cache.discard(self._root)
                facts.forget(self._root)
            elif opened is not None and opened.unsaved:
                self._save(opened)
        finally:
            self._lock.release()
            self._paths = {}
            self._doubtful = False

    @property
    def place(self) -> Place:
        """See `IPlacedMaildrop.place`.  It stays what it was, whatever is mounted meanwhile."""
        if self._place is None:
            self._place = disk_of(self._root), shown(self._root)
        return self._place

    @property
    def duplicates(self) -> int:
        """How many of its messages have a base name that another has, or had, as well."""
        return len(self._stock.twins)

    @property
    def _stock(self) -> Stock:
        return self._opened.stock if self._opened is not None else NOTHING

    def _has(self, index: int) -> Opened:
        """Return what was opened, if that has a message at *index*, which counts from the front."""
        opened = self._opened
        if opened is None or not 0 <= index < len(opened.stock):
            raise IndexError(index)
        return opened

    def _exists(self) -> bool:
        """Tell whether the Maildir is there.

        :raises MaildropTemporaryError: it is, or may be, but has not both its directories.
        """
        with temporary(self._root):
            try:
                os.lstat(self._root)
            except FileNotFoundError:
                return False
        for directory in DIRECTORIES:
            directory_key(os.path.join(self._root, directory))
        return True

    def _unchanged(self, opened: Opened, times: Key) -> bool:
        """Tell whether the Maildir, without duplicates when opened last, is as it was then.

        :param times: its own before it was locked.
        :raises MaildropTemporaryError: it cannot be looked at.
        """
        prefix = self._root + b"/"
        for directory, key in zip(DIRECTORIES, opened.keys, strict=True):
            if directory_key(prefix + directory) != key:
                return False
        if times == opened.without_ledger:
            return True
        with temporary(self._root):
            try:
                os.lstat(prefix + LEDGER_FILE)
            except FileNotFoundError:
                if max(times) < self._cache.now() - self._cache.margin:
                    opened.without_ledger = times
                return True
        return False

    def _save(self, opened: Opened) -> None:
        """Write down what was found out about the messages that are still there."""
        stock = opened.stock
        removed = {stock.base(index) for index, path in self._paths.items() if path is None}
        recent = opened.recent - removed
        if len(removed) == len(stock) or (opened.signature and not recent):
            return  # it did not stay
        opened.unsaved = False
        try:
            opened.signature, opened.recent = facts.save(
                self._root, stock, recent, opened.signature
            )
        except OSError as error:
            _log.warning(
                "%s: %s; sizes are taken anew after a restart", shown(self._root), error.strerror
            )

    def _path(self, index: int) -> bytes | None:
        """Return where the file of a message is, as far as is known, or None if it is gone."""
        if index in self._paths:
            return self._paths[index]
        return self._root + self._stock.locate(index)[0]

    def _wherever_it_is(self, index: int, act: Callable[[int, bytes], _T]) -> _T:
        """Do *act* to the index and path of a message's file.

        :raises MessageGoneError: it was removed.
        :raises MaildropTemporaryError: *act* failed, or the file could not be looked for.
        """
        path = self._path(index)
        if path is not None:
            with temporary(path), suppress(FileNotFoundError):
                return act(index, path)
            self._find_all()
            path = self._path(index)
        if path is None:
            raise MessageGoneError(f"{shown(self._root + self._stock.locate(index)[0])}: removed")
        with temporary(path):
            return act(index, path)

    def _open(self, index: int, path: bytes) -> OpenMessage:
        """Open *path*, which should hold the message at *index*.

        :raises OSError: it cannot be read.
        :raises MaildropTemporaryError: it holds something else.
        """
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            if not self._is_in(index, file):
                raise MaildropTemporaryError(f"{shown(path)}: not what it was at log-in")
            stack.pop_all()
        return OpenMessage(file, path, self._stock.facts(index).size)

    def _is_in(self, index: int, file: FileIO) -> bool:
        twin = self._stock.twins.get(index)
        if twin is not None:
            identity = content_hash(file)
            file.seek(0)
            return identity == twin.identity
        status, message = os.fstat(file.fileno()), self._stock.facts(index)
        same_size = status.st_size == message.size
        if not same_size or status.st_mtime_ns != message.modified:
            self._doubtful = True
        return same_size

    def _remove(self, index: int, path: bytes) -> bytes:
        """Remove *path*, which should hold the message at *index*; return its directory.

        :raises OSError: it cannot be removed.
        :raises MaildropTemporaryError: it holds something else.
        """
        self._open(index, path).close()
        unlink_beneath(path)
        return os.path.dirname(path)

    def _find_all(self) -> None:
        """Find out where every message is by now, or that it is gone.

        :raises MaildropTemporaryError: the Maildir cannot be read, or does not hold still.
        """
        for _ in range(PASSES):
            if not self._lock.holds():
                raise MaildropTemporaryError(
                    f"{shown(self._root)}: not the Maildir of this session"
                )
            files = scan(self._root, now=self._cache.now).files
            with temporary(self._root), suppress(FileNotFoundError):
                self._find_in(
                    {
                        b"%b/%b/%b" % (self._root, directory, name)
                        for directory, names in files.items()
                        for name in names
                    }
                )
                return
        raise MaildropTemporaryError(f"{shown(self._root)}: its files come and go too fast")

    def _find_in(self, listed: set[bytes]) -> None:
        """Look for the messages that are not where they were among the listed files."""
        stock = self._stock
        paths = [self._path(index) for index in range(len(stock))]
        strays: dict[bytes, list[bytes]] = defaultdict(list)
        for stray in sorted(listed.difference(path for path in paths if path is not None)):
            strays[os.path.basename(stray).partition(b":")[0]].append(stray)
        duplicates: dict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
        for index, path in enumerate(paths):
            if path is None or path in listed:
                continue
            base = stock.base(index)
            twin = stock.twins.get(index)
            if twin is not None:
                for stray in strays.pop(base, []):
                    duplicates[base, identify(stray)].append(stray)
                found = duplicates[base, twin.identity]
            else:
                found = [stray for stray in strays[base] if resembles(stray, stock.facts(index))]
            self._paths[index] = found.pop() if found else None

    def _retire(self, gone: Iterable[int]) -> dict[int, MaildropTemporaryError]:
        """Note whose unique-ids must not pass to a twin that stays; return what went wrong."""
        stock = self._stock
        staying = {
            (stock.base(index), twin.identity)
            for index, twin in stock.twins.items()
            if self._path(index) is not None
        }
        outlived = [
            index
            for index in gone
            if index in stock.twins and (stock.base(index), stock.twins[index].identity) in staying
        ]
        for index in outlived:
            self._ledger.spend(stock.base(index), *stock.twins[index])
        try:
            if outlived:
                self._ledger.secure()
        except MaildropTemporaryError as error:
            return dict.fromkeys(outlived, error)
        return {}
