"""TCP connections that send at once what the kernel takes.

Twisted keeps what is written until the next turn of the reactor.  A server that answers as soon as
it is asked then pays for two calls of epoll_ctl and a wake-up with every reply, more than for
the reply itself.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

from twisted.internet import abstract, tcp
from twisted.internet.address import IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from popd.server.connection import Connection
from popd.server.reactor import LeanReactor
from popd.server.tls_transport import start_tls

__all__ = ["PromptPort", "PromptServer", "make_prompt"]

_log: Final = Logger()

_DONE: Final = Failure(CONNECTION_DONE)

_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})

_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

_MORE: Final = getattr(socket, "MSG_MORE", 0)
"""Says to the kernel that more follows, so that it waits for that with sending."""


class _PromptConnection(abstract.FileDescriptor):
    """The plain connection: what `PromptServer` is, and what TLS is spoken through."""

    protocol: Any
    socket: Any

    def write(self, data: bytes) -> None:
        """Send *data*, or as much as the kernel takes; keep the rest for later."""
        if self.connected and not (self.disconnecting or self._tempDataLen or self.dataBuffer):
            # The last words and the end of the connection go in one segment.
            last = isinstance(self.protocol, Connection) and self.protocol.over
            try:
                sent = self.socket.send(data, _MORE if last else 0)
            except OSError:  # which it was, the reactor will find out
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        abstract.FileDescriptor.write(self, data)


class PromptServer(tcp.Server):
    """The server's end of a TCP connection."""

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Speak TLS from now on."""
        start_tls(self, ctx, _PromptConnection)

    _shouldShutdown = False  # no other process has the socket, and the prompt way does it itself

    bufferSize = 16_384
    """How much is read at once, and how much may wait to be sent before the client counts as slow.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        number: int,
        reactor: Any,
    ) -> None:
        abstract.FileDescriptor.__init__(self, reactor)
        sock.setblocking(False)
        self.socket, self.fileno, self.protocol = sock, sock.fileno, protocol
        self.client, self.server, self.sessionno = client, server, number
        if len(client) != 2:  # noqa: PLR2004 - IPv6 has a flow and a scope besides
            self._addressType = IPv6Address
        reactor.addReader(self)
        self.connected = 1

    def __repr__(self) -> str:
        """Return who talks to whom, for logs."""
        return f"<{type(self.protocol).__name__} #{self.sessionno} from {self.client[0]}>"

    def logPrefix(self) -> str:
        """Return what Twisted's old way of logging puts in front of lines."""
        return f"{type(self.protocol).__name__},{self.sessionno},{self.client[0]}"

    def doRead(self) -> Any:
        """Read what has arrived, and give it to the protocol."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def loseConnection(self) -> None:
        """Close; at once, if nothing is left to be sent."""
        if (
            self.connected
            and isinstance(self.protocol, Connection)  # neither TLS nor a proxy's header before it
            and not (self.TLS or self.disconnecting or self.producer)
            and not (self._tempDataLen or self.dataBuffer)
        ):
            self.disconnecting = True
            with suppress(OSError):  # to close while there is something to read would drop the rest
                self.socket.shutdown(socket.SHUT_WR)
            self._close()
        else:
            super().loseConnection()

    def _close(self) -> None:
        """Do what `connectionLost` does when there is nobody else to tell."""
        self.connected, self.disconnected = 0, 1
        if isinstance(self.reactor, LeanReactor):
            self.reactor.forget(self.socket.fileno())
        else:
            self.stopReading()
        protocol = self.protocol
        self.socket.close()
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(_DONE)

    def write(self, data: bytes) -> None:
        """Send *data*, through TLS if that was started."""
        if self.TLS:
            super().write(data)
        else:
            _PromptConnection.write(self, data)  # type: ignore[arg-type]


class PromptPort(tcp.Port):
    """A listening TCP port that makes little ado about a connection."""

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
        if len(client) > 2 and client[3]:  # noqa: PLR2004 - IPv6, with a scope that belongs to it
            client = (socket.getnameinfo(client, _NUMERIC)[0], *client[1:])
        try:
            protocol: Any = self.factory.buildProtocol(None)  # type: ignore[union-attr]
            if protocol is None:
                connection.close()
                return
            self.sessionno += 1
            protocol.makeConnection(
                PromptServer(connection, protocol, client, self, self.sessionno, self.reactor)
            )
        except Exception:  # noqa: BLE001 - the port stays
            _log.failure("Connection not served")
            connection.close()


def make_prompt(port: Any, factory: object) -> None:
    """Let a TCP port and its connections be prompt; other kinds of ports stay what they are.

    :param factory: makes the protocols, and does not ask for an address: the transport tells it.
    """
    if getattr(port, "addressFamily", None) in _INTERNET:
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    if type(port) is tcp.Port and port.factory is factory:
        port.__class__ = PromptPort
    elif getattr(port, "transport", None) is tcp.Server:
        port.transport = PromptServer
