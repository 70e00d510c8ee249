"""Tests of ``--auth popd-sql:...``: what it is told, and what it makes of a database's answers."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from hashlib import md5, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth import apppass, sqlconfig, sqlrows
from popd.auth.account import Account
from popd.auth.credentials import Attempt, Digest
from popd.auth.interfaces import IAccounts, IKnowsBareNames, IScramKeyring
from popd.auth.sql import SqlCheckerFactory
from popd.auth.sqlchecker import SqlChecker
from popd.auth.sqlquery import SCHEMA
from popd.auth.sqlverify import Verifier
from popd.protocol.credentials import DigestCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCRAM = (
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
"""The example of RFC 7677 section 3, whose password is ``pencil``."""


class QuietCase(SynchronousTestCase):
    """What popd logs is looked at, not shown."""

    def setUp(self) -> None:
        """Catch it."""
        self.logged: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("popd")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.propagate = False


class Told(QuietCase):
    """A URL or a TOML file says which database it is."""

    def file(self, text: str) -> str:
        """Return the path of a file that only its owner reads."""
        path = Path(self.mktemp()).absolute()
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return str(path)

    def test_urls(self) -> None:
        """A URL says the driver and how to connect."""
        for url, driver, connect in (
            ("sqlite:/var/lib/popd/users.db", "sqlite", {"database": "/var/lib/popd/users.db"}),
            ("postgresql:///mail", "postgresql", {"conninfo": "postgresql:///mail"}),
            ("postgres://p@h/m", "postgresql", {"conninfo": "postgres://p@h/m"}),
            (
                "mysql://po%40pd@db:3307/mail?ssl_ca=/ca.pem",
                "mysql",
                {
                    "host": "db",
                    "user": "po@pd",
                    "database": "mail",
                    "port": 3307,
                    "ssl_ca": "/ca.pem",
                },
            ),
            ("mariadb:///mail?unix_socket=/s", "mysql", {"database": "mail", "unix_socket": "/s"}),
        ):
            settings = sqlconfig.read(url)
            self.assertEqual((settings.driver, settings.connect), (driver, connect))

    def test_file(self) -> None:
        """A file says all, and where a password is, which nothing shows."""
        secret = self.file("hidden\n")
        path = self.file(
            'driver = "postgresql"\nquery = "SELECT 1"\ntimeout = 2.5\nconnections = 7\n'
            "cache = 0\nplain-passwords = true\n"
            f'[connect]\nhost = "db"\npassword-file = "{secret}"\n'
        )
        settings = sqlconfig.read(path)
        connect = {"host": "db", "password": "hidden"}
        expected = sqlconfig.Settings("postgresql", connect, "SELECT 1", 2.5, 7, 0, True)
        self.assertEqual(settings, expected)
        self.assertNotIn("hidden", repr(settings))
        self.assertEqual(self.logged, [])

    def test_public_secret(self) -> None:
        """A password that anybody can read is warned of."""
        path = self.file('driver = "mysql"\n[connect]\npassword = "hidden"\n')
        Path(path).chmod(0o644)
        sqlconfig.read(path)
        self.assertEqual(
            self.logged, [f"{path} holds a password and may be read by anybody; chmod o= {path}"]
        )

    def test_wrong(self) -> None:
        """What cannot be meant is said, without anything that may be secret."""
        command_line = "a password does not belong into a command line; put it into a TOML file"
        for argument, reason in (
            ("postgresql://u:hidden@h/m", command_line),
            ("postgresql://h/m?password=hidden", command_line),
            ("mysql://u:@h/m", command_line),
            ("mysql://h:hidden/m", "the URL's port is no number"),
            ("oracle://u:hidden@h/m", "the URL is none that begins with sqlite:, postgresql://"),
            (self.file("timeout = 1"), "says no driver, such as driver ="),
            (self.file("driver = 1"), "driver must be text in quotes"),
            (self.file("timeout = true"), "timeout must be a number from 0.1 to 10"),
            (self.file("timeout = 11"), "timeout must be a number from 0.1 to 10"),
            (self.file("plain-passwords = 1"), "plain-passwords must be true or false"),
            (self.file("connect = 1"), "connect must be a table: [connect]"),
            (self.file('pasword = "hidden"'), "pasword is none of driver, connect, "),
            (self.file('password = "hidden'), "Unterminated string"),
        ):
            error = self.assertRaises(ValueError, sqlconfig.read, argument)
            self.assertIn(reason, str(error))
            self.assertNotIn("hidden", str(error))


class Rows(QuietCase):
    """Rows become users."""

    def read(self, *rows: Mapping[str, Any], asked: str = "alice") -> sqlrows.User | None:
        """Return the user that *rows* are about, whose columns those of the first are."""
        columns = tuple(rows[0]) if rows else ()
        table = columns, [tuple(row.get(column) for column in columns) for row in rows]
        return sqlrows.read(table, asked)

    def own(self, **row: Any) -> Account | None:
        """Return the account of a user whose row this is."""
        user = self.read({"password": "x", **row})
        return user.own.account if user else None

    def test_nobody(self) -> None:
        """Without a row there is no user."""
        self.assertIsNone(self.read())

    def test_fields(self) -> None:
        """Columns are fields by their names, in whatever type a database has them; NULL is none."""
        expected = Account("al@b.org", disabled=True, quota=1024, maildrop="maildir:/m")
        for yes in (True, 1, "1", b"yes", bytearray(b"t")):
            account = self.own(
                name="Al@B.org",
                disabled=yes,
                quota=memoryview(b"1K"),
                maildrop="maildir:/m",
                master=None,
                require_tls=0,
            )
            self.assertEqual(account, expected)
        account = self.own(allow_nets=["10.0.0.0/8", "::1"])
        self.assertEqual(account, self.own(allow_nets="10.0.0.0/8,::1"))
        self.assertEqual(self.own(name=None), Account("alice"))

    def test_broken(self) -> None:
        """A row that says something unintelligible keeps its user out, and a log line says why."""
        for row, reason in (
            ({"disabled": "perhaps"}, "the field disabled has a value that means nothing"),
            ({"disabled": b"\xff"}, "the field disabled is not UTF-8"),
            ({"name": "../x"}, "no user can have the name in the row"),
        ):
            self.assertIsNone(self.own(**row))
            self.assertEqual(self.logged.pop(), f"alice cannot log in: {reason}")

    def test_contradictions(self) -> None:
        """Rows that are of nobody in particular let nobody in."""
        alice = {"name": "alice", "password": "x", "app": None}
        many: list[Mapping[str, Any]] = [{**alice, "app": str(n)} for n in range(101)]
        for rows, reason in (
            ([alice, alice], "the query finds 2 rows that are of no app password, not 1"),
            ([{**alice, "app": "phone"}], "the query finds 0 rows that are of no app password"),
            ([alice, {**alice, "name": "bob", "app": "x"}], "the query finds rows of several"),
            ([alice, *many], "the query finds more than 100 rows"),
        ):
            self.assertIsNone(self.read(*rows))
            self.assertIn(reason, self.logged.pop())

    def test_app_passwords(self) -> None:
        """Further rows are app passwords, which grant nothing that the user has not."""
        alice = {"name": "alice", "password": "x", "master": 1, "app": None, "disabled": 0}
        user = self.read(
            alice,
            {**alice, "password": "y", "app": "phone"},
            {**alice, "app": "scanner", "disabled": "?"},
            {**alice, "app": ""},
        )
        assert user is not None
        (app,) = user.apps
        self.assertEqual((app.account, app.password), (Account("alice", program="phone"), "y"))
        self.assertEqual(len(self.logged), 2)

    def test_columns(self) -> None:
        """A column that popd knows nothing about may be a restriction, so nobody gets in."""
        for columns, reason in (
            (
                ("password", "disable"),
                "the query has a column disable, which is none of",
            ),
            (("password", "name", "name"), "the query has two columns name"),
            (("name",), "the query has neither a password column nor one of SCRAM keys"),
        ):
            table = columns, [("x",) * len(columns)]
            error = self.assertRaises(ValueError, sqlrows.read, table, "alice")
            self.assertIn(reason, str(error))


class FakeDatabase:
    """Answers at once: what `rows` has for a user."""

    def __init__(self) -> None:
        self.rows: dict[object, list[Mapping[str, Any]]] = {}
        self.asked: list[Sequence[Mapping[str, object]]] = []

    def ask(self, questions: Sequence[Mapping[str, object]]) -> Deferred[Any]:
        """Return the users' tables."""
        self.asked.append(questions)
        found = [self.rows.get(question["user"], []) for question in questions]
        return succeed(
            [
                (tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows])
                for rows in found
            ]
        )


class Checking(QuietCase):
    """A checker makes accounts of what a database knows."""

    def setUp(self) -> None:
        """Make a checker that does its work at once."""
        super().setUp()
        self.database = FakeDatabase()
        self.now = 0.0
        self.hashed: list[str] = []
        self.verifier = Verifier(300.0, lambda: self.now, b"key")
        self.checker = self.make()
        self.row("alice@example.org", password="{PLAIN}wonderland")

    def make(self, *, plain_passwords: bool = False) -> SqlChecker:
        """Return a checker."""

        def at_once(work: Callable[..., Any], name: str, *args: Any) -> Deferred[Any]:
            self.hashed.append(name)
            return maybeDeferred(work, name, *args)

        return SqlChecker(
            self.database,  # type: ignore[arg-type]
            self.verifier,
            scram_mechanisms=frozenset({"SCRAM-SHA-256"}),
            plain_passwords=plain_passwords,
            defer=at_once,
        )

    def row(self, user: str, **row: Any) -> None:
        """Let the database have another row for a user."""
        self.database.rows.setdefault(user, []).append({"app": None, **row})

    def log_in(self, name: str, password: str, bare: str = "") -> Account:
        """Return who logs in."""
        attempt = Attempt(name.encode(), password.encode())
        attempt.bare = bare.encode()
        account: Account = self.successResultOf(self.checker.requestAvatarId(attempt))
        return account

    def assertRefused(self, name: str, password: str) -> None:
        """Assert that somebody cannot log in."""
        asked = self.checker.requestAvatarId(Attempt(name.encode(), password.encode()))
        self.failureResultOf(asked, UnauthorizedLogin)

    def test_interfaces(self) -> None:
        """It can what checkers can, and more."""
        for interface in (ICredentialsChecker, IScramKeyring, IAccounts, IKnowsBareNames):
            verifyObject(interface, self.checker)
        self.assertEqual(self.checker.credentialInterfaces, (IUsernamePassword,))

    def test_password(self) -> None:
        """The right password lets in; anything else costs one hash, whoever it is said to be."""
        self.assertEqual(
            self.log_in("alice@example.org", "wonderland"), Account("alice@example.org")
        )
        self.row("none@example.org", password=None)
        self.row("broken@example.org", password="{ROT13}jbaqreynaq")
        self.hashed.clear()
        names = [f"{name}@example.org" for name in ("alice", "bob", "none", "broken")]
        for name in names:
            self.assertRefused(name, "looking-glass")
        self.assertEqual(self.hashed, names)
        self.assertEqual(len(self.logged), 1)
        self.assertIn("broken@example.org cannot log in: the password scheme", self.logged[0])

    def test_questions(self) -> None:
        """The database is asked for the name, its parts, and always for the bare name too."""
        self.log_in("alice@example.org", "wonderland", "alice")
        self.assertEqual(
            self.database.asked.pop(),
            [
                {"user": "alice@example.org", "local": "alice", "domain": "example.org"},
                {"user": "alice", "local": "alice", "domain": ""},
            ],
        )
        self.row("bob", password="{PLAIN}builder")
        self.assertEqual(self.log_in("bob@example.org", "builder", "bob"), Account("bob"))
        self.assertRefused(".nobody", "x")
        self.assertEqual(len(self.database.asked), 1)

    def test_remembered(self) -> None:
        """What was verified is not hashed again until its time is over or the hash another."""
        for _ in range(2):
            self.log_in("alice@example.org", "wonderland")
        self.assertEqual(len(self.hashed), 1)
        self.assertEqual(len(self.database.asked), 2)
        self.database.rows.clear()
        self.row("alice@example.org", password="{PLAIN}oz", disabled=1)
        self.assertRefused("alice@example.org", "wonderland")
        self.assertTrue(self.log_in("alice@example.org", "oz").disabled)
        self.now = 301.0
        self.log_in("alice@example.org", "oz")
        self.assertEqual(len(self.hashed), 4)

    def test_app_password(self) -> None:
        """An app password lets in without any hashing of the user's own."""
        password = apppass.make()
        self.row("alice@example.org", password=apppass.digest(password.encode()), app="phone")
        self.row("alice@example.org", password="{PLAIN}other", app="scanner")
        self.hashed.clear()
        self.assertEqual(self.log_in("alice@example.org", password).program, "phone")
        self.assertEqual(self.hashed, [])
        self.assertEqual(self.log_in("alice@example.org", "other").program, "scanner")
        self.assertEqual(self.log_in("alice@example.org", "wonderland").program, "")
        self.assertRefused("alice@example.org", apppass.make())

    def test_likeness(self) -> None:
        """An unknown user resembles a known one, the same one each time, if there is any."""
        self.assertIn("ARGON2ID", self.verifier._likeness("bob"))
        fast, slow = "{BLF-CRYPT}$2b$04$" + "." * 53, "{BLF-CRYPT}$2b$06$" + "." * 53
        for field in (fast, "{BLF-CRYPT}$2b$04$" + "O" * 53, slow):
            self.verifier._learn(field)
        names = [f"user-{n}" for n in range(40)]
        likenesses = [self.verifier._likeness(name) for name in names]
        self.assertEqual(set(likenesses), {fast, slow})
        self.assertEqual(likenesses, [self.verifier._likeness(name) for name in names])

    def test_scram(self) -> None:
        """SCRAM keys come with the account; none, or broken ones, are as if there were no user."""
        self.row("user@example.org", password=None, scram_sha_256=SCRAM, disabled=1)
        keys = self.successResultOf(
            self.checker.scram_keys(b"user@example.org", b"", "SCRAM-SHA-256")
        )
        assert keys is not None
        self.assertEqual(keys.iterations, 4096)
        self.assertEqual(len(keys.stored_key), sha256().digest_size)
        self.assertEqual(keys.owner, Account("user@example.org", disabled=True))
        self.row("broken@example.org", scram_sha_256=SCRAM.replace("4096", "1"))
        self.row("wrong@example.org", scram_sha_256="{PLAIN}pencil")
        for name in (b"alice@example.org", b"broken@example.org", b"wrong@example.org", b"bob"):
            found = self.checker.scram_keys(name, b"", "SCRAM-SHA-256")
            self.assertIsNone(self.successResultOf(found))
        found = self.checker.scram_keys(b"user@example.org", b"", "SCRAM-SHA-1")
        self.assertIsNone(self.successResultOf(found))

    def test_scram_password(self) -> None:
        """Who has nothing but SCRAM keys can log in by all that shows a password, too."""
        self.row("user@example.org", password=None, scram_sha_256=SCRAM)
        self.assertEqual(self.log_in("user@example.org", "pencil"), Account("user@example.org"))
        self.assertRefused("user@example.org", "crayon")

    def test_account(self) -> None:
        """It knows users without their passwords."""
        found = self.checker.account(b"alice@example.org", b"")
        self.assertEqual(self.successResultOf(found), Account("alice@example.org"))
        self.assertIsNone(self.successResultOf(self.checker.account(b"bob", b"")))

    def test_digests(self) -> None:
        """If it is told to, it takes digests of passwords that are stored as they are."""
        checker = self.make(plain_passwords=True)
        self.assertIn(IUsernameHashedPassword, checker.credentialInterfaces)
        self.row("hash@example.org", password="{SSHA}" + "A" * 32)
        right, empty = (
            md5(b"<1@host>" + password, usedforsecurity=False).hexdigest().encode()
            for password in (b"wonderland", b"")
        )
        for name, digest, good in (
            (b"alice@example.org", right, True),
            (b"alice@example.org", empty, False),
            (b"bob@example.org", empty, False),
            (b"hash@example.org", empty, False),
        ):
            asked = checker.requestAvatarId(
                Digest(DigestCredentials(name, b"<1@host>", digest, "APOP"))
            )
            if good:
                self.assertEqual(self.successResultOf(asked), Account("alice@example.org"))
            else:
                self.failureResultOf(asked, UnauthorizedLogin)


class Making(QuietCase):
    """The factory makes checkers from the argument of --auth."""

    factory = SqlCheckerFactory()

    def setUp(self) -> None:
        """Make a database."""
        super().setUp()
        self.path = Path(self.mktemp()).absolute()
        connection = sqlite3.connect(self.path)
        for table in SCHEMA:
            connection.execute(table)
        connection.close()

    def toml(self, text: str) -> str:
        """Return a file that says *text* and which database it is."""
        path = Path(self.mktemp()).absolute()
        path.write_text(f'{text}\n[connect]\ndatabase = "{self.path}"\n', "utf-8")
        return str(path)

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)
        self.assertEqual(self.factory.authType, "popd-sql")

    def test_database(self) -> None:
        """A database with popd's own tables needs nothing else; no connection is left open."""
        checker = self.factory.generateChecker(f"sqlite:{self.path}")
        self.assertEqual(checker.scram_mechanisms, {"SCRAM-SHA-256"})
        self.assertIsNone(checker._database._pool)
        self.assertEqual(self.logged, [])

    def test_query(self) -> None:
        """What the query has columns for is what can be verified."""
        query = "query = 'SELECT password FROM popd_users WHERE name = :user'"
        argument = self.toml(f"driver = 'sqlite'\n{query}\nplain-passwords = true")
        checker = self.factory.generateChecker(argument)
        self.assertEqual(checker.scram_mechanisms, frozenset())
        self.assertIn(IUsernameHashedPassword, checker.credentialInterfaces)

    def test_any_module(self) -> None:
        """A driver that popd has never heard of is as good, if it is a DB-API module."""
        checker = self.factory.generateChecker(self.toml("driver = 'sqlite3'"))
        self.assertIs(checker._database._driver.module, sqlite3)

    def test_down(self) -> None:
        """A database that does not answer now is a log line, not an error."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        connection.execute("BEGIN EXCLUSIVE")
        self.factory.generateChecker(self.toml("driver = 'sqlite'\ntimeout = 0.1"))
        expected = ["popd-sql: the database does not answer yet: database is locked"]
        self.assertEqual(self.logged, expected)

    def test_refused(self) -> None:
        """What can never work is an error that says what to do."""
        sqlite = "driver = 'sqlite'\nquery = "
        for argument, reason in (
            ("", " needs a database: popd-sql:sqlite:/FILE, for example"),
            (f"sqlite:{self.path}x", f": {self.path}x: No such file or directory"),
            (f"{self.path}x", f": {self.path}x: No such file or directory"),
            ("sqlite:", ": needs the path of a database file"),
            (self.toml("driver = 'sqlite'\ntimeout = 'x'"), "timeout must be a number"),
            (self.toml("driver = 'no.such'"), ": the driver no.such is none of sqlite, postgresql"),
            (self.toml("driver = 'os'"), ": os is no DB-API 2.0 module that can be used"),
            (self.toml("driver = 'postgresql'"), ': invalid connection option "database"'),
            (self.toml(sqlite + "'SELEC :user'"), ': the query fails: near "SELEC": syntax error'),
            (self.toml(sqlite + "'SELECT :usr'"), ": the query: :usr is none of :domain"),
            (self.toml(sqlite + "'SELECT 1'"), ": the query has no :user in it"),
            (self.toml(sqlite + "'VALUES (nobody, :user)'"), "no such column: nobody"),
            (self.toml(sqlite + "'SELECT :user AS me'"), ": the query has a column me, which is"),
        ):
            error = self.assertRaises(
                InvalidAuthArgumentString, self.factory.generateChecker, argument
            )
            self.assertIn(reason, str(error))

    def test_no_tables(self) -> None:
        """Where popd's own tables are not there yet, the error says what makes them."""
        empty = Path(self.mktemp())
        empty.touch()
        error = self.assertRaises(
            InvalidAuthArgumentString, self.factory.generateChecker, f"sqlite:{empty}"
        )
        self.assertRegex(
            str(error), "no such table: popd_[a-z_]+; popctl user add makes the tables$"
        )

    def test_no_module(self) -> None:
        """Where the driver is not installed, the error says how to install it."""
        self.patch(sys, "modules", {**sys.modules, "pymysql": None})
        error = self.assertRaises(
            InvalidAuthArgumentString, self.factory.generateChecker, "mysql://localhost/mail"
        )
        self.assertEqual(str(error), "popd-sql: needs pymysql: pip install 'popd[mysql]'")

    def test_light(self) -> None:
        """To import the factory brings in neither drivers nor hashing libraries nor the reactor."""
        code = (
            "import sys, popd.auth.sql\n"
            "heavy = {'argon2', 'psycopg', 'pymysql', 'sqlite3', 'twisted.internet.reactor'}\n"
            "print(sorted(heavy.intersection(sys.modules)))\n"
        )
        output = subprocess.check_output(
            [sys.executable, "-c", code], text=True, env={"PYTHONPATH": ":".join(sys.path)}
        )
        self.assertEqual(output, "[]\n")
