"""From the argument of ``--auth popd-sql:`` to a checker; the query is tried if that can be."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from popd.auth import sqlconfig, sqldrivers, sqlquery
from popd.auth.sqlchecker import SqlChecker
from popd.auth.sqlpool import Database, fetch
from popd.auth.sqlrows import SCRAM_COLUMNS, check_columns
from popd.auth.sqlverify import Verifier

if TYPE_CHECKING:
    from popd.auth.sqldrivers import Driver
    from popd.auth.sqlquery import Statement

__all__ = ["checker"]

_log = logging.getLogger(__name__)

_NOBODY = {"user": ".nobody", "local": ".nobody", "domain": ""}


def checker(argument: str) -> SqlChecker:
    """Return a checker that has neither connections nor threads yet.

    A database that cannot be reached now is only logged: it may come up later than popd.

    :raises OSError: a file cannot be read.
    :raises ValueError: the settings, the driver or the query cannot be used.
    """
    settings = sqlconfig.read(argument)
    driver = sqldrivers.load(settings)
    try:
        statement = sqlquery.parse(settings.query, driver.module.paramstyle, driver.dialect)
    except ValueError as error:
        raise ValueError(f"the query: {error}") from None
    if not {"user", "local"}.intersection(statement.names):
        raise ValueError("the query has no :user in it, so that it would find anybody")
    try:
        columns = _columns(driver, statement)
    except ValueError as error:
        if settings.query != sqlquery.DEFAULT_QUERY:
            raise
        raise ValueError(f"{error}; popctl user add makes the tables") from error
    return SqlChecker(
        Database(driver, statement, settings.connections),
        Verifier(settings.cache),
        scram_mechanisms=frozenset(
            mechanism
            for mechanism, column in SCRAM_COLUMNS.items()
            if column in columns or column in settings.query.lower()
        ),
        plain_passwords=settings.plain_passwords,
        needs=driver.needs(),
    )


def _columns(driver: Driver, statement: Statement) -> tuple[str, ...]:
    """Return the columns that the query has; none if the database cannot be asked now.

    :raises ValueError: the database takes the query for wrong, or has columns that popd cannot use.
    """
    try:
        connection = driver.open()
    except driver.module.Error as error:
        _log.error("popd-sql: the database cannot be asked yet: %s", driver.reason(error))
        return ()
    try:
        columns, _ = fetch(connection, statement, _NOBODY)
    except driver.module.Error as error:
        if not driver.is_wrong(error):
            _log.error("popd-sql: the database does not answer yet: %s", driver.reason(error))
            return ()
        raise ValueError(f"the query fails: {driver.reason(error)}") from error
    finally:
        connection.close()
    check_columns(columns)
    return columns
