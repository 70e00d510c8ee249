"""What each checker says that it has to reach, see `INeeds`."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.certificates import CertificateCheckerFactory
from popd.auth.checkers import PasswdCheckerFactory
from popd.auth.dovecot import DovecotCheckerFactory
from popd.auth.interfaces import INeeds, Needs
from popd.auth.ldap import LdapCheckerFactory
from popd.auth.oauth2.checker import OAuth2Checker
from popd.auth.pam import PamCheckerFactory
from popd.auth.sqldrivers import _of_server

if TYPE_CHECKING:
    from twisted.cred.checkers import ICredentialsChecker

SQL = """
driver = "sqlite"
query = "SELECT name, password FROM t WHERE name = :user"
[connect]
database = "{path}"
"""
LDAP = """
uri = "{uri}"
user-dn = "uid={{local}},dc=example,dc=org"
"""


class NeedsTests(SynchronousTestCase):
    """As much as necessary, and no more."""

    def setUp(self) -> None:
        """Make a directory."""
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def needs(self, factory: Any, argument: str) -> Needs:
        """Return what the checker of an ``--auth`` needs."""
        checker: ICredentialsChecker = factory().generateChecker(argument)
        self.assertTrue(verifyObject(INeeds, checker))
        needs: Needs = INeeds(checker).needs()
        return needs

    def file(self, name: str, text: str) -> str:
        """Write a file; return its path."""
        (self.root / name).write_text(text, encoding="ascii")
        return str(self.root / name)

    def test_files(self) -> None:
        """A password file, and the app passwords beside it."""
        path = self.file("passwd", "ada:{PLAIN}x\n")
        found = self.needs(PasswdCheckerFactory, path)
        self.assertEqual(found, Needs((path, f"{path}.apppass")))

    def test_sqlite(self) -> None:
        """SQLite writes beside its file."""
        from popd.auth.sql import SqlCheckerFactory  # noqa: PLC0415 - here it is used

        path = str(self.root / "users.db")
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE t (name TEXT, password TEXT)")
        database.close()
        toml = self.file(
            "sql.toml",
            SQL.format(path=path),
        )
        self.assertEqual(self.needs(SqlCheckerFactory, toml), Needs(databases=(path,)))

    def test_servers(self) -> None:
        """Other databases are connected to, unless they are on a UNIX socket."""
        for arguments, needs in (
            ({"host": "db.example.org"}, Needs(network=True)),
            ({}, Needs(network=True)),
            ({"host": "/run/postgresql", "port": 5432}, Needs()),
            ({"unix_socket": "/run/mysqld/s"}, Needs()),
            ({"host": "db", "sslrootcert": "/etc/ca.pem"}, Needs(("/etc/ca.pem",), network=True)),
            ({"ssl": {"ca": "/etc/ca.pem"}}, Needs(("/etc/ca.pem",), network=True)),
        ):
            self.assertEqual(_of_server(arguments), needs, arguments)

    def test_dovecot(self) -> None:
        """Dovecot is at a UNIX socket or at a TCP port."""
        self.assertEqual(self.needs(DovecotCheckerFactory, "/run/dovecot/auth"), Needs())
        self.assertEqual(self.needs(DovecotCheckerFactory, "tcp:mx:12345"), Needs(network=True))

    def test_ldap(self) -> None:
        """So is a directory."""
        for uri, network in (("ldap://ldap.example.org", True), ("ldapi://%2Frun%2Fldapi", False)):
            path = self.file("ldap.toml", LDAP.format(uri=uri))
            self.assertEqual(self.needs(LdapCheckerFactory, path), Needs(network=network))

    def test_oauth2(self) -> None:
        """A provider is in the network; its keys may be in a file."""
        checker = OAuth2Checker(None, None, files=("/etc/popd/jwks.json",))
        self.assertEqual(checker.needs(), Needs(("/etc/popd/jwks.json",), network=True))

    def test_others(self) -> None:
        """Certificates need nothing; PAM may need anything."""
        self.assertEqual(self.needs(CertificateCheckerFactory, "cn"), Needs())
        self.file("mail", "auth required pam_deny.so\n")
        found = self.needs(PamCheckerFactory, f"mail:confdir={self.root}")
        self.assertEqual(found, Needs(anything=True))
