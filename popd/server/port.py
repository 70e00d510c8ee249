"""Listening TCP ports that make little ado about a connection."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from popd.server.introduction import Introducing
from popd.server.transport import PromptServer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from popd.protocol.proxy import Introduction
    from popd.server.factory import POP3Factory
    from popd.server.tls import ServerTLS

__all__ = ["PAUSE", "Lobby", "PromptPort", "make_prompt", "share"]

PAUSE: Final = 1.0
"""Seconds without new connections, after there was no descriptor or memory left for one."""

_log: Final = Logger()

_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})

_ROOM: Final = 8
"""How many sessions that have not logged in are let go then."""

_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The errors of accept(2) that mean that there is no room now."""

_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Lobby(Factory):
    """What listens for connections before it is known who will serve them.

    :param tls: the server's end of TLS, if that runs from the first octet (RFC 8314).
    """

    noisy = False

    target: POP3Factory | None = None
    """The factory that serves them, from when on that is known."""

    def __init__(self, tls: ServerTLS | None = None) -> None:
        self.tls = tls

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Let the target do it, behind TLS if need be; a connection that is too early is closed.

        This is for ports that know of no other way; `PromptPort` does.
        """
        if self.target is None or self.tls is None:
            return self.target and self.target.buildProtocol(addr)
        return TLSMemoryBIOFactory(self.tls, False, self.target).buildProtocol(addr)


class PromptPort(tcp.Port):
    """A listening TCP port.  `make_prompt` makes one of Twisted's."""

    factory: Lobby
    reactor: Any
    socket: Any

    _pause: Any = None  # until connections are accepted again

    def doRead(self) -> None:
        """Accept one connection; if there are more, the reactor will soon be back."""
        try:
            # What `accept` does besides is to look up again what kind of socket this is.
            descriptor, client = self.socket._accept()  # noqa: SLF001
        except BlockingIOError:
            return  # another process was faster
        except OSError as error:
            if error.errno in _SHORT:
                self._wait_for_room(error)
            else:  # the client went already, or its network has troubles
                _log.info("Connection not accepted: {error}", error=error)
            return
        connection = socket.socket(self.addressFamily, self.socketType, 0, descriptor)
        try:
            self._receive(connection, client)
        except Exception:  # noqa: BLE001 - the port stays
            _log.failure("Connection not served")
            connection.close()

    def stopReading(self) -> None:
        """Accept no more connections."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        super().stopReading()

    def _wait_for_room(self, error: OSError) -> None:
        """Let the oldest who has not logged in go, and accept nobody for a moment.

        The connection stays in the queue, and would have the reactor try again without end.
        """
        target = self.factory.target
        if target is not None:
            for _ in range(_ROOM):
                target.gate.make_room()
            target.journal.limited(None, "", "file-descriptors")
            target.gate.sparing.warn(
                "accept", f"Nobody new is served for a moment: {os.strerror(error.errno or 0)}"
            )
        self.stopReading()
        self._pause = self.reactor.callLater(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self.startReading()

    def _receive(self, connection: socket.socket, client: Any) -> None:
        """Serve a connection, after its proxy's header if it must have one."""
        target = self.factory.target
        if target is None:
            connection.close()
        elif (
            target.gate.proxies is not None
            and client[0] in target.gate.proxies
            and not target.insider.is_at(IPv4Address("TCP", *client[:2]))
        ):
            Introducing(
                connection,
                client[0],
                target,
                self.reactor,
                lambda introduction: self._serve(target, connection, client, introduction),
            )
        else:
            self._serve(target, connection, client)

    def _serve(
        self,
        target: POP3Factory,
        connection: socket.socket,
        client: Any,
        introduction: Introduction | None = None,
    ) -> None:
        if len(client) > 2 and client[3]:  # noqa: PLR2004 - IPv6, with a scope that belongs to it
            client = (socket.getnameinfo(client, _NUMERIC)[0], *client[1:])
        protocol = target.buildProtocol(None)
        protocol.introduction = introduction
        self.sessionno += 1
        transport = PromptServer(connection, protocol, client, self, self.sessionno, self.reactor)
        tls = self.factory.tls
        if tls is not None:
            transport.startTLS(tls)
        protocol.makeConnection(transport)


def make_prompt(port: Any) -> None:
    """Let a TCP port whose connections go straight to a lobby, and they, be prompt.

    Ports of other kinds, and ports with something in between, stay what they are.
    """
    if getattr(port, "addressFamily", None) in _INTERNET:
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        if type(port) is tcp.Port and isinstance(port.factory, Lobby):
            port.__class__ = PromptPort


class _SharedUNIXPort(unix.Port):
    """A listening UNIX socket that others listen on as well: its path stays when this closes."""

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


def share(port: Any) -> None:
    """Let other processes go on listening on a port of theirs when this one does no more."""
    port._shouldShutdown = False  # noqa: SLF001
    if type(port) is unix.Port:
        port.__class__ = _SharedUNIXPort
