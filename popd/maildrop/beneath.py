"""Opening and changing files without following a symbolic link anywhere on the way.

``O_NOFOLLOW`` speaks of the last name of a path alone.  Who can write in a directory above can put
a link in the place of any other, also between two system calls.  Linux has openat2(2) for that
since 5.6; where there is none, a path is walked one directory at a time.

Paths are absolute and their beginning, down to ``--mail-root``, is resolved when popd starts; so
what has no link and no ``..`` in it lies beneath that.  No descriptor of that directory is kept: it
would keep a disk from being unmounted, and lead to the empty mount point once one is mounted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import lru_cache
from typing import Final

__all__ = ["LINKED", "is_linked", "open_beneath", "unlink_beneath"]

LINKED: Final = "a symbolic link is on the way, and none is followed beneath --mail-root"
"""Why a Maildir is not opened that is there."""

_OPENAT2: Final = 437
"""Its number on all architectures that Python runs on."""

_AT_FDCWD: Final = -100
_RESOLVE_NO_SYMLINKS: Final = 0x04
_HOW: Final = struct.Struct("=QQQ")
"""A ``struct open_how``: flags, mode, resolve."""

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, *[ctypes.c_char_p] * 2, ctypes.c_size_t]


def open_beneath(path: bytes, flags: int, mode: int = 0) -> int:
    """Open *path* as `os.open` does, unless a link is anywhere in it; return the descriptor.

    :param mode: that of a file that is made, and else 0.
    :raises OSError: it cannot be opened; ELOOP, or ENOTDIR on an old kernel, if there is a link.
    """
    while True:
        descriptor: int = _syscall(_OPENAT2, _AT_FDCWD, path, _how(flags, mode), _HOW.size)
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number in {errno.ENOSYS, errno.EPERM} and not _is_there():
            return _walk(path, flags, mode)
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), path)


def unlink_beneath(path: bytes) -> None:
    """Remove a file, unless a link is anywhere on the way to it.

    :raises OSError: it cannot be removed.
    """
    directory, name = os.path.split(path)
    descriptor = open_beneath(directory, _DIRECTORY)
    try:
        os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def is_linked(path: bytes) -> bool:
    """Tell whether a symbolic link is on the way to *path*, an absolute path."""
    return os.path.realpath(path) != os.path.normpath(path)


@lru_cache
def _how(flags: int, mode: int) -> bytes:
    return _HOW.pack(flags, mode, _RESOLVE_NO_SYMLINKS)


@lru_cache(1)
def _is_there() -> bool:
    """Tell whether there is an openat2, which also a filter of system calls may keep away."""
    descriptor = _syscall(_OPENAT2, _AT_FDCWD, b"/", _how(_DIRECTORY, 0), _HOW.size)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def _walk(path: bytes, flags: int, mode: int) -> int:
    """Do without openat2."""
    *directories, name = (part for part in path.split(b"/") if part)
    here = os.open(b"/", _DIRECTORY)
    try:
        for directory in directories:
            there = os.open(directory, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=here)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(here)
