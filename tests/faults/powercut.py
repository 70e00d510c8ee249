"""A disk whose power can be cut: what the kernel has not written by then is lost."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

__all__ = ["Disk"]

_SHUTDOWN: Final = 0x8004_587D
"""``EXT4_IOC_SHUTDOWN``: from now on nothing reaches the disk."""

_NO_LOG_FLUSH: Final = (2).to_bytes(4, "little")
"""Not even what is in the journal, in memory."""

_OCTETS: Final = 12 << 20


class Disk:
    """An ext4 file system in a file, mounted on a directory.  A context manager.

    :param place: the directory.
    :param file: where the file is made.
    """

    def __init__(self, place: Path, file: Path) -> None:
        self._place = place
        self._file = file

    def __enter__(self) -> Self:
        """Make and mount it, or skip the test."""
        with self._file.open("wb") as file:
            file.truncate(_OCTETS)
        try:
            self._run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", str(self._file))
            self._mount()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", b"") or str(error).encode()
            raise SkipTest(f"needs ext4 on a loop device: {reason!r}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        self._run("umount", "-l", str(self._place))

    def sync(self) -> None:
        """Have all written that was changed so far."""
        descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
            self._run("sync", "-f", str(self._place))
        finally:
            os.close(descriptor)

    def cut(self) -> None:
        """Cut the power, and have it back."""
        descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)
        end = time.monotonic() + LIMIT
        while True:
            try:
                self._run("umount", str(self._place))
            except subprocess.CalledProcessError:  # a session is just letting go of it
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                break
        self._mount()

    def _mount(self) -> None:
        # Else the kernel writes by itself within five seconds, and nothing is lost.
        self._run("mount", "-o", "loop,commit=300", str(self._file), str(self._place))

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
