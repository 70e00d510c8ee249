"""A database that is asked from the reactor: never waited for too long, never by too many."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError  # noqa: A004
from twisted.python.failure import Failure

from popd.auth.interfaces import AuthTemporaryError, AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from popd.auth.sqldrivers import Driver, Handle
    from popd.auth.sqlquery import Statement

_log = logging.getLogger(__name__)

__all__ = ["MAX_ROWS", "MAX_WAITING", "Database", "Table", "fetch"]

MAX_ROWS: Final = 100
"""More than any user has; of a query that finds more, no more is read."""

MAX_WAITING: Final = 500
"""How many may wait for a connection at the same time; to more it is said that they cannot."""

Table: TypeAlias = tuple[tuple[str, ...], list[tuple[Any, ...]]]
"""The names of columns, in lower case, and rows: `MAX_ROWS` at most, and one that is too many."""


def fetch(connection: Any, statement: Statement, values: Mapping[str, object]) -> Table:
    """Execute a query on a connection, waiting for it.

    :raises Exception: it failed.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(statement.text, statement.bind(values))
        columns = tuple(str(column[0]).lower() for column in cursor.description or ())
        return columns, [tuple(row) for row in cursor.fetchmany(MAX_ROWS + 1)]
    finally:
        cursor.close()


class Database:
    """Executes one query again and again, on a few connections of its own, each in a thread.

    Nothing happens before it is asked first, which may be in another process than the one that it
    was made in: only there has it a reactor, threads and connections.

    A connection on which something failed is thrown away.  If it was one that had worked before,
    and it broke, the query is executed once more on a new one.

    :param driver: how to reach it.
    :param statement: the query.
    :param connections: how many there may be.
    :param reactor: None for the one that is installed when it is asked first.
    """

    def __init__(
        self, driver: Driver, statement: Statement, connections: int, reactor: Any = None
    ) -> None:
        self._driver = driver
        self._statement = statement
        self._connections = connections
        self._reactor = reactor
        self._slots = DeferredSemaphore(connections)
        self._local = threading.local()
        self._pool: _Pool | None = None
        self._trigger: Any = None
        self._jobs: set[_Job] = set()

    def ask(self, questions: Sequence[Mapping[str, object]]) -> Deferred[list[Table]]:
        """Execute the query with each of *questions*, the values of its parameters.

        Fails with `AuthTemporaryError` if the database cannot be reached, cannot answer now, or
        does not within the driver's time-out; and with one of the driver's exceptions if it takes
        the query for wrong.  Who cancels it waits no longer; the database is asked all the same.
        """
        if self._pool is None:
            self._pool = self._begin()
        answer = Deferred.fromCoroutine(self._ask(_Job(questions), self._pool))
        answer.addTimeout(self._driver.timeout, self._reactor)
        return answer.addErrback(self._late)

    def close(self) -> None:
        """Have no threads and connections any more; what is still asked is broken off."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._abort()
            if pool.shutdownID is not None:
                self._reactor.removeSystemEventTrigger(pool.shutdownID)
            # It waits for its threads, which what is broken off may keep for a moment.
            self._reactor.callInThread(pool.finalClose)

    def _begin(self) -> _Pool:
        if self._reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - a worker's is not its parent's

            self._reactor = reactor
        # Before adbapi waits for its threads to end.
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._abort)
        return _Pool(
            self._driver.module.__name__,
            cp_reactor=self._reactor,
            cp_min=0,
            cp_max=self._connections,
            cp_openfun=self._opened,
            **self._driver.arguments,
        )

    def _abort(self) -> None:
        for job in self._jobs:
            job.abort()

    async def _ask(self, job: _Job, pool: _Pool) -> list[Table]:
        if len(self._slots.waiting) >= MAX_WAITING:
            raise AuthUncertainError("too many wait for the database")
        await self._slots.acquire()
        self._jobs.add(job)
        watchdog = self._reactor.callLater(self._driver.timeout, job.abort)
        work: Deferred[Any] = pool.runWithConnection(self._work, job)
        work.addBoth(self._finished, job, watchdog)
        # The slot is taken until the thread is free, however long anybody waits for the answer.
        answer: Deferred[list[Table]] = Deferred()
        work.chainDeferred(answer)
        return await answer

    def _finished(self, result: Any, job: _Job, watchdog: IDelayedCall) -> Any:
        self._jobs.discard(job)
        self._slots.release()
        if watchdog.active():
            watchdog.cancel()
        if isinstance(result, Failure) and job.is_lost:
            return _lost(self._driver.reason(result.value), result)
        return result

    def _late(self, failure: Failure) -> Failure:
        failure.trap(TimeoutError)
        seconds = self._driver.timeout
        return _lost(f"the database did not answer within {seconds:g} seconds", failure)

    # What follows runs in a thread of the pool.

    def _opened(self, connection: Any) -> None:
        try:
            self._local.handle = self._driver.prepare(connection)
        except BaseException:
            connection.close()
            raise

    def _work(self, connection: adbapi.Connection, job: _Job) -> list[Table]:
        """Answer all the questions of a job."""
        error_class = self._driver.module.Error
        if self._local.handle.stale():
            connection.reconnect()
        while True:
            handle: Handle = self._local.handle
            try:
                return self._answer(connection, handle, job)
            except error_class as error:
                if self._driver.is_impossible(error):
                    _log.warning(
                        "the database takes it for nobody's name: %s", self._driver.reason(error)
                    )
                    return [((), []) for _ in job.questions]
                job.is_lost = not self._driver.is_wrong(error)
                broken = self._driver.is_broken(connection)
                if job.aborted or not (broken and handle.used):
                    raise
            connection.reconnect()

    def _answer(self, connection: adbapi.Connection, handle: Handle, job: _Job) -> list[Table]:
        with job.holding(handle):
            tables = [fetch(connection, self._statement, values) for values in job.questions]
        handle.used = True
        return tables


class _Connection(adbapi.Connection):
    """A connection, which is used no more once something failed on it."""

    def rollback(self) -> None:
        """Throw it away, unless that is what happened and there was no other to be had."""
        if self._pool.connections.get(self._pool.threadID()) is self._connection:
            self._pool.disconnect(self._connection)


class _Pool(adbapi.ConnectionPool):
    """adbapi's pool, in which no connection stays on which something failed."""

    connectionFactory = _Connection


@dataclass(eq=False)
class _Job:
    """What a thread is to find out.

    :param aborted: whether it took too long.
    :param is_lost: whether the database could not be reached, as far as is known.
    """

    questions: Sequence[Mapping[str, object]]
    aborted: bool = False
    is_lost: bool = True
    _handle: Handle | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def holding(self, handle: Handle) -> Iterator[None]:
        """Let `abort` end what happens on a connection within the context.

        :raises AuthTemporaryError: it came before that: to connect took too long.
        """
        with self._lock:
            if self.aborted:
                raise AuthTemporaryError("it takes too long to connect to the database")
            self._handle = handle
            self.is_lost = False
        try:
            yield
        finally:
            with self._lock:
                self._handle = None

    def abort(self) -> None:
        """Give up: it took too long."""
        with self._lock:
            self.aborted = self.is_lost = True
            if self._handle is not None:
                self._handle.abort()


def _lost(reason: str, failure: Failure) -> Failure:
    """Return an `AuthTemporaryError` in place of *failure*."""
    error = AuthTemporaryError(reason)
    error.__cause__ = failure.value
    return Failure(error)
