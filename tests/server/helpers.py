"""Connections without a network, disks without a thread, and a clock that stands still."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from popd.auth.chain import CheckerChain
from popd.auth.realm import MaildropRealm
from popd.maildrop.memory import MemoryBox, MemoryStore
from popd.server.factory import POP3Factory
from popd.server.journal import Journal
from popd.server.limits import Gate, Limits, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.maildrop.interfaces import IMaildropStore, Place
    from popd.server.protocol import POP3Protocol

MAIL = [
    (b"uid-1", b"Subject: one\n\nfirst\n"),
    (b"uid-2", b"Subject: two\n\n.dot\n"),
    (b"uid-3", b"Subject: three\n\nlast\n"),
]
LOGIN = b"USER joe\r\nPASS secret\r\n"
LOGGED_IN = b"+OK send PASS\r\n+OK maildrop locked and ready\r\n"


def told(said: bytes) -> bytes:
    """Return replies without the names of sessions in them."""
    return re.sub(rb" \(session \w+-\d+\)\r\n", b"\r\n", said)


class Held:
    """An offload whose work is done when the test says so, and at once until it says otherwise."""

    def __init__(self) -> None:
        self.hold = False
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(
        self, place: Place, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Deferred[Any]:
        """Take a piece of work."""
        del place
        if not self.hold:
            return maybeDeferred(function, *args, **kwargs)
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*args, **kwargs)))
        return done

    def later(self, place: Place, function: Callable[[], object]) -> None:
        """Take a piece of work that nobody waits for."""
        self(place, function)

    def go(self) -> None:
        """Do the piece of work that has waited longest."""
        done, work = self.waiting.pop(0)
        maybeDeferred(work).chainDeferred(done)


class Wire(StringTransport):
    """A TCP connection that remembers what was done to it."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", peer, 1234))
        self.aborted = False
        self.tls: object = None
        self.stuck = False
        self.prompt = False
        directlyProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: object) -> None:
        """Accept it."""

    def startTLS(self, context: object) -> None:
        """Remember the context."""
        self.tls = context

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True
        self.disconnecting = True

    def write(self, data: bytes) -> None:
        """Take data; tell the producer to pause if the client does not read."""
        super().write(data)
        if self.stuck or self.prompt:
            self.reader.pauseProducing()
        if self.prompt:
            self.reader.resumeProducing()

    @property
    def reader(self) -> Any:
        """What wants to know whether the client reads."""
        return self.producer

    def unstick(self) -> None:
        """Let the client read all."""
        self.stuck = False
        self.reader.resumeProducing()


class ServerCase(SynchronousTestCase):
    """A test case with a server for user ``joe``, whose password is ``secret``."""

    cleartext_login: Any = "always"
    tls: Any = None
    limits = Limits()

    def setUp(self) -> None:
        """Set up the server."""
        self.box = MemoryBox(list(MAIL))
        self.clock = Clock()
        self.offload = Held()
        self.users = InMemoryUsernamePasswordDatabaseDontUse(joe=b"secret")
        self.use_checker(self.users)

    def use_checker(self, *checkers: Any) -> None:
        """Let these decide who may log in."""
        chain = CheckerChain(checkers)
        journal = Journal()
        self.factory = POP3Factory(
            Portal(MaildropRealm(self.mail_store()), [chain]),
            self.offload,  # type: ignore[arg-type]
            self.clock,
            cleartext_login=self.cleartext_login,
            tls=self.tls,
            journal=journal,
            gate=Gate(self.limits, Registry(), journal, self.clock),
        )

    def mail_store(self) -> IMaildropStore:
        """Return where the mail is."""
        return MemoryStore({"joe": self.box})

    def connect(self, peer: str = "192.0.2.1") -> tuple[POP3Protocol, Wire]:
        """Open a connection and read the greeting."""
        protocol = self.factory.buildProtocol(None)
        wire = Wire(peer)
        protocol.makeConnection(wire)
        self.assertEqual(wire.value(), b"+OK POP3 server ready\r\n")
        wire.clear()
        return protocol, wire

    def log_in(self) -> tuple[POP3Protocol, Wire]:
        """Open a connection and log in."""
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        self.assertEqual(wire.value(), LOGGED_IN)
        wire.clear()
        return protocol, wire

    def settle(self) -> None:
        """Let everybody have their turns until nobody wants one at once."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def lose(self, protocol: POP3Protocol, *, clean: bool = True) -> None:
        """Let the client close the connection."""
        protocol.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))

    def left(self) -> list[bytes]:
        """Return the unique-ids that are still in the maildrop."""
        return [uid for uid, _ in self.box.messages]
