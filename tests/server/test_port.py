"""Tests of `popd.server.port`: real ports, of a reactor that does not turn by itself."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import trustme
from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from popd.server.port import Lobby, PromptPort, make_prompt
from popd.server.tls import load_context
from popd.server.tls_transport import PromptTLSServer
from popd.server.transport import PromptServer


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

    def test_out_of_descriptors(self) -> None:
        """An error of accept(2) is dealt with as Twisted does."""
        tried: list[object] = []
        self.patch(tcp.Port, "doRead", lambda port: tried.append(port))  # noqa: PLW0108 - a method
        with mock.patch.object(self.prompt, "socket") as listening:
            listening._accept.side_effect = OSError(errno.EMFILE, "Too many open files")
            self.prompt.doRead()
        self.assertEqual(tried, [self.prompt])

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
