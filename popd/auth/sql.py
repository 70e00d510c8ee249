"""The factory of ``--auth popd-sql:...``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from popd.auth.sqlchecker import SqlChecker

__all__ = ["SqlCheckerFactory"]


@implementer(ICheckerFactory, IPlugin)
class SqlCheckerFactory:
    """Makes a checker that asks a database, of ``--auth popd-sql:ARGUMENT``."""

    authType = "popd-sql"
    argStringFormat = "A database: a TOML file, or sqlite:/FILE, postgresql://... or mysql://..."
    authHelp = """
A database: SQLite, PostgreSQL (pip install 'popd[postgresql]'), MySQL or MariaDB
(pip install 'popd[mysql]'), or any other that has a DB-API module.

    popd-sql:/etc/popd/sql.toml
    popd-sql:sqlite:/var/lib/popd/users.db
    popd-sql:postgresql://popd@db.example.org/mail?sslmode=verify-full

A password does not belong into a URL, which others can see in the list of
processes.  The TOML file says more:

    driver = "postgresql"          # or sqlite, mysql, or a DB-API module
    query = "SELECT name, password, disabled FROM mailbox WHERE name = :user"
    timeout = 5                    # seconds that an answer may take
    connections = 4                # in each process
    cache = 300                    # seconds that a verified hash is remembered
    plain-passwords = false        # use {PLAIN} passwords for CRAM-MD5 and APOP

    [connect]                      # what the driver wants to know
    host = "db.example.org"
    dbname = "mail"
    user = "popd"
    password-file = "/etc/popd/sql.password"

Columns count by their names: name, password, scram_sha_256, scram_sha_1,
disabled, require_tls, allow_nets, maildrop, quota, master; app, expires,
no_delete and interval of app passwords.  NULL is nothing.  :user, :local and
:domain stand for the user's name and its parts.
"""
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> SqlChecker:
        """Return a checker for the database *argstring*.

        :raises InvalidAuthArgumentString: it cannot be used, whether it is reachable or not.
        """
        from popd.auth import sqlstart  # noqa: PLC0415 - brings in the hashing libraries

        if not argstring:
            raise InvalidAuthArgumentString(
                f"{self.authType} needs a database: {self.authType}:sqlite:/FILE, for example"
            )
        try:
            return sqlstart.checker(argstring)
        except OSError as error:
            reason = f"{self.authType}: {error.filename}: {error.strerror}"
            raise InvalidAuthArgumentString(reason) from error
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {error}") from error
