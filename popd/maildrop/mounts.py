"""Which disk, or which file server, a path is on, found out without asking that disk.

A file server that is down keeps everybody waiting who as much as looks at it.  The kernel's table
of mounts tells what is where, and never waits.
"""

from __future__ import annotations

import os
import re
import select
from typing import Final

__all__ = ["Mounts", "disk_of"]

_TABLE: Final = "/proc/self/mountinfo"  # proc(5)

_LINE: Final = re.compile(rb"\d+ \d+ (?P<device>\S+) \S+ (?P<point>\S+) .*? - \S+ (?P<source>\S*)")

_SERVER: Final = re.compile(rb"//[^/]+|.+(?=:/)")
"""What is a server in the source of a mount: ``//server/share``, ``user@server:/export``."""

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


class Mounts:
    """The kernel's table of mounts, read again when it has changed.

    :param table: its path.
    """

    def __init__(self, table: str = _TABLE) -> None:
        self._table = table
        self._descriptor: int | None = None
        self._changes = select.poll()
        self._disks: dict[bytes, bytes] = {}
        self._mounts: list[tuple[bytes, bytes]] = []  # where, and the kernel's line

    def above(self, path: bytes) -> frozenset[bytes]:
        """Return what is mounted at *path*, an absolute path, and at directories that it is in.

        There is a line for each, which never comes again once that is unmounted.
        """
        self._refresh()
        within = path.rstrip(b"/") + b"/"
        return frozenset(
            line for point, line in self._mounts if within.startswith(point.rstrip(b"/") + b"/")
        )

    def disk(self, path: bytes) -> bytes:
        """Return the name of the disk that an absolute path is on, or of its file server.

        Mounts that have one server in common hang together.  Links are not followed: there are none
        in a maildrop's path.  Where the table cannot be read, all is one disk.
        """
        self._refresh()
        while path not in self._disks:
            shorter = os.path.dirname(path)
            if shorter == path:
                return b""
            path = shorter
        return self._disks[path]

    def _refresh(self) -> None:
        if self._descriptor is None or self._changes.poll(0):
            self._read()

    def _read(self) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._table, os.O_RDONLY | os.O_CLOEXEC)
                self._changes.register(self._descriptor, select.POLLPRI)  # proc(5)
            with open(self._descriptor, "rb", closefd=False) as file:
                file.seek(0)
                lines = file.read().splitlines()
        except OSError:
            return
        self._disks = {}
        self._mounts = []
        for match in filter(None, map(_LINE.match, lines)):
            server = _SERVER.match(match["source"])
            point = _ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), match["point"])
            self._disks[point] = server[0] if server else match["device"]
            self._mounts.append((point, match.string))


disk_of = Mounts().disk
"""See `Mounts.disk`; this is of the machine's own table."""
