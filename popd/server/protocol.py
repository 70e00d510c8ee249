"""The Twisted driver of a session: feeds it what comes in, and does what it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from zope.interface import implementer

from popd.maildrop.interfaces import MaildropError
from popd.protocol.events import (
    NEED_DATA,
    Authenticate,
    Close,
    CloseReason,
    Commit,
    Introduce,
    Lookup,
    Problem,
    Reply,
    Send,
    Signal,
    StartTLS,
    Stream,
)
from popd.protocol.message import encode
from popd.protocol.trace import trace
from popd.server.bindings import tls_reason
from popd.server.login import LoginConnection, place_of, problem_of
from popd.server.offload import OverdueError
from popd.server.transfer import Transfer
from popd.server.visit import (
    HTTP_REQUEST,
    IDLE,
    INTERNAL_ERROR,
    KICKED,
    LOGIN_TIMEOUT_PASSED,
    NOT_READING,
    QUIT,
    READ_ERROR,
    STLS_INJECTION,
    TLS_ERROR,
    TOO_MANY_ERRORS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.python.failure import Failure

    from popd.maildrop.interfaces import IMaildrop
    from popd.protocol.trace import Tell
    from popd.server.factory import POP3Factory

__all__ = ["PROMPT_LIMIT", "POP3Protocol"]

PROMPT_LIMIT: Final = 65_536
"""Stored octets of a message that may be encoded in the reactor's thread, some 50 microseconds."""

_LINES: Final = 500
"""Deletions that are written down in a row, in some 3 milliseconds."""

_ENDS: Final = {
    CloseReason.QUIT: QUIT,
    CloseReason.TOO_MANY_ERRORS: TOO_MANY_ERRORS,
    CloseReason.INJECTION: STLS_INJECTION,
    CloseReason.HTTP: HTTP_REQUEST,
    CloseReason.DISMISSED: KICKED,  # unless there is a better reason, see `dismiss`
}


@implementer(IHandshakeListener)
class POP3Protocol(LoginConnection):
    """One POP3 connection.

    :param factory: what it has in common with the others.
    """

    __slots__ = (
        "_pieces",
        "_unconfirmed",
    )

    def __init__(self, factory: POP3Factory) -> None:
        super().__init__(factory)
        self._unconfirmed = False  # a message went out, and no word came in since
        self._pieces: Iterator[bytes] | None = None  # of a reply under way

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
        """The client is gone."""
        if isinstance(reason.value, SSL.Error) and not self.of_proxy:
            self.visit.ends(TLS_ERROR, tls_reason(reason.value))
        super().connectionLost(reason)

    def dismiss(self, why: str, reply: bytes) -> None:
        """End the session as soon as no command is being carried out.

        Nothing is removed, and no message breaks off.

        :param why: see `Visit.why`.
        :param reply: what the client is told: a whole line.
        """
        if not self.over:
            self.visit.ends(why)
            self._session.dismiss(reply)
            self.advance()

    def trace(self, tell: Tell | None) -> None:
        """Have what is said in this session told, or no more; see `popd.protocol.trace`."""
        trace(self._session, tell)

    def timed_out(self, *, reads: bool) -> None:
        """See `Connection.timed_out`."""
        if not reads:
            self.visit.ends(NOT_READING)
            return
        logged_in = self._session.logged_in
        self.visit.ends(IDLE if logged_in else LOGIN_TIMEOUT_PASSED)
        limit = "idle-timeout" if logged_in else "login-timeout"
        self.factory.journal.limited(self.visit, self.visit.peer, limit)

    def broken(self) -> None:
        """See `Connection.broken`."""
        self.visit.ends(INTERNAL_ERROR)

    @property
    def backlog(self) -> int:
        """See `Connection.backlog`."""
        return self._session.buffered

    @property
    def pending(self) -> bool:
        """See `Connection.pending`."""
        return self._session.pending or self._pieces is not None

    def release(self) -> None:
        """See `Connection.release`."""
        if self._holding:
            self._holding = False
            self._let_go(self._maildrop)

    def step(self) -> bool | None:  # noqa: C901, PLR0911 - one case for each event
        """See `Connection.step`."""
        event = self._session.next_event()
        if isinstance(event, Reply):  # as most are, and a match takes four times as long
            self.write(event.data)
            return True
        if event is NEED_DATA:
            return None
        match event:
            case Authenticate() | Lookup():
                return self._log_in(event)
            case Send():
                return self._send_promptly(event) or self.begin(self._send(event))
            case Introduce(said):
                self._take_for(said)
            case Stream(pieces):
                self._pieces = pieces
            case StartTLS(reply):
                self._start_tls(reply)
            case Commit(deleted):
                return self._commit_promptly(deleted) or self.begin(self._commit(deleted))
            case Close(reply, reason):
                self.visit.ends(_ENDS[reason])
                self.write(reply)
                self.end()
            case Signal.PAUSED:
                return self._send_piece()
            case _:
                assert_never(event)
        return True

    def _send_promptly(self, send: Send) -> bool:
        """Send a message at once if it is small and near; return whether that settled it."""
        if not self.factory.gate.may_download(self.visit):
            self._session.unsent(Problem.USED_UP)
            return True
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
        self.factory.gate.downloaded(self.visit, octets)
        self._message_sent(send, octets, begun)
        return True

    async def _send(self, send: Send) -> None:
        """Send a message, as fast as the disk gives it and the client reads it."""
        begun = self._clock.seconds()
        try:
            transfer, piece = await self._off(self._maildrop, Transfer.begin, self._maildrop, send)
        except OverdueError as error:
            self._refuse(error)
            self.step()  # which says so
            self.visit.ends(READ_ERROR, str(error))
            self.end()
            return
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
                piece = await self._off(self._maildrop, transfer.next)
        except MaildropError as error:
            # The client must not take the part that it has for the whole.
            self.log.error(
                "Session {ident}: broken off in a message: {error}",
                ident=self.visit.ident,
                error=error,
            )
            self.visit.ends(READ_ERROR, str(error))
            self.abort()
        else:
            self.end()  # nobody reads any more
        finally:
            if not transfer.done:  # to close a file may take time, too
                self.factory.offload.later(place_of(self._maildrop), transfer.close)
            self.factory.gate.downloaded(self.visit, transfer.octets)

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
        self.log.warn(
            "Session {ident}: message not sent: {error}", ident=self.visit.ident, error=error
        )
        self._session.unsent(problem_of(error))

    def _message_sent(self, send: Send, octets: int, begun: float) -> None:
        self._unconfirmed = True
        self._session.sent()
        seconds = self._clock.seconds() - begun
        self.factory.journal.sent(self.visit, octets, seconds, whole=send.body_lines is None)
        listed = self._snapshot.sizes[send.index]
        if send.body_lines is None and octets != listed:
            self.log.warn(
                "Session {ident}: message {uid} has {octets} octets, not {listed}: does its name"
                " give a wrong size?",
                ident=self.visit.ident,
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
        self._session.tls_started(None if self._relayed else self._bindings())

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
        try:
            stuck = await self._off(self._maildrop, _update, self._maildrop, deleted)
        except OverdueError as error:
            self.log.error(
                "Session {ident}: whether {count} messages are removed is not known: {error}",
                ident=self.visit.ident,
                count=len(deleted),
                error=error,
            )
            self._session.committed(len(deleted))
            return
        uids, sizes = self._snapshot.uids, self._snapshot.sizes
        removed = [(uids[index].decode("ascii"), sizes[index]) for index in sorted(deleted - stuck)]
        for first in range(0, len(removed), _LINES):
            if first:  # it is the others' turn
                await self.wait(deferLater(self._clock, 0))
            self.factory.journal.removed(self.visit, removed[first : first + _LINES])
        self._session.committed(len(stuck))


def _update(maildrop: IMaildrop, deleted: frozenset[int]) -> frozenset[int]:
    try:
        return frozenset(maildrop.commit(deleted))
    finally:
        maildrop.release()
