"""Tests of `popd.server.tls_transport`: both ends in memory, or a socket without a reactor."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from popd.server.tls import ServerTLS, load_context
from popd.server.tls_transport import PromptTLSFactory
from popd.server.transport import PromptServer


class Greeter(Protocol):
    """Says something at once, and remembers what it hears and how it ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.reason: Any = None
        self.producing: list[str] = []

    def connectionMade(self) -> None:
        """Write before hands are shaken."""
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self.transport.write(b"+OK hello\r\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Remember it."""
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        """Remember it."""
        self.reason = reason

    def pauseProducing(self) -> None:
        """Remember it."""
        self.producing.append("pause")

    def resumeProducing(self) -> None:
        """Remember it."""
        self.producing.append("resume")

    def stopProducing(self) -> None:
        """Remember it."""
        self.producing.append("stop")


class Pieces(StringTransport):
    """A transport that keeps apart what is written to it at different times."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.pieces.append(data)


class PromptCase(SynchronousTestCase):
    """A test case with a client that trusts anybody."""

    def setUp(self) -> None:
        """Make the client, and the server's certificate."""
        path = self.mktemp()
        issued = trustme.CA().issue_cert("mail.example.org")
        Path(path).write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        self.tls: ServerTLS = load_context([path])
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.client.set_connect_state()

    def said(self) -> bytes:
        """Return what the client's side of TLS wants to send."""
        with contextlib.suppress(SSL.WantReadError):
            self.client.do_handshake()
        try:
            return self.client.bio_read(1 << 17)
        except SSL.WantReadError:
            return b""

    def decrypted(self, data: bytes) -> bytes:
        """Return what the client reads when *data* arrives."""
        if data:
            self.client.bio_write(data)
        read = b""
        try:
            while True:
                read += self.client.recv(1 << 17)
        except SSL.WantReadError:
            return read


class ImplicitTests(PromptCase):
    """TLS from the first octet."""

    def setUp(self) -> None:
        """Connect."""
        super().setUp()
        factory = PromptTLSFactory(self.tls, Factory.forProtocol(Greeter))
        self.layer: Any = factory.buildProtocol(None)
        self.greeter: Any = self.layer.wrappedProtocol
        self.wire = Pieces()
        self.layer.makeConnection(self.wire)

    def shake(self) -> bytes:
        """Shake hands; return what the client then reads."""
        self.layer.dataReceived(self.said())
        self.decrypted(self.arrived())
        self.layer.dataReceived(self.said())
        return self.decrypted(self.arrived())

    def arrived(self) -> bytes:
        """Return what was sent since the last call."""
        pieces, self.wire.pieces = self.wire.pieces, []
        return b"".join(pieces)

    def test_interfaces(self) -> None:
        """It is a TLS transport, and what it runs over."""
        self.assertTrue(ISSLTransport.providedBy(self.layer))
        self.assertTrue(ITCPTransport.providedBy(self.layer))

    def test_before_the_handshake(self) -> None:
        """What is written before hands are shaken waits, as does its producer, for that."""
        self.assertEqual((self.wire.pieces, self.greeter.producing), ([], ["pause"]))
        self.assertEqual(self.shake(), b"+OK hello\r\n")
        self.assertEqual(self.greeter.producing, ["pause", "resume"])

    def test_with_the_tickets(self) -> None:
        """The greeting is sent along with the session tickets."""
        self.layer.dataReceived(self.said())
        self.decrypted(self.arrived())
        self.layer.dataReceived(self.said())
        self.assertEqual(len(self.wire.pieces), 1)

    def test_in_one_piece(self) -> None:
        """What is written is sent at once, as one piece though it takes many records."""
        self.shake()
        for length in (1, 16_384, 65_536, 1_000_000):
            sent = b"x" * length
            self.greeter.transport.write(sent)
            self.assertEqual(len(self.wire.pieces), 1)
            self.assertEqual(self.decrypted(self.arrived()), sent)

    def test_commands(self) -> None:
        """What the client says arrives."""
        self.shake()
        self.client.send(b"QUIT\r\n")
        self.layer.dataReceived(self.said())
        self.assertEqual(self.greeter.heard, b"QUIT\r\n")

    def test_no_tls(self) -> None:
        """A client that does not speak TLS is closed without a word, and nothing is written."""
        self.layer.dataReceived(b"CAPA\r\nQUIT\r\n")
        self.assertTrue(self.wire.disconnecting)
        self.layer.write(b"x")
        self.assertEqual(self.arrived(), b"")

    def test_broken(self) -> None:
        """An error of OpenSSL's in a write ends the connection, with that as the reason."""
        self.shake()

        class Broken:
            def send(self, _: bytes) -> int:
                raise SSL.Error([("SSL routines", "", "broken")])

            def bio_read(self, _: int) -> bytes:
                raise SSL.WantReadError

        self.layer._tlsConnection = Broken()
        self.greeter.transport.write(b"x")
        self.assertTrue(self.wire.disconnecting)
        self.layer.connectionLost(None)
        self.assertIn("broken", str(self.greeter.reason.value))


class STLSTests(PromptCase):
    """TLS that starts on a connection in the clear."""

    def test_start(self) -> None:
        """Everything goes through TLS from then on, at once; the producer stays."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        self.addCleanup(client.close)
        self.addCleanup(server.close)
        server.setblocking(False)
        greeter = Greeter()
        reactor: Any = MemoryReactor()
        transport: Any = PromptServer(server, greeter, ("192.0.2.1", 1), None, 0, reactor)
        greeter.makeConnection(transport)
        self.assertEqual(client.recv(100), b"+OK hello\r\n")
        transport.startTLS(self.tls)
        self.assertTrue(ISSLTransport.providedBy(transport))
        self.assertIs(greeter.transport, transport)
        for _ in range(2):
            client.sendall(self.said())
            transport.doRead()
            self.decrypted(client.recv(1 << 17))
        greeter.transport.write(b"+OK\r\n" * 3_000)  # type: ignore[union-attr]
        self.assertEqual(self.decrypted(client.recv(1 << 17)), b"+OK\r\n" * 3_000)
        self.assertEqual(reactor.getWriters(), [])
        self.client.send(b"NOOP\r\n")
        client.sendall(self.said())
        transport.doRead()
        self.assertEqual(greeter.heard, b"NOOP\r\n")
        greeter.transport.write(b"x" * 6_000_000)  # type: ignore[union-attr]
        self.assertEqual(greeter.producing, ["pause"])
        greeter.transport.unregisterProducer()  # type: ignore[union-attr]
        self.assertIsNone(transport.producer)
