"""The exclusive lock on a maildrop, held from log-in to the session's end (RFC 1939 section 4).

It is a kernel lock, so a crash leaves nothing behind, and it is on a file of popd's own, so that
delivery and other mail programs never meet it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
import threading

from popd.maildrop import beneath
from popd.maildrop.files import shown, temporarily
from popd.maildrop.interfaces import (
    MaildropInUseError,
    MaildropPermanentError,
    MaildropTemporaryError,
)

__all__ = ["LOCK_FILE", "MaildropLock"]

LOCK_FILE = b"popd-lock"
"""The name of the file in the Maildir.  It stays there: to remove it would let two in."""

_log = logging.getLogger(__name__)

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNWRITABLE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM}
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}

_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""A ``struct flock`` for an exclusive lock; its process id must be 0 (fcntl(2))."""

_held: set[tuple[int, int]] = set()
_held_guard = threading.Lock()


class MaildropLock:
    """One session's lock on the Maildir at *root*.

    Among the sessions of this process a set of the Maildirs in use decides, among processes and
    machines an open file description lock on `LOCK_FILE`.  (Never flock as well: on some shared
    file systems the two exclude each other.)  Where that file cannot be written, on a full or
    read-only disk, the mail is served all the same, and only this process knows.
    """

    __slots__ = ("_descriptor", "_key", "_root")

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._key: tuple[int, int] | None = None
        self._descriptor: int | None = None

    def acquire(self) -> tuple[int, int]:
        """Take the lock, at once or not at all.

        :return: the mtime and ctime of the Maildir just before, in nanoseconds.
        :raises MaildropInUseError: another session has it.
        :raises MaildropTemporaryError: the disk failed.
        :raises MaildropPermanentError: something that is no file bears the lock file's name.
        """
        status = _look(self._root)
        key = status.st_dev, status.st_ino
        with _held_guard:
            if key in _held:
                raise MaildropInUseError(f"{shown(self._root)}: in use in this process")
            _held.add(key)
        self._key = key
        try:
            self._lock_file()
        except BaseException:
            self.release()
            raise
        return status.st_mtime_ns, status.st_ctime_ns

    def release(self) -> None:
        """Give the lock back.  A second call does nothing, nor one without `acquire`."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._key is not None:
            with _held_guard:
                _held.discard(self._key)
            self._key = None

    @property
    def which(self) -> tuple[int, int]:
        """The device and inode number of the Maildir that is locked."""
        if self._key is None:
            raise RuntimeError("nothing is locked")
        return self._key

    def holds(self) -> bool:
        """Tell whether what is at *root* now is the Maildir that was locked.

        :raises MaildropTemporaryError: it cannot be looked at.
        """
        status = _look(self._root)
        return self._key == (status.st_dev, status.st_ino)

    def _lock_file(self) -> None:
        path = self._root + b"/" + LOCK_FILE
        try:
            self._descriptor = beneath.open_beneath(path, _OPEN, 0o600)
        except OSError as error:
            if error.errno in _UNWRITABLE:
                reason = error.strerror
                _log.warning("%s: %s; locked within this process only", shown(path), reason)
                return
            if beneath.is_linked(self._root):
                raise MaildropTemporaryError(f"{shown(self._root)}: {beneath.LINKED}") from error
            if error.errno in _NO_FILE:
                raise MaildropPermanentError(f"{shown(path)}: not a regular file") from error
            raise temporarily(path, error) from error
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise MaildropPermanentError(f"{shown(path)}: not a regular file")
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except (BlockingIOError, PermissionError) as error:  # EAGAIN or EACCES (fcntl(2))
            raise MaildropInUseError(f"{shown(path)}: locked elsewhere") from error
        except OSError as error:
            raise temporarily(path, error) from error


def _look(root: bytes) -> os.stat_result:
    try:
        return os.stat(root)
    except OSError as error:
        raise temporarily(root, error) from error
