"""The message files of a Maildir: what is known of each, and how to tell one from another."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from popd.maildrop.files import open_regular, shown, temporary
from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.names import FileName
from popd.maildrop.scan import PASSES, scan
from popd.maildrop.uidl import unique_id
from popd.protocol.message import OctetCounter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import FileIO

    from popd.maildrop.uidl import Ledger

__all__ = ["OpenMessage", "Stored", "identify", "take_stock"]

_CHUNK = 256 * 1024


@dataclass(slots=True, eq=False)
class Stored:
    """A message as it was found, and where its file is by now."""

    path: bytes
    """The path of its file, as far as is known."""

    name: FileName
    """What the name of its file said; of that, the base name never changes."""

    octets: int
    """Its size as RETR sends it."""

    size: int
    """Its size as stored."""

    modified: int
    """The mtime of its file, in nanoseconds."""

    identity: bytes = b""
    """The SHA-256 of its content in hex, if other files have had the same base name."""

    number: int = 0
    """Which of those it is, see `unique_id`."""

    gone: bool = False
    """Whether it was removed since."""

    @classmethod
    def measure(cls, path: bytes) -> Stored:
        """Find out all about a message file but its identity.

        :raises OSError: it cannot be read.
        """
        name = FileName.parse(os.path.basename(path))
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            octets = _wire_octets(file, status.st_size, name)
        return cls(path, name, octets, status.st_size, status.st_mtime_ns)

    @property
    def unique_id(self) -> bytes:
        """Its unique-id (RFC 1939 section 7, UIDL)."""
        return unique_id(self.name.base, self.identity, self.number)

    @property
    def order(self) -> tuple[tuple[int, int], bytes, bool, bytes]:
        """What messages are sorted by: delivery time, then name, then what else never changes."""
        time = self.name.time or (self.modified // 10**9, self.modified % 10**9 // 1000)
        return time, self.name.base, bool(self.number), self.unique_id

    def resembles(self, status: os.stat_result) -> bool:
        """Tell whether another file of its base name may be this message, moved.

        A file that is renamed keeps its size and its mtime.  (Its inode number says less: it may be
        given to the next file, and some network file systems make it up as they go.)
        """
        return status.st_size == self.size and status.st_mtime_ns == self.modified

    def open(self, path: bytes) -> OpenMessage:
        """Open *path*, which should hold this message.

        :raises OSError: it cannot be read.
        :raises MaildropTemporaryError: it holds something else.
        """
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            if not self._is_in(file):
                raise MaildropTemporaryError(f"{shown(path)}: not what it was at log-in")
            stack.pop_all()
        return OpenMessage(file, path, self.size)

    def read_from_memory(self) -> bytes | None:
        """Return all of it if the kernel has it in memory where it was seen last, else None."""
        buffer = bytearray(self.size)
        try:
            with open_regular(self.path) as file:
                if os.fstat(file.fileno()).st_size != self.size:
                    return None
                if self.size and os.preadv(file.fileno(), [buffer], 0, os.RWF_NOWAIT) != self.size:
                    return None
        except OSError:
            return None
        return bytes(buffer)

    def _is_in(self, file: FileIO) -> bool:
        if not self.identity:
            return os.fstat(file.fileno()).st_size == self.size
        identity = _content_hash(file)
        file.seek(0)
        return identity == self.identity

    def remove(self, path: bytes) -> None:
        """Remove *path*, which should hold this message.

        :raises OSError: it cannot be removed.
        :raises MaildropTemporaryError: it holds something else.
        """
        self.open(path).close()
        os.unlink(path)


class OpenMessage:
    """A `Message` that is read from its file."""

    def __init__(self, file: FileIO, path: bytes, octets: int) -> None:
        self._file = file
        self._path = path
        self._left = octets
        self.octets = octets

    def read(self, limit: int) -> bytes:
        """See `Message.read`."""
        with temporary(self._path):
            chunk = self._file.read(min(limit, self._left))
        if self._left and not chunk:
            raise MaildropTemporaryError(f"{shown(self._path)}: ended {self._left} octets early")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """See `Message.close`."""
        self._file.close()


def _wire_octets(file: FileIO, size: int, name: FileName) -> int:
    """Return the size of a message as RETR sends it.

    Its name is believed only if what it says of the stored size is right and what it says of the
    size on the wire is possible.  Programs differ in whether they count the line end that a message
    without one gets, so such a message is counted here.
    """
    if (
        name.wire is not None
        and name.stored == size > 0
        and size <= name.wire <= 2 * size
        and os.pread(file.fileno(), 1, size - 1) == b"\n"
    ):
        return name.wire
    counter = OctetCounter()
    while chunk := file.read(_CHUNK):
        counter.feed(chunk)
    return counter.octets()


def _content_hash(file: FileIO) -> bytes:
    return hashlib.file_digest(file, "sha256").hexdigest().encode("ascii")


def identify(path: bytes) -> bytes:
    """Return the SHA-256 of a message file's content, in hex.

    :raises OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return _content_hash(file)


def take_stock(root: bytes, ledger: Ledger) -> list[Stored]:
    """Return all messages of the Maildir at *root*, in their order.

    A file that vanishes meanwhile was removed or renamed, and only a new look can tell which.

    :raises MaildropTemporaryError: a directory or a file cannot be read; or the files come and go
        so fast that there is no telling what is there.
    """
    known: dict[bytes, Stored] = {}
    for _ in range(PASSES):
        paths = scan(root)
        known = {path: message for path, message in known.items() if path in paths}
        for path in paths - known.keys():
            with temporary(path), suppress(FileNotFoundError):
                known[path] = Stored.measure(path)
        if len(known) == len(paths) and _number_duplicates(known.values(), ledger):
            return sorted(known.values(), key=lambda message: message.order)
    raise MaildropTemporaryError(f"{shown(root)}: its files come and go too fast to list them")


def _number_duplicates(messages: Iterable[Stored], ledger: Ledger) -> bool:
    """Give the messages that share a base name their numbers; False if one has vanished."""
    by_base = defaultdict(list)
    for message in messages:
        by_base[message.name.base].append(message)
    for base, group in by_base.items():
        if len(group) == 1 and base not in ledger:
            continue
        for message in group:
            with temporary(message.path):
                try:
                    message.identity = identify(message.path)
                except FileNotFoundError:
                    return False
        group.sort(key=lambda message: (message.modified, message.identity))
        numbers = ledger.numbers(base, [message.identity for message in group])
        for message, number in zip(group, numbers, strict=True):
            message.number = number
    return True
