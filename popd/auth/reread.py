"""Files of lines that are read again whenever they change: of users, of app passwords."""

from __future__ import annotations

import logging
import os
import stat
import threading
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

__all__ = ["RereadFile", "Table"]

_log = logging.getLogger(__name__)

_FRESH_NS: Final = 2_000_000_000
"""A file changed less than this before it was read may change again without looking changed:
clocks of file systems tick up to 2 seconds apart (FAT) and disagree between hosts."""

_MAX_PROBLEMS: Final = 100
"""So many broken lines are reported one by one, the rest only counted."""

_PIECE: Final = 1 << 20

_ABSENT: Final = "absent"
"""The fingerprint of a file that is not there, and need not be."""


class Table:
    """What the lines of a file say.

    Empty lines and those that begin with ``#`` mean nothing.
    """

    __slots__ = ("_problems", "_unnamed")

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self._problems: list[str] = []
        self._unnamed = 0
        for number, line in enumerate(lines, 1):
            if line.startswith(b"#") or not line.strip():
                continue
            try:
                self.add(line.rstrip(b"\r\n").decode())
            except ValueError as error:
                undecodable = isinstance(error, UnicodeDecodeError)
                reason = "the line is not UTF-8" if undecodable else str(error)
                if len(self._problems) < _MAX_PROBLEMS:
                    self._problems.append(f"{number}: {reason}")
                else:
                    self._unnamed += 1

    def add(self, text: str) -> None:
        """Take in one line, without its end.

        :raises ValueError: something is wrong with it.  The text repeats nothing of the line.
        """
        raise NotImplementedError

    def report(self) -> list[str]:
        """Return what is wrong, ``line: reason`` each."""
        more = [f" {self._unnamed} more lines are wrong"] if self._unnamed else []
        return self._problems + more


SomeTable = TypeVar("SomeTable", bound=Table)


class RereadFile(Generic[SomeTable]):
    """A file, and the table that its lines make.  May be used from several threads.

    A change of the file counts from the next `table` on; while that one reads the file, others go
    by what it said before, and wait for nothing.  Replace the file by renaming a new one over it,
    so that nobody reads half of it.  If it cannot be read any more, the last table remains.

    Broken lines are logged with their number, and kept in `problems`.

    :param path: the file.
    :param make: makes a table of lines, with a look at the table before, of which nothing must
        be changed.
    :param now: the clock that the file's time stamps come from, in nanoseconds since the epoch.
    :param optional: whether a file that is not there is as good as an empty one.
    :raises OSError: the file cannot be read.
    :raises ValueError: it is not a regular file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        make: Callable[[Iterable[bytes], SomeTable | None], SomeTable],
        now: Callable[[], int],
        *,
        optional: bool = False,
    ) -> None:
        self.path = Path(path)
        self._path = str(path)  # which os.stat takes in half the time
        self._make = make
        self._now = now
        self._optional = optional
        self._lock = threading.Lock()
        self._lost = False
        self._fingerprint: object = None
        self._digest = b""
        self._table = make((), None)
        self._read()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the file when it was read last: ``path:line: reason`` each."""
        return tuple(f"{self.path}:{problem}" for problem in self._table.report())

    def version(self) -> object:
        """Return what is equal as long as the file cannot have changed since it was read."""
        if self._fingerprint is _ABSENT and not os.access(self._path, os.F_OK):
            return _ABSENT  # without an exception, which would cost more than all the rest
        known = self._fingerprint  # returned itself, since many versions are kept
        try:
            return known if self._look() == known else object()
        except OSError:
            return object()

    def table(self) -> SomeTable:
        """Return the table, after reading the file again if it may have changed."""
        if self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._table

    def peek(self) -> SomeTable:
        """Return the table as it was made last, without a look at the file."""
        return self._table

    def is_current(self) -> bool:
        """Tell whether `table` has nothing to read."""
        try:
            return self._look() == self._fingerprint
        except OSError:
            return False

    def _refresh(self) -> None:
        """Read the file again if it may have changed; on failure say so once."""
        try:
            if self._look() != self._fingerprint:
                self._read()
        except (OSError, ValueError) as error:
            if not self._lost:
                reason = f"{self.path}: {error.strerror}" if isinstance(error, OSError) else error
                _log.error("%s; what was read before remains", reason)
            self._lost = True
        else:
            if self._lost:
                _log.warning("%s: can be read again", self.path)
            self._lost = False

    def _look(self) -> object:
        try:
            return _fingerprint(os.stat(self._path))  # noqa: PTH116 - half the time
        except FileNotFoundError:
            if self._optional:
                return _ABSENT
            raise

    def _read(self) -> None:
        """Read the file, unless it says what it said before."""
        try:
            file = open(self.path, "rb", opener=_open)  # noqa: SIM115 - closed in a moment
        except FileNotFoundError:
            if not self._optional:
                raise
            self._fingerprint, self._digest, self._table = _ABSENT, b"", self._make((), None)
            return
        with file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{self.path}: not a regular file")
            fresh = status.st_ctime_ns > self._now() - _FRESH_NS
            if _digest(file) != self._digest:
                self._take(file)
        self._fingerprint = None if fresh else _fingerprint(status)

    def _take(self, file: BinaryIO) -> None:
        """Make the table of *file*, without having all of that in memory too."""
        digest = blake2b()

        def lines() -> Iterator[bytes]:
            for line in file:
                digest.update(line)
                yield line

        file.seek(0)
        table = self._make(lines(), self._table)
        self._table, self._digest = table, digest.digest()
        for problem in self.problems:
            _log.warning("%s", problem)


def _open(path: str, flags: int) -> int:
    """Open without waiting for whoever may write to a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _digest(file: BinaryIO) -> bytes:
    digest = blake2b()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.digest()


def _fingerprint(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what differs after a change, save one within the same tick of the clock."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
