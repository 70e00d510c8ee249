"""How files and directories in a Maildir are opened: never through a link, never blocking.

A Maildir may be writable for its user, so anything can lie in it: a symbolic link to somebody
else's mail, or a FIFO that would keep its reader waiting for ever.  See `popd.maildrop.beneath`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import FileIO
from typing import Literal

from popd.maildrop import beneath
from popd.maildrop.interfaces import MaildropTemporaryError

__all__ = [
    "READ",
    "Durability",
    "open_directory",
    "open_regular",
    "replace_file",
    "shown",
    "sync_directory",
    "temporary",
]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""The flags that everything in a Maildir is opened with."""

Durability = Literal["full", "fast"]
"""What QUIT waits for: that deletions are on the disk, or only that the kernel knows of them."""


def shown(path: bytes) -> str:
    """Return *path* as it may stand in a log line: in quotes, with nothing that could forge one."""
    return ascii(os.fsdecode(path))


class temporary:  # noqa: N801 - it is used like a function; as a generator it would cost thrice
    """Turn an OSError into a MaildropTemporaryError that says what it was about.

    :param path: what it was about, if the error itself does not know.
    """

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End."""
        if isinstance(error, OSError):
            where = error.filename if isinstance(error.filename, bytes) else self._path
            raise temporarily(where, error) from error


def temporarily(path: bytes, error: OSError) -> MaildropTemporaryError:
    """Return what to raise because of an error that has to do with *path*."""
    return MaildropTemporaryError(f"{shown(path)}: {error.strerror}")


def open_regular(path: bytes) -> FileIO:
    """Open a regular file for unbuffered reading.

    :raises OSError: it cannot be opened, or is no regular file.
    """
    file = FileIO(beneath.open_beneath(path, READ), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "Not a regular file")


def open_directory(path: bytes) -> int:
    """Open a directory, with no link on the way, and return its file descriptor.

    :raises OSError: it cannot be opened, or is no directory.
    """
    return beneath.open_beneath(path, READ | os.O_DIRECTORY)


def sync_directory(path: bytes) -> None:
    """Make durable which names a directory holds.

    :raises OSError: that failed; after a power cut, the directory may be as it was before.
    """
    descriptor = open_directory(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(directory: bytes, name: bytes, content: bytes, *, durably: bool = False) -> None:
    """Replace a file as a whole: whoever looks sees the old one or the new one, also after a crash.

    :param durably: whether that holds after a power cut too, and the new one stays.
    :raises OSError: it could not be written; the old one is there.
    """
    folder = open_directory(directory)
    try:
        _replace(folder, name, content, durably=durably)
        if durably:
            os.fsync(folder)
    except OSError as error:
        error.filename = os.path.join(directory, name)
        raise
    finally:
        os.close(folder)


def _replace(folder: int, name: bytes, content: bytes, *, durably: bool) -> None:
    new = name + b".new"
    try:
        descriptor = os.open(new, _CREATE, 0o600, dir_fd=folder)
    except FileExistsError:  # left by a crash
        os.unlink(new, dir_fd=folder)
        descriptor = os.open(new, _CREATE, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            if durably:
                os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise
