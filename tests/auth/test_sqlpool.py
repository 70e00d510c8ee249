"""Tests of the pool of database connections, with SQLite, and without threads or a reactor."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd.auth import sqldrivers
from popd.auth.interfaces import AuthTemporaryError
from popd.auth.sqlconfig import Settings
from popd.auth.sqlpool import MAX_ROWS, MAX_WAITING, Database
from popd.auth.sqlquery import STANDARD, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

TIMEOUT = 4.0


class Reactor(MemoryReactorClock):
    """Runs from the beginning; what threads have for it comes at once."""

    def callWhenRunning(self, *call: Any, **kw: Any) -> None:
        """Call at once."""
        function, *args = call
        function(*args, **kw)

    def callFromThread(self, call: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call at once."""
        call(*args, **kw)

    def callInThread(self, call: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call at once, too."""
        call(*args, **kw)

    def removeSystemEventTrigger(self, trigger: object) -> None:
        """Forget one."""


class Threads:
    """A thread pool whose work is done when the test says so."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.stopped = False

    def stop(self) -> None:
        """Note it."""
        self.stopped = True

    def start(self) -> None:
        """Do nothing."""

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], call: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """Remember the work."""

        def work() -> None:
            try:
                result = call(*args, **kw)
            except Exception:  # noqa: BLE001 - whatever it was
                done(False, Failure())
            else:
                done(True, result)

        self.work.append(work)

    def run(self) -> None:
        """Do all the work that there is."""
        while self.work:
            self.work.pop(0)()


class Fragile(sqldrivers.SQLite):
    """SQLite, whose connections break like those to a server."""

    broken = False
    opened = 0

    def prepare(self, connection: Any) -> sqldrivers.Handle:
        """Count the connection."""
        self.opened += 1
        return super().prepare(connection)

    def is_broken(self, connection: Any) -> bool:
        """Tell what the test says."""
        del connection
        return self.broken


class Pool(SynchronousTestCase):
    """A database is asked from the reactor."""

    def setUp(self) -> None:
        """Make a database."""
        self.path = Path(self.mktemp()).absolute()
        self.fill("secret")
        settings = Settings("sqlite", {"database": str(self.path)}, timeout=TIMEOUT)
        self.driver = Fragile(sqlite3, settings.connect, settings.timeout)
        self.reactor = Reactor()
        self.threads = Threads()
        self.database = self.make("SELECT Password FROM users WHERE name = :user")

    def fill(self, password: str) -> None:
        """Make the database's file."""
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE users (name, password)")
        connection.execute("INSERT INTO users VALUES ('alice', ?)", [password])
        connection.commit()
        connection.close()

    def make(self, query: str) -> Database:
        """Return a database with *query*."""
        statement = parse(query, sqlite3.paramstyle, STANDARD)
        database = Database(self.driver, statement, 1, self.reactor)
        begin = database._begin

        def begin_here() -> Any:
            pool = begin()
            pool.threadpool = self.threads  # type: ignore[assignment]
            return pool

        database._begin = begin_here  # type: ignore[method-assign]
        return database

    def ask(self, *names: str) -> Deferred[Any]:
        """Ask for users, whose threads have not run yet."""
        return self.database.ask([{"user": name} for name in names])

    def answer(self, *names: str) -> Any:
        """Return the answer about users."""
        asked = self.ask(*names)
        self.threads.run()
        return self.successResultOf(asked)

    def failure(self, asked: Deferred[Any]) -> str:
        """Return why the database cannot answer."""
        self.threads.run()
        return str(self.failureResultOf(asked, AuthTemporaryError).value)

    def test_rows(self) -> None:
        """There is a table for each question, with the columns' names in lower case."""
        expected = [(("password",), [(b"secret",)]), (("password",), [])]
        self.assertEqual(self.answer("alice", "' OR 1=1 --"), expected)

    def test_closed(self) -> None:
        """When it is closed there are no threads and no connections any more."""
        self.database.close()  # which has none
        self.answer("alice")
        pool = self.database._pool
        assert pool is not None
        self.assertEqual(len(pool.connections), 1)
        self.database.close()
        self.assertEqual((pool.connections, self.threads.stopped), ({}, True))
        self.database.close()

    def test_lazy(self) -> None:
        """There is no connection before there is a question, and then one for all."""
        self.assertIsNone(self.database._pool)
        self.assertEqual(self.driver.opened, 0)
        self.answer("alice")
        self.answer("bob")
        self.assertEqual(self.driver.opened, 1)

    def test_many(self) -> None:
        """Of too many rows one too many is read."""
        self.database = self.make(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i, :user FROM n"
        )
        self.assertEqual(len(self.answer("alice")[0][1]), MAX_ROWS + 1)

    def test_broken_connection(self) -> None:
        """Where a connection breaks that had worked, the query is executed on a new one."""
        self.answer("alice")
        self.driver.broken = True
        self.close_connection()
        self.assertEqual(self.answer("alice")[0][1], [(b"secret",)])
        self.assertEqual(self.driver.opened, 2)

    def close_connection(self) -> None:
        """Close the one open connection behind the pool's back."""
        assert self.database._pool is not None
        (connection,) = self.database._pool.connections.values()
        connection.close()

    def test_once_only(self) -> None:
        """Where the new one breaks as well, the database is down; and then it is asked anew."""
        self.answer("alice")
        self.driver.broken = True
        self.close_connection()
        self.path.rename(self.path.with_suffix(".away"))
        self.assertIn("is not there, or may not be read", self.failure(self.ask("alice")))
        self.path.with_suffix(".away").rename(self.path)
        self.assertEqual(self.answer("alice")[0][1], [(b"secret",)])

    def test_replaced_file(self) -> None:
        """A file that another one took the place of is not asked any more."""
        self.answer("alice")
        self.path.rename(self.path.with_suffix(".old"))
        self.fill("new")
        self.assertEqual(self.answer("alice")[0][1], [(b"new",)])

    def test_statement_fails(self) -> None:
        """An error that the database answers with is not taken for its silence."""
        self.database = self.make("SELECT password FROM nobody WHERE name = :user")
        asked = self.ask("alice")
        self.threads.run()
        self.failureResultOf(asked, sqlite3.OperationalError)
        assert self.database._pool is not None
        self.assertEqual(self.database._pool.connections, {})

    def test_no_answer(self) -> None:
        """After the time-out it cannot answer, and what the thread waits for is ended."""
        self.answer("alice")
        aborted: list[str] = []
        self.database._local.handle.abort = lambda: aborted.append("abort")
        asked = self.ask("alice")
        (job,) = self.database._jobs
        with job.holding(self.database._local.handle):
            self.reactor.advance(TIMEOUT)
        self.assertEqual(aborted, ["abort"])
        reason = str(self.failureResultOf(asked, AuthTemporaryError).value)
        self.assertEqual(reason, "the database did not answer within 4 seconds")
        self.threads.run()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_slots(self) -> None:
        """A thread that hangs keeps its place, and who waits for it gives up in time."""
        first, second = self.ask("alice"), self.ask("alice")
        self.reactor.advance(TIMEOUT)
        for asked in (first, second):
            self.failureResultOf(asked, AuthTemporaryError)
        third = self.ask("alice")
        self.assertEqual(len(self.threads.work), 1)
        self.threads.run()
        self.assertEqual(self.successResultOf(third)[0][1], [(b"secret",)])

    def test_bounded(self) -> None:
        """No more may wait than there is room for."""
        waiting = [self.ask("alice") for _ in range(MAX_WAITING + 1)]
        self.assertEqual(self.failure_now(self.ask("alice")), "too many wait for the database")
        self.threads.run()
        for asked in waiting:
            self.successResultOf(asked)
        self.answer("alice")

    def failure_now(self, asked: Deferred[Any]) -> str:
        """Return why the database cannot answer, while no thread has done anything."""
        return str(self.failureResultOf(asked, AuthTemporaryError).value)

    def test_cancelled(self) -> None:
        """Who cancels waits no more, and costs the database no connection."""
        asked = self.ask("alice")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.answer("alice")
        self.assertEqual(self.driver.opened, 1)

    def test_shutdown(self) -> None:
        """When the reactor stops nobody waits for a thread that hangs."""
        asked = self.ask("alice")
        (job,) = self.database._jobs
        for function, args, kw in self.reactor.triggers["before"]["shutdown"]:
            function(*args, **kw)
        self.assertTrue(job.aborted)
        self.assertIn("too long to connect", self.failure(asked))

    def test_impossible_name(self) -> None:
        """A name that the database has no letters for is nobody's."""
        self.patch(self.driver, "is_impossible", bool)
        self.database = self.make("SELECT password FROM nobody WHERE name = :user")
        with self.assertLogs("popd.auth.sqlpool") as logs:
            self.assertEqual(self.answer("alice"), [((), [])])
        self.assertIn("no such table: nobody", logs.output[0])
