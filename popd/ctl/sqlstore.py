"""The accounts in the tables that come with popd, in any database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from popd.auth import schemes, sqlconfig, sqldrivers
from popd.auth.account import Account
from popd.auth.sqlquery import DEFAULT_QUERY, SCHEMA, parse
from popd.auth.sqlrows import text
from popd.ctl.store import (
    AppPassword,
    NoSuchUserError,
    RefusedError,
    UnusableError,
    User,
    UserExistsError,
)
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from popd.ctl.store import Hashes

__all__ = ["SqlStore"]

_SWITCHES: Final = ("disabled", "require_tls", "master", "no_delete")
_TEXTS: Final = {
    "allow_nets": "allow_nets",
    "maildrop": "maildrop",
    "quota": "quota",
    "expires": "expires",
    "interval": "min_interval",
}
"""The fields of a user that are text, and their columns."""

_APP_TEXTS: Final = ("allow_nets", "expires", "interval")

_ADD: Final = """\
INSERT INTO popd_users (name, password, scram_sha_256, disabled, require_tls, allow_nets, maildrop,
                        quota, master, expires, no_delete, min_interval)
VALUES (:name, :password, :scram_sha_256, :disabled, :require_tls, :allow_nets, :maildrop,
        :quota, :master, :expires, :no_delete, :interval)"""

_ADD_APP: Final = """\
INSERT INTO popd_app_passwords (name, app, password, allow_nets, expires, no_delete, min_interval)
VALUES (:name, :app, :password, :allow_nets, :expires, :no_delete, :interval)"""


class SqlStore:
    """A `popd.ctl.store.UserStore` of popd's own tables.

    :param argument: what ``--auth popd-sql:`` is given.
    :raises RefusedError: it has a query of its own, so that nobody knows which tables count.
    :raises UnusableError: it cannot be understood.
    """

    def __init__(self, argument: str) -> None:
        try:
            settings = sqlconfig.read(argument)
            self._driver = sqldrivers.load(settings, writable=True)
        except OSError as error:
            raise UnusableError(f"popd-sql: {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise UnusableError(f"popd-sql: {error}") from error
        if settings.query.split() != DEFAULT_QUERY.split():
            raise RefusedError("popctl changes popd's own tables only, and the query asks others")

    def users(self) -> Iterator[User]:
        """See `UserStore`."""
        with self._transaction() as transaction:
            rows = transaction.rows("SELECT * FROM popd_users ORDER BY name")
        return map(_user, rows)

    def add(self, name: str, hashes: Hashes, fields: Mapping[str, str]) -> None:
        """See `UserStore`; makes the tables, and SQLite's file, if there are none."""
        self._make()
        with self._transaction() as transaction:
            if transaction.knows(name):
                raise UserExistsError(f"{name}: there is such a user already")
            transaction.run("DELETE FROM popd_app_passwords WHERE name = :name", name=name)
            transaction.run(
                _ADD,
                name=name,
                password=hashes.password,
                scram_sha_256=hashes.scram_sha_256,
                **_values(name, fields),
            )

    def set_password(self, name: str, hashes: Hashes) -> None:
        """See `UserStore`."""
        with self._user(name) as transaction:
            transaction.run(
                "UPDATE popd_users SET password = :password, scram_sha_256 = :scram_sha_256"
                " WHERE name = :name",
                name=name,
                password=hashes.password,
                scram_sha_256=hashes.scram_sha_256,
            )

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """See `UserStore`."""
        with self._user(name) as transaction:
            transaction.run(
                "UPDATE popd_users SET disabled = :disabled WHERE name = :name",
                name=name,
                disabled=int(disabled),
            )

    def delete(self, name: str) -> None:
        """See `UserStore`."""
        with self._user(name) as transaction:
            transaction.run("DELETE FROM popd_app_passwords WHERE name = :name", name=name)
            transaction.run("DELETE FROM popd_users WHERE name = :name", name=name)

    def app_passwords(self, name: str) -> list[AppPassword]:
        """See `UserStore`."""
        with self._user(name) as transaction:
            rows = transaction.rows(
                "SELECT * FROM popd_app_passwords WHERE name = :name ORDER BY app", name=name
            )
        return [AppPassword(row["app"], row["password"], _fields(row)) for row in rows]

    def add_app_password(self, name: str, app_password: AppPassword) -> None:
        """See `UserStore`."""
        values = _values(name, app_password.fields)
        with self._user(name) as transaction:
            if transaction.knows(name, app_password.name):
                raise UserExistsError(f"{name} has an app password {app_password.name} already")
            transaction.run(
                _ADD_APP,
                name=name,
                app=app_password.name,
                password=app_password.digest,
                no_delete=values["no_delete"],
                **{field: values[field] for field in _APP_TEXTS},
            )

    def revoke_app_password(self, name: str, app: str) -> None:
        """See `UserStore`."""
        with self._user(name) as transaction:
            if not transaction.knows(name, app):
                raise NoSuchUserError(f"{name} has no app password {app}")
            transaction.run(
                "DELETE FROM popd_app_passwords WHERE name = :name AND app = :app",
                name=name,
                app=app,
            )

    @contextmanager
    def _user(self, name: str) -> Iterator[_Transaction]:
        """Change something about a user.

        :raises NoSuchUserError: there is no such user.
        """
        with self._transaction() as transaction:
            if not transaction.knows(name):
                raise NoSuchUserError(f"{name}: there is no such user")
            yield transaction

    @contextmanager
    def _transaction(self) -> Iterator[_Transaction]:
        """Do all that happens within the context, or nothing.

        :raises RefusedError: a value does not fit into the database.
        :raises UnusableError: the database cannot be read or written.
        """
        module = self._driver.module
        try:
            connection = self._driver.open()
            try:
                transaction = _Transaction(self._driver, connection)
                if self._driver.begin:
                    transaction.run(self._driver.begin)
                yield transaction
                connection.commit()
            finally:
                connection.close()  # which ends what was not committed
        except module.DataError as error:
            raise RefusedError(
                f"the database cannot hold this: {self._driver.reason(error)}"
            ) from error
        except module.IntegrityError as error:
            raise UnusableError("somebody else changed this at the same time; try again") from error
        except (module.Error, ValueError) as error:
            raise UnusableError(f"popd-sql: {self._driver.reason(error)}") from error

    def _make(self) -> None:
        """Make the tables if there are none."""
        try:
            self._driver.make()
        except OSError as error:
            raise UnusableError(f"popd-sql: {error.filename}: {error.strerror}") from error
        try:
            with self._transaction() as transaction:
                transaction.rows("SELECT name FROM popd_users WHERE name = ''")
        except UnusableError as error:
            cause = error.__cause__
            if not isinstance(cause, self._driver.module.Error) or not self._driver.is_wrong(cause):
                raise
            with self._transaction() as transaction:
                for table in SCHEMA:
                    transaction.run(table + self._driver.table_options)


class _Transaction:
    """What is executed on a connection; statements have parameters as ``:name``."""

    def __init__(self, driver: sqldrivers.Driver, connection: Any) -> None:
        self._driver = driver
        self._cursor = connection.cursor()

    def run(self, sql: str, **values: object) -> None:
        """Execute a statement."""
        style = self._driver.module.paramstyle
        statement = parse(sql, style, self._driver.dialect, values)
        self._cursor.execute(statement.text, statement.bind(values))

    def rows(self, sql: str, **values: object) -> list[dict[str, str]]:
        """Return what a query finds: rows of texts, without NULL."""
        self.run(sql, **values)
        columns = [str(column[0]).lower() for column in self._cursor.description]
        return [
            {
                column: text(column, value)
                for column, value in zip(columns, row, strict=True)
                if value is not None
            }
            for row in self._cursor.fetchall()
        ]

    def knows(self, name: str, app: str | None = None) -> bool:
        """Tell whether there is such a user, or such an app password of his."""
        if app is None:
            return bool(self.rows("SELECT name FROM popd_users WHERE name = :name", name=name))
        query = "SELECT app FROM popd_app_passwords WHERE name = :name AND app = :app"
        return bool(self.rows(query, name=name, app=app))


def _values(name: str, fields: Mapping[str, str]) -> dict[str, object]:
    """Return what columns hold of *fields*."""
    account = Account.read(name, fields)
    switches = {field: int(getattr(account, field)) for field in _SWITCHES}
    return {**switches, **{field: fields.get(field) for field in _TEXTS}}


def _fields(row: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that a row says anything about."""
    switches = {field: "" for field in _SWITCHES if row.get(field, "0") != "0"}
    texts = {field: row[column] for field, column in _TEXTS.items() if row.get(column)}
    return {**switches, **texts}


def _user(row: Mapping[str, str]) -> User:
    name = row["name"]
    fields = _fields(row)
    stored = [row[column] for column in ("password", "scram_sha_256") if row.get(column)]
    known: list[str] = []
    problem = "" if stored else "there is no password"
    try:
        if str(UserName.parse(name)) != name:
            raise ValueError("popd asks for no such name; names are in lower case")  # noqa: TRY301
        Account.read(name, fields)
        known += [schemes.parse(field).scheme for field in stored]
    except ValueError as reason:
        problem = str(reason)
    return User(name, "disabled" in fields, tuple(known), fields, problem)
