"""The Twisted driver of a session: feeds it what comes in, and does what it asks for.

One rule keeps it simple: a session waits for at most one thing at a time (a log-in, a message, a
commit), and `POP3Protocol._advance` goes on when that thing is done, or when the client has read
what was written, whichever it waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, assert_never, cast

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from zope.interface import implementer

from popd.auth.chain import AuthTemporaryError
from popd.maildrop.interfaces import (
    IMaildrop,
    MaildropError,
    MaildropInUseError,
    MaildropPermanentError,
    MessageGoneError,
)
from popd.protocol.channel import Channel
from popd.protocol.events import (
    Authenticate,
    Close,
    Commit,
    Problem,
    Reply,
    Send,
    Signal,
    StartTLS,
)
from popd.protocol.session import GREETING, Session
from popd.server.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from popd.protocol.credentials import PasswordCredentials
    from popd.protocol.snapshot import Snapshot
    from popd.server.factory import POP3Factory

__all__ = [
    "IDLE_TIMEOUT",
    "LINGER",
    "LOGIN_DEADLINE",
    "LOGIN_TIMEOUT",
    "READ_AHEAD",
    "POP3Protocol",
]

IDLE_TIMEOUT: Final = 600.0
"""Seconds without a command, and without an octet taken by the client, until a session that is
logged in ends.  RFC 1939 section 3 allows no less."""

LOGIN_TIMEOUT: Final = 60.0
"""Seconds without a command until a session that is not logged in ends."""

LOGIN_DEADLINE: Final = 180.0
"""Seconds from the connection until a session must be logged in, whatever it says meanwhile."""

LINGER: Final = 60.0
"""Seconds that a client has to read the last replies and close, before the connection is cut."""

READ_AHEAD: Final = 4_096
"""Octets of commands that may wait their turn before popd stops reading more."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@implementer(IPushProducer, IHalfCloseableProtocol)
class POP3Protocol(Protocol):
    """One connection.

    :param factory: what it has in common with the others.
    """

    log = Logger()
    factory: POP3Factory
    transport: Any  # TCP, UNIX or TLS: they have no interface in common that says it all
    _maildrop: IMaildrop
    _session: Session
    _snapshot: Snapshot
    _timer: IDelayedCall

    def __init__(self, factory: POP3Factory) -> None:
        self.factory = factory
        self._holding = False  # a maildrop is open and has to be released
        self._advancing = False
        self._working = False  # the client waits for popd
        self._no_more_input = False  # the client has said its last word
        self._lost = False  # nobody reads what is written
        self._over = False  # nothing more is done for this client
        self._unconfirmed = False  # a message went out, and no word came in since
        self._writable = True  # the client reads what is written
        self._reading = True  # popd reads what the client writes
        self._drained: Deferred[None] | None = None

    # What Twisted tells.

    def connectionMade(self) -> None:
        """Greet the client."""
        peer = self.transport.getPeer()
        self._peer = getattr(peer, "host", "this machine")
        self._session = Session(
            Channel(
                tls=ISSLTransport.providedBy(self.transport),
                stls=self.factory.tls is not None,
                cleartext_login=self.factory.may_log_in_without_tls(peer),
            )
        )
        self._begun = self._active = self.factory.clock.seconds()
        self._timer = self.factory.clock.callLater(LOGIN_TIMEOUT, self._check_time)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, streaming=True)
        self._write(GREETING)

    def dataReceived(self, data: bytes) -> None:
        """Take octets from the client."""
        if not self._over:
            self._unconfirmed = False
            self._session.feed(data)
            self._advance()

    def readConnectionLost(self) -> None:
        """The client will send no more, but still reads: carry out what it said."""
        self._no_more_input = True
        self._advance()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone.  What it said before, a QUIT above all, still counts."""
        self._lost = self._no_more_input = True
        self.resumeProducing()  # there is nothing to wait for any more
        if self._timer.active():
            self._timer.cancel()

    def pauseProducing(self) -> None:
        """The client does not read as fast as popd writes."""
        self._writable = False

    def resumeProducing(self) -> None:
        """The client has read most of what was written."""
        self._writable = True
        self._active = self.factory.clock.seconds()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
        self._advance()

    def stopProducing(self) -> None:
        """The connection is going; `connectionLost` does the rest."""

    # The loop.

    def _advance(self) -> None:
        """Do what the session asks for, until it has to wait for something."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._writable and not self._over and self._step():
                self._active = self.factory.clock.seconds()
        finally:
            self._advancing = False
        self._throttle()

    def _step(self) -> bool:
        """Do one thing; return whether there may be another."""
        event = self._session.next_event()
        match event:
            case Reply(data):
                self._write(data)
            case Authenticate(credentials):
                return self._begin(self._authenticate(credentials))
            case Send():
                return self._begin(self._send(event))
            case StartTLS(reply):
                self._start_tls(reply)
            case Commit(deleted):
                return self._begin(self._commit(deleted))
            case Close(reply):
                self._write(reply)
                self._end()
            case Signal.NEED_DATA:
                if self._no_more_input:
                    self._end()
                return False
            case Signal.PAUSED:
                return False
            case _:
                assert_never(event)
        return True

    def _begin(self, work: Coroutine[Deferred[Any], Any, None]) -> bool:
        """Start *work*; return whether it is done already."""
        finished = Deferred.fromCoroutine(work).addErrback(self._failed)
        if finished.called:
            return True
        finished.addCallback(lambda _: self._advance())
        return False

    def _throttle(self) -> None:
        """Read no more commands than can be carried out; after the end, read and ignore."""
        reading = self._over or self._session.buffered <= READ_AHEAD
        if reading != self._reading and not self._lost:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # What the session asks for.

    async def _authenticate(self, credentials: PasswordCredentials) -> None:
        """Find out who the client is, and open its maildrop."""
        user = ascii(credentials.username)[2:-1]
        try:
            _, avatar, _ = await self._wait(
                self.factory.portal.login(
                    UsernamePassword(credentials.username, credentials.password), None, IMaildrop
                )
            )
            maildrop = cast("IMaildrop", avatar)
            snapshot = await self._off(maildrop.open)
        except UnauthorizedLogin:
            self.log.info("Log-in refused: user {user}, from {peer}", user=user, peer=self._peer)
            self._session.denied(Problem.CREDENTIALS)
        except (MaildropError, AuthTemporaryError) as error:
            self.log.warn(
                "Log-in failed: user {user}, from {peer}: {error}",
                user=user,
                peer=self._peer,
                error=error,
            )
            self._session.denied(_problem(error))
        else:
            self.log.info("Log-in: user {user}, from {peer}", user=user, peer=self._peer)
            self._maildrop, self._snapshot, self._holding = maildrop, snapshot, True
            self._session.authenticated(snapshot)

    async def _send(self, send: Send) -> None:
        """Send a message, as fast as the client reads it."""
        try:
            transfer, piece = await self._off(Transfer.begin, self._maildrop, send)
        except MaildropError as error:
            self.log.warn("Message not sent: {error}", error=error)
            self._session.unsent(_problem(error))
            return
        try:
            while not self._lost and not self._over:
                self._write(piece)
                if transfer.done:
                    self._check_size(send, transfer)
                    self._unconfirmed = True
                    self._session.sent()
                    return
                if not self._writable:
                    self._drained = Deferred()
                    await self._drained
                piece = await self._off(transfer.next)
        except MaildropError as error:
            # The client must not take the part that it has for the whole.
            self.log.error("Connection broken off in a message: {error}", error=error)
            self._abort()
        else:
            self._end()  # nobody reads any more
        finally:
            transfer.close()

    def _check_size(self, send: Send, transfer: Transfer) -> None:
        listed = self._snapshot.sizes[send.index]
        if send.body_lines is None and transfer.octets != listed:
            self.log.warn(
                "Message {uid} has {octets} octets, not {listed}: does its name give a wrong size?",
                uid=self._snapshot.uids[send.index].decode("ascii"),
                octets=transfer.octets,
                listed=listed,
            )

    def _start_tls(self, reply: bytes) -> None:
        self._write(reply)
        self.transport.startTLS(self.factory.tls)
        self._session.tls_started()

    async def _commit(self, deleted: frozenset[int]) -> None:
        """Remove what was deleted, and let go of the maildrop before the client hears of it."""
        if self._lost and self._unconfirmed:
            # It said QUIT before the last message could reach it, and never read that.
            self._end()
            return
        self._holding = False
        self._session.committed(await self._off(_update, self._maildrop, deleted))

    async def _off(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Do file work off the reactor's thread.  Until it is done, nothing else happens."""
        return await self._wait(self.factory.offload(function, *args, **kwargs))

    async def _wait(self, result: Deferred[Result]) -> Result:
        """Wait for something that the client has to wait for too."""
        self._working = True
        try:
            return await result
        finally:
            self._working = False
            self._active = self.factory.clock.seconds()

    # The end.

    def _write(self, data: bytes) -> None:
        if not self._lost:
            self.transport.write(data)

    def _end(self) -> None:
        """Let go of everything; close when the client has read what was written."""
        if self._over:
            return
        self._release()
        if not self._lost:
            self._timer.reset(LINGER)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _abort(self) -> None:
        """Let go of everything and cut the connection, so that nothing more reaches the client."""
        self._release()
        self.transport.abortConnection()

    def _release(self) -> None:
        self._over = True
        if self._holding:
            self._holding = False
            self.factory.offload(self._maildrop.release).addErrback(
                lambda failure: self.log.failure("Maildrop not released", failure)
            )

    def _failed(self, failure: Failure) -> None:
        """Something went wrong that nobody thought of: an error in popd or in a plugin."""
        self.log.failure("Session broken off", failure)
        self._abort()

    def _check_time(self) -> None:
        """End a session that has been silent for too long; it has deleted nothing."""
        now = self.factory.clock.seconds()
        if self._session.logged_in:
            end = self._active + IDLE_TIMEOUT
        else:
            end = min(self._active + LOGIN_TIMEOUT, self._begun + LOGIN_DEADLINE)
        if self._working:
            end = now + LOGIN_TIMEOUT  # look again then
        if self._over or (now >= end and not self._writable):
            self._abort()
        elif now >= end:
            self._timer = self.factory.clock.callLater(LINGER, self._check_time)
            self._end()
            self._throttle()
        else:
            self._timer = self.factory.clock.callLater(end - now, self._check_time)


def _problem(error: MaildropError | AuthTemporaryError) -> Problem:
    match error:
        case MaildropInUseError():
            return Problem.IN_USE
        case MaildropPermanentError():
            return Problem.PERMANENT
        case MessageGoneError():
            return Problem.GONE
    return Problem.TEMPORARY


def _update(maildrop: IMaildrop, deleted: frozenset[int]) -> int:
    try:
        return maildrop.commit(deleted)
    finally:
        maildrop.release()
