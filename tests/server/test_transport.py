"""Tests of `popd.server.transport`: real sockets, but no reactor that turns by itself."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from popd.server.connection import Connection
from popd.server.reactor import make_lean
from popd.server.transport import PromptServer
from popd.server.watch import Watch


class Unfinished(Protocol):
    """A protocol with more to say."""

    over = False


class Silent(Connection):
    """A connection on which nothing is said."""

    backlog = 0

    def step(self) -> None:
        """There is nothing to do."""

    def deadline(self) -> float:
        """Return some time."""
        return 60.0

    def release(self) -> None:
        """Nothing is held."""


class PromptTests(SynchronousTestCase):
    """What is written goes to the kernel at once."""

    def setUp(self) -> None:
        """Make a connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        self.addCleanup(self.client.close)
        self.addCleanup(server.close)
        server.setblocking(False)
        self.client.setblocking(False)
        self.reactor: Any = MemoryReactor()
        self.transport: Any = PromptServer(
            server,
            Unfinished(),
            ("192.0.2.1", 1),
            None,
            0,
            self.reactor,
        )

    def read(self) -> bytes:
        """Return what has arrived."""
        received = b""
        try:
            while data := self.client.recv(1 << 20):
                received += data
        except BlockingIOError:
            pass
        return received

    def writing(self) -> bool:
        """Tell whether the reactor was asked to say when the client reads."""
        return self.transport in self.reactor.getWriters()

    def test_at_once(self) -> None:
        """A reply arrives without a turn of the reactor."""
        self.transport.write(b"+OK\r\n")
        self.assertEqual(self.read(), b"+OK\r\n")
        self.assertFalse(self.writing())

    def test_full(self) -> None:
        """What the kernel does not take is kept, and what follows stays behind it."""
        big = b"x" * 4_000_000
        self.transport.write(big)
        self.transport.write(b"y")
        self.assertTrue(self.writing())
        received = self.read()
        self.assertLess(len(received), len(big))
        while self.writing():
            self.transport.doWrite()
            received += self.read()
        self.assertEqual(received, big + b"y")
        self.transport.write(b"z")
        self.assertEqual(self.read(), b"z")

    def test_client_gone(self) -> None:
        """An error is left for the reactor to find."""
        self.client.close()
        self.transport.write(b"x")
        self.transport.write(b"x")
        self.assertTrue(self.writing())

    def test_reading(self) -> None:
        """What arrives is given to the protocol; the end and errors are told to the reactor."""
        received: list[bytes] = []
        self.transport.protocol.dataReceived = received.append
        self.assertIsNone(self.transport.doRead())
        self.client.send(b"QUIT\r\n")
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(received, [b"QUIT\r\n"])
        self.client.shutdown(socket.SHUT_WR)
        self.assertIs(self.transport.doRead(), CONNECTION_DONE)

    def test_reset(self) -> None:
        """A connection that is reset is an error."""
        linger = struct.pack("ii", 1, 0)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.client.close()
        self.assertIs(self.transport.doRead(), CONNECTION_LOST)

    def test_names(self) -> None:
        """A connection says who it is with."""
        self.assertEqual(repr(self.transport), "<Unfinished #0 from 192.0.2.1>")
        self.assertEqual(self.transport.logPrefix(), "Unfinished,0,192.0.2.1")
        self.assertEqual(self.transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 1))

    def test_ipv6(self) -> None:
        """An IPv6 address is one."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        address = ("2001:db8::1", 1, 0, 0)
        transport = PromptServer(ours, Protocol(), address, None, 0, self.reactor)
        self.assertEqual(transport.getPeer(), IPv6Address("TCP", *address))

    def test_closing(self) -> None:
        """Nothing is written once the connection is closing."""
        self.transport.loseConnection()
        self.transport.write(b"x")
        self.assertEqual(self.read(), b"")

    def test_close_at_once(self) -> None:
        """A session that is over, with nothing left to be sent, closes without a turn."""
        clock = Clock()
        self.transport.protocol = protocol = Silent(clock, Watch(clock))
        protocol.makeConnection(self.transport)
        protocol.write(b"bye")
        protocol.end()
        self.assertEqual(self.read(), b"bye")
        self.assertTrue(protocol.lost)
        self.assertFalse(self.writing())
        self.assertEqual(self.client.recv(1), b"")

    def test_close_when_sent(self) -> None:
        """With something left to be sent, the connection closes when that is done."""
        clock = Clock()
        self.transport.protocol = protocol = Silent(clock, Watch(clock))
        protocol.makeConnection(self.transport)
        protocol.write(b"x" * 4_000_000)
        protocol.end()
        self.assertFalse(protocol.lost)
        self.assertTrue(self.writing())

    def test_forgotten(self) -> None:
        """A lean reactor is not asked to tell the kernel of a descriptor that is closed next."""
        reactor: Any = EPollReactor()
        self.addCleanup(reactor._poller.close)
        make_lean(reactor)
        clock = Clock()
        client, server = socket.socketpair()
        self.addCleanup(client.close)
        silent = Silent(clock, Watch(clock))
        transport: Any = PromptServer(server, silent, ("192.0.2.1", 1), None, 0, reactor)
        silent.makeConnection(transport)
        self.assertIn(transport, reactor.getReaders())
        silent.end()
        self.assertNotIn(transport, reactor.getReaders())
        self.assertEqual(client.recv(1), b"")
        reactor.doIteration(0)  # the kernel knows
