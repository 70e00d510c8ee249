"""Changing a file of lines safely: one at a time, wholly or not at all, with its owner and mode."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from popd.ctl.store import UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["locked", "read_lines", "write_lines"]

_LOCK_TIME: Final = 10.0
_LOCK: Final = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_OPEN_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_MODE: Final = 0o640


@contextmanager
def locked(path: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Keep other popctls from changing *path*, by a kernel lock on a file beside it.

    That file stays there: to remove it would let two in.

    :raises UnusableError: it cannot be locked, another one has it for longer than ten seconds, or
        there is no such directory.
    """
    lock = path.with_name(f"{path.name}.lock")
    if not path.parent.exists():
        raise UnusableError(
            f"{path.parent}: no such directory; make it, for popd's group to read:"
            f" install -d -m 750 -g GROUP {path.parent}"
        )
    with _usable(lock):
        descriptor = os.open(lock, _OPEN_LOCK, 0o600)
    try:
        _wait(descriptor, lock, sleep)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, lock: Path, sleep: Callable[[float], None]) -> None:
    pause = 0.01
    for _ in range(round(_LOCK_TIME / pause)):
        try:
            with _usable(lock):
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK)
        except UnusableError as error:
            if not isinstance(error.__cause__, BlockingIOError | PermissionError):
                raise
            sleep(pause)
        else:
            return
    raise UnusableError(f"{lock}: another popctl has held this lock for {_LOCK_TIME:g} seconds")


def read_lines(path: Path, *, missing_ok: bool = False) -> list[bytes]:
    """Return the lines of *path*, with their ends; none if it may be missing, and is.

    :raises UnusableError: it cannot be read.
    """
    with _usable(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if missing_ok:
                return []
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnusableError(f"{path}: not a regular file")
            return io.BytesIO(file.read()).readlines()


def write_lines(path: Path, lines: Iterable[bytes], like: Path | None = None) -> None:
    """Replace *path*: whoever looks, also after a crash, finds the old file or the new one.

    Owner, group, mode and extended attributes are those of the old file; where there is none, those
    of *like*; where there is none either, the owner and group are those of the directory, and
    others may not read it.

    :raises UnusableError: it cannot be written, and is as it was.
    """
    new = path.with_name(f"{path.name}.new")
    with _usable(path):
        with suppress(FileNotFoundError):  # left by a crash
            new.unlink()
        descriptor = os.open(new, _CREATE, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(lines)
                file.flush()
                _make_alike(file.fileno(), path, like)
                os.fsync(file.fileno())
            new.rename(path)
        except BaseException:
            with suppress(OSError):
                new.unlink()
            raise
        _sync(path.parent)


def _make_alike(descriptor: int, path: Path, like: Path | None) -> None:
    for model in (path, like):
        if model is not None and model.exists():
            status = model.stat()
            mode = stat.S_IMODE(status.st_mode)
            break
    else:
        model, status, mode = None, path.parent.stat(), _NEW_MODE
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, mode)
    if model is not None:
        _copy_attributes(model, descriptor)


def _copy_attributes(model: Path, descriptor: int) -> None:
    """Copy what the file system and the kernel let us: access lists, security labels."""
    with suppress(OSError):
        for name in os.listxattr(model):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(model, name))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Make an OSError an UnusableError that names the file."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise UnusableError(f"{where}: {error.strerror}") from error
