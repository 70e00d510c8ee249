"""Tests of `popd.server.tls_transport`: real sockets, but no reactor that turns by itself."""

from __future__ import annotations

import contextlib
import select
import socket
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from popd.server.bindings import tls_reason
from popd.server.tls import ServerTLS, load_context
from popd.server.transport import PromptServer

LARGE = 8_000_000
"""Octets that are more than the kernel takes of a connection."""


@implementer(IHandshakeListener)
class Greeter:
    """Says something at once, and remembers what it hears and how it ended."""

    over = False

    def __init__(self) -> None:
        self.heard = b""
        self.happened: list[str] = []
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Write before hands are shaken."""
        self.transport = transport
        transport.registerProducer(self, True)
        transport.write(b"+OK hello\r\n")

    def handshakeCompleted(self) -> None:
        """Remember it."""
        self.happened.append("shaken")

    def dataReceived(self, data: bytes) -> None:
        """Remember it."""
        self.heard += data

    def readConnectionLost(self) -> None:
        """Remember it."""
        self.happened.append("end of input")

    def connectionLost(self, reason: Any = None) -> None:
        """Remember it."""
        self.happened.append("lost")

    def pauseProducing(self) -> None:
        """Remember it."""
        self.happened.append("pause")

    def resumeProducing(self) -> None:
        """Remember it."""
        self.happened.append("resume")

    def stopProducing(self) -> None:
        """Remember it."""
        self.happened.append("stop")


class TLSTests(SynchronousTestCase):
    """A connection on which TLS starts, and a client that trusts anybody."""

    def setUp(self) -> None:
        """Connect, and begin TLS."""
        path = self.mktemp()
        issued = trustme.CA().issue_cert("mail.example.org")
        Path(path).write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        self.tls: ServerTLS = load_context([path])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        self.addCleanup(self.socket.close)
        self.addCleanup(server.close)
        self.socket.setblocking(False)
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), self.socket)
        self.client.set_connect_state()
        self.reactor: Any = MemoryReactor()
        self.greeter = Greeter()
        self.transport: Any = PromptServer(
            server, self.greeter, ("192.0.2.1", 1), None, 0, self.reactor
        )
        self.transport.startTLS(self.tls)
        self.greeter.makeConnection(self.transport)

    def read(self, octets: int) -> bytes:
        """Return what the client reads next; the kernel may take a moment."""
        read = b""
        while len(read) < octets:
            try:
                read += self.client.recv(1 << 17)
            except SSL.WantReadError:
                if not select.select([self.socket], [], [], 10)[0]:
                    break
        return read

    def goodbye(self) -> None:
        """Wait for ``close_notify``."""
        with self.assertRaises(SSL.ZeroReturnError):
            self.read(1)

    def hear(self, heard: bytes) -> None:
        """Let the server read until it has heard so much."""
        while self.greeter.heard != heard and select.select([self.transport.socket], [], [], 10)[0]:
            self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.greeter.heard, heard)

    def shake(self) -> bytes:
        """Shake hands; return what the client then reads."""
        while "shaken" not in self.greeter.happened:
            with contextlib.suppress(SSL.WantReadError):
                self.client.do_handshake()
            self.assertIsNone(self.transport.doRead())
        return self.read(len(b"+OK hello\r\n"))

    def writing(self) -> bool:
        """Tell whether the reactor was asked to say when the client reads."""
        return self.transport in self.reactor.getWriters()

    def test_interface(self) -> None:
        """It is a TLS transport, and TLS starts once."""
        self.assertTrue(ISSLTransport.providedBy(self.transport))
        self.assertRaises(RuntimeError, self.transport.startTLS, self.tls)

    def test_before_the_handshake(self) -> None:
        """What is written before hands are shaken waits for that, and nobody waits to write."""
        self.assertFalse(self.writing())
        self.assertEqual(self.shake(), b"+OK hello\r\n")
        self.assertEqual(self.greeter.happened, ["shaken"])
        self.assertEqual(self.transport.getHandle().get_protocol_version_name(), "TLSv1.3")
        self.assertIsNone(self.transport.getPeerCertificate())

    def test_at_once(self) -> None:
        """What is written is sent at once, however many records it takes."""
        self.shake()
        for length in (1, 16_384, 65_536, 200_000):
            self.transport.write(b"x" * length)
            self.assertFalse(self.writing())
            self.assertEqual(self.read(length), b"x" * length)

    def test_commands(self) -> None:
        """What the client says arrives, a record at a time; without any, nothing happens."""
        self.shake()
        self.client.send(b"NOOP\r\n")
        self.client.send(b"QUIT\r\n")
        self.hear(b"NOOP\r\n")
        self.hear(b"NOOP\r\nQUIT\r\n")
        self.assertIsNone(self.transport.doRead())

    def test_full(self) -> None:
        """What the kernel does not take is kept, and the producer told to pause."""
        self.shake()
        self.transport.write(b"x" * LARGE)
        self.transport.write(b"y")
        self.assertTrue(self.writing())
        self.assertEqual(self.greeter.happened[:2], ["shaken", "pause"])
        received = b""
        while self.writing():
            received += self.read(1)
            self.assertIsNone(self.transport.doWrite())
        self.assertLess(len(received), LARGE)
        received += self.read(LARGE + 1 - len(received))
        self.assertEqual(received, b"x" * LARGE + b"y")
        self.assertEqual(self.greeter.happened[-1], "resume")

    def test_no_tls(self) -> None:
        """A client that does not speak TLS is lost, and it is known why."""
        self.socket.send(b"CAPA\r\nQUIT\r\n")
        select.select([self.transport.socket], [], [], 10)
        self.assertEqual(tls_reason(self.transport.doRead()), "wrong version number")

    def test_end_without_goodbye(self) -> None:
        """A connection that ends without ``close_notify`` is lost."""
        self.shake()
        self.socket.close()
        select.select([self.transport.socket], [], [], 10)
        self.assertIs(self.transport.doRead(), CONNECTION_LOST)

    def test_end_of_input(self) -> None:
        """A client that says that it sends no more can still be answered."""
        self.shake()
        self.transport.unregisterProducer()
        self.client.send(b"QUIT\r\n")
        self.client.shutdown()
        self.hear(b"QUIT\r\n")
        select.select([self.transport.socket], [], [], 10)
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.greeter.happened, ["shaken", "end of input"])
        self.assertEqual(self.reactor.getReaders(), [])
        self.transport.write(b"+OK bye\r\n")
        self.assertEqual(self.read(9), b"+OK bye\r\n")
        self.transport.loseConnection()
        self.assertEqual(self.greeter.happened[2:], ["lost"])
        self.goodbye()

    def test_close(self) -> None:
        """A connection ends with ``close_notify`` both ways; what comes late is taken."""
        self.shake()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.client.send(b"NOOP\r\n")
        self.goodbye()
        self.client.shutdown()
        self.hear(b"NOOP\r\n")
        self.assertEqual(self.greeter.happened, ["shaken"])
        select.select([self.transport.socket], [], [], 10)
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.greeter.happened, ["shaken", "lost"])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_close_when_sent(self) -> None:
        """With something left to be sent, ``close_notify`` waits for that."""
        self.shake()
        self.transport.write(b"x" * LARGE)
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        received = 0
        while self.writing():
            received += len(self.read(1))
            self.assertIsNone(self.transport.doWrite())
        self.assertEqual(len(self.read(LARGE - received)), LARGE - received)
        self.goodbye()
        self.client.shutdown()
        select.select([self.transport.socket], [], [], 10)
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.greeter.happened[-1], "lost")

    def test_close_early(self) -> None:
        """Before hands are shaken there is nobody to say goodbye to."""
        aborted: list[bool] = []
        self.transport.abortConnection = lambda: aborted.append(True)
        self.transport.loseConnection()
        self.assertEqual(aborted, [True])

    def test_broken(self) -> None:
        """An error of OpenSSL's in a write is left for the reactor to find."""
        self.shake()

        class Broken:
            def send(self, _: bytes) -> int:
                raise SSL.Error([("SSL routines", "", "broken")])

            def shutdown(self) -> bool:
                raise SSL.Error([("SSL routines", "", "broken")])

        self.transport._ssl = Broken()
        self.transport.write(b"x")
        self.assertTrue(self.writing())
        self.assertIs(self.transport.doWrite(), CONNECTION_LOST)

    def test_blocked(self) -> None:
        """Where OpenSSL has to write before it can read, it reads once it has written."""
        self.shake()

        class Blocked:
            def recv(self, _: int) -> bytes:
                raise SSL.WantWriteError

        ours, self.transport._ssl = self.transport._ssl, Blocked()
        self.assertIsNone(self.transport.doRead())
        self.assertTrue(self.writing())
        self.transport._ssl = ours
        self.client.send(b"NOOP\r\n")
        select.select([self.transport.socket], [], [], 10)
        self.assertIsNone(self.transport.doWrite())
        self.assertFalse(self.writing())
        self.assertEqual(self.greeter.heard, b"NOOP\r\n")


class NotReadTests(SynchronousTestCase):
    """A client that sends STLS, and reads nothing."""

    def test_cut_off(self) -> None:
        """What was said in the clear cannot be sent any more: the connection is cut."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        greeter, reactor = Greeter(), MemoryReactor()
        transport: Any = PromptServer(ours, greeter, ("192.0.2.1", 1), None, 0, reactor)
        aborted: list[bool] = []
        transport.abortConnection = lambda: aborted.append(True)
        transport.write(b"x" * LARGE)
        transport.startTLS(None)
        self.assertEqual(aborted, [True])
        self.assertIs(type(transport), PromptServer)
