"""The memory in which all processes of a popd remember wrong guesses, and the file that it may be.

It begins with a page that says what it is and holds the key of all hashes in it.  Nothing in
it is worth more than the delays of the next hours, so a file that cannot be used is replaced by an
empty one.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final

from popd.auth.table import Marks, Scores

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["GuessTable", "GuessTableError", "Lock", "Shape"]

_PAGE: Final = 4096
_MAGIC: Final = b"popdgues"
_VERSION: Final = 1
_HEADER: Final = Struct("=8s4I32s")
"""Magic, version, the three numbers of a `Shape`, and the key; its hash follows.  The order of
octets is the machine's, so that a file from a machine of the other kind has another version."""
_CHECK: Final = 16
"""Octets of the hash behind the header."""

_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class GuessTableError(ValueError):
    """A file that cannot be a table of guesses.  The text says which and why."""


class _UselessError(GuessTableError):
    """It was meant to be a table, and may be replaced."""


@dataclass(frozen=True)
class Shape:
    """How large the tables are.

    As they are by default all of it has 31.7 million octets.

    :param scores: buckets of 128 octets, for what is counted: 1.57 million networks and accounts.
    :param wrong: buckets of 64 octets, for wrong passwords: 262,144.
    :param proven: buckets of 64 octets, for who logged in from where: 524,288.
    """

    scores: int = 196_608
    wrong: int = 32_768
    proven: int = 65_536

    @property
    def parts(self) -> tuple[int, int, int, int, int]:
        """The octets of each part: header, which buckets of scores are occupied, the tables."""
        return (
            _PAGE,
            -(-self.scores // _PAGE) * _PAGE,
            self.scores * Scores.OCTETS,
            self.wrong * Marks.OCTETS,
            self.proven * Marks.OCTETS,
        )


class Lock:
    """Keeps other processes from writing.  A context manager; it cannot be entered twice.

    It is a record lock of the process, not of the open file, which forked processes share.
    It ends with the process, however that ends.  It is held for microseconds.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        """Take it."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class GuessTable:
    """All that is remembered; to be made before a fork.

    :param descriptor: of the memory or file, which must have the right size; it is kept.
    """

    def __init__(self, descriptor: int, shape: Shape, key: bytes) -> None:
        self.descriptor = descriptor
        self.key = key
        """With what everything in the tables is hashed."""
        self._mapping = mmap.mmap(descriptor, sum(shape.parts))
        self._memory = memoryview(self._mapping)
        views = []
        at = 0
        for octets in shape.parts:
            views.append(self._memory[at : at + octets])
            at += octets
        _, occupied, scores, wrong, proven = views
        self.scores = Scores(occupied[: shape.scores], scores)
        self.wrong = Marks(wrong)
        self.proven = Marks(proven)
        self.lock = Lock(descriptor)

    @classmethod
    def in_memory(cls, shape: Shape | None = None) -> GuessTable:
        """Return an empty table that ends with the last process that has it."""
        shape = shape or Shape()
        descriptor = os.memfd_create("popd-guesses", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, sum(shape.parts))
        return cls(descriptor, shape, secrets.token_bytes(32))

    @classmethod
    def open(cls, path: Path, shape: Shape | None = None) -> GuessTable:
        """Return the table in the file *path*; one that is not there, or is no good, is made anew.

        :raises GuessTableError: nor can it be made anew.
        """
        shape = shape or Shape()
        try:
            try:
                return cls._existing(path, shape)
            except FileNotFoundError:
                pass
            except _UselessError as error:
                _log.warning("%s; it is replaced by an empty one", error)
            _create(path, shape)
            return cls._existing(path, shape)
        except OSError as error:
            raise GuessTableError(f"{path}: {error.strerror}") from error

    @classmethod
    def existing(cls, path: Path) -> GuessTable:
        """Return the table that a popd, be it another user's, has in the file *path*.

        :raises GuessTableError: it is no such file.
        """
        try:
            return cls._existing(path, None)
        except OSError as error:
            raise GuessTableError(f"{path}: {error.strerror}") from error

    @classmethod
    def _existing(cls, path: Path, wanted: Shape | None) -> GuessTable:
        """Open a file.

        :param wanted: how large its tables must be; if that is given, it must be this user's, too.
        """
        descriptor = os.open(path, _OPEN)
        try:
            return cls(descriptor, *_inspect(path, descriptor, wanted))
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of it; it must not be used any more."""
        del self.scores, self.wrong, self.proven, self._memory
        self._mapping.close()
        os.close(self.descriptor)


def _inspect(path: Path, descriptor: int, wanted: Shape | None) -> tuple[Shape, bytes]:
    """Return how large the tables in a file are, and its key; see `GuessTable._existing`."""
    status = os.fstat(descriptor)
    start = os.pread(descriptor, _PAGE, 0) if stat.S_ISREG(status.st_mode) else b"?"
    if start.strip(b"\0") and not start.startswith(_MAGIC):
        raise GuessTableError(f"{path}: this is something else; it is left alone")
    if wanted and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise _UselessError(f"{path}: others may have written or read it")
    shape, key = _read_header(start)
    if shape is None or wanted not in {None, shape} or status.st_size != sum(shape.parts):
        raise _UselessError(f"{path}: damaged, or not from this version of popd")
    return shape, key


def _read_header(start: bytes) -> tuple[Shape | None, bytes]:
    """Return what a file that starts so says of itself, None and nothing if it is damaged."""
    fields, check = start[: _HEADER.size], start[_HEADER.size : _HEADER.size + _CHECK]
    if blake2b(fields, digest_size=_CHECK).digest() != check:
        return None, b""
    magic, version, scores, wrong, proven, key = _HEADER.unpack(fields)
    if (magic, version) != (_MAGIC, _VERSION):
        return None, b""
    return Shape(scores, wrong, proven), key


def _create(path: Path, shape: Shape) -> None:
    """Put an empty table in the place of whatever is there.

    :raises OSError: that failed, or there is no room; what was there still is.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):  # left by a crash
        new.unlink()
    descriptor = os.open(new, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        key = secrets.token_bytes(32)
        header = _HEADER.pack(_MAGIC, _VERSION, shape.scores, shape.wrong, shape.proven, key)
        # A disk that is full would kill whoever writes to a mapped file that has holes.
        os.posix_fallocate(descriptor, 0, sum(shape.parts))
        os.pwrite(descriptor, header + blake2b(header, digest_size=_CHECK).digest(), 0)
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    finally:
        os.close(descriptor)
