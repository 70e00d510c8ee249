"""Mail that is put into a Maildir and taken out again."""

from __future__ import annotations

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
        self._staged: dict[Path, tuple[int, bytes]] = {}

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
        self._staged[made] = made.stat().st_ino, content
        return made.rename(self.path / at / name)

    def own(self, path: Path) -> None:
        """Give *path* to the one who owns the Maildir, if that is possible."""
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def note(self, path: Path) -> None:
        """Say that *path* was put there, by other means."""
        self._staged[path] = path.lstat().st_ino, b""

    def current(self, path: Path) -> Path | None:
        """Return where the message that was delivered as *path* is now; None if it is gone."""
        base = path.name.partition(":")[0]
        for file in self.files():
            if file.name.partition(":")[0].partition(",")[0] == base.partition(",")[0]:
                return file
        return None

    def flag(self, path: Path, flags: str = "S") -> Path:
        """Move a message to ``cur`` with flags, as an IMAP server does; return where it is."""
        now = self.current(path) or path
        base = now.name.partition(":")[0]
        return now.rename(self.path / "cur" / f"{base}:2,{flags}")

    def tidy(self) -> None:
        """Remove what was put there."""
        bases = {path.name.partition(":")[0].partition(",")[0] for path in self._staged}
        stamps = set(self._staged.values())
        for at in (*_DIRECTORIES, "tmp"):
            for file in (self.path / at).iterdir():
                base = file.name.partition(":")[0].partition(",")[0]
                if base in bases or self._is_renamed(file, stamps):
                    if file.is_fifo():  # for a server that waits for somebody to open it
                        os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))
                    file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        self._staged.clear()

    def _is_renamed(self, file: Path, stamps: set[tuple[int, bytes]]) -> bool:
        """Return whether a server renamed *file*: the inode and the content are the same."""
        inode = file.lstat().st_ino
        if not file.is_file() or all(inode != number for number, _ in stamps):
            return False
        return (inode, file.read_bytes()) in stamps

    def erase(self) -> None:
        """Remove all the mail that is there."""
        for file in self.files():
            file.unlink()
