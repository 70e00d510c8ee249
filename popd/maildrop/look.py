"""A look at a Maildir that changes nothing in it, whether or not a session has it."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

from popd.maildrop import beneath
from popd.maildrop.files import READ, temporary
from popd.maildrop.local import is_local
from popd.maildrop.lock import LOCK_FILE
from popd.maildrop.snapshots import SnapshotCache
from popd.maildrop.stocktaking import take_stock
from popd.maildrop.uidl import Ledger

if TYPE_CHECKING:
    from popd.maildrop.stock import Stock

__all__ = ["is_locked", "look"]

_FLOCK: Final = struct.Struct("hhqqi4x")
"""A ``struct flock`` (fcntl(2))."""


def look(root: bytes) -> Stock:
    """Return the messages in the Maildir at *root*, as a session would see them now.

    :raises MaildropTemporaryError: it is not there, or cannot be read.
    """
    with temporary(root):
        status = os.stat(root)
    which = status.st_dev, status.st_ino
    ledger = Ledger.load(root)
    return take_stock(root, which, ledger, SnapshotCache(), local=is_local(root)).stock


def is_locked(root: bytes) -> bool:
    """Tell whether a session has the Maildir at *root*.

    Of a Maildir in which the lock's file cannot be made only the process that has it knows.

    :raises MaildropTemporaryError: the lock cannot be looked at.
    """
    path = root + b"/" + LOCK_FILE
    with temporary(path):
        try:
            descriptor = beneath.open_beneath(path, READ)
        except FileNotFoundError:
            return False
        try:
            wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
        finally:
            os.close(descriptor)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
