"""TCP connections that send at once what the kernel takes.

Twisted keeps what is written until the next turn of the reactor.  A server that answers as soon as
it is asked then pays for two calls of epoll_ctl and a wake-up with every reply, more than for
the reply itself.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet import abstract, tcp
from twisted.internet.address import IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from popd.server.reactor import LeanReactor

__all__ = ["READ", "PromptServer"]

READ: Final = 16_384
"""How many octets are read at once; a TLS record has no more."""

_DONE: Final = Failure(CONNECTION_DONE)

_MORE: Final = getattr(socket, "MSG_MORE", 0)
"""Says to the kernel that more follows, so that it waits for that with sending."""


class PromptServer(tcp.Server):
    """The server's end of a TCP connection.

    It has one protocol all its life, a `popd.server.connection.Connection`.

    :param sock: the connection's socket.
    :param protocol: what is spoken on it.
    :param client: the other end's address, as `socket.socket.accept` returns it.
    :param server: the port that accepted the connection.
    :param number: which of the port's connections it is.
    :param reactor: watches the socket.
    """

    _shouldShutdown = False  # no other process has the socket, and the prompt way does it itself

    bufferSize = 4_096
    """How many octets may wait to be sent before the client counts as slow."""

    # Without a look whether Twisted's own TLS runs, which never does here.
    registerProducer = abstract.FileDescriptor.registerProducer
    unregisterProducer = abstract.FileDescriptor.unregisterProducer

    socket: Any
    protocol: Any
    reactor: Any

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

    @property
    def host(self) -> str:
        """The other end's IP address, which `getPeer` would make an object of."""
        return str(self.client[0])

    def __repr__(self) -> str:
        """Return who talks to whom, for logs."""
        return f"<{type(self.protocol).__name__} #{self.sessionno} from {self.client[0]}>"

    def logPrefix(self) -> str:
        """Return what Twisted's old way of logging puts in front of lines."""
        return f"{type(self.protocol).__name__},{self.sessionno},{self.client[0]}"

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Speak TLS from now on; *ctx* is a `popd.server.tls.ServerTLS`.

        A client that has not even read what was said in the clear is cut off.
        """
        from popd.server.tls_transport import PromptTLSServer  # noqa: PLC0415 - a subclass of this

        if self.dataBuffer or self._tempDataLen:
            self.abortConnection()
        else:
            PromptTLSServer.take_over(self, ctx)

    def doRead(self) -> Any:
        """Read what has arrived, and give it to the protocol."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """Send *data*, or as much as the kernel takes; keep the rest for later."""
        if self.connected and not (self.disconnecting or self._tempDataLen or self.dataBuffer):
            sent = self.send(data)
            if sent == len(data):
                return
            data = data[sent:]
        abstract.FileDescriptor.write(self, data)

    def send(self, data: bytes) -> int:
        """Send what can be sent of *data* now; return how many octets that is."""
        # The last words and the end of the connection go in one segment.
        flags = _MORE if self.protocol.over else 0
        try:
            return int(self.socket.send(data, flags))
        except OSError:  # which it was, the reactor will find out
            return 0

    def loseConnection(self) -> None:
        """Close; at once, if nothing is left to be sent."""
        if (
            not self.connected
            or self.disconnecting
            or self.producer
            or self._tempDataLen
            or self.dataBuffer
        ):
            super().loseConnection()
            return
        self.disconnecting = True
        # To close while there is something to read would drop the rest.
        try:  # noqa: SIM105 - in a third of the time
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close and tell the protocol: what `connectionLost` does, with less ado."""
        self.connected, self.disconnected = 0, 1
        if isinstance(self.reactor, LeanReactor):
            self.reactor.forget(self.socket.fileno())
        else:
            self.stopReading()
            self.stopWriting()
        protocol = self.protocol
        self.socket.close()
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(_DONE)
