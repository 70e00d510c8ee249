"""The message files of a Maildir: what is found out about each, and how it is read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from popd.maildrop import beneath
from popd.maildrop.files import READ, open_regular, shown, temporary
from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.names import claimed_sizes
from popd.protocol.message import OctetCounter, wire_octets

if TYPE_CHECKING:
    from io import FileIO

__all__ = [
    "Facts",
    "Measured",
    "OpenMessage",
    "content_hash",
    "identify",
    "measure",
    "read_from_memory",
    "resembles",
]

_CHUNK = 256 * 1024

_NOWAIT = os.RWF_NOWAIT


Measured: TypeAlias = tuple[int, int, int]
"""`Facts`, bare."""


class Facts(NamedTuple):
    """What is found out about a message file by looking into it."""

    size: int
    """Octets stored."""

    modified: int
    """Its mtime, in nanoseconds."""

    octets: int
    """Its size as RETR sends it."""


def resembles(path: bytes, facts: Facts) -> bool:
    """Tell whether a file that bears a message's base name may be that message.

    A file that is renamed keeps its size and its mtime.  (Its inode number says less: it may be
    given to the next file, and some network file systems make it up as they go.)

    :raises OSError: it cannot be looked at.
    """
    status = os.lstat(path)
    return (status.st_size, status.st_mtime_ns) == (facts.size, facts.modified)


def measure(name: bytes, folder: int) -> Measured:
    """Look into a message file; return its `Facts`.

    The sizes that its name claims are believed only if the stored size is right and the size on the
    wire is possible.  Programs differ in whether they count the line end that a message without
    one gets, so such a message is counted here.

    :param folder: a descriptor of its directory: to walk there anew takes longer than to open it.
    :raises OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(name, READ, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        size = status.st_size
        if name.find(b"=") >= 0:
            stored, wire = claimed_sizes(name.partition(b":")[0])
            if (
                wire is not None
                and stored == size > 0
                and size <= wire <= 2 * size
                and os.pread(descriptor, 1, size - 1) == b"\n"
            ):
                return size, status.st_mtime_ns, wire
        content = os.read(descriptor, size + 1 if size < _CHUNK else _CHUNK)
        if len(content) <= size < _CHUNK:
            return size, status.st_mtime_ns, wire_octets(content)
        counter = OctetCounter()
        while content:
            counter.feed(content)
            content = os.read(descriptor, _CHUNK)
        return size, status.st_mtime_ns, counter.octets()
    finally:
        os.close(descriptor)


def read_from_memory(path: bytes, size: int) -> bytes | None:
    """Return all of a message if the kernel has it in memory and it has that size, else None."""
    try:
        descriptor = beneath.open_beneath(path, READ)
    except OSError:
        return None
    buffer = bytearray(size + 1)
    try:
        read = os.preadv(descriptor, [buffer], 0, _NOWAIT)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return bytes(memoryview(buffer)[:size]) if read == size else None


class OpenMessage:
    """A `Message` that is read from its file."""

    def __init__(self, file: FileIO, path: bytes, octets: int) -> None:
        self._file = file
        self._path = path
        self._left = octets
        self.octets = octets

    def read(self, limit: int) -> bytes:
        """See `Message.read`."""
        with temporary(self._path):
            chunk = self._file.read(min(limit, self._left))
        if self._left and not chunk:
            raise MaildropTemporaryError(f"{shown(self._path)}: ended {self._left} octets early")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """See `Message.close`."""
        self._file.close()


def content_hash(file: FileIO) -> bytes:
    """Return the SHA-256 of what is left to read of a file, in hex."""
    return hashlib.file_digest(file, "sha256").hexdigest().encode("ascii")


def identify(path: bytes) -> bytes:
    """Return the SHA-256 of a message file's content, in hex.

    :raises OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return content_hash(file)
