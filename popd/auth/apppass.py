"""App passwords: one for each program that polls, made by popctl, and when they were used last."""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import re
import secrets
import struct
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from popd.auth.account import Account, Client, Network

__all__ = ["DIRECTORY", "LastUse", "Use", "digest", "limited", "make"]

_log = logging.getLogger(__name__)

DIRECTORY: Final = "apppass"
"""What the directory of a `LastUse` is called, in that where popd keeps what has to outlast it."""

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_GROUPS: Final = 7
_GROUP: Final = 4
_APP_PASSWORD: Final = re.compile(rb"[a-z2-7]{%d}" % (_GROUPS * _GROUP))

_RECORD_EVERY: Final = 60.0
"""Seconds in which the use of an app password without an interval is written down once."""

_MAX_REMEMBERED: Final = 10_000
"""So many app passwords' last uses are kept in memory; the rest is looked up in files."""

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK: Final = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_RECORD_OCTETS: Final = 96
_RECORD: Final = re.compile(rb"(\d{1,12}\.\d{3}) ([^\s]{1,64}) *\n")


def make() -> str:
    """Return a new app password: 140 random bits as letters and digits, in groups of four."""
    letters = [secrets.choice(_ALPHABET) for _ in range(_GROUPS * _GROUP)]
    return "-".join("".join(letters[i : i + _GROUP]) for i in range(0, len(letters), _GROUP))


def digest(password: bytes) -> str:
    """Return what is stored of an app password, ``{SHA256}`` and Base64; ``""`` if it is none.

    Hyphens, spaces and letter case do not matter.

    One plain SHA-256, without a salt, is enough here: it is made slow, and salted, for passwords
    that people choose, so that guesses and tables of guesses cost more.  Nobody guesses 140 random
    bits.  So a digest can be looked up among all of them, which costs a microsecond.
    """
    plain = password.replace(b"-", b"").replace(b" ", b"").lower()
    if not _APP_PASSWORD.fullmatch(plain):
        return ""
    return "{SHA256}" + base64.b64encode(sha256(plain).digest()).decode("ascii")


def limited(account: Account, app: Account) -> Account:
    """Return what *account* is for who logs in with an app password: nowhere more than either says.

    An app password makes nobody a master user, and has no maildrop or quota of its own.

    :param app: what is known of the app password, its name among it.
    """
    networks = account.networks or app.networks
    if account.networks and app.networks:
        networks = tuple(_overlaps(account.networks, app.networks))
    return replace(
        account,
        disabled=account.disabled or app.disabled or bool(app.networks and not networks),
        require_tls=account.require_tls or app.require_tls,
        networks=networks,
        master=False,
        program=app.program,
        no_delete=account.no_delete or app.no_delete,
        interval=max(account.interval, app.interval),
        expires=min(account.expires, app.expires),
    )


def _overlaps(some: tuple[Network, ...], others: tuple[Network, ...]) -> Iterator[Network]:
    """Yield what lies in both; of two networks that overlap one lies in the other."""
    for one in some:
        for other in others:
            if one.version == other.version and one.overlaps(other):
                yield max(one, other, key=lambda network: network.prefixlen)


@dataclass(frozen=True, slots=True)
class Use:
    """A log-in with an app password.

    :param time: when it was, in seconds since the epoch.
    :param address: where it came from, ``""`` for a UNIX socket.
    """

    time: float
    address: str


class LastUse:
    """When and from where app passwords were used last, common to all processes of a machine.

    Each app password has a small file in *directory*, which one process at a time looks at and
    writes, in place: a record is 96 octets, which no crash of a process can tear, and what a power
    cut damages counts as never used.  A file is written at every log-in if there is an interval to
    be held, and else once a minute at most.  May be used from several threads.

    If the directory cannot be used, that is logged once, and each process goes by what it
    remembers.

    :param directory: made if it is not there; what it is in must be there.
    :param clock: the time in seconds since the epoch, which must be the same in all processes.
    """

    def __init__(
        self, directory: str | os.PathLike[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = Path(directory)
        self._clock = clock
        self._recent: OrderedDict[str, float] = OrderedDict()
        self._guard = threading.Lock()
        self._lost = False

    @staticmethod
    def concerns(account: Account) -> bool:
        """Tell whether `admit` has anything to do about *account*."""
        return bool(account.program or account.interval)

    def admit(self, account: Account, client: Client) -> str:
        """Note that *account* logs in, if its interval since the last time is over.

        Returns ``""``, or why it must not log in now, for the log; it can be only that it comes too
        soon (``[LOGIN-DELAY]`` of RFC 2449).  A refused attempt does not begin a new interval.  May
        wait for a disk.
        """
        if not self.concerns(account):
            return ""
        key, now = _key(account.name, account.program), self._clock()
        gap = account.interval or _RECORD_EVERY
        with self._guard:
            before = self._recent.get(key)
        if before is None or not 0 <= now - before < gap:
            before = self._record(key, gap, Use(now, client.address))
        if before is None or not account.interval:
            return ""
        return _too_soon(account, before + account.interval - now)

    def _record(self, key: str, gap: float, use: Use) -> float | None:
        """Write down a use, unless another is less than *gap* ago; return the time of that one."""
        before = None
        try:
            with self._opened(key) as descriptor:
                last = _parsed(os.pread(descriptor, _RECORD_OCTETS, 0))
                if last is not None and 0 <= use.time - last.time < gap:
                    before = last.time
                else:
                    os.pwrite(descriptor, _written(use), 0)
        except BlockingIOError:  # another process writes that down at this very moment
            return use.time
        except OSError as error:
            if not self._lost:
                _log.error("%s; the use of app passwords is not recorded", error)
            self._lost = True
        else:
            self._lost = False
        self._remember(key, use.time if before is None else before)
        return before

    def _remember(self, key: str, last: float) -> None:
        with self._guard:
            self._recent[key] = last
            self._recent.move_to_end(key)
            if len(self._recent) > _MAX_REMEMBERED:
                self._recent.popitem(last=False)

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """Open and lock the file of an app password, whose descriptor this is.

        :raises BlockingIOError: another process has locked it.
        """
        path = self._directory / key
        try:
            descriptor = os.open(path, _OPEN, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(0o700, exist_ok=True)
            descriptor = os.open(path, _OPEN, 0o600)
        try:
            # The lock goes with the descriptor, so it holds between threads as well.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK)
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, user: str, program: str) -> Use | None:
        """Return when a user's app password was used last; None if it was not.

        :raises OSError: that cannot be found out.
        """
        try:
            return _parsed((self._directory / _key(user, program)).read_bytes())
        except FileNotFoundError:
            return None

    def forget(self, user: str, program: str) -> None:
        """Remove what is known of an app password's use, since there is no such password any more.

        :raises OSError: it cannot be removed.
        """
        with suppress(FileNotFoundError):
            (self._directory / _key(user, program)).unlink()


def _key(user: str, program: str) -> str:
    """Return the name of a file."""
    name = f"{user}\0{program}".encode(errors="backslashreplace")
    return blake2b(name, digest_size=16).hexdigest()


def _written(use: Use) -> bytes:
    # Rounded down, so that nothing that is written lies in the future.
    text = f"{int(use.time * 1000) / 1000:.3f} {use.address[:64] or '-'}"
    return text.encode("ascii", "replace").ljust(_RECORD_OCTETS - 1) + b"\n"


def _parsed(record: bytes) -> Use | None:
    match = _RECORD.fullmatch(record)
    if match is None:
        return None
    address = match[2].decode("ascii", "replace")
    return Use(float(match[1]), "" if address == "-" else address)


def _too_soon(account: Account, wait: float) -> str:
    what = f"the app password {account.program}" if account.program else "the account"
    return f"{what} may log in every {account.interval:g} seconds, in {ceil(wait)} again"
