"""The Twisted driver of a session: feeds it what comes in, and does what it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, assert_never, cast

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from popd.auth.account import Client
from popd.auth.credentials import Claim, adapt
from popd.auth.interfaces import AuthTemporaryError, LoginTooSoonError
from popd.maildrop.interfaces import (
    IMaildrop,
    IPromptMaildrop,
    MaildropError,
    MaildropInUseError,
    MaildropPermanentError,
    MessageGoneError,
)
from popd.protocol.events import (
    NEED_DATA,
    Authenticate,
    Close,
    Commit,
    Lookup,
    Problem,
    Reply,
    Send,
    Signal,
    StartTLS,
    Stream,
)
from popd.protocol.message import encode
from popd.protocol.session import Session
from popd.server.bindings import channel_binding, client_certificate, tls_connection
from popd.server.connection import Connection
from popd.server.note import note
from popd.server.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.x509 import Certificate
    from twisted.python.failure import Failure

    from popd.protocol.channel import Bindings
    from popd.protocol.snapshot import Snapshot
    from popd.server.factory import POP3Factory

    Refusal = UnauthorizedLogin | LoginTooSoonError | MaildropError | AuthTemporaryError

__all__ = ["IDLE_TIMEOUT", "LOGIN_DEADLINE", "LOGIN_TIMEOUT", "PROMPT_LIMIT", "POP3Protocol"]

IDLE_TIMEOUT: Final = 600.0
"""Seconds without a command, and without an octet taken by the client, until a session that is
logged in ends.  RFC 1939 section 3 allows no less."""

LOGIN_TIMEOUT: Final = 60.0
"""Seconds without a command until a session that is not logged in ends."""

LOGIN_DEADLINE: Final = 180.0
"""Seconds from the connection until a session must be logged in, whatever it says meanwhile."""

PROMPT_LIMIT: Final = 65_536
"""Stored octets of a message that may be encoded in the reactor's thread, some 50 microseconds."""

_log = Logger()

_SHOWN: Final = 255
"""Octets of a user name that are logged."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@implementer(IHandshakeListener)
class POP3Protocol(Connection):
    """One POP3 connection.

    :param factory: what it has in common with the others.
    """

    factory: POP3Factory
    _maildrop: IMaildrop
    _prompt: IPromptMaildrop | None
    _session: Session
    _snapshot: Snapshot

    def __init__(self, factory: POP3Factory) -> None:
        super().__init__(factory.clock, factory.watch)
        self.factory = factory
        self._holding = False  # a maildrop is open and has to be released
        self._asked = 0.0  # when the client showed its credentials
        self._unconfirmed = False  # a message went out, and no word came in since
        self._pieces: Iterator[bytes] | None = None  # of a reply under way
        self._idle_login: Deferred[Any] | None = None  # made to wait, or the half of one

    def connectionMade(self) -> None:
        """Greet the client."""
        peer = self.transport.getPeer()
        self._peer = getattr(peer, "host", "")
        self._secure = ISSLTransport.providedBy(self.transport)
        bindings = self._bindings() if self._secure else None
        self._session = Session(self.factory.channel(peer, bindings))
        super().connectionMade()
        self.visit = self.factory.visits.begin(self, self._peer, self.begun)
        if self._secure:
            self.visit.transport = "tls"
        self.factory.journal.began(self.visit)
        self.write(self._session.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Take octets from the client."""
        if not self.over:
            self._unconfirmed = False
            self._session.feed(data)
            self.advance()

    def handshakeCompleted(self) -> None:
        """See `IHandshakeListener`: a certificate of the client's is known now."""
        if self._certificate() is not None:
            self._session.certified()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone.  A log-in of its that has to wait does not wait any more."""
        super().connectionLost(reason)
        if self._idle_login is not None:
            self._idle_login.cancel()

    def closed(self) -> None:
        """See `Connection.closed`."""
        self.factory.visits.end(self.visit)
        self.factory.journal.ended(self.visit)

    @property
    def backlog(self) -> int:
        """See `Connection.backlog`."""
        return self._session.buffered

    @property
    def pending(self) -> bool:
        """See `Connection.pending`."""
        return self._session.pending or self._pieces is not None

    def deadline(self) -> float:
        """See `Connection.deadline`."""
        if self._session.logged_in:
            return self.active + IDLE_TIMEOUT
        return min(self.active + LOGIN_TIMEOUT, self.begun + LOGIN_DEADLINE)

    def release(self) -> None:
        """See `Connection.release`."""
        if self._holding:
            self._holding = False
            self.factory.offload(self._maildrop.release).addErrback(
                lambda failure: self.log.failure("Maildrop not released", failure)
            )

    def step(self) -> bool | None:
        """See `Connection.step`."""
        event = self._session.next_event()
        if event is NEED_DATA:
            return None
        match event:
            case Reply(data):
                self.write(data)
            case Authenticate() | Lookup():
                return self._log_in(event)
            case Send():
                return self._send_promptly(event) or self.begin(self._send(event))
            case Stream(pieces):
                self._pieces = pieces
            case StartTLS(reply):
                self._start_tls(reply)
            case Commit(deleted):
                return self._commit_promptly(deleted) or self.begin(self._commit(deleted))
            case Close(reply):
                self.write(reply)
                self.end()
            case Signal.PAUSED:
                return self._send_piece()
            case _:
                assert_never(event)
        return True

    def _log_in(self, event: Authenticate | Lookup) -> bool:
        """Find out who the client is; return whether that is done already."""
        match event:
            case Lookup(username, mechanism):
                return self.begin(self._look_up(username, mechanism))
            case Authenticate(shown):
                self._asked = self._clock.seconds()
                claim = adapt(shown, Client(self._peer, self._secure), self._certificate())
                return self._authenticate_promptly(claim) or self.begin(self._authenticate(claim))

    async def _look_up(self, username: bytes, mechanism: str) -> None:
        """Find the keys that a client's proof is checked with."""
        client = Client(self._peer, self._secure)
        try:
            self._idle_login = self.factory.scram_keys(username, mechanism, client)
            keys = await self.wait(self._idle_login)
        except AuthTemporaryError as error:
            self._note(LogLevel.warn, "Log-in failed", username, mechanism, f": {error}")
            self._session.denied(Problem.TEMPORARY)
            self.factory.journal.shut_out(self.visit, mechanism, "temporary", username, str(error))
        except CancelledError:
            self.end()
        else:
            self._session.found(keys)
        finally:
            self._idle_login = None

    def _authenticate_promptly(self, claim: Claim) -> bool:
        """Open a maildrop at once, if it is known whose and near; return whether it was."""
        try:
            maildrop = self.factory.remembered_maildrop(claim)
            prompt = IPromptMaildrop(maildrop, None)
            snapshot = prompt.open_promptly() if prompt else None
        except (UnauthorizedLogin, MaildropError) as error:
            self._shut_out(claim, error)
            return True
        if maildrop is None or snapshot is None:
            return False
        self._let_in(claim, maildrop, prompt, snapshot, remembered=True)
        return True

    async def _authenticate(self, claim: Claim) -> None:
        """Find out who the client is, and open its maildrop."""
        try:
            login = self.factory.portal.login(claim, None, IMaildrop)
            self._idle_login = login if claim.delay else None
            _, avatar, _ = await self.wait(login)
            maildrop = cast("IMaildrop", avatar)
            prompt = IPromptMaildrop(maildrop, None)
            at_once = prompt.open_promptly() if prompt else None
            snapshot = await self._off(maildrop.open) if at_once is None else at_once
        except (UnauthorizedLogin, LoginTooSoonError, MaildropError, AuthTemporaryError) as error:
            self._shut_out(claim, error)
        except CancelledError:
            self.end()
        else:
            self._let_in(claim, maildrop, prompt, snapshot, remembered=at_once is not None)
            self.factory.journal.duplicates(getattr(maildrop, "duplicates", 0))
        finally:
            self._idle_login = None

    def _let_in(
        self,
        claim: Claim,
        maildrop: IMaildrop,
        prompt: IPromptMaildrop | None,
        snapshot: Snapshot,
        *,
        remembered: bool,
    ) -> None:
        account = claim.account
        name, by = claim.username, ""
        if account is not None and claim.master:
            name, by = account.name.encode(), f", by master {_shown(claim.master.encode())}"
        elif account is not None and account.program:
            by = f", with app password {_shown(account.program.encode())}"
        if account is not None and not name:
            name = account.name.encode()
        self._note(LogLevel.info, "Log-in", name, claim.mechanism, by=by)
        visit, now = self.visit, self._clock.seconds()
        visit.user, visit.mechanism, visit.logged_in = name, claim.mechanism, now
        self.factory.journal.let_in(visit, now - self._asked, remembered=remembered)
        self._maildrop, self._prompt = maildrop, prompt
        self._snapshot, self._holding = snapshot, True
        self._session.authenticated(snapshot, may_delete=account is None or not account.no_delete)

    def _shut_out(self, claim: Claim, error: Refusal) -> None:
        why = f": {error}" if error.args else ""
        problem, level, what = _problem(error), LogLevel.warn, "Log-in failed"
        if problem is Problem.CREDENTIALS:
            level, what = LogLevel.info, "Log-in refused"
        self._note(level, what, claim.username, claim.mechanism, why)
        result = problem.name.lower().replace("_", "-")
        self.factory.journal.shut_out(
            self.visit, claim.mechanism, result, claim.username, str(error)
        )
        self._session.denied(problem)

    def _note(
        self, level: Any, what: str, name: bytes, mechanism: str, why: str = "", *, by: str = ""
    ) -> None:
        """Log what became of a log-in."""
        peer = self._peer or "this machine"
        note(
            _log, level, f"{what}: user {_shown(name)}{by}, from {peer}, mechanism {mechanism}{why}"
        )

    def _certificate(self) -> Certificate | None:
        """Return the client's TLS certificate, if it has shown one."""
        tls = self.factory.tls
        if tls is None or not (tls.asks_clients and self._secure):
            return None
        return client_certificate(tls_connection(self.transport))

    def _bindings(self) -> Bindings:
        """Return what finds out what binds an exchange to the connection, see `Channel`."""
        transport = self.transport  # not all of this protocol, which has the session
        return lambda name: channel_binding(tls_connection(transport), name)

    def _send_promptly(self, send: Send) -> bool:
        """Send a message at once if it is small and near; return whether that settled it."""
        if self._prompt is None or self.lost:
            return False
        begun = self._clock.seconds()
        try:
            content = self._prompt.read_promptly(send.index, PROMPT_LIMIT)
        except MaildropError as error:
            self._refuse(error)
            return True
        if content is None:
            return False
        pieces, octets = encode(content, send.body_lines)
        self.write_all([send.status, *pieces])
        self._message_sent(send, octets, begun)
        return True

    async def _send(self, send: Send) -> None:
        """Send a message, as fast as the disk gives it and the client reads it."""
        begun = self._clock.seconds()
        try:
            transfer, piece = await self._off(Transfer.begin, self._maildrop, send)
        except MaildropError as error:
            self._refuse(error)
            return
        try:
            while not self.lost and not self.over:
                self.write(piece)
                piece = b""  # what could not be sent yet the transport holds; once is enough
                if transfer.done:
                    self._message_sent(send, transfer.octets, begun)
                    return
                await self.until_read()
                piece = await self._off(transfer.next)
        except MaildropError as error:
            # The client must not take the part that it has for the whole.
            self.log.error("Connection broken off in a message: {error}", error=error)
            self.abort()
        else:
            self.end()  # nobody reads any more
        finally:
            transfer.close()

    def _send_piece(self) -> bool:
        """Send the next piece of a reply that is under way; return whether one is."""
        if self._pieces is None:
            return False
        piece = None if self.lost else next(self._pieces, None)
        if piece is None:
            self._pieces = None
            self._session.sent()
        else:
            self.write(piece)
        return True

    def _refuse(self, error: MaildropError) -> None:
        self.log.warn("Message not sent: {error}", error=error)
        self._session.unsent(_problem(error))

    def _message_sent(self, send: Send, octets: int, begun: float) -> None:
        self._unconfirmed = True
        self.factory.journal.sent(
            self.visit, octets, self._clock.seconds() - begun, whole=send.body_lines is None
        )
        self._session.sent()
        listed = self._snapshot.sizes[send.index]
        if send.body_lines is None and octets != listed:
            self.log.warn(
                "Message {uid} has {octets} octets, not {listed}: does its name give a wrong size?",
                uid=self._snapshot.uids[send.index].decode("ascii"),
                octets=octets,
                listed=listed,
            )

    def _start_tls(self, reply: bytes) -> None:
        self.write(reply)
        self.flush()
        self.transport.startTLS(self.factory.tls)
        self._secure = True
        self.visit.transport = "stls"
        self._session.tls_started(self._bindings())

    def _commit_promptly(self, deleted: frozenset[int]) -> bool:
        """Let go of the maildrop at once if nothing is to be removed; return whether that did."""
        if deleted or self._prompt is None or not self._prompt.release_promptly():
            return False
        self._holding = False
        self._session.committed(0)
        return True

    async def _commit(self, deleted: frozenset[int]) -> None:
        """Remove what was deleted, and let go of the maildrop before the client hears of it."""
        await self.until_read()
        if self.lost and self._unconfirmed:
            # It said QUIT before the last message could reach it, and never read that.
            self.end()
            return
        self._holding = False
        failed = await self._off(_update, self._maildrop, deleted)
        self.visit.deleted = len(deleted) - failed
        self._session.committed(failed)

    async def _off(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Do file work off the reactor's thread.  Until it is done, nothing else happens."""
        return await self.wait(self.factory.offload(function, *args, **kwargs))


def _shown(name: bytes) -> str:
    """Return a name so that nothing in it can forge a line of the log."""
    return ascii(name[:_SHOWN])[2:-1]


def _problem(error: Refusal) -> Problem:
    match error:
        case UnauthorizedLogin():
            return Problem.CREDENTIALS
        case LoginTooSoonError():
            return Problem.TOO_SOON
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
