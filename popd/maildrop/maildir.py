"""A Maildir as a maildrop: the implementation of `IMaildrop` that real mail is in.

Nothing here assumes that this is the only program, or the only machine, at work on the Maildir.
Any file may be renamed or removed at any moment.  One that is not where it was is looked for under
its other names, and is gone only if both directories can still be read and do not hold it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from zope.interface import implementer

from popd.maildrop.files import shown, sync_directory, temporary
from popd.maildrop.ground import Ground
from popd.maildrop.interfaces import (
    IPromptMaildrop,
    MaildropTemporaryError,
    MessageGoneError,
)
from popd.maildrop.local import is_local
from popd.maildrop.lock import MaildropLock
from popd.maildrop.names import FileName
from popd.maildrop.scan import DIRECTORIES, PASSES, scan
from popd.maildrop.stored import identify, take_stock
from popd.maildrop.uidl import Ledger
from popd.protocol.snapshot import EMPTY, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from popd.maildrop.stored import OpenMessage, Stored

__all__ = ["Maildir"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@implementer(IPromptMaildrop)
class Maildir:
    """The maildrop of one user, in the Maildir at *root*.

    Log-in creates nothing but files of popd's own in *root*; their names begin with ``popd-``.

    :param root: the absolute path of the Maildir, in which ``new`` and ``cur`` are.
    :param ground: the directory that it stands on, which knows whether it may be missing.  By
        default it may not.
    """

    def __init__(self, root: bytes, ground: Ground | None = None) -> None:
        self._root = root
        self._ground = ground or Ground(os.path.dirname(root), "error")
        self._lock = MaildropLock(root)
        self._ledger = Ledger(root, {})
        self._messages: list[Stored] = []
        self._local = False

    def open(self) -> Snapshot:
        """See `IMaildrop.open`."""
        if not self._exists():
            self._ground.allow_missing(self._root)
            return EMPTY
        lock = MaildropLock(self._root)
        lock.acquire()
        try:
            ledger = Ledger.load(self._root)
            messages = take_stock(self._root, ledger)
            self._ground.prove()
            self._local = is_local(*(os.path.join(self._root, name) for name in DIRECTORIES))
        except BaseException:
            lock.release()
            raise
        try:
            ledger.secure()
        except MaildropTemporaryError as error:
            _log.warning("%s; until it can be written no duplicate is removed", error)
        self._lock, self._ledger, self._messages = lock, ledger, messages
        return Snapshot(
            [message.octets for message in messages],
            [message.unique_id for message in messages],
        )

    def open_promptly(self) -> None:
        """See `IPromptMaildrop.open_promptly`.  To list and measure files always takes time."""

    def read_promptly(self, index: int, limit: int) -> bytes | None:
        """See `IPromptMaildrop.read_promptly`.

        A duplicate is told by its content, which takes time; so does any call on a network.
        """
        message = self._at(index)
        if not self._local or message.size > limit or message.gone or message.identity:
            return None
        return message.read_from_memory()

    def release_promptly(self) -> bool:
        """See `IPromptMaildrop.release_promptly`."""
        if self._local:
            self.release()
        return self._local

    def message(self, index: int) -> OpenMessage:
        """See `IMaildrop.message`."""
        message = self._at(index)
        return self._wherever_it_is(message, message.open)

    def commit(self, deleted: Iterable[int]) -> int:
        """See `IMaildrop.commit`.  What counts as removed stays removed after a power cut."""
        # Duplicates last: the ledger must be safe before one goes, and the others make room for it.
        marked = sorted(map(self._at, set(deleted)), key=lambda message: bool(message.identity))
        failures: list[MaildropTemporaryError] = []
        unlinked: dict[bytes, list[Stored]] = defaultdict(list)
        gone: list[Stored] = []
        for message in marked:
            try:
                if message.identity:
                    self._ledger.secure()
                self._wherever_it_is(message, message.remove)
            except MaildropTemporaryError as error:
                failures.append(error)
            except MessageGoneError:
                gone.append(message)
            else:
                message.gone = True
                unlinked[os.path.dirname(message.path)].append(message)
        for directory, messages in unlinked.items():
            try:
                with temporary(directory):
                    sync_directory(directory)
            except MaildropTemporaryError as error:
                failures += [error] * len(messages)
            else:
                gone += messages
        failures += self._retire(gone)
        if failures:
            _log.warning("%d messages not removed; %s", len(failures), failures[0])
        return len(failures)

    def release(self) -> None:
        """See `IMaildrop.release`."""
        self._lock.release()
        self._messages = []

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
                path = os.path.join(self._root, directory)
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise MaildropTemporaryError(f"{shown(path)}: not a directory")
        return True

    def _at(self, index: int) -> Stored:
        """Return the message at *index*, which counts from the front only."""
        if index < 0:
            raise IndexError(index)
        return self._messages[index]

    def _wherever_it_is(self, message: Stored, act: Callable[[bytes], _T]) -> _T:
        """Do *act* to the path of a message's file.

        :raises MessageGoneError: it was removed.
        :raises MaildropTemporaryError: *act* failed, or the file could not be looked for.
        """
        if not message.gone:
            with temporary(message.path), suppress(FileNotFoundError):
                return act(message.path)
            self._find_all()
        if message.gone:
            raise MessageGoneError(f"{shown(message.path)}: removed")
        with temporary(message.path):
            return act(message.path)

    def _find_all(self) -> None:
        """Find out where every message is by now, or that it is gone.

        :raises MaildropTemporaryError: the Maildir cannot be read, or does not hold still.
        """
        for _ in range(PASSES):
            if not self._lock.holds():
                raise MaildropTemporaryError(
                    f"{shown(self._root)}: not the Maildir of this session"
                )
            listed = scan(self._root)
            with temporary(self._root), suppress(FileNotFoundError):
                self._find_in(listed)
                return
        raise MaildropTemporaryError(f"{shown(self._root)}: its files come and go too fast")

    def _find_in(self, listed: set[bytes]) -> None:
        """Look for the messages that are not where they were among the listed files."""
        strays: dict[bytes, list[bytes]] = defaultdict(list)
        for path in sorted(listed.difference(message.path for message in self._messages)):
            strays[FileName.parse(os.path.basename(path)).base].append(path)
        duplicates: dict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
        for message in self._messages:
            if message.gone or message.path in listed:
                continue
            base = message.name.base
            if message.identity:
                for path in strays.pop(base, []):
                    duplicates[base, identify(path)].append(path)
                found = duplicates[base, message.identity]
            else:
                found = [path for path in strays[base] if message.resembles(os.lstat(path))]
            if found:
                message.path = found.pop()
            else:
                message.gone = True

    def _retire(self, gone: Iterable[Stored]) -> list[MaildropTemporaryError]:
        """Note whose unique-ids must not pass to a twin that stays; return what went wrong."""
        staying = {(m.name.base, m.identity) for m in self._messages if m.identity and not m.gone}
        outlived = [message for message in gone if (message.name.base, message.identity) in staying]
        for message in outlived:
            self._ledger.spend(message.name.base, message.identity, message.number)
        try:
            self._ledger.secure()
        except MaildropTemporaryError as error:
            return [error] * len(outlived)
        return []
