"""Which files of a Maildir are messages.

POSIX lets readdir miss or double a file that is renamed meanwhile, and mail programs rename all the
time.  So one listing proves nothing by itself; see `scan`.
"""

from __future__ import annotations

import os
import time

from popd.maildrop.files import open_directory, temporary

__all__ = ["DIRECTORIES", "PASSES", "scan"]

DIRECTORIES = (b"new", b"cur")
"""Where messages are.  Mail moves from the first to the second, so it is looked for in this
order: what moves between the two looks is seen twice rather than not at all."""

PASSES = 4
"""How often something is looked at again because it changed under the eyes."""

_TICK = 20_000_000
"""Nanoseconds.  File systems take the time from a clock that ticks every 1 to 10 ms: two changes
within a tick may leave the same mtime."""


def scan(root: bytes) -> set[bytes]:
    """Return the path of every message file in the Maildir at *root*.

    Regular files are messages, dot files and everything else are not.

    A listing is taken for complete when neither directory's mtime changed while it was made, and
    both were older than a tick when it began.  (An mtime in the future, from a machine whose clock
    is fast, vouches for nothing: the next change may not move it.)  Otherwise they are listed
    again; a Maildir that never rests gives all that was seen and is still there.

    :raises MaildropTemporaryError: a directory is missing, is a link, or cannot be read.
    """
    seen: set[bytes] = set()
    found: set[bytes] = set()
    for _ in range(PASSES):
        found, settled = _look(root)
        if settled:
            return found
        seen |= found
    return found | {path for path in seen - found if _is_there(path)}


def _look(root: bytes) -> tuple[set[bytes], bool]:
    """List both directories once, and tell whether they rested meanwhile."""
    quiet_since = time.time_ns() - _TICK
    paths = [os.path.join(root, directory) for directory in DIRECTORIES]
    before = [_modified(path) for path in paths]
    found = {file for path in paths for file in _regular_files(path)}
    after = [_modified(path) for path in paths]
    return found, before == after and max(before) < quiet_since


def _modified(path: bytes) -> int:
    with temporary(path):
        return os.lstat(path).st_mtime_ns


def _regular_files(path: bytes) -> list[bytes]:
    with temporary(path):
        descriptor = open_directory(path)
        try:
            with os.scandir(descriptor) as entries:
                return [
                    path + b"/" + os.fsencode(entry.name)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
                ]
        finally:
            os.close(descriptor)


def _is_there(path: bytes) -> bool:
    with temporary(path):
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True
