"""Listening TCP ports that make little ado about a connection."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from popd.server.transport import PromptServer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from popd.server.factory import POP3Factory
    from popd.server.tls import ServerTLS

__all__ = ["Lobby", "PromptPort", "make_prompt", "share"]

_log: Final = Logger()

_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})

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

    def doRead(self) -> None:
        """Accept one connection; if there are more, the reactor will soon be back."""
        try:
            # What `accept` does besides is to look up again what kind of socket this is.
            descriptor, client = self.socket._accept()  # noqa: SLF001
        except BlockingIOError:
            return  # another process was faster
        except OSError:
            super().doRead()  # which knows what to do when there are no more descriptors
            return
        connection = socket.socket(self.addressFamily, self.socketType, 0, descriptor)
        try:
            self._serve(connection, client)
        except Exception:  # noqa: BLE001 - the port stays
            _log.failure("Connection not served")
            connection.close()

    def _serve(self, connection: socket.socket, client: Any) -> None:
        lobby = self.factory
        if lobby.target is None:
            connection.close()
            return
        if len(client) > 2 and client[3]:  # noqa: PLR2004 - IPv6, with a scope that belongs to it
            client = (socket.getnameinfo(client, _NUMERIC)[0], *client[1:])
        protocol = lobby.target.buildProtocol(None)
        self.sessionno += 1
        transport = PromptServer(connection, protocol, client, self, self.sessionno, self.reactor)
        if lobby.tls is not None:
            transport.startTLS(lobby.tls)
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
