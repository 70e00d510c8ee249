"""The file of app passwords beside a password file, read again whenever it changes.

Its lines are those of a password file, and a user may have several::

    user:{SHA256}digest::::::app=NAME expires=2027-01-01 allow_nets=192.0.2.0/24 no_delete

All extra fields but ``app`` may be missing, there may be ``interval=60``, and no others.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from popd.auth import apppass
from popd.auth.account import Account
from popd.auth.passwdline import Entry
from popd.auth.reread import RereadFile, Table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

__all__ = ["APP_FIELDS", "SUFFIX", "App", "AppPasswordFile", "check_app"]

SUFFIX: Final = ".apppass"
"""What is behind the name of a password file in the name of its file of app passwords."""

APP_FIELDS: Final = frozenset({"expires", "allow_nets", "no_delete", "interval"})
"""What may restrict an app password."""

_DIGEST: Final = re.compile(r"\{SHA256\}[A-Za-z0-9+/]{43}=")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class App:
    """An app password, as it is kept.

    :param user: the canonical name of whose it is.
    :param account: what it may be used for.
    """

    user: str
    account: Account = field(repr=False)


class AppPasswordFile:
    """The app passwords in a file; none if there is no file.  May be used from several threads.

    Broken lines are logged with their number, and do not matter to the others.

    :param path: the file.
    :param now: see `RereadFile`.
    :raises OSError: the file cannot be read.
    :raises ValueError: it is not a regular file.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._file = RereadFile(path, _Apps, now, optional=True)
        self.path = str(self._file.path)
        """Where it is, if there is one."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the file when it was read last: ``path:line: reason`` each."""
        return self._file.problems

    def version(self) -> object:
        """Return what is equal as long as the file cannot have changed since it was read."""
        return self._file.version()

    def find(self, password: bytes) -> App | None:
        """Return the app password that *password* is, be it expired or not; None if it is none."""
        digest = apppass.digest(password)
        entry = self._file.table().apps.get(digest) if digest else None
        return None if entry is None else App(entry.name, entry.account(entry.name))


class _Apps(Table):
    """What the lines say: whose an app password is, and what it may be used for, by its digest."""

    __slots__ = ("apps",)

    def __init__(self, lines: Iterable[bytes] = (), before: _Apps | None = None) -> None:
        del before
        self.apps: dict[str, Entry] = {}
        super().__init__(lines)

    def add(self, text: str) -> None:
        """See `Table.add`."""
        entry = Entry.parse(text)
        check_app(entry)
        if self.apps.setdefault(entry.password, entry) is not entry:
            raise ValueError("this app password has an earlier line, which is the one that counts")


def check_app(entry: Entry) -> None:
    """Check what a line says of an app password.

    :raises ValueError: something is wrong with it.  The text repeats nothing of it.
    """
    fields = entry.fields
    if not _DIGEST.fullmatch(entry.password):
        raise ValueError("an app password is stored as {SHA256} and the Base64 of its digest")
    if not _NAME.fullmatch(fields.pop("app", "")):
        raise ValueError("the field app must name the program, in letters, digits and . _ -")
    if not fields.keys() <= APP_FIELDS:
        raise ValueError(f"beside app there may be {', '.join(sorted(APP_FIELDS))}")
    Account.read(entry.name, fields)
