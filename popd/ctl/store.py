"""Where accounts are kept, as popctl sees it; and how it finds out where that is.

A store is for one command of one process.  Its methods may wait for a disk, a lock or a database, a
few seconds at most; each change is whole and lasting when a method returns, or was not made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "STORES",
    "AppPassword",
    "Hashes",
    "NoSuchUserError",
    "RefusedError",
    "StoreError",
    "UnusableError",
    "User",
    "UserExistsError",
    "UserStore",
    "open_store",
]


class StoreError(Exception):
    """A command failed.  The text is one line that says what to do, without a secret in it."""

    exit_code: ClassVar[int] = 1


class RefusedError(StoreError):
    """What was asked for is not possible, such as a user name that nobody can have."""


class NoSuchUserError(StoreError):
    """There is no such user, or no such app password."""

    exit_code = 3


class UserExistsError(StoreError):
    """There is such a user, or such an app password, already."""

    exit_code = 4


class UnusableError(StoreError):
    """The file or the database cannot be read or written."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Hashes:
    """What is stored of one password, all of it made from the same one.

    :param password: an argon2id hash as `popd.auth.schemes.parse` takes it: ``{ARGON2ID}$...``.
    :param scram_sha_256: keys as `popd.auth.schemes.parse` takes them: ``{SCRAM-SHA-256}...``.
    """

    password: str = field(repr=False)
    scram_sha_256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """One user, without anything secret.

    :param name: the canonical name.
    :param disabled: whether the administrator disabled the account.
    :param schemes: how the password is stored, such as ``("ARGON2ID", "SCRAM-SHA-256")``; empty if
        there is none.
    :param fields: what else is known of him, by the names in `popd.auth.account.FIELDS`, as text.
    :param problem: why popd does not let him in although he is not disabled; or ``""``.
    """

    name: str
    disabled: bool = False
    schemes: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AppPassword:
    """An app password of one user.

    :param name: for which program it is; what revokes it.
    :param digest: what is stored of it, see `popd.auth.apppass.digest`.
    :param fields: ``expires``, ``allow_nets``, ``no_delete`` and ``interval``, as far as given, as
        in `popd.auth.account.FIELDS`.
    """

    name: str
    digest: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict)


class UserStore(Protocol):
    """Where users and app passwords are kept.

    The names that it is given are canonical (``str(UserName.parse(...))``), and the fields can be
    read (`Account.read`).  Everything raises `UnusableError` where it cannot be read or written.
    """

    def users(self) -> Iterator[User]:
        """Yield all users, in the order in which they are stored."""

    def add(self, name: str, hashes: Hashes, fields: Mapping[str, str]) -> None:
        """Add a user, without any app password that a namesake may have left behind.

        :raises UserExistsError: there is one.
        :raises RefusedError: the store cannot hold such a name or field.
        """

    def set_password(self, name: str, hashes: Hashes) -> None:
        """Replace a user's password, and every other key or hash that was made of the old one.

        :raises NoSuchUserError: there is no such user.
        """

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Keep a user out, or let him in again; nothing changes if it is so already.

        :raises NoSuchUserError: there is no such user.
        """

    def delete(self, name: str) -> None:
        """Remove a user and all his app passwords; never the mail.

        :raises NoSuchUserError: there is no such user.
        """

    def app_passwords(self, name: str) -> list[AppPassword]:
        """Return a user's app passwords, expired ones too.

        :raises NoSuchUserError: there is no such user.
        """

    def add_app_password(self, name: str, app_password: AppPassword) -> None:
        """Add an app password for a user.

        :raises NoSuchUserError: there is no such user.
        :raises UserExistsError: he has one of that name.
        """

    def revoke_app_password(self, name: str, app: str) -> None:
        """Remove the app password *app* of a user.

        :raises NoSuchUserError: there is no such user, or he has no such app password.
        """


STORES: Final = {
    "popd-passwd": "popd.ctl.passwdstore:PasswdStore",
    "popd-sql": "popd.ctl.sqlstore:SqlStore",
}
"""What opens the store that a type of ``--auth`` checks: it is called with the argument, and raises
`UnusableError`.  Named here rather than imported, since a store may need what is not installed."""


def open_store(description: str) -> UserStore:
    """Return the store of the accounts that ``--auth`` *description* checks.

    :raises RefusedError: popctl can change no such accounts.
    :raises UnusableError: it cannot be opened.
    """
    kind, _, argument = description.partition(":")
    if kind not in STORES:
        known = " or ".join(STORES)
        raise RefusedError(f"popctl cannot change accounts of {kind}; give --auth {known}:ARGUMENT")
    module, name = STORES[kind].split(":")
    store: UserStore = getattr(import_module(module), name)(argument)
    return store
