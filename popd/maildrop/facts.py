"""What was found out about the files of a Maildir, kept beside them for the next time.

To know its size for RETR a message has to be read, once.  What comes of that is written to
`CACHE_FILE`; in a large maildrop what is found out later goes to `RECENT_FILE` first, so that
one new message does not cost a new file of everything.  A fact belongs to a file's base name and
inode number, and says nothing about where it is or whether it is there: the listing
does that.

Both files are disposable.  Each is replaced as a whole; one that is damaged, somebody else's, or of
another version is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from array import array
from contextlib import suppress
from math import isqrt
from typing import TYPE_CHECKING, Final, TypeAlias

from popd.maildrop.beneath import unlink_beneath
from popd.maildrop.files import open_regular, replace_file, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from popd.maildrop.stock import Stock
    from popd.maildrop.stored import Measured

__all__ = ["CACHE_FILE", "RECENT_FILE", "Known", "Signature", "forget", "load", "save"]

CACHE_FILE: Final = b"popd-cache"
RECENT_FILE: Final = b"popd-cache-new"

_MAX_OCTETS: Final = 512 * 1024 * 1024
_FEW: Final = 1000
"""A maildrop of so many messages has no `RECENT_FILE`: to write all of it takes no time."""

_HEAD: Final = re.compile(rb"popd-cache 1 ([0-9]{1,10}) ([0-9a-f]{64})\n")

_CODES: Final = "Qqqq"
"""What the columns are in the file: inode number, octets stored, mtime, octets on the wire."""

Signature: TypeAlias = tuple[int, int] | None
"""What tells one `CACHE_FILE` from the next, None if there is none."""

_log = logging.getLogger(__name__)


class _Table:
    """The facts of one file."""

    def __init__(self, bases: list[bytes], columns: list[array[int]]) -> None:
        self.rows = dict(zip(bases, range(len(bases)), strict=True))
        self._inodes, self._sizes, self._modified, self._octets = columns

    def get(self, base: bytes, inode: int) -> Measured | None:
        """Return what is known about a file."""
        row = self.rows.get(base, -1)
        if row < 0 or self._inodes[row] != inode:
            return None
        return self._sizes[row], self._modified[row], self._octets[row]


class Known:
    """What the cache of a Maildir knows.

    :param tables: what was read.
    :param recent: the base names that are in `RECENT_FILE`.
    :param signature: which `CACHE_FILE` there is.
    """

    def __init__(
        self, tables: list[_Table], recent: Collection[bytes], signature: Signature
    ) -> None:
        self._tables = tables
        self.recent = frozenset(recent)
        self.signature = signature

    def get(self, base: bytes, inode: int) -> Measured | None:
        """Return what is known about a file, None if that is nothing."""
        for table in self._tables:
            facts = table.get(base, inode)
            if facts is not None:
                return facts
        return None


def load(root: bytes, have: Signature = None) -> Known:
    """Read the cache of the Maildir at *root*; what cannot be used is logged and left out.

    :param have: the `CACHE_FILE` whose facts the caller has already; it is not read again.
    """
    recent, _ = _read(os.path.join(root, RECENT_FILE))
    base, signature = _read(os.path.join(root, CACHE_FILE), have)
    tables = [table for table in (recent, base) if table]
    return Known(tables, recent.rows.keys() if recent else (), signature)


def save(
    root: bytes, stock: Stock, recent: frozenset[bytes], signature: Signature
) -> tuple[Signature, frozenset[bytes]]:
    """Write down all that is known about the messages of *stock*.

    :param recent: the base names about which `CACHE_FILE` says nothing.
    :param signature: which `CACHE_FILE` that is.
    :return: which it is now, and about which base names it says nothing.
    :raises OSError: it cannot be written.
    """
    if signature and len(stock) > _FEW and len(recent) <= isqrt(len(stock)):
        replace_file(root, RECENT_FILE, _format(stock.only(recent)))
        return signature, recent
    replace_file(root, CACHE_FILE, _format(stock))
    recent_path = os.path.join(root, RECENT_FILE)
    if os.path.lexists(recent_path):
        unlink_beneath(recent_path)
    return _signature(os.lstat(os.path.join(root, CACHE_FILE))), frozenset()


def forget(root: bytes) -> None:
    """Remove the cache of the Maildir at *root*, as far as that can be done."""
    for name in (RECENT_FILE, CACHE_FILE):
        with suppress(OSError):
            unlink_beneath(os.path.join(root, name))


def _signature(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_mtime_ns


def _read(path: bytes, have: Signature = None) -> tuple[_Table | None, Signature]:
    """Read a file of the cache, unless it is the one that the caller has."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            signature = _signature(status)
            if signature == have:
                return None, signature
            if status.st_uid != os.geteuid():
                table, problem = None, "it is another user's"
            elif status.st_size > _MAX_OCTETS:
                table, problem = None, "too large"
            else:
                table, problem = _parse(file.readall()), "damaged, or from another version"
    except FileNotFoundError:
        return None, None
    except OSError as error:
        table, problem, signature = None, str(error.strerror), None
    if table is None:
        _log.warning("%s: not used: %s; sizes are taken anew", shown(path), problem)
        return None, None
    return table, signature


def _format(stock: Stock) -> bytes:
    columns = [
        _swapped(array(code, column)).tobytes()
        for code, column in zip(_CODES, stock.columns, strict=True)
    ]
    body = b"".join([*columns, stock.names])
    digest = hashlib.blake2b(body, digest_size=32).hexdigest().encode("ascii")
    return b"popd-cache 1 %d %b\n%b" % (len(stock), digest, body)


def _parse(content: bytes) -> _Table | None:
    """Return what a file says, None if it is not whole."""
    head = _HEAD.match(content)
    if not head:
        return None
    body = memoryview(content)[head.end() :]
    if hashlib.blake2b(body, digest_size=32).hexdigest().encode("ascii") != head[2]:
        return None
    count = int(head[1])
    width = 8 * count
    if len(body) < 4 * width:
        return None
    columns = []
    for number, code in enumerate(_CODES):
        column = array(code)
        column.frombytes(body[number * width : (number + 1) * width])
        columns.append(_swapped(column))
    bases = bytes(body[4 * width :]).split(b"\0")
    if len(bases) != count + 1 or bases.pop():
        return None
    return _Table(bases, columns)


def _swapped(column: array[int]) -> array[int]:
    """Turn between the file's order of octets, which is little-endian, and this machine's."""
    if sys.byteorder == "big":  # pragma: no cover - no such machine to test on
        column = column[:]
        column.byteswap()
    return column
