"""TLS straight from the socket.

Twisted lets OpenSSL read from memory and write to memory, carries the octets between that and the
socket, and stacks a protocol on a protocol for it.  With the socket in OpenSSL's own hands there is
nothing to carry, and what a slow client does not read is held once, not in plaintext and encrypted.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet import abstract
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.main import CONNECTION_LOST
from zope.interface import implementer

from popd.server.transport import READ, PromptServer

if TYPE_CHECKING:
    from popd.server.tls import ServerTLS

__all__ = ["PromptTLSServer"]


@implementer(ISSLTransport)
class PromptTLSServer(PromptServer):
    """The server's end of a TLS connection, made of that of a TCP connection."""

    _shaking = True  # hands are not shaken yet
    _blocked = False  # OpenSSL cannot read before it has written
    _unsent = b""  # what was written before hands were shaken

    _ssl: SSL.Connection

    @classmethod
    def take_over(cls, transport: PromptServer, tls: ServerTLS) -> None:
        """Let *transport* speak TLS.  The client begins; until then there is nothing to say."""
        connection = SSL.Connection(tls.context, transport.socket)
        connection.set_accept_state()
        transport.__class__ = cls
        transport._ssl = connection  # type: ignore[attr-defined]  # noqa: SLF001 - its own by now

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Refuse: TLS runs."""
        raise RuntimeError("TLS runs already")

    def getHandle(self) -> SSL.Connection:  # type: ignore[override]  # as Twisted's own under TLS
        """Return OpenSSL's end of the connection (`ISSLTransport`)."""
        return self._ssl

    def getPeerCertificate(self) -> Any:
        """Return the client's certificate, or None (`ISSLTransport`)."""
        return self._ssl.get_peer_certificate()

    def doRead(self) -> Any:
        """Read one record, and give what is in it to the protocol; or go on shaking hands."""
        try:
            if self._shaking:
                self._ssl.do_handshake()
                self._shaken()
                return None
            data = self._ssl.recv(READ)
        except SSL.WantReadError:
            return None
        except SSL.WantWriteError:
            self._blocked = True
            self.startWriting()
            return None
        except SSL.ZeroReturnError:
            self._client_is_done()
            return None
        except SSL.Error as error:
            return error if self._shaking else CONNECTION_LOST
        self.protocol.dataReceived(data)
        return None

    def doWrite(self) -> Any:
        """Send what waits to be sent; read, if that waited for it."""
        if self._blocked:
            self._blocked = False
            if not self.dataBuffer and not self._tempDataLen:
                self.stopWriting()
            return self.doRead()
        return super().doWrite()

    def write(self, data: bytes) -> None:
        """Send *data*; before hands are shaken, keep it for then."""
        if self._shaking:
            self._unsent += data
        else:
            super().write(data)

    def send(self, data: Any) -> int:
        """Send what can be sent of *data* now; return how many octets that is."""
        try:
            return self._send(data)
        except SSL.Error:  # which it was, `writeSomeData` will find out
            return 0

    def writeSomeData(self, data: Any) -> Any:
        """Send something of *data*; return how many octets, or what is wrong."""
        try:
            return self._send(data)
        except SSL.Error:
            return CONNECTION_LOST

    def loseConnection(self) -> None:
        """Say that there is no more, and close when the client has said so too."""
        if self._shaking:
            self.abortConnection()
        elif self.producer or self.dataBuffer or self._tempDataLen:
            abstract.FileDescriptor.loseConnection(self)
        elif self.connected and not self.disconnecting:
            self.disconnecting = True
            self._say_goodbye()

    def _postLoseConnection(self) -> None:
        """Everything is sent, and `loseConnection` waited for that."""
        self._say_goodbye()

    def _send(self, data: Any) -> int:
        sent = 0
        with suppress(SSL.WantWriteError, SSL.WantReadError):
            sent = self._ssl.send(data)
            while sent < len(data):  # OpenSSL sends one record, of 16 KiB at most, at a time
                sent += self._ssl.send(memoryview(data)[sent:])
        return sent

    def _shaken(self) -> None:
        self._shaking = False
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self.write(unsent)

    def _say_goodbye(self) -> None:
        """Send ``close_notify``; close if the client's has come."""
        both = True
        with suppress(SSL.Error):
            both = self._ssl.shutdown()
        if both:
            self.close()

    def _client_is_done(self) -> None:
        """The client's ``close_notify`` has come: it sends no more, but may still read."""
        if self.disconnecting and not (self.dataBuffer or self._tempDataLen):
            self.close()
            return
        self.stopReading()
        self.protocol.readConnectionLost()
