"""Mail that is put into a Maildir and taken out again."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Maildir"]

_DIRECTORIES: Final = ("new", "cur")
_AGE: Final = 1_000_000
"""Seconds between now and when the first message claims to have been delivered, as names have it.
"""


class Maildir:
    """A user's Maildir.  Nothing is removed from it but what was put there, unless asked to.

    :param path: where it is.
    """

    _serial = itertools.count(1)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = int(time.time()) - _AGE
        self._bases: set[str] = set()
        self._stamps: list[tuple[int, bytes]] = []

    def files(self) -> list[Path]:
        """Return what there is in ``new`` and ``cur``, in the order of their names."""
        found = [path for at in _DIRECTORIES for path in (self.path / at).iterdir()]
        return sorted(found, key=lambda path: path.name)

    def name(self) -> str:
        """Return a new file name; names sort as they were given."""
        serial = next(self._serial)
        micro = time.time_ns() // 1000 % 1_000_000
        seconds = self._begin + serial
        return f"{seconds}.M{micro:06}P{os.getpid()}Q{serial}.{socket.gethostname()}"

    def stage(self, content: bytes, *, at: str = "new", name: str = "") -> Path:
        """Deliver a message as a mail server would; return its file.

        :param content: the octets of the file.
        :param at: the directory.
        :param name: the name of the file; empty for a new one.
        """
        name = name or self.name()
        made = self.path / "tmp" / name
        made.write_bytes(content)
        self.own(made)
        self._bases.add(_base(made))
        self._stamps.append((made.stat().st_ino, content))
        return made.rename(self.path / at / name)

    def own(self, path: Path) -> None:
        """Give *path* to the one who owns the Maildir, if that is possible."""
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def note(self, path: Path) -> None:
        """Say that *path* was put there, by other means."""
        self._bases.add(_base(path))

    def current(self, path: Path) -> Path | None:
        """Return where the message that was delivered as *path* is now; None if it is gone."""
        return next((file for file in self.files() if _base(file) == _base(path)), None)

    def flag(self, path: Path, flags: str = "S") -> Path:
        """Move a message to ``cur`` with flags, as an IMAP server does; return where it is."""
        now = self.current(path) or path
        base = now.name.partition(":")[0]
        return now.rename(self.path / "cur" / f"{base}:2,{flags}")

    def tidy(self) -> None:
        """Remove what was put there, now or before.

        A server that gives a file another name meanwhile can hide it from a listing.  So names are
        remembered, and looked for again.
        """
        for at in (*_DIRECTORIES, "tmp"):
            for file in (self.path / at).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if _base(file) in self._bases or self._is_renamed(file):
                        _remove(file)
        self._stamps.clear()

    def _is_renamed(self, file: Path) -> bool:
        """Return whether a server renamed *file*: the inode and the content are the same."""
        inode = file.lstat().st_ino
        if not file.is_file() or all(inode != number for number, _ in self._stamps):
            return False
        return (inode, file.read_bytes()) in self._stamps

    def erase(self) -> None:
        """Remove all the mail that is there."""
        for file in self.files():
            file.unlink()


def _base(file: Path) -> str:
    """Return the part of a name that stays: without flags, and sizes that somebody may add."""
    return file.name.partition(":")[0].partition(",")[0]


def _remove(file: Path) -> None:
    if file.is_fifo():  # for a server that waits for somebody to open it
        os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink()
