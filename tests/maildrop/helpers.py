"""A Maildir on the disk to test with, and ways to have things happen to it at a chosen moment."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd.maildrop import beneath
from popd.maildrop.maildir import Maildir
from popd.maildrop.snapshots import SnapshotCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.maildrop.interfaces import Message

LONG_AGO = 1_600_000_000
"""An mtime, in seconds, that vouches for a listing."""


def later() -> int:
    """Return the time in an hour, in nanoseconds: then, what changes now changed long ago."""
    return time.time_ns() + 3600 * 10**9


def read_all(message: Message, limit: int = 65_536) -> bytes:
    """Read a message to its end, *limit* octets at a time, and close it."""
    chunks = []
    while chunk := message.read(limit):
        chunks.append(chunk)
    message.close()
    return b"".join(chunks)


class MaildirTestCase(SynchronousTestCase):
    """A test case with an empty Maildir in a directory of its own."""

    def setUp(self) -> None:
        """Make the Maildir."""
        self.ground = Path(self.mktemp()).absolute()
        self.maildir = self.ground / "Maildir"
        self.root = os.fsencode(self.maildir)
        self.undo: list[Any] = []
        for directory in ("new", "cur", "tmp"):
            (self.maildir / directory).mkdir(parents=True)

    def deliver(
        self, name: str | bytes, content: bytes = b"Subject: x\n\nx\n", modified: int = LONG_AGO
    ) -> Path:
        """Write a message file, with an mtime in seconds, and return its path."""
        path = self.maildir / os.fsdecode(name)
        path.write_bytes(content)
        os.utime(path, (modified, modified))
        return path

    def settle(self, modified: float = LONG_AGO) -> None:
        """Give both directories an mtime, in seconds."""
        for directory in ("new", "cur"):
            os.utime(self.maildir / directory, (modified, modified))

    def cache(self) -> SnapshotCache:
        """Return what a session knows beforehand: nothing, and what time it is."""
        return SnapshotCache(now=later)

    def session(self) -> Maildir:
        """Return the maildrop, not yet opened; it is released at the test's end."""
        maildrop = Maildir(self.root, cache=self.cache())
        self.addCleanup(maildrop.release)
        return maildrop

    def uids(self) -> list[bytes]:
        """Return the unique-ids that a whole session is shown."""
        maildrop = self.session()
        uids = list(maildrop.open().uids)
        maildrop.release()
        return uids

    def names(self) -> set[str]:
        """Return the paths of all files in the Maildir but the cache, which may be there or not."""
        return {
            str(path.relative_to(self.maildir))
            for path in self.maildir.rglob("*")
            if not path.is_dir() and not path.name.startswith("popd-cache")
        }

    def own_files(self) -> set[str]:
        """Return the names of the files in the Maildir beside its directories and the cache."""
        return {name for name in self.names() if "/" not in name}

    def inject(self, call: str, number: int, target: str) -> None:
        """Make a function of `os` fail from now on, for the path that ends in *target*.

        Root may do everything and a healthy disk works, so errors have to be made.
        """

        def fail(path: bytes | int) -> None:
            if path_of(path).endswith(target):
                raise OSError(number, os.strerror(number), path)

        self._precede(call, fail)

    def meanwhile(
        self, call: str, target: str, action: Callable[[], object], times: int = 1
    ) -> None:
        """Do *action* just before a function of `os` is called for a path that ends in *target*.

        :param times: for how many calls.
        """
        left = times

        def act(path: bytes | int) -> None:
            nonlocal left
            if left and path_of(path).endswith(target):
                left -= 1
                action()

        self._precede(call, act)

    def _precede(self, call: str, act: Callable[[bytes | int], None]) -> None:
        """Do something before a function of `os`; if that is `open`, also before popd's own."""
        own = [(beneath, "open_beneath")] if call == "open" else []
        for owner, name in [(os, call), *own]:
            real = getattr(owner, name)

            def preceded(path: Any, *args: Any, _real: Any = real, **more: Any) -> Any:
                directory = more.get("dir_fd", more.get("src_dir_fd"))
                act(path if directory is None else os.fsencode(path_of(directory)) + b"/" + path)
                return _real(path, *args, **more)

            self.undo.append(self.patch(owner, name, preceded))

    def heal(self) -> None:
        """Take back all that was injected."""
        while self.undo:
            self.undo.pop().restore()

    def mount(self, options: str) -> None:
        """Mount a tmpfs on the ground and make the Maildir anew, or skip the test."""
        for program in (
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.ground)],
            ["mountpoint", "-q", str(self.ground)],
        ):
            if subprocess.run(program, check=False, capture_output=True).returncode:
                raise SkipTest("needs the right to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.ground)], check=True)
        for directory in ("new", "cur", "tmp"):
            (self.maildir / directory).mkdir(parents=True)

    def remount(self, options: str) -> None:
        """Change the options of the tmpfs."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.ground)], check=True)

    def fill_up(self) -> None:
        """Take all room for further files on the tmpfs."""
        for number in range(1000):
            try:
                (self.ground / f"filler-{number}").write_bytes(b"x")
            except OSError:
                return
        raise SkipTest("this disk cannot be filled")


def path_of(target: bytes | int) -> str:
    """Return the path of a file, given by path or by descriptor."""
    if isinstance(target, int):
        return str(Path(f"/proc/self/fd/{target}").readlink())
    return os.fsdecode(target)
