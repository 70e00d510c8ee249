"""Users in a database: popd asks PostgreSQL, MariaDB and SQLite, which are there or not."""

from __future__ import annotations

import atexit
import contextlib
import os
import poplib
import shutil
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.trial.unittest import SkipTest

from popd.auth import apppass, sqlconfig, sqldrivers
from popd.auth.sqlpool import fetch
from popd.auth.sqlquery import DEFAULT_QUERY, SCHEMA, parse
from popd.ctl.passwords import hashed
from popd.ctl.sqlstore import SqlStore
from popd.ctl.store import AppPassword, RefusedError, UserExistsError
from tests.e2e.databases import PASSWORD, MariaDB, PostgreSQL, Program
from tests.e2e.server import LIMIT, PASSWORDS, RunningServer, ServerCase, until

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT: Final = 2
PASS: Final = "sesame"
TEMPORARY: Final = "[SYS/TEMP]"
WRONG: Final = "[AUTH]"

INJECTIONS: Final = (
    "' OR 1=1 --",
    "' OR '1'='1",
    '" OR ""="',
    "\\' OR 1=1 -- ",
    "nobody@example.org' UNION SELECT 'zoe@example.org', '{PLAIN}x' --",
    "zoe@example.org'; DROP TABLE popd_users; --",
    "%s%(user)s:user$1?",
    "zoe@example.org\\",
    "%@example.org",
    "\N{GRINNING FACE}@example.org",
)


if TYPE_CHECKING:
    Mixin = ServerCase
else:
    Mixin = object


class DatabaseCase(Mixin):
    """A popd that knows some users from a password file, and others from a database."""

    driver: ClassVar[str]
    hang = "1 = 0"
    """An SQL condition that takes a minute and is false, but for those whose connection breaks."""
    workers = "1"

    def start(self, *options: str) -> RunningServer:
        """Start popd with the database as its second directory."""
        self.fill()
        for user in ("zoe", "dora"):
            for directory in ("tmp", "new", "cur"):
                (self.site.maildir(user) / directory).mkdir(parents=True, exist_ok=True)
        file = self.site.root / "sql.toml"
        (self.site.root / "secret").write_text(f"{PASSWORD}\n", "utf-8")
        (self.site.root / "secret").chmod(0o600)
        file.write_text(
            f"driver = '{self.driver}'\ntimeout = {TIMEOUT}\n"
            f"query = '''{self.query()}'''\n[connect]\n{self.connect()}",
            "utf-8",
        )
        more = ("--auth", f"popd-sql:{file}", "--workers", self.workers)
        return super().start(*more, *options)

    def query(self) -> str:
        """Return popd's own query, which hangs when it is asked for Dora."""
        return DEFAULT_QUERY.replace(
            "WHERE name = :user\n UNION",
            f"WHERE name = :user AND (:user <> 'dora@example.org' OR {self.hang})\n UNION",
        )

    def connect(self) -> str:
        """Return how popd connects."""
        raise NotImplementedError

    def fill(self) -> None:
        """Make the tables and users."""
        raise NotImplementedError

    def change(self, statement: str) -> None:
        """Execute a statement."""
        raise NotImplementedError

    def reply(self, user: str, password: str = PASS) -> str:
        """Return what popd says to who logs in: ``""`` if he may."""
        context = self.site.client_context()
        client: Any = poplib.POP3_SSL(
            "localhost", self.server.tls_port, context=context, timeout=LIMIT
        )
        client.encoding = "utf-8"
        try:
            client.user(user)
            client.pass_(password)
            client.quit()
        except poplib.error_proto as error:
            return bytes(error.args[0]).decode().removeprefix("-ERR ")
        finally:
            client.close()
        return ""

    def prompt_reply(self, user: str, password: str) -> str:
        """Return what popd says, which it does within a second."""
        begin = time.monotonic()
        reply = self.reply(user, password)
        self.assertLess(time.monotonic() - begin, 1)
        return reply

    def test_users(self) -> None:
        """The right password lets in whom the database knows and does not bar."""
        self.assertEqual(self.reply("zoe@example.org"), "")
        wrong = self.reply("zoe@example.org", "open sesame")
        self.assertIn(WRONG, wrong)
        for user in ("nobody@example.org", "disabled@example.org"):
            self.assertEqual(self.reply(user), wrong)
        self.change("UPDATE popd_users SET disabled = 1 WHERE name = 'zoe@example.org'")
        self.assertEqual(self.reply("zoe@example.org"), wrong)

    def test_injection(self) -> None:
        """A user name is a name, whatever is in it."""
        wrong = self.reply("zoe@example.org", "x")
        for name in INJECTIONS[:2]:
            self.assertEqual(self.reply(name), wrong)
        self.assertEqual(self.reply("zoe@example.org"), "")
        # So many wrong log-ins would be slowed down.
        settings = sqlconfig.read(str(self.site.root / "sql.toml"))
        driver = sqldrivers.load(settings)
        statement = parse(settings.query, driver.module.paramstyle, driver.dialect)
        with closing(driver.open()) as connection:
            for name in INJECTIONS:
                values = {"user": name, "local": name, "domain": ""}
                self.assertEqual(fetch(connection, statement, values)[1], [])

    def assertComesBack(self, password: str = PASS) -> None:
        """Assert that after a while popd asks the database again."""
        until(lambda: not self.reply("zoe@example.org", password), "popd does not come back")

    def test_hanging_statement(self) -> None:
        """While the database is busy with one user, others are let in; and in the end he is told.

        Whether they are in the database or in a password file.
        """
        with ThreadPoolExecutor() as pool:
            begin = time.monotonic()
            dora = pool.submit(self.reply, "dora@example.org")
            time.sleep(TIMEOUT / 4)
            self.assertEqual(self.prompt_reply("alice@example.org", PASSWORDS["alice"]), "")
            self.assertEqual(self.prompt_reply("zoe@example.org", PASS), "")
            self.assertTrue(not dora.done(), "nothing hangs")
            self.assertIn(TEMPORARY, dora.result())
            self.assertLess(time.monotonic() - begin, 2 * TIMEOUT)
        self.assertComesBack()

    def test_down(self) -> None:
        """A database that is down is a temporary failure, for its users only; and comes back."""
        self.assertEqual(self.reply("zoe@example.org"), "")
        self.take_down()
        for user in ("zoe@example.org", "nobody@example.org"):
            self.assertIn(TEMPORARY, self.reply(user))
        self.assertEqual(self.prompt_reply("alice@example.org", PASSWORDS["alice"]), "")
        self.bring_up()
        self.assertComesBack()

    def test_down_at_start(self) -> None:
        """A popd that starts before its database serves the others, and it when it is there."""
        self.server.stop()
        self.take_down()
        try:
            self.server = super().start(*self.server._options)
            self.assertEqual(self.prompt_reply("alice@example.org", PASSWORDS["alice"]), "")
            self.assertIn(TEMPORARY, self.reply("zoe@example.org"))
        finally:
            self.bring_up()
        self.assertComesBack()

    def test_silent(self) -> None:
        """A database that says nothing at all holds up its own users only, and not for ever."""
        self.assertEqual(self.reply("zoe@example.org"), "")
        self.silence()
        try:
            with ThreadPoolExecutor(8) as pool:
                begin = time.monotonic()
                waiting = [pool.submit(self.reply, "zoe@example.org") for _ in range(8)]
                time.sleep(TIMEOUT / 4)
                self.assertEqual(self.prompt_reply("alice@example.org", PASSWORDS["alice"]), "")
                for one in waiting:
                    self.assertIn(TEMPORARY, one.result())
                self.assertLess(time.monotonic() - begin, 2 * TIMEOUT)
        finally:
            self.end_silence()
        self.assertComesBack()

    def test_stop(self) -> None:
        """It ends in time though it waits for a database that says nothing."""
        self.server.stop()
        self.server = super().start(*self.server._options, "--workers", "1")
        self.assertEqual(self.reply("zoe@example.org"), "")
        self.silence()
        try:
            with ThreadPoolExecutor(5) as pool:
                waiting = [pool.submit(self.reply, "zoe@example.org") for _ in range(5)]
                time.sleep(TIMEOUT / 4)
                begin = time.monotonic()
                self.server.stop()
                self.assertLess(time.monotonic() - begin, 2 * TIMEOUT)
                for one in waiting:
                    self.assertTrue(one.exception() or TEMPORARY in one.result())
        finally:
            self.end_silence()

    def take_down(self) -> None:
        """Let the database be gone."""
        raise NotImplementedError

    def bring_up(self) -> None:
        """Let it be there again."""
        raise NotImplementedError

    def silence(self) -> None:
        """Let the database not answer."""
        raise NotImplementedError

    def end_silence(self) -> None:
        """Let it answer again."""
        raise NotImplementedError


USERS: Final = (
    "INSERT INTO popd_users (name, disabled, password) VALUES"
    " ('zoe@example.org', 0, '{PLAIN}sesame'), ('dora@example.org', 0, '{PLAIN}sesame'),"
    " ('disabled@example.org', 1, '{PLAIN}sesame')"
)

_RUNNING: Final[dict[str, Program]] = {}


def running(program: type[Program]) -> Program:
    """Return a database server that runs until the tests are over."""
    if program.package not in _RUNNING:
        _RUNNING[program.package] = program()
        atexit.register(_RUNNING[program.package].close)
    return _RUNNING[program.package]


class ProgramCase(DatabaseCase):
    """A database that is a program."""

    program: ClassVar[type[Program]]

    @property
    def database(self) -> Program:
        """The program, which is the same for all tests."""
        return running(self.program)

    def fill(self) -> None:
        """Make the tables and users anew."""
        self.database.execute(
            "DROP TABLE IF EXISTS popd_app_passwords", "DROP TABLE IF EXISTS popd_users"
        )
        self.database.execute(*SCHEMA, USERS)

    def change(self, statement: str) -> None:
        """Execute a statement."""
        self.database.execute(statement)

    def test_restart(self) -> None:
        """A database that was started anew meanwhile is no failure at all."""
        for _ in range(5):  # each worker has a connection, or nearly so
            self.assertEqual(self.reply("zoe@example.org"), "")
        self.take_down()
        self.bring_up()
        for _ in range(5):
            self.assertEqual(self.reply("zoe@example.org"), "")

    def test_managed(self) -> None:
        """Who is managed by popctl can log in, by app passwords too, until he is disabled."""
        self.database.execute("DROP TABLE popd_app_passwords", "DROP TABLE popd_users")
        file = self.site.root / "admin.toml"
        how = f"password-file = '{self.site.root}/secret'\n{self.database.administrator()}"
        file.write_text(f"driver = '{self.driver}'\n[connect]\n{how}", "utf-8")
        store = SqlStore(str(file))
        store.add("zoe@example.org", hashed(b"first"), {"quota": "1G", "interval": "0.001"})
        self.assertComesBack("first")
        self.assertRaises(UserExistsError, store.add, "zoe@example.org", hashed(b"x"), {})
        store.set_password("zoe@example.org", hashed(b"second"))
        password = apppass.make()
        app = AppPassword("phone", apppass.digest(password.encode()), {"expires": "2999-01-01"})
        store.add_app_password("zoe@example.org", app)
        self.assertEqual(store.app_passwords("zoe@example.org"), [app])
        for good in ("second", password):
            self.assertEqual(self.reply("zoe@example.org", good), "")
        self.assertIn(WRONG, self.reply("zoe@example.org", "first"))
        store.revoke_app_password("zoe@example.org", "phone")
        self.assertIn(WRONG, self.reply("zoe@example.org", password))
        store.set_disabled("zoe@example.org", disabled=True)
        store.set_disabled("zoe@example.org", disabled=True)
        (user,) = store.users()
        self.assertEqual(user.schemes, ("ARGON2ID", "SCRAM-SHA-256"))
        self.assertTrue(user.disabled)
        self.assertIn(WRONG, self.reply("zoe@example.org", "second"))
        store.delete("zoe@example.org")
        self.assertEqual(list(store.users()), [])
        with self.assertRaises(RefusedError):
            store.add("zoe@example.org", hashed(b"x"), {"maildrop": "maildir:/" + "x" * 2000})

    def connect(self) -> str:
        """Return how popd connects."""
        return f"password-file = '{self.site.root}/secret'\n{self.database.settings()}"

    def take_down(self) -> None:
        """End the program."""
        self.database.stop()

    def bring_up(self) -> None:
        """Start it again."""
        self.database.start()

    def silence(self) -> None:
        """Stop the program where it is."""
        self.database.freeze()

    def end_silence(self) -> None:
        """Let it go on."""
        self.database.thaw()


class PostgreSQLTests(ProgramCase, ServerCase):
    """PostgreSQL, asked by two workers."""

    driver = "postgresql"
    program = PostgreSQL
    hang = "pg_sleep(60) IS NULL"
    workers = "2"

    def test_read_only(self) -> None:
        """A query cannot change anything, whatever it calls."""
        self.change(
            "CREATE OR REPLACE FUNCTION spoil() RETURNS boolean SECURITY DEFINER AS"
            " 'DELETE FROM popd_users; SELECT true' LANGUAGE sql"
        )
        self.addCleanup(self.change, "DROP FUNCTION spoil")
        self.hang = "spoil()"
        self.server.stop()
        self.server = self.start()
        self.assertIn(TEMPORARY, self.reply("dora@example.org"))
        self.assertComesBack()


class MariaDBTests(ProgramCase, ServerCase):
    """MariaDB."""

    driver = "mysql"
    program = MariaDB
    hang = "SLEEP(60) = 2"


class SQLiteTests(DatabaseCase, ServerCase):
    """SQLite, whose file may be gone, or locked."""

    driver = "sqlite"
    hang = (
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000)"
        " SELECT count(*) FROM n) = 0"
    )

    @property
    def path(self) -> Path:
        """The file."""
        return self.site.root / "users.db"

    def fill(self) -> None:
        """Make the file, unless it is there."""
        with closing(sqlite3.connect(self.path)) as connection:
            with contextlib.suppress(sqlite3.OperationalError):
                for statement in (*SCHEMA, USERS):
                    connection.execute(statement)
            connection.commit()

    def change(self, statement: str) -> None:
        """Execute a statement."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(statement)
            connection.commit()

    def connect(self) -> str:
        """Return how popd connects."""
        return f"database = '{self.path}'"

    def test_scram(self) -> None:
        """A client logs in by SCRAM-SHA-256, with keys that popctl made."""
        mpop = shutil.which("mpop")
        if mpop is None:
            raise SkipTest("needs mpop: apt-get install mpop")
        SqlStore(f"sqlite:{self.path}").set_password("zoe@example.org", hashed(b"pencil"))
        self.site.deliver("zoe", b"Subject: hello\n\nZoe\n")
        command = [mpop, f"--file={os.devnull}", "--host=localhost", "--user=zoe@example.org"]
        command += ["--auth=scram-sha-256", f"--port={self.server.tls_port}", "--tls=on"]
        command += ["--tls-starttls=off", f"--tls-trust-file={self.site.ca}"]
        command += [f"--uidls-file={self.site.root}/uidls", f"--delivery=mbox,{self.site.root}/box"]
        for password, status in (("pencil", 0), ("crayon", 77)):
            done = subprocess.run(
                [*command, f"--passwordeval=echo {password}"],
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
            self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn("Subject: hello", (self.site.root / "box").read_text("utf-8"))

    def take_down(self) -> None:
        """Rename the file."""
        self.path.rename(f"{self.path}.away")

    def bring_up(self) -> None:
        """Bring it back."""
        (self.site.root / "users.db.away").rename(self.path)

    def silence(self) -> None:
        """Lock the file."""
        self.locked = sqlite3.connect(self.path, isolation_level=None)
        self.locked.execute("BEGIN EXCLUSIVE")

    def end_silence(self) -> None:
        """Unlock it."""
        self.locked.close()

    def test_down_at_start(self) -> None:
        """A file that is not there when popd starts is an error."""
        self.server.stop()
        self.take_down()
        with self.assertRaises(AssertionError):
            ServerCase.start(self, *self.server._options)

    def write(self, mode: str) -> None:
        """Log in while somebody writes, in one of SQLite's modes."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE popd_users SET disabled = 1")
            self.assertEqual(self.prompt_reply("zoe@example.org", PASS), "")
            connection.execute("COMMIT")
        self.assertIn(WRONG, self.reply("zoe@example.org"))

    def test_writer(self) -> None:
        """Who writes holds up nobody who reads, until he is done."""
        self.write("DELETE")

    def test_write_ahead(self) -> None:
        """So it is with a write-ahead log."""
        self.write("WAL")
