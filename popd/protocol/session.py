"""One POP3 session: octets in, events out (RFC 1939).

After log-in POP3 is arithmetic on a frozen snapshot and a set of deletion marks.  Seven things need
the world: to look up SCRAM keys, to authenticate, to send what is long (a message, a listing of
many), to start TLS, to take a client for another, to commit the deletions, to close.  A session
asks for each with an event, and until that event is answered it is `PAUSED` and parses nothing: so
replies keep the order of their commands, nothing overtakes a log-in, and what stands behind STLS in
plaintext is never executed.

A session knows no socket, clock or file, and is used by one thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from popd.protocol.authorization import Authorization
from popd.protocol.commands import BadCommandError, NoSuchMessageError
from popd.protocol.events import (
    NEED_DATA,
    PAUSED,
    Authenticate,
    Close,
    CloseReason,
    Commit,
    Event,
    Introduce,
    Lookup,
    Problem,
    Reply,
    Send,
    StartTLS,
    Stream,
)
from popd.protocol.lines import TOO_LONG, LineBuffer
from popd.protocol.sasl.digests import new_challenge
from popd.protocol.transaction import Transaction
from popd.protocol.xclient import MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.protocol.channel import Bindings, Channel
    from popd.protocol.credentials import ScramKeys
    from popd.protocol.snapshot import Snapshot

__all__ = ["GREETING", "Session"]

GREETING: Final = b"+OK POP3 server ready\r\n"
"""What a server says first, if APOP is off: a ``<`` would announce it (RFC 1939 section 7)."""

_NO_SUCH_MESSAGE: Final = Reply(b"-ERR no such message\r\n")
_ENDLESS: Final = Close(b"", CloseReason.TOO_MANY_ERRORS)
"""Ends a session whose line does not end; that it is too long was said."""
_ENDLESS_LIMIT: Final = 262_144
"""Octets of one line that are dropped before it counts as endless."""
_UPDATED: Final = Reply(b"+OK updated\r\n")
_READY: Final = Reply(b"+OK maildrop locked and ready\r\n")
_BYE: Final = Close(b"+OK bye\r\n", CloseReason.QUIT)
_HELP_NEEDED: Final = frozenset({Problem.TEMPORARY, Problem.PERMANENT, Problem.IN_USE})
_NOT_ALL_REMOVED: Final = b"-ERR [SYS/TEMP] some deleted messages not removed\r\n"
"""See RFC 1939 section 6."""


class Session:
    """A session with one client, from greeting to close.

    Send its `greeting`, then `feed` what the client sends and act on each `next_event` until that
    is `NEED_DATA` or `PAUSED`.

    :param channel: the connection beneath it.
    :param ident: what it is called in replies that ask for help, in ASCII; may be empty.
    """

    tell: Callable[[str, str], object]
    """Is told what is said, while somebody looks on: see `popd.protocol.trace`."""

    __slots__ = (
        "_answer",
        "_challenge",
        "_channel",
        "_errors",
        "_farewell",
        "_ident",
        "_lines",
        "_phase",
        "_waiting",
        "tell",
    )

    def __init__(self, channel: Channel, ident: str = "") -> None:
        self._channel = channel
        self._ident = ident
        self._challenge = b""
        if channel.offer.apop and channel.login_allowed:
            self._challenge = new_challenge(channel.offer)
        self._phase: Authorization | Transaction = Authorization(channel, self._challenge)
        self._lines = LineBuffer()
        self._waiting: Event | None = None
        self._answer: Event | None = None
        self._errors = 0
        self._farewell: bytes | None = None

    @property
    def greeting(self) -> bytes:
        """What the server says first."""
        greeting = GREETING
        if self._challenge:
            greeting = b"%b %b\r\n" % (GREETING.removesuffix(b"\r\n"), self._challenge)
        return greeting.replace(b" ", b" " + MARK, 1) if self._channel.xclient else greeting

    @property
    def logged_in(self) -> bool:
        """Whether AUTHORIZATION is over."""
        return isinstance(self._phase, Transaction)

    @property
    def buffered(self) -> int:
        """How many octets were fed and are not parsed yet."""
        return len(self._lines)

    @property
    def pending(self) -> bool:
        """Whether `next_event` may have something else to say before more is fed."""
        return self._answer is not None or bool(self._lines) or self._farewell is not None

    def feed(self, data: bytes) -> None:
        """Take octets from the client.  Whoever feeds a `PAUSED` session bounds how many."""
        self._lines.feed(data)

    def next_event(self) -> Event:
        """Parse as far as the next event, and return it."""
        if self._answer is not None:
            event, self._answer = self._answer, None
        elif self._waiting is not None:
            return PAUSED
        elif self._farewell is not None:
            event = Close(self._farewell, CloseReason.DISMISSED)
            self._farewell = None
        else:
            line = self._lines.next()
            if line is None:
                if self._lines.dropped <= _ENDLESS_LIMIT:
                    return NEED_DATA
                event = _ENDLESS  # to read on would cost time, and lead to nothing
            else:
                event = self._line_too_long() if line is TOO_LONG else self._execute(line)
        if not isinstance(event, Reply):
            self._waiting = event
        return event

    def dismiss(self, reply: bytes) -> None:
        """Close, with *reply*, as soon as what was begun is done; carry out nothing more."""
        self._farewell = reply

    def authenticated(self, snapshot: Snapshot, *, may_delete: bool = True) -> None:
        """Answer `Authenticate`: the client is let in, and this is the open maildrop.

        :param may_delete: whether the client may mark messages as deleted.
        """
        self._answered(Authenticate)
        self._phase = Transaction(self._channel, snapshot, may_delete=may_delete)
        self._errors = 0
        self._answer = _READY

    def found(self, keys: ScramKeys) -> None:
        """Answer `Lookup`: the client's proof is to be checked with these keys."""
        self._answered(Lookup)
        self._answer = cast("Authorization", self._phase).found(keys)

    def denied(self, problem: Problem) -> None:
        """Answer `Authenticate` or `Lookup`: the client is not let in."""
        self._answered(Authenticate, Lookup)
        refusal = cast("Authorization", self._phase).refused(problem)
        self._answer = refusal or self._bad(self._told(problem))

    def sent(self) -> None:
        """Answer `Send` or `Stream`: all of it is on its way."""
        self._answered(Send, Stream)

    def unsent(self, problem: Problem) -> None:
        """Answer `Send`: nothing of it could be sent."""
        self._answered(Send)
        self._answer = Reply(self._told(problem))

    def tls_started(self, bindings: Bindings | None = None) -> None:
        """Answer `StartTLS`.  What the client said before is forgotten (RFC 2595 section 4).

        The handshake need not be over yet.

        :param bindings: see `Channel`.
        """
        self._answered(StartTLS)
        self._lines = LineBuffer()
        self._begin_anew(replace(self._channel, tls=True, bindings=bindings))

    def introduced(self, channel: Channel) -> None:
        """Answer `Introduce`.

        :param channel: what the connection is like, now that it is known whose it is.
        """
        self._answered(Introduce)
        self._begin_anew(channel)
        self._answer = _UPDATED

    def certified(self) -> None:
        """Learn that the client has shown a TLS certificate that was verified.

        It is told after the handshake, and before anything that the client said after it.
        """
        self._begin_anew(replace(self._channel, certificate=True))

    def _told(self, problem: Problem) -> bytes:
        """Return the reply about a problem; one to be looked into names the session."""
        return self._named(problem.value) if problem in _HELP_NEEDED else problem.value

    def _named(self, reply: bytes) -> bytes:
        if not self._ident:
            return reply
        return b"%b (session %b)\r\n" % (reply[:-2], self._ident.encode("ascii"))

    def _begin_anew(self, channel: Channel) -> None:
        self._channel = channel
        self._phase = Authorization(channel, self._challenge)

    def committed(self, failures: int) -> None:
        """Answer `Commit`: the messages are removed, but for *failures* that could not be."""
        self._answered(Commit)
        self._answer = Close(self._named(_NOT_ALL_REMOVED), CloseReason.QUIT) if failures else _BYE

    def _answered(self, *questions: type) -> None:
        if type(self._waiting) not in questions:
            raise RuntimeError(f"no {questions[0].__name__} waits for an answer")
        self._waiting = None

    def _execute(self, line: bytes) -> Event:
        try:
            event = self._phase.execute(line)
        except NoSuchMessageError:
            return _NO_SUCH_MESSAGE
        except BadCommandError as error:
            return self._bad(b"-ERR %s\r\n" % str(error).encode("ascii"))
        if isinstance(event, StartTLS) and self._lines:
            # Octets behind STLS were sent in plaintext, by whomever: never execute them, and do not
            # talk to somebody who sends them (CVE-2011-0411 and its many heirs).
            return Close(b"-ERR nothing may follow STLS\r\n", CloseReason.INJECTION)
        return event

    def _line_too_long(self) -> Event:
        if isinstance(self._phase, Authorization):
            self._phase.give_up_exchange()
        return self._bad(b"-ERR line too long\r\n")

    def _bad(self, reply: bytes) -> Event:
        """Answer a mistake of the client's; too many of them end the session."""
        self._errors += 1
        if self._errors >= self._phase.max_errors:
            return Close(reply, CloseReason.TOO_MANY_ERRORS)
        return Reply(reply)
