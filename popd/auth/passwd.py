"""The password file: Dovecot's passwd-file format, read again whenever it changes.

One user a line (https://doc.dovecot.org, "Passwd-file")::

    user:{SCHEME}password:uid:gid:gecos:home:shell:extra fields

Only the first two fields have to be there.  Empty lines and those that begin with ``#`` mean
nothing.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import stat
import threading
import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from popd.auth import schemes
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["PasswordFile"]

_log = logging.getLogger(__name__)

_FRESH_NS: Final = 2_000_000_000
"""A file changed less than this before it was read may change again without looking changed:
clocks of file systems tick up to 2 seconds apart (FAT) and disagree between hosts."""

_MAX_PROBLEMS: Final = 100
"""So many broken lines are reported one by one, the rest only counted."""

_RESTRICTIONS: Final = frozenset(
    {"allow_nets", "allow_real_nets", "delay_until", "fail", "host", "login_user", "master"}
    | {"noauthenticate", "nologin", "proxy", "proxy_maybe", "user"}
)
"""Dovecot's extra fields that keep a user out, or let him into another's place."""

_DUMMY: Final = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4"
    "$f2/C/OO8jvFpD7PDohfw9w$9vPDeCyf4hBIbIfk/3X3+sG00yTyrzDW0DNQBNC/zNk"
)
"""What an unknown user is checked against where there is no known one.  Nobody's password."""


class PasswordFile:
    """Who may log in according to a file.  May be used from several threads.

    A change of the file counts from the next `verify` on; while that one reads the file, others
    go by what it said before, and wait for nothing.  Replace the file by renaming a new one over
    it, so that nobody reads half of it.  If it cannot be read any more, the users read last
    remain.

    Broken lines are logged with their number, kept in `problems`, and do not matter to the users
    on other lines.  If two lines are for one user, the first counts.  A user with an extra field
    that restricts who may log in from where, which popd does not enforce, cannot log in at all.

    :param path: the file.
    :param key: secret; decides whom an unknown user resembles, see `verify`.  Processes that
        serve the same users should share one.
    :param now: the clock that the file's time stamps come from, in nanoseconds since the epoch.
    :raises OSError: the file cannot be read.
    :raises ValueError: it is not a regular file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = Path(path)
        self._path = str(path)  # which os.stat takes in half the time
        self._key = key or secrets.token_bytes(16)
        self._now = now
        self._lock = threading.Lock()
        self._lost = False
        self._fingerprint: object = None
        self._digest = b""
        self._table = _Table()
        self._read()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the file when it was read last: ``path:line: reason`` each."""
        return tuple(f"{self.path}:{problem}" for problem in self._table.report())

    def version(self) -> object:
        """Return what is equal as long as the file cannot have changed since it was read."""
        try:
            fingerprint = _fingerprint(os.stat(self._path))  # noqa: PTH116 - half the time
        except OSError:
            return object()
        return fingerprint if fingerprint == self._fingerprint else object()

    def verify(self, name: str, password: bytes, bare: str = "") -> bool:
        """Tell whether *password* is that of the user whose canonical name is *name*.

        :param bare: what the user may be called here instead, without the default domain.

        An unknown user costs what a known one costs: the password is then checked against that
        of another user, the same each time for the same name.

        :raises Exception: it could not be found out, for want of memory for example.
        """
        table = self._current()
        digest = blake2b(name.encode(errors="backslashreplace"), digest_size=8, key=self._key)
        other = table.fields[int.from_bytes(digest.digest(), "big") % len(table.fields)]
        field = table.users.get(name, table.users.get(bare))
        return schemes.parse(field or other).verify(password) and bool(field)

    def _current(self) -> _Table:
        """Return the users, after reading the file again if it may have changed."""
        if self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._table

    def _refresh(self) -> None:
        """Read the file again if it may have changed; on failure say so once."""
        try:
            if _fingerprint(self.path.stat()) != self._fingerprint:
                self._read()
        except (OSError, ValueError) as reason:
            if not self._lost:
                _log.error("%s; the users read before remain", reason)
            self._lost = True
        else:
            if self._lost:
                _log.warning("%s: can be read again", self.path)
            self._lost = False

    def _read(self) -> None:
        """Read the file, unless it says what it said before."""
        with open(self.path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{self.path}: not a regular file")
            fresh = status.st_ctime_ns > self._now() - _FRESH_NS
            content = file.read()
        self._fingerprint = None if fresh else _fingerprint(status)
        digest = blake2b(content).digest()
        if digest != self._digest:
            self._table = _Table(io.BytesIO(content))
            self._digest = digest
            for problem in self.problems:
                _log.warning("%s", problem)


def _open(path: str, flags: int) -> int:
    """Open without waiting for whoever may write to a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _fingerprint(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what differs after a change, save one within the same tick of the clock."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class _Table:
    """What the lines of a file say.

    `users` has each user's password field by canonical name, ``""`` for who cannot log in;
    `fields` has all the others, and never nothing.
    """

    __slots__ = ("_problems", "_unnamed", "fields", "users")

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.users: dict[str, str] = {}
        self._problems: list[str] = []
        self._unnamed = 0
        for number, line in enumerate(lines, 1):
            try:
                self._add(line)
            except ValueError as reason:
                if len(self._problems) < _MAX_PROBLEMS:
                    self._problems.append(f"{number}: {reason}")
                else:
                    self._unnamed += 1
        self.fields = [field for field in self.users.values() if field] or [_DUMMY]

    def report(self) -> list[str]:
        """Return what is wrong, ``line: reason`` each."""
        more = [f" {self._unnamed} more lines are wrong"] if self._unnamed else []
        return self._problems + more

    def _add(self, line: bytes) -> None:
        """Take in one line.

        :raises ValueError: something is wrong with it.  The text repeats nothing of the line.
        """
        if not line.strip() or line.startswith(b"#"):
            return
        try:
            text = line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            raise ValueError("the line is not UTF-8") from None
        given, *fields = text.split(":", 7)
        if not fields:
            raise ValueError("there is no colon behind the user name")
        user = UserName.parse(given)
        if user is None:
            raise ValueError("no user can have this name")
        name, password = str(user), fields[0]
        if name in self.users:
            raise ValueError("this user has an earlier line, which is the one that counts")
        if restrictions := _RESTRICTIONS.intersection(_extra_fields(fields)):
            self.users[name] = ""
            names = ", ".join(sorted(restrictions))
            raise ValueError(f"this user cannot log in: popd does not enforce {names}")
        if password:
            schemes.parse(password)
        self.users[name] = password


def _extra_fields(fields: list[str]) -> list[str]:
    """Return the names of the extra fields, in lower case."""
    return [extra.partition("=")[0].lower() for extra in "".join(fields[6:]).split()]
