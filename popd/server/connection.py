"""A connection whose client may be slow, silent, gone, or in a hurry.

What is said on it is the subclass's business.  One rule keeps it simple: whoever serves a client
waits for at most one thing at a time, and `Connection.advance` goes on when that thing is done, or
when the client has read what was written, whichever was waited for.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from popd.server.watch import Watch

__all__ = ["GATHER", "LINGER", "READ_AHEAD", "SLICE", "Connection"]

GATHER: Final = 32_768
"""Octets of replies that are gathered before they are handed to the kernel, while there is more to
do for the client.  A joined write that is much longer costs more in page faults than it saves."""

LINGER: Final = 60.0
"""Seconds that a client has to read the last replies and close, before the connection is cut."""

READ_AHEAD: Final = 4_096
"""Octets of commands that may wait their turn before popd stops reading more."""

SLICE: Final = 64
"""Steps that are made for one client in a row before it is the others' turn."""

_CROWD: Final = 32
"""Clients in the middle of a slice from which on slices are `_SMALL`, so that a turn of all of them
stays short for who has just come."""

_SMALL: Final = 4

_WORK_CHECK: Final = 60.0
"""Seconds between two looks whether a client is silent, while it is popd that is at work."""

Result = TypeVar("Result")


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(Protocol):
    """One connection, served step by step.

    :param clock: what time-outs are measured with.
    :param watch: tells when a time-out may have come.
    """

    # The table that Python makes for more than thirty attributes would take 1.5 KB.
    __slots__ = (
        "_advancing",
        "_clock",
        "_closed",
        "_drained",
        "_gathered",
        "_no_more_input",
        "_octets",
        "_reading",
        "_second",
        "_watch",
        "_working",
        "_writable",
        "active",
        "begun",
        "lost",
        "over",
    )

    log = Logger()
    transport: Any  # TCP, UNIX or TLS: they have no interface in common that says it all

    def __init__(self, clock: IReactorTime, watch: Watch) -> None:
        self._clock = clock
        self._watch = watch
        self.lost = False
        """Whether nobody reads what is written any more."""
        self.over = False
        """Whether nothing more is done for this client."""
        self._advancing = False
        self._working = False  # the client waits for popd
        self._no_more_input = False  # the client has said its last word
        self._writable = True  # the client reads what is written
        self._reading = True  # popd reads what the client writes
        self._drained: Deferred[None] | None = None
        self._closed = False  # it is both lost and over, and the subclass knows
        self._gathered: list[bytes] = []  # replies that were not handed to the transport yet
        self._octets = 0  # how many octets they have

    # What a subclass says.

    @abstractmethod
    def step(self) -> bool | None:
        """Do one thing for the client.

        Returns True if there may be another to do, False if something has to be waited for that was
        begun with `begin`, None if there is nothing to do until the client says more.
        """

    @property
    def pending(self) -> bool:
        """Whether there may be something else to do before the client says more."""
        return True

    @property
    def busy(self) -> bool:
        """Whether the client waits for popd, which is at work for it."""
        return self._working

    @property
    @abstractmethod
    def backlog(self) -> int:
        """How many octets of what the client said still wait for their turn."""

    @abstractmethod
    def deadline(self) -> float:
        """Return when the client will have been silent for too long, by the clock."""

    @abstractmethod
    def release(self) -> None:
        """Let go of all that is held for the client.  A second call does nothing."""

    def timed_out(self, *, reads: bool) -> None:
        """Learn that the connection is about to end because the client was silent for too long.

        :param reads: whether it reads what is written.
        """

    def broken(self) -> None:
        """Learn that the connection is about to end because of an error in popd."""

    def closed(self) -> None:
        """Learn, once, that the client is gone and nothing more is done for it."""

    # What a subclass uses.

    def write(self, data: bytes) -> None:
        """Send *data*, if there is somebody who reads; soon, and with what follows at once."""
        if not self.lost:
            self._gathered.append(data)
            self._octets += len(data)
            if self._octets > GATHER or not self._advancing:
                self.flush()

    def write_all(self, pieces: list[bytes]) -> None:
        """Send *pieces*, as `write` does."""
        if not self.lost:
            self._gathered += pieces
            self._octets += sum(map(len, pieces))
            if self._octets > GATHER or not self._advancing:
                self.flush()

    def flush(self) -> None:
        """Hand to the transport what was gathered."""
        if self._gathered:
            data = b"".join(self._gathered)  # which copies nothing if there is one
            self._gathered.clear()
            self._octets = 0
            self.transport.write(data)

    async def wait(self, result: Deferred[Result]) -> Result:
        """Wait for something that the client has to wait for too."""
        self._working = True
        try:
            return await result
        finally:
            self._working = False
            self.active = self._clock.seconds()

    async def until_read(self) -> None:
        """Wait until the client has read most of what was written, or is gone."""
        self.flush()
        if not self._writable:
            self._drained = Deferred()
            await self._drained

    def begin(self, work: Coroutine[Deferred[Any], Any, None]) -> bool:
        """Start *work*; return whether it is done already.  When it is, `advance` goes on."""
        finished = Deferred.fromCoroutine(work).addErrback(self._failed)
        if finished.called:
            return True
        finished.addCallback(lambda _: self.advance())
        return False

    def end(self) -> None:
        """Let go of everything; close when the client has read what was written."""
        if self.over:
            return
        self.over = True
        self.release()
        if not self.lost:
            self.flush()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        if not self.lost:
            self._watch_until(self._clock.seconds() + LINGER)
        else:
            self._close()

    def abort(self) -> None:
        """Let go of everything and cut the connection, so that nothing more reaches the client."""
        self.over = True
        self.release()
        self.flush()
        self.transport.abortConnection()

    def advance(self) -> None:
        """Do what there is to do, until something has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            left = share = SLICE if self._watch.in_line < _CROWD else _SMALL
            more: bool | None = True
            while left and (more := self._writable and not self.over and self.step()):
                left -= 1
                if not self.pending:
                    more = None
                    break
            if left < share:
                self.active = self._clock.seconds()
            if not left:
                self._watch.in_line += 1
                self._clock.callLater(0, self._next_turn)
            elif more is None and self._no_more_input:
                self.end()
            self.flush()
        finally:
            self._advancing = False
        if not self.lost:
            # Of a command that is not complete yet the session takes as much as it wants.
            reading = more is None or self.over or self.backlog <= READ_AHEAD
            if reading != self._reading:
                self._throttle()

    def _next_turn(self) -> None:
        self._watch.in_line -= 1
        self.advance()

    # What Twisted tells.

    def connectionMade(self) -> None:
        """Begin to measure time, and to watch whether the client reads."""
        self.begun = self.active = self._clock.seconds()
        """When the connection began, and when something was done on it last."""
        self._second = self._watch.add(self.deadline(), self)
        self.transport.registerProducer(self, streaming=True)

    def readConnectionLost(self) -> None:
        """The client will send no more, but still reads: carry out what it said."""
        self._no_more_input = True
        self.advance()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone.  What it said before still counts."""
        self.lost = self._no_more_input = True
        self._gathered.clear()
        self._watch.remove(self._second, self)
        if not self.over or self._drained is not None:
            self.resumeProducing()  # there is nothing to wait for any more
        if self.over:
            self._close()

    def pauseProducing(self) -> None:
        """The client does not read as fast as popd writes."""
        self._writable = False

    def resumeProducing(self) -> None:
        """The client has read most of what was written."""
        self._writable = True
        self.active = self._clock.seconds()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
        self.advance()

    def stopProducing(self) -> None:
        """The connection is going; `connectionLost` does the rest."""

    # Inside.

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.closed()

    def _throttle(self) -> None:
        """Read no more than can be carried out; after the end, read and ignore."""
        self._reading = not self._reading
        if self._reading:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _failed(self, failure: Failure) -> None:
        """Something went wrong that nobody thought of: an error in popd or in a plugin."""
        self.log.failure("Session broken off", failure)
        self.broken()
        self.abort()

    def _watch_until(self, when: float) -> None:
        """Look at the time at *when*, and not before."""
        self._watch.remove(self._second, self)
        self._second = self._watch.add(when, self)

    def check_time(self) -> None:
        """End a connection whose client has been silent for too long."""
        if self.lost:
            return
        now = self._clock.seconds()
        end = now + _WORK_CHECK if self._working else self.deadline()
        if self.over or (now >= end and not self._writable):
            self.timed_out(reads=False)
            self.abort()
        elif now >= end:
            self.timed_out(reads=True)
            self.end()
            self.advance()
        else:
            self._watch_until(end)
