"""What the rows say that a query found: a user, and his app passwords."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from popd.auth import apppass
from popd.auth.account import FIELDS, Account
from popd.auth.sqlpool import MAX_ROWS
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from popd.auth.sqlpool import Table

__all__ = ["SCRAM_COLUMNS", "Login", "User", "check_columns", "read", "text"]

_log = logging.getLogger(__name__)

SCRAM_COLUMNS: Final = {"SCRAM-SHA-256": "scram_sha_256", "SCRAM-SHA-1": "scram_sha_1"}
"""The columns of SCRAM keys, by mechanism."""

_OWN: Final = frozenset({"name", "password", *SCRAM_COLUMNS.values()})


@dataclass(frozen=True, slots=True)
class Login:
    """One way for a user to log in.

    :param account: what he is if he does.
    :param password: how the password is stored, be it as SCRAM keys; ``""`` if there is none.
    :param scram: how its SCRAM keys are stored, by mechanism, as far as they are.
    """

    account: Account
    password: str = field(default="", repr=False)
    scram: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    :param own: the log-in with his own password.
    :param apps: those with app passwords.
    """

    own: Login
    apps: tuple[Login, ...] = ()


def check_columns(columns: Iterable[str]) -> None:
    """Do nothing if popd can do something with each of a query's columns.

    :raises ValueError: it cannot.  A restriction that popd does not know it would not enforce.
    """
    seen: set[str] = set()
    for column in columns:
        if column not in _OWN and column not in FIELDS:
            known = ", ".join(sorted({*_OWN, *FIELDS}))
            raise ValueError(f"the query has a column {column}, which is none of {known}")
        if column in seen:
            raise ValueError(f"the query has two columns {column}")
        seen.add(column)
    if "password" not in seen and seen.isdisjoint(SCRAM_COLUMNS.values()):
        raise ValueError("the query has neither a password column nor one of SCRAM keys")


def read(table: Table, asked: str) -> User | None:
    """Return the user whom a query found, None if it found none or none that can log in.

    What keeps a user out who is there is logged, without a value.

    :param asked: the user name with which it was asked, which is his where no ``name`` says more.
    :raises ValueError: popd can do nothing with the query's columns.
    """
    columns, rows = table
    if not rows:
        return None
    check_columns(columns)
    try:
        return _user([dict(zip(columns, row, strict=True)) for row in rows], asked)
    except ValueError as reason:
        _log.error("%s cannot log in: %s", asked, reason)
        return None


def _user(rows: list[dict[str, Any]], asked: str) -> User | None:
    """Return the user that *rows* are about.

    :raises ValueError: they contradict each other, or what they say cannot be understood.
    """
    if len(rows) > MAX_ROWS:
        raise ValueError(f"the query finds more than {MAX_ROWS} rows")
    own = [row for row in rows if row.get("app") is None]
    if len(own) != 1:
        raise ValueError(f"the query finds {len(own)} rows that are of no app password, not 1")
    login = _login(own[0], asked)
    apps: list[Login] = []
    for row in rows:
        if row is own[0]:
            continue
        try:
            app = _login(row, asked)
        except ValueError as reason:
            _log.error("an app password of %s cannot be used: %s", asked, reason)
            continue
        if app.account.name != login.account.name:
            raise ValueError("the query finds rows of several users")
        account = apppass.limited(login.account, app.account)
        apps.append(Login(account, app.password))
    return User(login, tuple(apps))


def _login(row: Mapping[str, Any], asked: str) -> Login:
    """Return the log-in that one row describes.

    :raises ValueError: something of it cannot be understood.
    """
    texts = {column: text(column, value) for column, value in row.items() if value is not None}
    user = UserName.parse(texts.get("name", asked))
    if user is None:
        raise ValueError("no user can have the name in the row")
    fields = {column: value for column, value in texts.items() if column not in _OWN}
    if fields.get("app") == "":
        raise ValueError("the app password has no name")
    scram = {name: texts[column] for name, column in SCRAM_COLUMNS.items() if texts.get(column)}
    password = texts.get("password") or next(iter(scram.values()), "")
    return Login(Account.read(str(user), fields), password, scram)


def text(column: str, value: Any) -> str:
    """Return what a database gives as text.

    :raises ValueError: it is not in UTF-8.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError(f"the field {column} is not UTF-8") from None
    if isinstance(value, list | tuple):  # arrays of PostgreSQL
        return ",".join(text(column, one) for one in value)
    return str(value)
