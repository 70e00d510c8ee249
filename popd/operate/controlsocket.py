"""The control socket: where ``popctl`` asks a popd that runs.

A client connects, sends one question, and reads the answer, all of it JSON, one object a line::

    {"ask": "kick", "about": {"subject": "ada@example.org"}}
    {"answer": 2}

or ``{"error": "..."}``, a line for whoever asked.  To some questions there are many answers, until
the client has enough and closes (see `popd.operate.commands.Commands`).  Only root and the user
that popd runs as are heard.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReadDescriptor
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

from popd.listen import StartError
from popd.operate.place import DEFAULT, Place, peer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from popd.heritage import Heritage
    from popd.operate.commands import Commands

__all__ = ["ASK_LIMIT", "CLIENTS", "PATIENCE", "ControlSocket"]

ASK_LIMIT: Final = 1 << 20
"""The longest question, in octets."""

CLIENTS: Final = 16
"""How many can ask at the same time."""

PATIENCE: Final = 30.0
"""Seconds that a client has to say what it wants, and to read the answer."""

_PAUSE: Final = 1.0
"""Seconds until connections are accepted again when that has failed."""

_STRANGER: Final = b'{"error": "only root and the user that popd runs as are answered"}\n'
_BUSY: Final = b'{"error": "too many ask at the same time"}\n'

_log = Logger()


@implementer(IPushProducer)
class Caller(LineOnlyReceiver):
    """One client.

    :param reactor: keeps the time.
    :param commands: answers.
    :param gone: called when the client is gone.
    """

    delimiter = b"\n"
    MAX_LENGTH = ASK_LIMIT

    def __init__(self, reactor: Any, commands: Commands, gone: Callable[[Caller], object]) -> None:
        self._reactor = reactor
        self._commands = commands
        self._gone = gone
        self._answering: Deferred[None] | None = None
        self.lost = False
        """Whether nobody reads any more."""
        self.reads = True
        """Whether the client reads as fast as it is written to."""

    def connectionMade(self) -> None:
        """Wait for the question, for a while."""
        self._limit = self._reactor.callLater(PATIENCE, self.cut)
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def lineReceived(self, line: bytes) -> None:
        """Answer the question.  There is one for each connection."""
        if self._answering is None:
            self._limit.cancel()
            self._answering = Deferred.fromCoroutine(self._answer(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone: no more of an answer that is not over."""
        self.lost = True
        if self._limit.active():
            self._limit.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._gone(self)

    def say(self, word: str, what: Any) -> None:
        """Send a line: an ``answer`` or an ``error``."""
        if not self.lost:
            self.sendLine(json.dumps({word: what}, separators=(",", ":")).encode())

    def cut(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def let_go(self) -> None:
        """Close a forked copy of the connection."""
        self.transport.socket.close()  # type: ignore[union-attr]

    async def _answer(self, line: bytes) -> None:
        try:
            await self._commands.answer(self, *_question(line))
        except CancelledError:
            return
        except ValueError as error:
            self.say("error", str(error))
        except Exception:  # noqa: BLE001 - popd goes on, whatever is wrong with an answer
            _log.failure("A question on the control socket could not be answered")
            self.say("error", "this went wrong; popd's log says how")
        if not self.lost:
            self._limit = self._reactor.callLater(PATIENCE, self.cut)
            self.transport.unregisterProducer()  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is written to."""
        self.reads = False

    def resumeProducing(self) -> None:
        """It has read most of it."""
        self.reads = True

    def stopProducing(self) -> None:
        """The connection is going."""


def _question(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        question = json.loads(line)
        what, about = question["ask"], question.get("about") or {}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        what, about = None, None
    if isinstance(what, str) and isinstance(about, dict):
        return what, about
    raise ValueError("this is no question: a line of JSON with ask and about")


@implementer(IReadDescriptor)
class ControlSocket(Service):
    """Listens for questions, for as long as the service runs.

    :param reactor: this process's.
    :param path: where; empty for `DEFAULT`, if that can be had.
    :param commands: answers.
    :param heritage: has the socket if another popd has listened there before.
    """

    _log: ClassVar = Logger()

    def __init__(
        self, reactor: Any, path: str, commands: Commands, heritage: Heritage | None = None
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._commands = commands
        self._heritage = heritage
        self.shown = f"--control {path or DEFAULT}"
        """What the socket is called."""
        self._place: Place | None = None
        self._callers: set[Caller] = set()

    def startService(self) -> None:
        """Listen.

        :raises StartError: that is not possible, and the path was asked for.
        """
        super().startService()
        path = self._path or DEFAULT
        inherited = None if self._heritage is None else self._heritage.take(self.shown)
        try:
            self._place = Place(path, inherited)
        except OSError as error:
            reason = error.strerror or str(error)
            if self._path:
                raise StartError(f"--control {path}: cannot listen: {reason}") from error
            self._log.info("No control socket at {path}: {reason}", path=path, reason=reason)
            return
        self._log.info("popctl is answered at {path}", path=path)
        self._reactor.addReader(self)

    @property
    def bound(self) -> socket.socket | None:
        """The socket that this listens on, if it does."""
        return None if self._place is None else self._place.socket

    def hand_over(self) -> None:
        """Listen no more: another popd does.  Who has asked already is answered."""
        if self._place is not None:
            self._reactor.removeReader(self)
            self._place.socket.close()
            self._place = None

    def stopService(self) -> None:
        """Listen no more, and let everybody go."""
        super().stopService()
        if self._place is not None:
            self._reactor.removeReader(self)
            self._place.close()
            self._place = None
        for caller in list(self._callers):
            caller.cut()

    def let_go(self) -> None:
        """Close what a forked process has no use for, so that it ends with this one."""
        if self._place is not None:
            self._place.socket.close()
        for caller in self._callers:
            caller.let_go()

    # What the reactor asks.

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return -1 if self._place is None else self._place.socket.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "control"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`: the reactor stops."""

    def doRead(self) -> None:
        """Accept one connection."""
        if self._place is None:
            return
        try:
            connection, _ = self._place.socket.accept()
            with connection:
                self._serve(connection)
        except BlockingIOError:  # who wanted to connect is gone
            return
        except OSError:  # there are no more descriptors: look again when there may be
            self._reactor.removeReader(self)
            self._reactor.callLater(_PAUSE, self._again)

    def _again(self) -> None:
        if self._place is not None:
            self._reactor.addReader(self)

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        refusal = b""
        if peer_of(connection) not in {0, os.geteuid()}:
            refusal = _STRANGER
        elif len(self._callers) >= CLIENTS:
            refusal = _BUSY
        if refusal:
            with suppress(OSError):
                connection.send(refusal)
            return
        caller = Caller(self._reactor, self._commands, self._callers.discard)
        self._reactor.adoptStreamConnection(
            connection.fileno(), socket.AF_UNIX, _factory_of(caller)
        )
        self._callers.add(caller)


def _factory_of(caller: Caller) -> Factory:
    class CallerFactory(Factory):
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> Caller:
            return caller

    return CallerFactory()
