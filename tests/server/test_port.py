"""Tests of `popd.server.port`: real ports, of a reactor that does not turn by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any
from unittest import mock

import trustme
from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.proxy import Introduction
from popd.server.insider import Insider
from popd.server.introduction import HEADER_TIMEOUT, Introducing
from popd.server.journal import Journal
from popd.server.limits import Gate, Limits, Registry
from popd.server.networks import Networks
from popd.server.port import PAUSE, Lobby, PromptPort, make_prompt, share
from popd.server.tls import load_context
from popd.server.tls_transport import PromptTLSServer
from popd.server.transport import PromptServer
from popd.server.watch import Watch


class Greeter:
    """Says hello."""

    over = False

    def makeConnection(self, transport: Any) -> None:
        """Say it."""
        self.transport = transport
        transport.write(b"hello")

    def connectionLost(self, reason: Any = None) -> None:
        """Forget the connection."""


class Target(Factory):
    """Makes greeters, and knows them."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.clock = Clock()
        self.watch = Watch(self.clock)
        self.limits: list[str] = []
        self.journal = Journal()
        self.journal.limited = lambda *said: self.limits.append(said[-1])  # type: ignore[method-assign]
        self.gate = Gate(Limits(), Registry(), self.journal, self.clock)
        self.insider = Insider()

    def buildProtocol(self, addr: object) -> Any:
        """Return a greeter."""
        self.made.append(Greeter())
        return self.made[-1]


class PortCase(SynchronousTestCase):
    """A test case with a port."""

    def setUp(self) -> None:
        """Make a reactor, and something to serve."""
        self.target: Any = Target()
        self.reactor: Any = EPollReactor()
        self.addCleanup(self.reactor._poller.close)

    def port(self, factory: Any) -> Any:
        """Return a TCP port that was made as prompt as it can be."""
        port: Any = tcp.Port(0, factory, interface="127.0.0.1", reactor=self.reactor)
        port.startListening()
        self.addCleanup(port.socket.close)
        make_prompt(port)
        return port

    def connect(self, port: Any) -> socket.socket:
        """Connect a client, and let the port look."""
        client = socket.create_connection(port.socket.getsockname())
        self.addCleanup(client.close)
        client.settimeout(10)
        port.doRead()
        for greeter in self.target.made:
            self.addCleanup(greeter.transport.socket.close)
        return client


class PromptTests(PortCase):
    """A port that was made prompt."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        self.lobby = Lobby()
        self.lobby.target = self.target
        self.prompt = self.port(self.lobby)

    def test_connection(self) -> None:
        """A connection is prompt, sends without delay, knows its client, and is numbered."""
        client = self.connect(self.prompt)
        self.assertEqual(client.recv(9), b"hello")
        transport = self.target.made[0].transport
        self.assertIs(type(transport), PromptServer)
        self.assertTrue(transport.getTcpNoDelay())
        self.assertEqual(transport.getPeer().port, client.getsockname()[1])
        self.assertEqual(transport.sessionno, 1)

    def test_nobody(self) -> None:
        """Without a connection, as when another process took it, nothing happens."""
        self.prompt.doRead()
        self.assertEqual(self.target.made, [])

    def test_too_early(self) -> None:
        """A connection that nobody serves yet is closed."""
        self.lobby.target = None
        self.assertEqual(self.connect(self.prompt).recv(9), b"")

    def test_broken(self) -> None:
        """A factory that fails costs one connection, and a line in the log."""

        def fail(_: object) -> None:
            raise LookupError

        self.target.buildProtocol = fail
        self.assertEqual(self.connect(self.prompt).recv(9), b"")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertIn(self.prompt, self.reactor.getReaders())

    def cannot_accept(self, error: int) -> None:
        """Let the port look, and accept(2) fail."""
        with mock.patch.object(self.prompt, "socket") as listening:
            listening.fileno.return_value = self.prompt.socket.fileno()
            listening._accept.side_effect = OSError(error, os.strerror(error))
            self.prompt.doRead()

    def test_out_of_descriptors(self) -> None:
        """Without room for a connection the port makes some, and is quiet for a second."""
        for error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            clock = Clock()
            with mock.patch.object(self.reactor, "callLater", clock.callLater):
                self.cannot_accept(error)
            self.assertNotIn(self.prompt, self.reactor.getReaders())
            clock.advance(PAUSE - 0.1)
            self.assertNotIn(self.prompt, self.reactor.getReaders())
            clock.advance(0.1)
            self.assertIn(self.prompt, self.reactor.getReaders())
        if self.lobby.target is not None:
            self.assertEqual(self.target.limits, ["file-descriptors"] * 4)

    def test_stopped_while_quiet(self) -> None:
        """A port that was told to accept nobody meanwhile does not go on."""
        clock = Clock()
        with mock.patch.object(self.reactor, "callLater", clock.callLater):
            self.cannot_accept(errno.EMFILE)
        self.prompt.stopReading()
        clock.advance(PAUSE)
        self.assertNotIn(self.prompt, self.reactor.getReaders())

    def test_too_early_without_room(self) -> None:
        """It is the same while nobody serves yet."""
        self.lobby.target = None
        self.test_out_of_descriptors()

    def test_client_gone(self) -> None:
        """A client that went before it was accepted stops nothing."""
        self.cannot_accept(errno.ECONNABORTED)
        self.assertIn(self.prompt, self.reactor.getReaders())

    def test_scope(self) -> None:
        """The address of a neighbour's client has the network that it is valid in."""
        client, server = socket.socketpair()
        self.addCleanup(client.close)
        index, name = socket.if_nameindex()[0]
        with mock.patch.object(self.prompt, "socket") as listening:
            listening._accept.return_value = server.detach(), ("fe80::1", 1, 0, index)
            self.prompt.doRead()
        transport = self.target.made[0].transport
        self.addCleanup(transport.socket.close)
        self.assertEqual(transport.getPeer().host, f"fe80::1%{name}")


HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 4321 110\r\n"


class ProxyTests(PortCase):
    """A port whose clients come from a proxy."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        lobby = Lobby()
        lobby.target = self.target
        self.prompt = self.port(lobby)
        self.target.gate = Gate(
            Limits(proxies=Networks.parse("127.0.0.0/8")), Registry(), Journal(), self.target.clock
        )
        self.lines: list[str] = []
        self.target.gate.sparing.warn = lambda _, text: self.lines.append(text)
        self.client = self.connect(self.prompt)
        readers = self.reactor.getReaders()
        (self.guest,) = (one for one in readers if isinstance(one, Introducing))
        self.addCleanup(self.guest._socket.close)

    def say(self, data: bytes) -> None:
        """Send octets, and let them be looked at."""
        self.client.sendall(data)
        self.guest.doRead()

    def assertClosed(self, *lines: str) -> None:
        """Check that the connection was closed, and what that was called in the log."""
        self.assertEqual(self.client.recv(9), b"")
        self.assertNotIn(self.guest, self.reactor.getReaders())
        self.assertEqual(self.lines, list(lines))
        self.target.clock.advance(HEADER_TIMEOUT + 1)
        self.target.clock.advance(0)
        self.assertEqual(self.target.made, [])
        self.assertEqual(self.lines, list(lines))

    def test_header(self) -> None:
        """It is served once the header is complete, which takes nothing of what follows."""
        self.say(HEADER[:20])
        self.assertEqual(self.target.made, [])
        self.say(HEADER[20:] + b"CAPA\r\n")
        (greeter,) = self.target.made
        self.addCleanup(greeter.transport.socket.close)
        self.assertEqual(self.client.recv(9), b"hello")
        self.assertEqual(greeter.introduction, Introduction("192.0.2.7", 4321))
        self.assertEqual(greeter.transport.socket.recv(99), b"CAPA\r\n")
        self.target.clock.advance(HEADER_TIMEOUT + 1)
        self.assertEqual((len(self.target.watch), self.lines), (0, []))

    def test_insider(self) -> None:
        """Popd itself needs no header, if it comes from where proxies come from."""
        with socket.create_connection(self.prompt.socket.getsockname()) as client:
            host, port = client.getsockname()
            self.target.insider.announce(IPv4Address("TCP", host, port))
            self.prompt.doRead()
            self.assertEqual(client.recv(9), b"hello")
        self.target.made[0].transport.socket.close()

    def test_nothing(self) -> None:
        """One that says nothing is closed; by the log the proxy is to blame."""
        self.guest.doRead()
        self.target.clock.advance(HEADER_TIMEOUT)
        self.target.clock.advance(0)
        self.assertClosed("The proxy at 127.0.0.1 sent no PROXY header within 3 seconds")

    def test_health(self) -> None:
        """One that just comes and goes makes no line."""
        self.client.shutdown(socket.SHUT_WR)
        self.guest.doRead()
        self.assertClosed()

    def test_half(self) -> None:
        """One that goes in the middle does."""
        self.say(HEADER[:20])
        self.client.shutdown(socket.SHUT_WR)
        self.guest.doRead()
        self.assertClosed("The proxy at 127.0.0.1 sent half a PROXY header")

    def test_no_header(self) -> None:
        """Without a header nobody is served."""
        self.client.sendall(b"CAPA\r\n")
        self.client.shutdown(socket.SHUT_WR)
        self.guest.doRead()
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(self.client.recv(9), b"")
        self.assertEqual(
            self.lines, ["The proxy at 127.0.0.1 sent no PROXY header: it begins like none"]
        )
        self.assertEqual(self.target.made, [])

    def test_reset(self) -> None:
        """One that breaks is closed."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()
        self.guest.doRead()
        self.assertEqual((self.guest.fileno(), self.lines), (-1, []))

    def test_lost(self) -> None:
        """So is one that the reactor says is lost, once."""
        self.guest.connectionLost(None)
        self.guest.connectionLost(None)
        self.assertClosed()

    def test_broken(self) -> None:
        """A factory that fails costs one connection, and a line in the log."""

        def fail(_: object) -> None:
            raise LookupError

        self.target.buildProtocol = fail
        self.say(HEADER)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertClosed()


class ImplicitTests(PortCase):
    """A port where TLS runs from the first octet."""

    def setUp(self) -> None:
        """Make a lobby with TLS."""
        super().setUp()
        path = self.mktemp()
        issued = trustme.CA().issue_cert("mail.example.org")
        Path(path).write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        self.lobby = Lobby(load_context([path]))

    def test_prompt(self) -> None:
        """A prompt port speaks TLS itself, and the greeting waits for it."""
        self.lobby.target = self.target
        client = self.connect(self.port(self.lobby))
        transport = self.target.made[0].transport
        self.assertIsInstance(transport, PromptTLSServer)
        tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), client)
        tls.set_connect_state()
        client.setblocking(False)
        heard = b""
        while not heard:
            with contextlib.suppress(SSL.WantReadError):
                heard = tls.recv(9)
            transport.doRead()
        self.assertEqual(heard, b"hello")

    def test_other(self) -> None:
        """Other ports leave it to Twisted's way of TLS; whoever is too early gets nothing."""
        self.assertIsNone(self.lobby.buildProtocol(None))
        self.lobby.target = self.target
        layer = self.lobby.buildProtocol(None)
        self.assertIsInstance(layer, TLSMemoryBIOProtocol)
        self.assertIsInstance(layer.wrappedProtocol, Greeter)


class OtherTests(PortCase):
    """Ports that stay what they are."""

    def test_something_between(self) -> None:
        """One whose connections do not go straight to a lobby does; it still sends at once."""
        port = self.port(self.target)
        self.assertIs(type(port), tcp.Port)
        self.connect(port)
        self.assertTrue(self.target.made[0].transport.getTcpNoDelay())

    def test_no_port_at_all(self) -> None:
        """So does whatever else an endpoint may return."""
        make_prompt(object())

    def test_prompt_once(self) -> None:
        """To make a prompt port prompt changes nothing."""
        port = self.port(Lobby())
        make_prompt(port)
        self.assertIs(type(port), PromptPort)

    def test_shared(self) -> None:
        """A UNIX socket that others listen on too is still there when this process stops."""
        path = Path(self.mktemp()).absolute()
        short = Path(os.path.relpath(path))  # a UNIX socket's path has 107 octets at most
        for shared, stays in ((True, True), (False, False)):
            port: Any = unix.Port(bytes(short), self.target, reactor=self.reactor)
            port.startListening()
            if shared:
                share(port)
            port.connectionLost(None)
            self.assertEqual(short.exists(), stays)
            short.unlink(missing_ok=True)
