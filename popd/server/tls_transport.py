"""TLS as Twisted speaks it, without what is slow for a server that answers as soon as it is asked.

Twisted keeps what is written under TLS until the next turn of the reactor, hands each record of
16 KiB to the kernel by itself, and takes time over what interfaces a connection has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from OpenSSL.SSL import Error, WantReadError
from twisted.internet._newtls import _BypassTLS
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

if TYPE_CHECKING:
    from popd.server.tls import ServerTLS

__all__ = ["PromptTLS", "PromptTLSFactory", "start_tls"]

_FLIGHT: Final = 4_096
"""Octets that are enough, mostly, for what TLS sends of its own accord."""


class PromptTLS(TLSMemoryBIOProtocol):
    """The server's end of a TLS connection, which sends at once what is written."""

    factory: Any
    transport: Any

    def makeConnection(self, transport: Any) -> None:
        """Get ready for the client's first octets; the server has nothing to say before them."""
        self._tlsConnection = self.factory.tls.serverConnectionForTLS(self)
        self._tlsConnection.set_accept_state()
        self._appSendBuffer: list[bytes] = []
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        if self._connectWrapped:
            ProtocolWrapper.makeConnection(self, transport)

    def _write(self, octets: bytes) -> None:
        """Encrypt *octets* and send all of it in one piece, or keep it until hands are shaken."""
        if self._lostTLSConnection:
            return
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[self._tlsConnection.send(rest) :]
        except WantReadError:
            self._bufferedWrite(bytes(rest))
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            # A record of up to 16 KiB grows by less than 32 octets.
            self._flushSendBIO(_FLIGHT + len(octets) + len(octets) // 512)

    def _flushSendBIO(self, size: int = _FLIGHT) -> None:
        """Send what OpenSSL has to send, *size* octets at a time."""
        try:
            while True:
                data = self._tlsConnection.bio_read(size)
                self.transport.write(data)
                if len(data) < size:
                    break
        except WantReadError:
            pass


class PromptTLSFactory(WrappingFactory[PromptTLS]):
    """Puts TLS around the protocols of another factory.

    :param tls: the server's end of TLS.
    :param wrapped: the other factory; None if TLS starts later, with STLS.
    """

    protocol = PromptTLS
    noisy = False

    def __init__(self, tls: ServerTLS, wrapped: Any = None) -> None:
        super().__init__(wrapped)
        self.tls = tls


def start_tls(transport: Any, tls: ServerTLS, plain: Any) -> None:
    """Put TLS between a TCP connection and its protocol, as Twisted's ``startTLS`` does.

    :param plain: the class whose methods send through *transport* without TLS.
    """
    producer = transport.producer
    if producer is not None:
        transport.unregisterProducer()
    layer = PromptTLS(PromptTLSFactory(tls), transport.protocol, False)
    transport.protocol = layer
    transport.TLS = True
    directlyProvides(transport, ISSLTransport)
    layer.makeConnection(_BypassTLS(plain, transport))
    if producer is not None:
        transport.registerProducer(producer, True)
