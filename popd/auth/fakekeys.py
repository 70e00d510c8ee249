"""SCRAM keys that are made up for users who have none, so that nobody learns who has some."""

from __future__ import annotations

import mmap
import os
import secrets
import stat
import struct
from contextlib import suppress
from hashlib import blake2b, new
from typing import TYPE_CHECKING, Final, Self

from twisted.logger import Logger

from popd.protocol.credentials import ScramKeys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["DEFAULT_SHAPE", "FILE", "FakeKeys"]

FILE: Final = "fake-keys"
"""What the file is called, in the directory with what has to outlast popd."""

DEFAULT_SHAPE: Final = (65_536, 16)
"""The iteration count and the octets of salt that popctl chooses: until real keys were seen."""

_DIGESTS: Final[Mapping[str, str]] = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}

_SHAPE: Final = struct.Struct("<IHH")  # iterations, octets of salt, votes

_MAX_VOTES: Final = 1000

_SALT_OCTETS: Final = range(1, 65)

_KEY_OCTETS: Final = 32

_PLACES: Final = {name: _KEY_OCTETS + _SHAPE.size * i for i, name in enumerate(_DIGESTS)}

_SIZE: Final = _KEY_OCTETS + _SHAPE.size * len(_DIGESTS)

_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = Logger()


class FakeKeys:
    """Makes up keys: for one name always the same, which no password fits.

    Their iteration count and length of salt are those that most of the real keys have which were
    looked up so far.  Made before processes part, it is common to all of them, so that they agree.

    :param key: secret, of 32 octets at most; what is made up follows from it.
    :param memory: with a key, and what real keys look like, as they were left; in place of *key*.
    """

    def __init__(self, key: bytes | None = None, memory: mmap.mmap | None = None) -> None:
        if memory is None:
            memory = mmap.mmap(-1, _SIZE)
            memory[:] = _fresh(key or secrets.token_bytes(_KEY_OCTETS))
        self._memory = memory
        self._key = memory[:_KEY_OCTETS]

    @classmethod
    def kept(cls, path: Path) -> Self:
        """Return what the file *path* keeps, which is made if there is none.

        Made up anew after a restart, they would differ from before, as nobody's real keys do.
        Without a directory for the file, or if it cannot be used, they are.
        """
        try:
            return cls(memory=_mapped(path))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else error
            _log.warn("{reason}; a restart will show which users have SCRAM keys", reason=reason)
            return cls()

    def seen(self, mechanism: str, keys: ScramKeys) -> None:
        """Take note of a user's real keys.

        What most users have is found by Boyer and Moore's vote, which takes a few octets of memory
        however many users there are.
        """
        place = _PLACES.get(mechanism)
        if place is None or len(keys.salt) not in _SALT_OCTETS:
            return
        iterations, salt, votes = _SHAPE.unpack_from(self._memory, place)
        shape = (keys.iterations, len(keys.salt))
        if shape == (iterations, salt):
            if votes == _MAX_VOTES:
                return
            votes += 1
        elif votes > 1:
            votes -= 1
        else:
            iterations, salt = shape
        _SHAPE.pack_into(self._memory, place, iterations, salt, votes)

    def make(self, name: bytes, mechanism: str) -> ScramKeys:
        """Return keys for *name*, who has none."""
        iterations, octets, _ = _SHAPE.unpack_from(
            self._memory, _PLACES.get(mechanism, _KEY_OCTETS)
        )
        size = new(_DIGESTS.get(mechanism, "sha256")).digest_size
        salt, stored, server = (
            blake2b(b"%b %b" % (use, name), key=self._key, person=mechanism.encode()[:16]).digest()
            for use in (b"salt", b"stored", b"server")
        )
        return ScramKeys(salt[:octets], iterations, stored[:size], server[:size])


def _fresh(key: bytes) -> bytes:
    """Return what is kept before any real keys were seen."""
    return key.ljust(_KEY_OCTETS, b"\0") + _SHAPE.pack(*DEFAULT_SHAPE, 1) * len(_DIGESTS)


def _mapped(path: Path) -> mmap.mmap:
    """Return the content of the file *path*, for all processes that part later to share.

    :raises ValueError: it is something else.
    :raises OSError: it cannot be read and written.
    """
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        _create(path)
        descriptor = os.open(path, _OPEN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != _SIZE:
            raise ValueError(f"{path}: this is something else, and is left alone")
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Make a new file as a whole, for whose directory it is in."""
    owner = path.parent.stat()
    new_path = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new_path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.write(descriptor, _fresh(secrets.token_bytes(_KEY_OCTETS)))
        os.fsync(descriptor)
        new_path.rename(path)
    except BaseException:
        with suppress(OSError):
            new_path.unlink()
        raise
    finally:
        os.close(descriptor)
