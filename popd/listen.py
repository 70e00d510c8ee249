"""Listening: a service that has its port before the start is over, or ends the start."""

from __future__ import annotations

import errno
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from popd.server.port import make_prompt, share

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IProtocolFactory,
        IStreamServerEndpoint,
    )

__all__ = ["Listener", "Purpose", "StartError", "parse_endpoint", "shown"]

_MAX_PORT: Final = 65535

_BACKLOG: Final = 4096
"""How many clients may wait to be accepted where systemd listens, also while popd is restarted.
The system may allow fewer: net.core.somaxconn, see listen(2)."""

_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "root may, and twistd --uid USER hands popd over to a user after that",
}


class Purpose(Enum):
    """What is spoken where popd listens."""

    CLEARTEXT = "cleartext, without TLS"
    STLS = "cleartext with STLS"
    IMPLICIT_TLS = "implicit TLS"
    STATUS = "HTTP, the status page"


class StartError(SystemExit, Exception):
    """popd cannot start: one line on stderr for whoever starts it, and exit status 1.

    It is a SystemExit so that no traceback follows, and an Exception as well so that twistd tidies
    up: it removes its PID file and tells the parent of a daemon, who waits to hear.
    """

    def __init__(self, problem: str) -> None:
        problem = " ".join(problem.split())
        super().__init__(problem)
        self.code = f"twistd popd: {problem}"


def parse_endpoint(reactor: object, option: str, description: str) -> IStreamServerEndpoint:
    """Return the endpoint that *description* means.

    :raises StartError: it means none; the text names *option*.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except LookupError as error:
        raise StartError(f"{option} {description}: systemd handed over no such socket") from error
    except Exception as error:
        raise StartError(
            f"{option} {description}: this is no endpoint like tcp:110, tcp:110:interface=127.0.0.1"
            f" or unix:/run/popd ({type(error).__name__}: {error})"
        ) from error
    # Seen only when it is too late: the other ports are bound by then.
    if not 0 <= getattr(endpoint, "_port", 0) <= _MAX_PORT:
        raise StartError(f"{option} {description}: ports go up to {_MAX_PORT}")
    return endpoint


class Listener(Service):
    """Listens on an endpoint for as long as the service runs, and says in the log where.

    Unlike Twisted's own StreamServerEndpointService it never stays up without its port.

    :param endpoint: where to listen.
    :param factory: makes the protocols.
    :param purpose: what is spoken there.
    :param shown: what error texts call the endpoint.
    :param give_up: called if the endpoint, having taken its time, could not listen after all.
    :param accepting: whether to accept connections; if not, `accept` does, in another process.
    """

    _log: ClassVar = Logger()

    address: IAddress | None = None
    """Where this really listens, once it does."""

    kind: str = ""
    """Which kind of endpoint it is, such as ``tcp``, if that is known."""

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        purpose: Purpose,
        shown: str,
        give_up: Callable[[StartError], None],
        *,
        accepting: bool = True,
    ) -> None:
        self.purpose = purpose
        self._endpoint = endpoint
        self._factory = factory
        self.shown = shown
        self._give_up = self._refuse = give_up
        self._accepting = accepting
        self._port: Deferred[IListeningPort | None] | None = None
        self._live: Any = None  # the port, once it listens

    @property
    def bound(self) -> socket | None:
        """The socket that this listens on, if it does."""
        return getattr(self._live, "socket", None)

    def privilegedStartService(self) -> None:
        """Listen, while there still are the privileges for low ports.

        :raises StartError: the port cannot be had.
        """
        if self._port is not None:
            return
        super().privilegedStartService()
        refusals: list[StartError] = []
        self._refuse = refusals.append
        self._port = Deferred.fromCoroutine(self._listen())
        if refusals:
            raise refusals[0]
        self._refuse = self._give_up

    def startService(self) -> None:
        """Listen, if `privilegedStartService` was not called."""
        super().startService()
        if self._port is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections go on."""
        super().stopService()
        waiting, self._port, self._live = self._port, None, None
        return Deferred.fromCoroutine(self._stop(waiting))

    def accept(self, reactor: Any) -> None:
        """Accept connections in a forked process, whose reactor this is."""
        if self._port is not None:
            self._port.addCallback(_move, reactor)

    def leave(self) -> None:
        """Accept no more connections in a forked process; others, which have the socket too, do."""
        if self._port is not None:
            self._port.addCallback(_leave)

    def hand_over(self) -> None:
        """Accept no more connections: another popd does, which has the socket too."""
        if self._live is not None:
            share(self._live)
            _leave(self._live)
        self._port = self._live = None

    async def _stop(self, waiting: Deferred[IListeningPort | None] | None) -> None:
        if waiting is None:
            return
        waiting.cancel()
        port = await waiting
        if port is not None:
            await (port.stopListening() or succeed(None))

    async def _listen(self) -> Any:
        try:
            port: Any = await self._endpoint.listen(self._factory)
        except CancelledError:
            return None
        except Exception as error:  # noqa: BLE001 - endpoints fail in ways of their own
            self._refuse(self._refusal(error))
            return None
        make_prompt(port)
        if self.kind == "systemd":
            port.socket.listen(_BACKLOG)  # Twisted has just made it 50
        if not self._accepting:
            port.stopReading()
            port._shouldShutdown = False  # noqa: SLF001 - it would end it for all processes
        self._live = port
        self.address = port.getHost()
        self._log.info(
            "Listening on {address}, {purpose}",
            address=shown(self.address),
            purpose=self.purpose.value,
        )
        return port

    def _refusal(self, error: Exception) -> StartError:
        cause = error.socketError if isinstance(error, CannotListenError) else error
        reason, hint = str(cause), ""
        if isinstance(cause, OSError):
            reason = cause.strerror or reason
            hint = _HINTS.get(cause.errno or 0, "")
        return StartError(f"{self.shown}: cannot listen: {reason}{hint and f' ({hint})'}")


def _move(port: Any, reactor: Any) -> Any:
    if port is not None:
        share(port)
        port.reactor = reactor
        port.startReading()
    return port


def _leave(port: Any) -> Any:
    if port is not None and port.socket.fileno() >= 0:
        port.stopReading()
        port.socket.close()
    return port


def shown(address: IAddress) -> str:
    """Return *address* as people write it: a host and a port, or a path."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return address.name.decode(errors="backslashreplace")
    return str(address)
