"""The password file: Dovecot's passwd-file format, read again whenever it changes."""

from __future__ import annotations

import secrets
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from popd.auth import schemes
from popd.auth.passwdline import SCRAM_FIELDS, BarredError, Entry
from popd.auth.reread import RereadFile, Table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from popd.auth.account import Account

__all__ = ["PasswordFile"]

_DUMMY: Final = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4"
    "$f2/C/OO8jvFpD7PDohfw9w$9vPDeCyf4hBIbIfk/3X3+sG00yTyrzDW0DNQBNC/zNk"
)
"""What an unknown user is checked against where there is no known one.  Nobody's password."""

_BARRED: Final = "*"
"""What is kept of a user who cannot log in.  No stored password looks like it."""


class PasswordFile:
    """Who may log in according to a file.  May be used from several threads.

    A change of the file counts at once, see `RereadFile`.

    Broken lines are logged with their number, kept in `problems`, and do not matter to the users
    on other lines.  If two lines are for one user, the first counts.  A user with an extra field
    that restricts who may log in from where, and which popd does not enforce or understand, cannot
    log in at all.  One without a password cannot log in by any.

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
        self._key = key or secrets.token_bytes(16)
        self._file = RereadFile(path, _Users, now)
        self.path = str(self._file.path)
        """Where it is."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the file when it was read last: ``path:line: reason`` each."""
        return self._file.problems

    @property
    def schemes(self) -> frozenset[str]:
        """How passwords are stored in it.  The file is not read again to find out."""
        return frozenset(self._file.peek().schemes)

    def version(self) -> object:
        """Return what is equal as long as the file cannot have changed since it was read."""
        return self._file.version()

    def is_current(self) -> bool:
        """Tell whether a question can be answered without reading the file."""
        return self._file.is_current()

    def find(self, name: str, bare: str = "") -> Entry | None:
        """Return what there is about the user whose canonical name is *name*; None if nothing.

        :param bare: what the user may be called here instead, without the default domain.
        """
        return self._file.table().find(name, bare)

    def recall(self, name: str, bare: str = "") -> Entry | None:
        """Return what there was about a user when the file was read last, without a look at it."""
        return self._file.peek().find(name, bare)

    def verify(self, name: str, password: bytes, bare: str = "") -> Account | None:
        """Return the user called *name* (see `find`) if that is his password, else None.

        An unknown user costs what a known one costs: the password is then checked against that
        of another user, the same each time for the same name.

        :raises Exception: it could not be found out, for want of memory for example.
        """
        table = self._file.table()
        digest = blake2b(name.encode(errors="backslashreplace"), digest_size=8, key=self._key)
        other = table.others[int.from_bytes(digest.digest(), "big") % len(table.others)]
        entry = table.find(name, bare)
        known = entry is not None and bool(entry.password)
        stored = entry.password if entry and known else other.partition(":")[0]
        right = schemes.parse(stored).verify(password) and known
        return entry.account(name) if entry and right else None


class _Users(Table):
    """What the lines of a password file say.

    `users` has what is kept of each user by canonical name: the stored password, with a colon and
    the extra fields behind it if there are any, since a million small objects cost more; `others`
    has those among them that begin with a password, and never nothing.

    :param before: what the file said before; what is as it was need not be checked, or kept twice.
    """

    __slots__ = ("_before", "others", "schemes", "users")

    def __init__(self, lines: Iterable[bytes] = (), before: _Users | None = None) -> None:
        self.users: dict[str, str] = {}
        self.schemes: set[str] = set()
        self._before = before.users if before else {}
        super().__init__(lines)
        del self._before
        none = ("", ":", _BARRED)
        self.others = [kept for kept in self.users.values() if kept[:1] not in none] or [_DUMMY]

    def add(self, text: str) -> None:
        """See `Table.add`."""
        entry = Entry.parse(text)
        name, extras = entry.name, entry.extras
        if name in self.users:
            raise ValueError("this user has an earlier line, which is the one that counts")
        kept = f"{entry.password}:{extras}" if extras else entry.password
        before = self._before.get(name)
        if kept == before and kept != _BARRED:
            kept = before
        else:
            try:
                entry.check()
            except BarredError:
                self.users[name] = _BARRED
                raise
        self.users[name] = kept
        if entry.password:
            self.schemes.add(schemes.scheme_of(entry.password))
            fields = extras.lower()
            self.schemes.update(s for name, s in SCRAM_FIELDS.items() if name in fields)

    def find(self, name: str, bare: str) -> Entry | None:
        """See `PasswordFile.find`."""
        for key in (name, bare):
            kept = self.users.get(key)
            if kept == _BARRED:
                return None
            if kept is not None:
                password, _, extras = kept.partition(":")
                return Entry(key, password, extras)
        return None
