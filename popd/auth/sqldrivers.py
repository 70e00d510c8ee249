"""Database drivers: DB-API modules (PEP 249), and what popd has to know of each beyond that.

No driver is imported before it is asked for.  Nothing here holds a connection.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from popd.auth.interfaces import Needs
from popd.auth.sqlquery import MYSQL, POSTGRESQL, STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from popd.auth.sqlconfig import Settings
    from popd.auth.sqlquery import Dialect

__all__ = ["Driver", "Handle", "load"]


def _nothing() -> None:
    """Do nothing."""


def _never() -> bool:
    """Return False."""
    return False


@dataclass(eq=False)
class Handle:
    """What can be done with an open connection besides asking it.

    :param abort: ends whatever its thread waits for, from another thread, and does not wait.
    :param stale: tells whether it leads to what was replaced meanwhile.
    :param used: whether it has ever been asked, and so may be broken for no fault of the database.
    """

    abort: Callable[[], object] = _nothing
    stale: Callable[[], bool] = _never
    used: bool = False


class Driver:
    """Any DB-API module.

    :param module: the module.
    :param connect: what its ``connect`` is given, in the administrator's words.
    :param timeout: seconds that anything may take, as far as the driver can see to it.
    :param writable: whether connections are for changing something.
    :raises ValueError: that cannot be used.
    :raises OSError: that is not there.
    """

    dialect: ClassVar[Dialect] = STANDARD
    begin: ClassVar[str] = ""
    """Begins a transaction, where that needs to be said."""
    table_options: ClassVar[str] = ""
    """What stands behind a new table."""

    def __init__(
        self, module: Any, connect: Mapping[str, Any], timeout: float, *, writable: bool = False
    ) -> None:
        self.module = module
        self.timeout = timeout
        self.writable = writable
        self.arguments = self.complete(connect)

    def complete(self, connect: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that the module's ``connect`` is given."""
        return dict(connect)

    def open(self) -> Any:
        """Return a new connection that is prepared.

        :raises ValueError: the module takes no such arguments.
        :raises Exception: there is none to be had.
        """
        try:
            connection = self.module.connect(**self.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot connect with what it is given: {error}") from error
        try:
            self.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(self, connection: Any) -> Handle:
        """Set up a new connection.

        :raises Exception: it could not be done.
        """
        del connection
        return Handle()

    def reason(self, error: BaseException | None) -> str:
        """Return in one line why something failed."""
        return _one_line(error)

    def needs(self) -> Needs:
        """Return what connections need; of a driver that popd does not know, anything."""
        return Needs(anything=True)

    def make(self) -> None:
        """Make the database, if that is nobody else's business.

        :raises OSError: it cannot be made.
        """

    def is_broken(self, connection: Any) -> bool:
        """Tell whether a connection on which something failed is of no more use."""
        del connection
        return True

    def is_wrong(self, error: Exception) -> bool:
        """Tell whether a statement failed because of what it says, and so will fail again."""
        return isinstance(error, self.module.ProgrammingError)

    def is_impossible(self, error: Exception) -> bool:
        """Tell whether nobody can have the name asked for: it has no place in the database."""
        return isinstance(error, self.module.DataError)


class SQLite(Driver):
    """SQLite."""

    begin = "BEGIN IMMEDIATE"

    def complete(self, connect: Mapping[str, Any]) -> dict[str, Any]:
        """Return what to connect with; half the time is for waiting while others write."""
        if not connect.get("database"):
            raise ValueError("needs the path of a database file")
        self._path = Path(str(connect["database"]))
        if not self.writable:
            self._path.open("rb").close()
        mode = "rw" if self.writable else "ro"
        return {
            "timeout": self.timeout / 2,
            **connect,
            "database": f"file:{quote(str(self._path.absolute()))}?mode={mode}",
            "uri": True,
            "isolation_level": None,
            "check_same_thread": False,  # who closes it is another thread
        }

    def prepare(self, connection: Any) -> Handle:
        """Take text as it is stored, so that a user's broken text concerns nobody else."""
        connection.text_factory = bytes
        file = self._identity()

        def stale() -> bool:
            return self._identity() != file

        return Handle(connection.interrupt, stale)

    def is_broken(self, connection: Any) -> bool:
        """Tell that it is not: there is nothing between it and the file."""
        del connection
        return False

    def is_wrong(self, error: Exception) -> bool:
        """Tell whether there is no such table, the file is no database, or the like."""
        code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return code in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_NOTADB}

    def reason(self, error: BaseException | None) -> str:
        """Return why something failed; SQLite does not say which file cannot be opened, or why.

        It must not be opened to find out: to close it again would end SQLite's locks.
        """
        if os.access(self._path, os.R_OK):
            return super().reason(error)
        return f"{self._path} is not there, or may not be read by the user {os.geteuid()}"

    def make(self) -> None:
        """Make the file, if there is none, for those whose directory it is in."""
        if self._path.exists():
            return
        self._path.touch(0o640)
        status = self._path.parent.stat()
        os.chown(self._path, status.st_uid, status.st_gid)

    def needs(self) -> Needs:
        """Return the file: what readers share, SQLite keeps beside it."""
        return Needs(databases=(str(self._path.absolute()),))

    def _identity(self) -> tuple[int, int] | None:
        """Return which file it is, or None if there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


class PostgreSQL(Driver):
    """PostgreSQL by way of psycopg 3."""

    dialect = POSTGRESQL
    begin = "BEGIN"

    def complete(self, connect: Mapping[str, Any]) -> dict[str, Any]:
        """Return what to connect with; libpq has its own names for all but the last two."""
        try:
            info = self.module.conninfo
            given = info.conninfo_to_dict(info.make_conninfo(**connect))
        except self.module.Error as error:
            raise ValueError(f"{error}".strip()) from None
        return {
            "application_name": "popd",
            "connect_timeout": max(2, ceil(self.timeout)),  # libpq takes 1 for 2
            "tcp_user_timeout": ceil(self.timeout * 1000),
            **given,
            "autocommit": True,
            "prepare_threshold": None,  # prepared statements break when a table is altered
        }

    def prepare(self, connection: Any) -> Handle:
        """Limit what it can do, and how long."""
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', %s, false)",
            [str(ceil(self.timeout * 1000)), "off" if self.writable else "on"],
        )
        # The server may be silent for good.  Its connection has a file descriptor of our own, since
        # libpq's may be another's at the moment when it would be shut down.
        end = socket.socket(fileno=os.dup(connection.fileno()))
        weakref.finalize(connection, end.close)
        return Handle(partial(_shut, end))

    def needs(self) -> Needs:
        """Return the server, and the files that the arguments name."""
        return _of_server(self.arguments)

    def is_broken(self, connection: Any) -> bool:
        """Tell whether the server is gone."""
        return bool(connection.closed)


def _of_server(arguments: Mapping[str, Any]) -> Needs:
    """Return what a connection with these arguments needs; a host that is a path is no host."""
    named = dict(arguments)
    for value in arguments.values():
        if isinstance(value, dict):
            named |= value
    paths = {key: text for key, text in named.items() if str(text).startswith("/")}
    local = not paths.keys().isdisjoint(("host", "unix_socket"))
    files = tuple(str(path) for key, path in paths.items() if key not in {"host", "unix_socket"})
    return Needs(files, network=not local)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        end.shutdown(socket.SHUT_RDWR)


class MySQL(Driver):
    """MySQL or MariaDB by way of PyMySQL, whose own time-outs can be relied on."""

    dialect = MYSQL
    begin = "BEGIN"
    table_options = " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

    def complete(self, connect: Mapping[str, Any]) -> dict[str, Any]:
        """Return what to connect with."""
        seconds = max(1, ceil(self.timeout))
        defaults = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds)
        return {**defaults, "charset": "utf8mb4", **connect, "autocommit": True}

    def prepare(self, connection: Any) -> Handle:
        """Limit what it can do, and how long."""
        if "mariadb" in connection.get_server_info().lower():
            limit = f"max_statement_time = {self.timeout:f}"
        else:
            limit = f"max_execution_time = {ceil(self.timeout * 1000)}"
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {limit}")
            cursor.execute(f"SET SESSION TRANSACTION READ {'WRITE' if self.writable else 'ONLY'}")
        return Handle()

    def needs(self) -> Needs:
        """Return the server, and the files that the arguments name."""
        return _of_server(self.arguments)

    def is_broken(self, connection: Any) -> bool:
        """Tell whether the server is gone."""
        return not connection.open

    def is_wrong(self, error: Exception) -> bool:
        """Tell whether the server understands the statement."""
        return super().is_wrong(error) or error.args[0] in _MYSQL_WRONG

    def is_impossible(self, error: Exception) -> bool:
        """Tell whether a name has letters that the column's character set has not."""
        return super().is_impossible(error) or error.args[0] == _MYSQL_MIX


_MYSQL_WRONG: Final = frozenset({1054, 1142, 1143})
"""MySQL's errors about tables and columns that are not there or not for us."""

_MYSQL_MIX: Final = 1267
"""MySQL's error about collations that cannot be compared."""

_KNOWN: Final[Mapping[str, tuple[type[Driver], str, str]]] = {
    "sqlite": (SQLite, "sqlite3", ""),
    "postgresql": (PostgreSQL, "psycopg", "popd[postgresql]"),
    "mysql": (MySQL, "pymysql", "popd[mysql]"),
}
"""Each driver with the module that it needs, and the extra that brings that."""


def load(settings: Settings, *, writable: bool = False) -> Driver:
    """Return the driver that *settings* name.

    :param writable: whether something is to be changed.
    :raises ValueError: there is no such driver, or what it is to connect with is wrong.
    :raises OSError: there is no such database file.
    """
    kind, name, extra = _KNOWN.get(settings.driver, (Driver, settings.driver, ""))
    try:
        module = import_module(name)
    except (ImportError, ValueError, TypeError) as error:
        if extra:
            raise ValueError(f"needs {name}: pip install '{extra}'") from error
        known = ", ".join(_KNOWN)
        reason = f"the driver {name} is none of {known}, and no module that can be imported"
        raise ValueError(reason) from error
    if getattr(module, "apilevel", "") != "2.0" or getattr(module, "threadsafety", 0) < 1:
        raise ValueError(f"{name} is no DB-API 2.0 module that can be used by several threads")
    return kind(module, settings.connect, settings.timeout, writable=writable)


def _one_line(error: BaseException | None) -> str:
    """Return the first line of what *error* says, for the log."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
