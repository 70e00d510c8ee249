"""Tests of the accounts in a database, with SQLite."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.sqlquery import SCHEMA
from popd.ctl.sqlstore import SqlStore
from popd.ctl.store import (
    AppPassword,
    Hashes,
    NoSuchUserError,
    RefusedError,
    UnusableError,
    User,
    UserExistsError,
    UserStore,
)

HASHES = Hashes("{PLAIN}wonderland", "{SCRAM-SHA-256}4096,AAAA,%s,%s" % (("A" * 43 + "=",) * 2))
OTHER = Hashes("{PLAIN}looking-glass", HASHES.scram_sha_256.replace("4096", "4097"))
FIELDS = {
    "allow_nets": "10.0.0.0/8",
    "expires": "2027-01-01",
    "interval": "0.5",
    "maildrop": "maildir:/m",
    "master": "",
    "no_delete": "yes",
    "quota": "1G",
    "require_tls": "1",
}


class Store(SynchronousTestCase):
    """Accounts are kept in tables."""

    def setUp(self) -> None:
        """Make a store without a file yet."""
        self.path = Path(self.mktemp()).absolute()
        self.store: UserStore = SqlStore(f"sqlite:{self.path}")

    def names(self) -> list[str]:
        """Return the names of all users."""
        return [user.name for user in self.store.users()]

    def column(self, column: str, name: str) -> object:
        """Return what the database has in a column for a user."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM popd_users WHERE name = ?"
            return connection.execute(query, [name]).fetchone()[column]

    def test_add(self) -> None:
        """A user is added with all that is known of him; the file is made, not for everybody."""
        self.store.add("bob", HASHES, FIELDS)
        self.store.add("alice", HASHES, {"nologin": ""})
        schemes = ("PLAIN", "SCRAM-SHA-256")
        switches = dict.fromkeys(("master", "no_delete", "require_tls"), "")
        self.assertEqual(
            list(self.store.users()),
            [
                User("alice", True, schemes, {"disabled": ""}),
                User("bob", False, schemes, {**FIELDS, **switches}),
            ],
        )
        self.assertEqual(self.path.stat().st_mode & 0o007, 0)

    def test_owner(self) -> None:
        """A new file belongs to those to whom its directory does; an old one stays whose it is."""
        directory = self.path.with_name("state")
        directory.mkdir()
        owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        os.chown(directory, *owner)
        path = directory / "users.db"
        store = SqlStore(f"sqlite:{path}")
        store.add("alice", HASHES, {})
        self.assertEqual((path.stat().st_uid, path.stat().st_gid), owner)
        os.chown(path, os.geteuid(), os.getegid())
        store.add("bob", HASHES, {})
        self.assertEqual((path.stat().st_uid, path.stat().st_gid), (os.geteuid(), os.getegid()))

    def test_add_twice(self) -> None:
        """Nobody is added twice, nor gets what a namesake left behind."""
        self.store.add("alice", HASHES, {})
        self.assertRaises(UserExistsError, self.store.add, "alice", OTHER, {})
        self.assertEqual(self.column("password", "alice"), HASHES.password)
        self.store.add_app_password("alice", AppPassword("phone", "{SHA256}x"))
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("DELETE FROM popd_users")
            connection.commit()
        self.store.add("alice", HASHES, {})
        self.assertEqual(self.store.app_passwords("alice"), [])

    def test_password(self) -> None:
        """A new password replaces all that was made of the old one."""
        self.store.add("alice", HASHES, FIELDS)
        self.store.set_password("alice", OTHER)
        self.assertEqual(self.column("password", "alice"), OTHER.password)
        self.assertEqual(self.column("scram_sha_256", "alice"), OTHER.scram_sha_256)
        self.assertEqual(self.column("quota", "alice"), "1G")

    def test_disabled(self) -> None:
        """A user is kept out and let in again."""
        self.store.add("alice", HASHES, {})
        for disabled in (True, True, False):
            self.store.set_disabled("alice", disabled=disabled)
            self.assertEqual([user.disabled for user in self.store.users()], [disabled])

    def test_delete(self) -> None:
        """A user goes with his app passwords, and nobody else's."""
        for name in ("alice", "bob"):
            self.store.add(name, HASHES, {})
            self.store.add_app_password(name, AppPassword("phone", "{SHA256}x"))
        self.store.delete("alice")
        self.assertEqual(self.names(), ["bob"])
        self.assertEqual(len(self.store.app_passwords("bob")), 1)
        with closing(sqlite3.connect(self.path)) as connection:
            (left,) = connection.execute("SELECT count(*) FROM popd_app_passwords").fetchone()
        self.assertEqual(left, 1)

    def test_app_passwords(self) -> None:
        """App passwords are added, listed and revoked."""
        self.store.add("alice", HASHES, {})
        fields = {"allow_nets": "::1", "expires": "2027-01-01", "no_delete": "", "interval": "60"}
        phone, scanner = AppPassword("phone", "x", fields), AppPassword("scanner", "y")
        for app in (scanner, phone):
            self.store.add_app_password("alice", app)
        self.assertEqual(self.store.app_passwords("alice"), [phone, scanner])
        again = AppPassword("phone", "z")
        self.assertRaises(UserExistsError, self.store.add_app_password, "alice", again)
        self.store.revoke_app_password("alice", "phone")
        self.assertEqual(self.store.app_passwords("alice"), [scanner])
        self.assertRaises(NoSuchUserError, self.store.revoke_app_password, "alice", "phone")

    def test_nobody(self) -> None:
        """Nothing happens to who is not there."""
        self.store.add("alice", HASHES, {})
        store, app = self.store, AppPassword("phone", "x")
        self.assertRaises(NoSuchUserError, store.set_password, "bob", OTHER)
        self.assertRaises(NoSuchUserError, store.set_disabled, "bob", disabled=True)
        self.assertRaises(NoSuchUserError, store.delete, "' OR 1=1 --")
        self.assertRaises(NoSuchUserError, store.app_passwords, "bob")
        self.assertRaises(NoSuchUserError, store.add_app_password, "bob", app)
        self.assertRaises(NoSuchUserError, store.revoke_app_password, "bob", "phone")
        self.assertEqual(self.column("password", "alice"), HASHES.password)

    def test_problems(self) -> None:
        """Who cannot log in is listed with the reason."""
        self.store.add("alice", HASHES, {})
        with closing(sqlite3.connect(self.path)) as connection:
            for name, password, quota in (
                ("Upper", "{PLAIN}x", None),
                ("broken", "{ROT13}x", None),
                ("fields", "{PLAIN}x", "much"),
                ("nothing", None, None),
            ):
                connection.execute(
                    "INSERT INTO popd_users (name, password, quota) VALUES (?, ?, ?)",
                    [name, password, quota],
                )
            connection.commit()
        problems = {user.name: user.problem for user in self.store.users()}
        self.assertEqual(problems["alice"], "")
        self.assertIn("names are in lower case", problems["Upper"])
        self.assertIn("the password scheme is none of", problems["broken"])
        self.assertEqual(problems["fields"], "the field quota has a value that means nothing")
        self.assertEqual(problems["nothing"], "there is no password")

    def test_unusable(self) -> None:
        """What cannot be read or written is said, and nothing is made but by adding someone."""
        error = self.assertRaises(UnusableError, self.store.users)
        self.assertTrue(str(error).startswith(f"popd-sql: {self.path} is not there"), error)
        self.assertFalse(self.path.exists())
        sqlite3.connect(self.path).close()
        self.assertRaises(UnusableError, self.store.set_password, "alice", OTHER)
        self.assertRaises(UnusableError, SqlStore, "sqlite:")
        self.assertRaises(UnusableError, SqlStore, "/no/such/file")
        with self.assertRaises(UnusableError):
            SqlStore("sqlite:/no/such/directory/file").add("alice", HASHES, {})

    def test_locked(self) -> None:
        """Where somebody else is writing and does not end, the command does."""
        self.store.add("alice", HASHES, {})
        settings = self.path.with_suffix(".toml")
        settings.write_text(
            f"driver = 'sqlite'\ntimeout = 0.1\nconnect = {{database = '{self.path}'}}", "utf-8"
        )
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            error = self.assertRaises(UnusableError, SqlStore(str(settings)).delete, "alice")
        self.assertEqual(str(error), "popd-sql: database is locked")
        self.assertEqual(self.names(), ["alice"])

    def test_own_query(self) -> None:
        """Nobody knows what other tables want to be told."""
        settings = self.path.with_suffix(".toml")
        settings.write_text("driver = 'sqlite'\nquery = 'SELECT 1'\nconnect.database = 'x'\n")
        self.assertRaises(RefusedError, SqlStore, str(settings))

    def test_tables(self) -> None:
        """Tables that are there already are used."""
        with closing(sqlite3.connect(self.path)) as connection:
            for table in SCHEMA:
                connection.execute(table)
        self.store.add("alice", HASHES, {})
        self.assertEqual(self.names(), ["alice"])
