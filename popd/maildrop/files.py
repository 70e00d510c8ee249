"""How files and directories in a Maildir are opened: never through a link, never blocking.

A Maildir may be writable for its user, so anything can lie in it: a symbolic link to somebody
else's mail, or a FIFO that would keep its reader waiting for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from io import FileIO
from typing import TYPE_CHECKING

from popd.maildrop.interfaces import MaildropTemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_directory", "open_regular", "shown", "sync_directory", "temporary"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def shown(path: bytes) -> str:
    """Return *path* as it may stand in a log line: in quotes, with nothing that could forge one."""
    return ascii(os.fsdecode(path))


@contextmanager
def temporary(path: bytes) -> Iterator[None]:
    """Turn an OSError into a MaildropTemporaryError that says what it was about.

    :param path: what it was about, if the error itself does not know.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, bytes) else path
        raise MaildropTemporaryError(f"{shown(where)}: {error.strerror}") from error


def open_regular(path: bytes) -> FileIO:
    """Open a regular file for unbuffered reading.

    :raises OSError: it cannot be opened, or is no regular file.
    """
    file = FileIO(os.open(path, _READ), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "Not a regular file")


def open_directory(path: bytes) -> int:
    """Open a directory, itself no link, and return its file descriptor.

    :raises OSError: it cannot be opened, or is no directory.
    """
    return os.open(path, _READ | os.O_DIRECTORY)


def sync_directory(path: bytes) -> None:
    """Make durable which names a directory holds.

    :raises OSError: that failed; after a power cut, the directory may be as it was before.
    """
    descriptor = open_directory(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
