"""What directories say about users, made into accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger

from popd.auth.account import Account
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_account"]

_log: Final = Logger()


def read_account(directory: str, name: str | bytes, fields: Mapping[str, str]) -> Account:
    """Return the account that *directory* describes with a user's name and fields.

    A user with a field that cannot be understood is disabled, and the log says why.

    :raises UnauthorizedLogin: nobody can have that name; the log says so.
    """
    user = UserName.parse(name)
    if user is None:
        _log.error(
            "{directory} gives a user the name {name!a}, which nobody can have",
            directory=directory,
            name=name[:100],
        )
        raise UnauthorizedLogin
    try:
        return Account.read(str(user), fields)
    except (KeyError, ValueError) as error:
        _log.error(
            "{directory} about {user!a}: {error}; he is not let in",
            directory=directory,
            user=str(user),
            error=error,
        )
        return Account(str(user), disabled=True)
