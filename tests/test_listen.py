"""Tests of `popd.listen`."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from popd.listen import Listener, Purpose, StartError, parse_endpoint, shown

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocolFactory


@implementer(IListeningPort)
class FakePort:
    """A port that counts how often it was closed."""

    closed = 0
    reading = True
    reactor: object = None

    def stopReading(self) -> None:
        """Accept nothing."""
        self.reading = False

    def startReading(self) -> None:
        """Accept connections."""
        self.reading = True

    def startListening(self) -> None:
        """Is never called on a port that an endpoint gives."""

    def stopListening(self) -> None:
        """Close the port, at once."""
        self.closed += 1

    def getHost(self) -> IAddress:
        """Return some address."""
        return IPv4Address("TCP", "192.0.2.1", 110)


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """An endpoint that listens when the test says so."""

    def __init__(self) -> None:
        self.port: Deferred[IListeningPort] = Deferred(self.cancel)
        self.cancelled = False

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Return what the test will fire."""
        return self.port

    def cancel(self, _: object) -> None:
        """Remember that nobody waits any more."""
        self.cancelled = True


class ParseTests(SynchronousTestCase):
    """Endpoints as they are written."""

    def refused(self, description: str) -> str:
        """Return why *description* is no endpoint."""
        with self.assertRaises(StartError) as caught:
            parse_endpoint(MemoryReactorClock(), "--listen", description)
        text = str(caught.exception)
        self.assertTrue(text.startswith(f"--listen {description}: "), text)
        return text.removeprefix(f"--listen {description}: ")

    def test_tcp(self) -> None:
        """An endpoint is made on the given reactor."""
        reactor = MemoryReactorClock()
        parse_endpoint(reactor, "--listen", "tcp:110").listen(Factory())
        self.assertEqual(reactor.tcpServers[0][0], 110)

    def test_no_endpoints(self) -> None:
        """What is no endpoint is refused with an example and with what Twisted says."""
        for description in ("", "tcp", "tcp:", "tcp:pop3", "110", "foo:1", "tcp:1:a=b", "tcp:1\\"):
            self.assertIn("no endpoint like tcp:110", self.refused(description), description)

    def test_port_range(self) -> None:
        """A port that there cannot be is found before others are bound."""
        for description in ("tcp:65536", "tcp6:99999", "tcp:-1"):
            self.assertEqual(self.refused(description), "ports go up to 65535")

    def test_no_systemd(self) -> None:
        """A socket that systemd did not hand over is missed."""
        self.assertEqual(
            self.refused("systemd:domain=INET:index=7"), "systemd handed over no such socket"
        )
        self.assertEqual(
            self.refused("systemd:domain=INET:name=pop3"), "systemd handed over no such socket"
        )


class ShownTests(SynchronousTestCase):
    """Addresses as people write them."""

    def test_all_kinds(self) -> None:
        """TCP has a port, a socket in the file system a path."""
        for address, text in (
            (IPv4Address("TCP", "127.0.0.1", 110), "127.0.0.1:110"),
            (IPv6Address("TCP", "::1", 110), "[::1]:110"),
            (UNIXAddress("/run/popd"), "/run/popd"),
            (UNIXAddress(None), "UNIXAddress(None)"),
        ):
            self.assertEqual(shown(address), text)


class ListenerTests(SynchronousTestCase):
    """A listener has its port, or makes a fuss."""

    def setUp(self) -> None:
        """Have a listener that was not started yet."""
        self.endpoint = FakeEndpoint()
        self.errors: list[StartError] = []
        self.listener = Listener(
            self.endpoint, Factory(), Purpose.STLS, "--listen tcp:110", self.errors.append
        )

    def refused(self, error: Exception) -> str:
        """Return what a start says if the endpoint fails with *error*."""
        self.endpoint.port.errback(error)
        with self.assertRaises(StartError) as caught:
            self.listener.privilegedStartService()
        self.assertEqual(self.errors, [])
        return str(caught.exception)

    def test_at_once(self) -> None:
        """The log says what was bound, once."""
        self.endpoint.port.callback(FakePort())
        with capturedLogs() as events:
            self.listener.privilegedStartService()
        self.listener.startService()
        self.assertEqual(self.listener.address, IPv4Address("TCP", "192.0.2.1", 110))
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["Listening on 192.0.2.1:110, cleartext with STLS"],
        )

    def test_unprivileged(self) -> None:
        """A start without privileges listens as well."""
        self.endpoint.port.callback(FakePort())
        self.listener.startService()
        self.assertIsNotNone(self.listener.address)

    def test_later(self) -> None:
        """An endpoint may take its time."""
        self.listener.privilegedStartService()
        self.assertIsNone(self.listener.address)
        self.endpoint.port.callback(FakePort())
        self.assertIsNotNone(self.listener.address)

    def test_busy(self) -> None:
        """A busy port ends the start; the text says which it was."""
        self.assertEqual(
            self.refused(
                CannotListenError("any", 110, OSError(errno.EADDRINUSE, "Address already in use"))
            ),
            "--listen tcp:110: cannot listen: Address already in use"
            " (another program listens there)",
        )

    def test_forbidden(self) -> None:
        """A port that is for root only says who may have it."""
        self.assertIn(
            "root", self.refused(CannotListenError("", 110, OSError(errno.EACCES, "Denied")))
        )

    def test_odd_errors(self) -> None:
        """Any other error ends the start as well."""
        self.assertEqual(
            self.refused(RuntimeError("too\nbad")), "--listen tcp:110: cannot listen: too bad"
        )

    def test_odd_refusal(self) -> None:
        """A lock in place of a system error ends the start."""
        self.assertIn(
            "Cannot acquire lock",
            self.refused(CannotListenError(None, "/run/popd", "Cannot acquire lock")),
        )

    def test_refused_later(self) -> None:
        """A port that turns out not to be had is reported to whoever can end the process."""
        self.listener.privilegedStartService()
        self.endpoint.port.errback(OSError(errno.EPERM, "Operation not permitted"))
        self.assertEqual(
            [error.code for error in self.errors],
            ["twistd popd: --listen tcp:110: cannot listen: Operation not permitted"],
        )
        self.successResultOf(self.listener.stopService())

    def test_stop(self) -> None:
        """The port is closed when the service stops."""
        port = FakePort()
        self.endpoint.port.callback(port)
        self.listener.startService()
        self.successResultOf(self.listener.stopService())
        self.assertEqual((port.closed, self.listener.running), (1, 0))

    def test_backlog(self) -> None:
        """Where systemd listens as many may wait as with systemd, and not only Twisted's 50."""
        waiting: list[int] = []
        port: Any = FakePort()
        port.socket = SimpleNamespace(listen=waiting.append)
        self.listener.kind = "systemd"
        self.endpoint.port.callback(port)
        self.listener.startService()
        self.assertEqual(waiting, [4096])

    def test_not_accepting(self) -> None:
        """A listener for workers binds its port, and accepts only when a worker says so."""
        self.listener._accepting = False
        port = FakePort()
        self.endpoint.port.callback(port)
        self.listener.privilegedStartService()
        self.assertFalse(port.reading)
        reactor = object()
        self.listener.accept(reactor)
        self.assertTrue(port.reading)
        self.assertIs(port.reactor, reactor)

    def test_not_accepting_late(self) -> None:
        """A listener that has no port, or has none any more, accepts nothing."""
        self.listener.accept(object())
        self.listener.privilegedStartService()
        self.listener.accept(object())
        self.endpoint.port.cancel()

    def test_stop_early(self) -> None:
        """A service that stops before it has its port does not wait for it."""
        self.listener.startService()
        self.successResultOf(self.listener.stopService())
        self.assertTrue(self.endpoint.cancelled)
        self.assertEqual(self.errors, [])

    def test_stop_without_start(self) -> None:
        """A service that never started has nothing to close."""
        self.successResultOf(self.listener.stopService())


class StartErrorTests(SynchronousTestCase):
    """What ends a start."""

    def test_one_line(self) -> None:
        """The exit code is what Python writes to stderr: one line, whatever the reason was."""
        self.assertEqual(StartError("a\n  b").code, "twistd popd: a b")

    def test_both_kinds(self) -> None:
        """Python exits without a traceback, and twistd catches it to tidy up."""
        self.assertIsInstance(StartError(""), SystemExit)
        self.assertIsInstance(StartError(""), Exception)
