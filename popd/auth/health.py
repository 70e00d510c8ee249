"""Backends that may be down: who asks one that is, hears so at once, and it is tried meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from popd.auth.interfaces import AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

__all__ = [
    "FIRST_PAUSE",
    "LONGEST_PAUSE",
    "MAX_TIMEOUT",
    "Connection",
    "Health",
    "Standing",
    "limited",
    "process_reactor",
    "reason",
]

FIRST_PAUSE: Final = 1.0
"""Seconds from when a backend failed until it is tried again."""

LONGEST_PAUSE: Final = 16.0
"""Seconds between two tries, at most; each pause is twice the one before."""

MAX_TIMEOUT: Final = 9.0
"""Seconds that a log-in may take, at most: the chain waits for no checker longer than 10."""


class Connection(Protocol):
    """What a `Standing` keeps."""

    on_lost: Callable[[], object]
    """Is called when the connection has ended."""

    def abort(self) -> None:
        """Break it off."""


Kept = TypeVar("Kept", bound=Connection)
Result = TypeVar("Result")


def process_reactor() -> Any:
    """Return the reactor of this process: a worker has another than its supervisor."""
    from twisted.internet import reactor  # noqa: PLC0415 - none is chosen by importing this

    return reactor


def reason(error: BaseException) -> str:
    """Return in words why a connection failed: OpenSSL says it in a list of tuples."""
    from OpenSSL import SSL  # noqa: PLC0415 - which a plugin must not bring in

    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "TLS: " + ", ".join(str(text) for *_, text in error.args[0])
    return str(error) or type(error).__name__


def limited(
    deferred: Deferred[Result], seconds: float, clock: IReactorTime, trouble: str
) -> Deferred[Result]:
    """Cancel *deferred* if it does not fire in time: it fails with `AuthUncertainError` then.

    :param trouble: what is wrong in that case; the seconds are put behind it.
    """

    def late(*_: object) -> Result:
        raise AuthUncertainError(f"{trouble} for {seconds:g} seconds")

    return deferred.addTimeout(seconds, clock, late)


class Health:
    """Whether a backend can be asked.

    From a failure on it cannot, until a try in the background has gone well: no log-in waits for a
    backend that is known to be down.

    :param probe: tries the backend; its Deferred must fire some time.
    :param clock: the reactor.
    """

    def __init__(self, probe: Callable[[], Deferred[object]], clock: IReactorTime) -> None:
        self._probe = probe
        self._clock = clock
        self._trouble = ""
        self._pause = FIRST_PAUSE
        self._again: IDelayedCall | None = None
        self._closed = False

    def close(self) -> None:
        """Try it no more."""
        self._closed = True
        if self._again is not None and self._again.active():
            self._again.cancel()

    def check(self) -> None:
        """Do nothing if the backend can be asked.

        :raises AuthUncertainError: it cannot; the text says why.
        """
        if self._trouble:
            raise AuthUncertainError(self._trouble)

    def failed(self, trouble: str) -> None:
        """Take note that the backend is down, for the reason *trouble*."""
        if not self._trouble:
            self._pause = FIRST_PAUSE
            self._wait(trouble)

    def _wait(self, trouble: str) -> None:
        self._trouble = trouble or "no reason given"
        if not self._closed:
            self._again = self._clock.callLater(self._pause, self._try)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _try(self) -> None:
        maybeDeferred(self._probe).addCallbacks(self._went_well, self._failed_again)

    def _went_well(self, _: object) -> None:
        self._trouble = ""

    def _failed_again(self, failure: Failure) -> None:
        self._wait(failure.getErrorMessage())


class Standing(Generic[Kept]):
    """A connection that many log-ins share, made when it is first needed and again when it is lost.

    :param connect: makes one; its Deferred must fire some time.
    :param clock: the reactor.
    """

    def __init__(self, connect: Callable[[], Deferred[Kept]], clock: IReactorTime) -> None:
        self._make = connect
        self._connection: Kept | None = None
        self._waiting: list[Deferred[Kept]] = []
        self.health = Health(self._connect, clock)
        self._closed = False

    def close(self) -> None:
        """Keep no connection any more."""
        self._closed = True
        self.health.close()
        if self._connection is not None:
            self._connection.abort()

    def get(self) -> Deferred[Kept]:
        """Return the connection, which is made first if there is none.

        Fails with `AuthUncertainError` if that cannot be done, and at once if it is known.
        """
        self.health.check()
        waiting: Deferred[Kept] = Deferred()
        if self._connection is not None:
            waiting.callback(self._connection)
            return waiting
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._connect().addErrback(lambda f: self.health.failed(f.getErrorMessage()))
        return waiting

    def drop(self, connection: Kept, trouble: str) -> None:
        """Take *connection*, if it is still the one, for useless, and the backend for down."""
        if connection is self._connection:
            self.down(trouble)

    def down(self, trouble: str) -> None:
        """Take note that the backend is down, for the reason *trouble*."""
        connection, self._connection = self._connection, None
        self.health.failed(trouble)
        if connection is not None:
            connection.abort()

    def _connect(self) -> Deferred[object]:
        return self._make().addCallbacks(self._made, self._not_made)

    def _made(self, connection: Kept) -> None:
        def lost() -> None:
            if self._connection is connection:
                self._connection = None

        connection.on_lost = lost
        self._connection = connection
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(connection)
        if self._closed:
            connection.abort()

    def _not_made(self, failure: Failure) -> Failure:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(AuthUncertainError(failure.getErrorMessage()))
        return failure
