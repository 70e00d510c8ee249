"""The control socket in the file system: made where no live one is, and only for its owner."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["DEFAULT", "MAX_PATH", "Place", "peer_of"]

DEFAULT: Final = "/run/popd/control"
"""Where the control socket is, unless something says otherwise."""

MAX_PATH: Final = 100
"""The longest path in octets: the kernel takes 107, and for a moment the name has a tail."""

_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("3i")
_DEAD: Final = {errno.ECONNREFUSED, errno.ENOENT}


class Place:
    """A listening socket with a name of its own, which only its owner (and root) can connect to.

    :param path: the name.
    :param descriptor: the socket, if there is one already that is called so.
    :raises OSError: it cannot be had; its ``strerror`` says why, in a line.
    """

    def __init__(self, path: str, descriptor: int | None = None) -> None:
        self._path = Path(path)
        if descriptor is not None:
            self.socket = socket.socket(fileno=descriptor)
            status = self._path.stat()
            self._which = status.st_dev, status.st_ino
            return
        if len(os.fsencode(path)) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, f"a socket's path has at most {MAX_PATH} octets")
        _make_way(path)
        self.socket = socket.socket(socket.AF_UNIX)
        new = f"{path}.{secrets.token_hex(3)}"
        try:
            self.socket.bind(new)
            # Before it listens nobody can connect; and what it replaces is dead.
            Path(new).chmod(0o600)
            self.socket.listen(_BACKLOG)
            self.socket.setblocking(False)
            status = Path(new).stat()
            Path(new).rename(path)
        except BaseException:
            self.socket.close()
            with suppress(OSError):
                Path(new).unlink()
            raise
        self._which = status.st_dev, status.st_ino

    def close(self) -> None:
        """Close the socket, and remove its name if that is still its own."""
        self.socket.close()
        with suppress(OSError):
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self._which:
                self._path.unlink()


def _make_way(path: str) -> None:
    """Make sure that nothing is at *path* but perhaps a socket that nobody listens on."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, "something that is no socket is there; it is left alone")
    if status.st_uid not in {os.geteuid(), 0}:
        raise OSError(errno.EEXIST, "another user's socket is there; it is left alone")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code not in _DEAD:
        raise OSError(errno.EADDRINUSE, "another popd listens there")


def peer_of(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    return int(uid)
