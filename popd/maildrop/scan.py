"""Which files of a Maildir are messages, and whether a list of them still holds.

POSIX lets readdir miss or double a file that is renamed meanwhile, and mail programs rename all the
time.  So one listing proves nothing by itself; see `scan`.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from popd.maildrop.files import open_directory, shown, temporarily, temporary
from popd.maildrop.interfaces import MaildropTemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DIRECTORIES", "PASSES", "TICK", "Keys", "Scan", "directory_key", "scan"]

DIRECTORIES: Final = (b"new", b"cur")
"""Where messages are.  Mail moves from the first to the second, so it is looked for in this
order: what moves between the two looks is seen twice rather than not at all."""

PASSES: Final = 4
"""How often something is looked at again because it changed under the eyes."""

TICK: Final = 20_000_000
"""Nanoseconds.  File systems take the time from a clock that ticks every 1 to 10 ms: two changes
within a tick may leave the same mtime."""

_ENCODING: Final = sys.getfilesystemencoding()

Key: TypeAlias = tuple[int, int]
"""The mtime and the ctime of a directory, in nanoseconds."""

Keys: TypeAlias = "Mapping[bytes, Key | None]"
"""By directory: what vouches that a listing still holds, None if nothing does."""


class Scan(NamedTuple):
    """What a look at a Maildir found."""

    files: dict[bytes, dict[bytes, int]]
    """The inode numbers of the files by their names, in each directory that had to be listed."""

    keys: dict[bytes, Key | None]
    """What vouches for the listings from now on."""


def scan(
    root: bytes,
    known: Keys | None = None,
    margin: int = TICK,
    now: Callable[[], int] = time.time_ns,
) -> Scan:
    """List the message files in the Maildir at *root*.

    Regular files are messages, dot files and everything else are not.

    The listings are taken for complete when at the end neither directory has changed since its own
    began, and each was older than a tick by then.  A directory that does not qualify is listed
    again; a Maildir that never rests gives all that was seen and is still there.

    A listing holds for as long as its directory's times stay what they were, if those were older
    than *margin* when it began.  Times in the future, from a machine whose clock is fast, vouch for
    nothing: the next change may not move them.

    :param known: what vouches for listings that the caller has; those directories are not listed.
    :param margin: nanoseconds that clocks of machines that share the Maildir may differ.
    :param now: tells the time in nanoseconds since 1970.
    :raises MaildropTemporaryError: a directory is missing, is a link, or cannot be read.
    """
    paths = {directory: os.path.join(root, directory) for directory in DIRECTORIES}
    have = dict(known or {})
    found: dict[bytes, dict[bytes, int]] = {}
    seen: dict[bytes, dict[bytes, int]] = {}
    keys = dict(have)
    for _ in range(PASSES):
        began = now()
        before = {directory: directory_key(path) for directory, path in paths.items()}
        for directory, path in paths.items():
            key = before[directory]
            if have.get(directory) == key:
                continue
            found[directory] = _regular_files(path)
            seen.setdefault(directory, {}).update(found[directory])
            have[directory] = key if max(key) < began - TICK else None
            keys[directory] = key if max(key) < began - margin else None
        if all(have[directory] == directory_key(path) for directory, path in paths.items()):
            return Scan(found, keys)
    for directory, names in seen.items():
        path = paths[directory] + b"/"
        for name in names.keys() - found[directory].keys():
            if _is_there(path + name):
                found[directory][name] = names[name]
    return Scan(found, dict.fromkeys(DIRECTORIES))


def directory_key(path: bytes) -> Key:
    """Return the times of a directory.

    :raises MaildropTemporaryError: it cannot be looked at, or is no directory.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise temporarily(path, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise MaildropTemporaryError(f"{shown(path)}: Not a directory")
    return status.st_mtime_ns, status.st_ctime_ns


def _regular_files(path: bytes) -> dict[bytes, int]:
    with temporary(path):
        descriptor = open_directory(path)
        try:
            with os.scandir(descriptor) as entries:
                return {
                    entry.name.encode(_ENCODING, "surrogateescape"): entry.inode()
                    for entry in entries
                    if entry.name[0] != "." and entry.is_file(follow_symlinks=False)
                }
        finally:
            os.close(descriptor)


def _is_there(path: bytes) -> bool:
    with temporary(path):
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True
