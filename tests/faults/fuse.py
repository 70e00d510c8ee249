"""A file system in memory that fails when it is told to: like a file server that is gone, it hangs,
or like a disk that is worn out, it cannot read.

It speaks the kernel's side of FUSE itself (``include/uapi/linux/fuse.h``), which takes a page, and
so needs no library, only root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import select
import stat
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SkipTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

__all__ = ["Disk"]

_REQUEST: Final = struct.Struct("<IIQQIIIHH")
_ANSWER: Final = struct.Struct("<IiQ")
_ENTRY: Final = struct.Struct("<QQQQII")
_ATTRIBUTES: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_NAME: Final = struct.Struct("<QQII")

_DIRECT_IO: Final = 1
_PARALLEL: Final = 1 << 18  # look-ups in one directory do not wait for each other
_MS_NOSUID, _MS_NODEV = 2, 4

_LOOKUP, _FORGET, _GETATTR, _UNLINK, _OPEN, _READ, _RELEASE = 1, 2, 3, 10, 14, 15, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _FSYNCDIR, _CREATE = 25, 26, 27, 28, 29, 30, 35
_INTERRUPT, _BATCH_FORGET = 36, 42


class Node:
    """A directory, or a file if it has content."""

    _serial = itertools.count(1)

    def __init__(self, content: bytes | None = None) -> None:
        self.number = next(self._serial)
        self.content = content
        self.names: dict[bytes, Node] = {}
        self.time = int(time.time()) - 3600

    def attributes(self) -> bytes:
        """Return what stat gives."""
        size = len(self.content or b"")
        mode = stat.S_IFDIR | 0o755 if self.content is None else stat.S_IFREG | 0o644
        times = (self.time, self.time, self.time, 0, 0, 0)
        return _ATTRIBUTES.pack(self.number, size, 1, *times, mode, 2, 0, 0, 0, 4096, 0)


class Disk:
    """A disk, mounted on a directory.  A context manager.

    :param place: the directory.
    :param source: its name in the table of mounts.
    """

    def __init__(self, place: Path, source: str = "popd-test") -> None:
        self._place = place
        self._source = source
        self.root = Node()
        self._nodes = {1: self.root}
        self.broken: Callable[[bytes], bytes] | None = None
        """What is done to what is read, if anything; it may raise an OSError."""
        self._hangs = threading.Event()
        self._held: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._actions: dict[int, Callable[[Node, bytes], bytes]] = {
            _INIT: self._init,
            _LOOKUP: self._lookup,
            _GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + node.attributes(),
            _UNLINK: self._unlink,
            _OPEN: lambda *_: struct.pack("<QII", 0, _DIRECT_IO, 0),
            _OPENDIR: lambda *_: struct.pack("<QII", 0, 0, 0),
            _READ: self._read,
            _READDIR: self._list,
            _CREATE: self._create,
            **dict.fromkeys((_RELEASE, _RELEASEDIR, _FLUSH, _FSYNCDIR), lambda *_: b""),
        }

    def __enter__(self) -> Self:
        """Mount it, or skip the test."""
        try:
            self._device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SkipTest(f"needs /dev/fuse: {error.strerror}") from error
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        source, place = self._source.encode(), os.fsencode(self._place)
        if libc.mount(source, place, b"fuse", _MS_NOSUID | _MS_NODEV, options.encode()):
            os.close(self._device)
            raise SkipTest(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it; whoever waits for it gets an error."""
        self._over.set()
        self._thread.join()
        os.close(self._device)
        subprocess.run(["umount", "-l", str(self._place)], check=True)

    def hang(self) -> None:
        """Answer nothing from now on."""
        self._hangs.set()

    def revive(self) -> None:
        """Answer again, and first what was asked meanwhile."""
        self._hangs.clear()

    @property
    def waiting(self) -> int:
        """How many calls it keeps waiting."""
        return len(self._held)

    def make(self, path: str, content: bytes | None = None) -> None:
        """Make a directory, or a file with some content, and the directories that it is in."""
        *parents, name = path.split("/")
        node = self.root
        for parent in parents:
            node = node.names.setdefault(parent.encode(), Node())
        node.names[name.encode()] = Node(content)

    def _serve(self) -> None:
        while not self._over.is_set():
            ready = select.select([self._device], [], [], 0.02)[0]
            if not self._hangs.is_set():
                while self._held:
                    self._answer(self._held.pop(0))
            if ready:
                with contextlib.suppress(BlockingIOError, FileNotFoundError, InterruptedError):
                    request = os.read(self._device, 1 << 18)
                    if self._hangs.is_set():
                        self._held.append(request)
                    else:
                        self._answer(request)

    def _answer(self, request: bytes) -> None:
        _, action, unique, number, *_ = _REQUEST.unpack_from(request)
        if action in {_FORGET, _BATCH_FORGET, _INTERRUPT}:
            return
        number_of_error, answer = 0, b""
        try:
            answer = self._actions[action](self._nodes[number or 1], request[_REQUEST.size :])
        except KeyError:
            number_of_error = errno.ENOENT if action in self._actions else errno.ENOSYS
        except OSError as error:
            number_of_error = error.errno or errno.EIO
        length = _ANSWER.size + len(answer)
        with contextlib.suppress(OSError):  # whoever asked is gone
            os.write(self._device, _ANSWER.pack(length, -number_of_error, unique) + answer)

    def _init(self, _: Node, body: bytes) -> bytes:
        readahead = struct.unpack_from("<III", body)[2]
        return struct.pack(
            "<IIIIHHIIHHII", 7, 31, readahead, _PARALLEL, 64, 48, 65536, 1, 16, 0, 0, 0
        ) + (bytes(24))

    def _lookup(self, node: Node, body: bytes) -> bytes:
        found = node.names[body.rstrip(b"\0")]
        self._nodes[found.number] = found
        return _ENTRY.pack(found.number, 0, 0, 0, 0, 0) + found.attributes()

    def _unlink(self, node: Node, body: bytes) -> bytes:
        del node.names[body.rstrip(b"\0")]
        node.time = int(time.time())
        return b""

    def _create(self, *_: object) -> bytes:
        raise OSError(errno.EROFS, "")

    def _read(self, node: Node, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        content = (node.content or b"")[offset : offset + size]
        return content if self.broken is None else self.broken(content)

    def _list(self, node: Node, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        listing = b""
        for entry in itertools.islice(self._entries(node), offset, None):
            if len(listing) + len(entry) > size:
                break
            listing += entry
        return listing

    def _entries(self, node: Node) -> Iterator[bytes]:
        for place, (name, found) in enumerate(node.names.items(), 1):
            kind = stat.S_IFDIR if found.content is None else stat.S_IFREG
            entry = _NAME.pack(found.number, place, len(name), kind >> 12) + name
            yield entry + bytes(-len(entry) % 8)
