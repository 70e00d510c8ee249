"""Whether a log-in works: popd finds out as its own client, and tells systemd.

The client takes the way of any other: through the listening socket, in whichever process accepts
it, with TLS, to a maildrop and out again.  Only account and mail are its own (see `Insider`), since
a directory that is down or a disk that hangs does not get better by a restart of popd.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from popd.listen import Purpose, shown
from popd.server.insider import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.application.service import MultiService
    from twisted.internet.interfaces import IAddress, IConnector
    from twisted.python.failure import Failure

    from popd.desk import Crew
    from popd.listen import Listener
    from popd.server.insider import Insider
    from popd.systemd import Notifier

__all__ = ["LOCAL", "TIMEOUT", "ProbeError", "Target", "Watchman", "probe", "targets"]

TIMEOUT: Final = 10.0
"""Seconds that a log-in may take."""

LOCAL: Final = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\x00\x00\x00"
"""PROXY protocol, version 2: the proxy itself connects, to see how the server is (section 2.2)."""

_PROBED: Final = frozenset({"tcp", "tcp6", "unix", "systemd", "haproxy"})
"""Of which kinds of endpoints it is known what a client has to say there."""

_ALL_IPV4: Final = "0.0.0.0"  # noqa: S104 - it is looked for, not bound
_ALL_IPV6: Final = "::"


class ProbeError(Exception):
    """No log-in works.  The text says what happened in its place."""


@dataclass(frozen=True)
class Target:
    """Where a log-in should work.

    :param address: where popd listens.
    :param purpose: what it speaks there.
    :param proxied: whether it wants to hear a PROXY header first.
    """

    address: IPv4Address | IPv6Address | UNIXAddress
    purpose: Purpose
    proxied: bool = False


def targets(listeners: Iterable[Listener]) -> list[Target]:
    """Return where log-ins should work, as far as it is known how."""
    found: list[Target] = []
    for listener in listeners:
        address = listener.address
        if listener.kind not in _PROBED:
            continue
        if isinstance(address, IPv4Address | IPv6Address | UNIXAddress):
            found.append(Target(address, listener.purpose, listener.kind == "haproxy"))
    return found


def probe(reactor: Any, insider: Insider, target: Target, timeout: float) -> Deferred[None]:
    """Log in and out as *insider*; fails with `ProbeError`.

    One at a time, because the insider can be in one place only.

    :param timeout: how many seconds all of it may take.
    """
    client = _Client(insider, target)
    address = target.address
    try:
        if isinstance(address, UNIXAddress):
            _connect_unix(reactor, client, address)
        else:
            _connect_tcp(reactor, client, address, timeout)
    except PermissionError:
        return succeed(None)  # a UNIX socket that is for others: nothing can be said about it
    except OSError as error:
        return fail(ProbeError(f"cannot connect: {error.strerror}"))
    client.done.addTimeout(timeout, reactor, onTimeoutCancel=client.too_late)
    return client.done.addBoth(client.leave)


def _connect_tcp(
    reactor: Any, client: _Client, address: IPv4Address | IPv6Address, timeout: float
) -> None:
    """Begin to connect, which is done in the reactor's next turn."""
    host = _within_reach(address.host)
    # From the address itself, so that it is known where the client comes from.
    connector = reactor.connectTCP(
        host, address.port, _Once(client), timeout=timeout, bindAddress=(host, 0)
    )
    bound = getattr(connector.transport, "socket", None)  # there is none if it has failed already
    if bound is not None:
        client.insider.announce(type(address)("TCP", host, bound.getsockname()[1]))


def _within_reach(host: str) -> str:
    """Return where on this machine to find what listens on *host*."""
    if host == _ALL_IPV4:
        return "127.0.0.1"
    if host != _ALL_IPV6:
        return host
    with socket.socket(socket.AF_INET6) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:  # IPv6 is switched off, but it listens for IPv4 as well
            return "::ffff:127.0.0.1"
    return "::1"


def _connect_unix(reactor: Any, client: _Client, address: UNIXAddress) -> None:
    """Connect.

    :raises OSError: that cannot be done.
    """
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("")  # a name that nobody else has, see unix(7)
        end.setblocking(False)
        client.insider.announce(UNIXAddress(end.getsockname()))
        end.connect(address.name or b"")
        client.accepted = True
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Once(client))


class _Once(ClientFactory):
    """Gives the one client to the one connection."""

    noisy = False

    def __init__(self, client: _Client) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return self._client

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._client.broken(f"cannot connect: {reason.getErrorMessage()}")


class _Client(LineOnlyReceiver):
    """Logs in and out.

    :ivar done: fires when that is over.
    """

    accepted = False
    """Whether the transport believes to be the server's end."""

    transport: Any

    def __init__(self, insider: Insider, target: Target) -> None:
        self.done: Deferred[None] = Deferred()
        self.insider = insider
        self._target = target
        self._where = "to connect"
        self._replies: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Begin, unless it is too late already."""
        if self.done.called:
            self.transport.abortConnection()
            return
        if self._target.proxied:
            self.transport.write(LOCAL)
        if self._target.purpose is Purpose.IMPLICIT_TLS:
            self._start_tls()
        Deferred.fromCoroutine(self._talk()).addErrback(
            lambda failure: self.broken(failure.getErrorMessage())
        )

    async def _talk(self) -> None:
        await self._hear("the greeting")
        if self._target.purpose is Purpose.STLS:
            await self._ask(b"STLS")
            self._start_tls()
        await self._ask(b"USER " + NAME)
        await self._ask(b"PASS " + self.insider.password)
        await self._ask(b"STAT")
        await self._ask(b"QUIT")
        if not self.done.called:
            self.done.callback(None)

    async def _ask(self, command: bytes) -> None:
        self.transport.write(command + b"\r\n")
        await self._hear(f"the reply to {command[:4].decode()}")

    async def _hear(self, what: str) -> None:
        self._where = what
        self._replies = Deferred()
        line = await self._replies
        if not line.startswith(b"+OK"):
            raise ProbeError(f"{what} is {ascii(line)[2:-1]}")

    def _start_tls(self) -> None:
        # Whether the name in it is right, others look at; here it is said over and over.
        self.transport.startTLS(CertificateOptions(verify=False), not self.accepted)

    def lineReceived(self, line: bytes) -> None:
        """Take a reply."""
        if not self._replies.called:
            self._replies.callback(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; too early, unless all is done."""
        self.broken(f"the connection ended before {self._where} ({reason.getErrorMessage()})")

    def broken(self, why: str) -> None:
        """Give up, if it is not over."""
        if not self.done.called:
            self.done.errback(ProbeError(why))

    def too_late(self, _result: object, timeout: float) -> None:
        """Say what took too long."""
        raise ProbeError(f"{self._where} has taken longer than {timeout:g} s")

    def leave(self, result: object) -> object:
        """Be gone."""
        self.insider.announce(None)
        if self.transport is not None:
            self.transport.abortConnection()
        return result


class Watchman(Service):
    """Says to systemd that popd is ready when log-ins work, and again and again that they do.

    :param reactor: the process's.
    :param notifier: tells systemd.
    :param insider: whom the servers let in.
    :param where: returns where log-ins should work.
    :param crew: those who serve.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        reactor: Any,
        notifier: Notifier,
        insider: Insider,
        where: Callable[[], list[Target]],
        crew: Crew,
    ) -> None:
        self._reactor = reactor
        self._notifier = notifier
        self._insider = insider
        self._where = where
        self._crew = crew
        self._interval = notifier.watchdog_interval / 3
        self.trusting = False
        """Whether it is taken for granted that log-ins work: another popd listens here, too."""
        self._ready = False
        self._problem = ""
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = reactor

    def begin(self, popd: MultiService) -> None:
        """Become a part of popd, now that systemd knows no other."""
        self._notifier.muted = False
        self.setServiceParent(popd)

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        if self._interval:
            self._rounds.start(self._interval).addErrback(
                lambda failure: self._log.failure(
                    "No look any more at whether log-ins work", failure
                )
            )
        else:
            self._round()

    def stopService(self) -> None:
        """Look no more: it ends."""
        super().stopService()
        if self._rounds.running:
            self._rounds.stop()

    def _round(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        problem = "" if self.trusting else await self._first_problem()
        if not self.running:
            return
        if self.trusting:
            if not self._problem:
                self._notifier.watchdog()
            return
        if problem:
            self._log.error("No log-in works at {problem}", problem=problem)
        elif self._problem:
            self._log.info("Log-ins work again")
        self._problem = problem
        if not self._ready:
            # A popd that is no good says so too, rather than that its start takes for ever.
            self._ready = True
            self._notifier.ready()
        if not problem:
            self._notifier.watchdog()
        if problem:
            self._notifier.status(f"No log-in works at {problem}")
        else:
            # Which is not waited for: it takes seconds if one of many does not answer.
            self._crew.ask("count").addCallback(self._counted)

    def _counted(self, sessions: list[int]) -> None:
        if self.running and not self._problem:
            self._notifier.status(f"{sum(sessions)} sessions in {len(sessions)} processes")

    async def _first_problem(self) -> str:
        """Return where and why no log-in works; nothing if it works everywhere."""
        for target in self._where():
            timeout = min(TIMEOUT, self._interval or TIMEOUT)
            try:
                await probe(self._reactor, self._insider, target, timeout)
            except ProbeError as error:
                return f"{shown(target.address)}: {error}"
        return ""
