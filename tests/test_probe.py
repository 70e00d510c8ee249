"""Tests of `popd.probe`: what the client says, and what systemd hears of it."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError  # noqa: A004
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd.listen import Purpose
from popd.probe import LOCAL, TIMEOUT, ProbeError, Target, Watchman, probe, targets
from popd.server.insider import NAME, Insider
from popd.systemd import Notifier

if TYPE_CHECKING:
    from popd.desk import Process

HERE = IPv4Address("TCP", "127.0.0.1", 110)
SOURCE = IPv4Address("TCP", "127.0.0.1", 50000)


class Reactor(MemoryReactorClock):
    """A reactor whose clients have bound their sockets before they connect."""

    binds = True

    def connectTCP(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connector that has got as far as that."""
        super().connectTCP(*args, **kwargs)
        bound = SimpleNamespace(getsockname=lambda: ("127.0.0.1", 50000))
        return SimpleNamespace(
            transport=SimpleNamespace(**({"socket": bound} if self.binds else {}))
        )


class Wire(StringTransport):
    """A connection that remembers how TLS began, and whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.tls: list[Any] = []
        self.aborted = False

    def startTLS(self, options: object, normal: bool = True) -> None:
        """Remember it, and after what."""
        self.tls.append((options, normal, self.value()))

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True


class ProbeCase(SynchronousTestCase):
    """A test case with a reactor and an insider."""

    def setUp(self) -> None:
        """Have them."""
        self.reactor: Any = Reactor()
        self.insider = Insider()

    def probe(self, purpose: Purpose, *, proxied: bool = False) -> Deferred[None]:
        """Begin a log-in."""
        return probe(self.reactor, self.insider, Target(HERE, purpose, proxied), TIMEOUT)

    def connected(self) -> tuple[Any, Wire]:
        """Let the client have its connection."""
        client = self.reactor.tcpClients[-1][2].buildProtocol(None)
        wire = Wire()
        client.makeConnection(wire)
        return client, wire

    def failed(self, result: Deferred[None]) -> str:
        """Return why a log-in failed."""
        return str(self.failureResultOf(result, ProbeError).value)


class DialogueTests(ProbeCase):
    """What the client says."""

    def play(self, client: Any, wire: Wire, *replies: bytes) -> list[bytes]:
        """Let the server give replies, the greeting first; return what was said to each."""
        said = []
        for reply in replies:
            wire.clear()
            client.dataReceived(reply + b"\r\n")
            said.append(wire.value())
        return said

    def all_said(self) -> list[bytes]:
        """Return what a client says after each good reply."""
        password = self.insider.password
        return [
            *(b"USER " + NAME + b"\r\n", b"PASS " + password + b"\r\n", b"STAT\r\n", b"QUIT\r\n"),
            b"",
        ]

    def test_cleartext(self) -> None:
        """Without TLS it logs in and out, and then is gone."""
        result = self.probe(Purpose.CLEARTEXT)
        client, wire = self.connected()
        self.assertEqual(self.play(client, wire, *[b"+OK"] * 5), self.all_said())
        self.assertIsNone(self.successResultOf(result))
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.tls, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stls(self) -> None:
        """Where TLS can be had it begins with STLS."""
        result = self.probe(Purpose.STLS)
        client, wire = self.connected()
        said = self.play(client, wire, *[b"+OK"] * 6)
        self.assertEqual(said, [b"STLS\r\n", *self.all_said()])
        ((options, normal, _),) = wire.tls
        self.assertIsInstance(options, CertificateOptions)
        self.assertTrue(normal)
        self.successResultOf(result)

    def test_implicit_tls(self) -> None:
        """Behind a proxy the header comes first, and TLS after it."""
        result = self.probe(Purpose.IMPLICIT_TLS, proxied=True)
        client, wire = self.connected()
        ((_, _, before),) = wire.tls
        self.assertEqual(before, LOCAL)
        self.assertEqual(self.play(client, wire, *[b"+OK"] * 5), self.all_said())
        self.successResultOf(result)

    def test_proxied(self) -> None:
        """The header is one that speaks of no client: version 2, LOCAL, no addresses."""
        self.probe(Purpose.CLEARTEXT, proxied=True)
        _, wire = self.connected()
        self.assertEqual(
            wire.value(), b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00"
        )

    def test_refused(self) -> None:
        """Another reply than +OK is what is wrong."""
        for good, what in ((0, "the greeting"), (2, "the reply to PASS"), (4, "the reply to QUIT")):
            result = self.probe(Purpose.CLEARTEXT)
            client, wire = self.connected()
            self.play(client, wire, *[b"+OK"] * good, b"-ERR \xff")
            self.assertEqual(self.failed(result), f"{what} is -ERR \\xff")
            self.assertTrue(wire.aborted)

    def test_silent(self) -> None:
        """A server that says nothing has so long, and then it is said what was waited for."""
        result = self.probe(Purpose.CLEARTEXT)
        client, wire = self.connected()
        self.play(client, wire, b"+OK")
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.failed(result), "the reply to USER has taken longer than 10 s")
        self.assertTrue(wire.aborted)
        client.dataReceived(b"+OK too late\r\n+OK\r\n+OK\r\n+OK\r\n")

    def test_lost(self) -> None:
        """A connection that ends early is no log-in."""
        result = self.probe(Purpose.CLEARTEXT)
        client, wire = self.connected()
        self.play(client, wire, b"+OK")
        client.connectionLost(Failure(ConnectionRefusedError()))
        self.assertIn("the connection ended before the reply to USER (", self.failed(result))

    def test_too_much(self) -> None:
        """A server that says more than it is asked cannot get ahead."""
        result = self.probe(Purpose.CLEARTEXT)
        client, _ = self.connected()
        client.dataReceived(b"+OK\r\n" * 3)
        self.assertNoResult(result)


class ConnectTests(ProbeCase):
    """Where the client connects, and from where."""

    def test_announced(self) -> None:
        """Where it comes from is known before it connects, and forgotten when it is gone."""
        result = self.probe(Purpose.CLEARTEXT)
        self.assertTrue(self.insider.is_at(SOURCE))
        self.assertEqual(self.reactor.tcpClients[0][:2], ("127.0.0.1", 110))
        self.assertEqual(self.reactor.tcpClients[0][4], ("127.0.0.1", 0))
        self.reactor.advance(TIMEOUT)
        self.failed(result)
        self.assertFalse(self.insider.is_at(SOURCE))

    def test_everywhere(self) -> None:
        """What listens everywhere is found on this machine."""
        for address, hosts in (
            (IPv4Address("TCP", "0.0.0.0", 110), {"127.0.0.1"}),  # noqa: S104
            (IPv6Address("TCP", "::", 110), {"::1", "::ffff:127.0.0.1"}),
            (IPv4Address("TCP", "192.0.2.1", 110), {"192.0.2.1"}),
        ):
            probe(self.reactor, self.insider, Target(address, Purpose.CLEARTEXT), 1).addErrback(
                lambda _: None
            )
            self.assertIn(self.reactor.tcpClients[-1][0], hosts)

    def test_no_ipv6(self) -> None:
        """A machine without an IPv6 address is reached by IPv4 all the same."""

        def refuse(*_: object) -> None:
            raise OSError(99, "Cannot assign requested address")

        self.patch(socket.socket, "bind", refuse)
        target = Target(IPv6Address("TCP", "::", 110), Purpose.CLEARTEXT)
        probe(self.reactor, self.insider, target, 1)
        self.assertEqual(self.reactor.tcpClients[-1][0], "::ffff:127.0.0.1")

    def test_refused(self) -> None:
        """A port that refuses is no log-in."""
        self.reactor.binds = False
        result = self.probe(Purpose.CLEARTEXT)
        connector: Any = None
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.assertIn("cannot connect: Connection was refused", self.failed(result))

    def test_connected_late(self) -> None:
        """A connection that is made when nobody waits any more is cut."""
        result = self.probe(Purpose.CLEARTEXT)
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.failed(result), "to connect has taken longer than 10 s")
        _, wire = self.connected()
        self.assertTrue(wire.aborted)
        self.assertEqual(wire.value(), b"")

    def test_no_socket_file(self) -> None:
        """A UNIX socket that is gone is no log-in; one that is for others says nothing."""
        target = Target(UNIXAddress(b"/nowhere/popd"), Purpose.CLEARTEXT)
        self.assertEqual(
            self.failed(probe(self.reactor, self.insider, target, 1)),
            "cannot connect: No such file or directory",
        )

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(socket.socket, "connect", refuse)
        self.successResultOf(probe(self.reactor, self.insider, target, 1))

    def test_targets(self) -> None:
        """Listeners that listen are looked at, if it is known what is spoken there."""
        listeners: Any = [
            SimpleNamespace(address=HERE, purpose=Purpose.STLS, kind="tcp"),
            SimpleNamespace(address=HERE, purpose=Purpose.STLS, kind="ssl"),
            SimpleNamespace(address=None, purpose=Purpose.STLS, kind="tcp"),
            SimpleNamespace(address="elsewhere", purpose=Purpose.STLS, kind="tcp"),
            SimpleNamespace(address=HERE, purpose=Purpose.IMPLICIT_TLS, kind="haproxy"),
        ]
        self.assertEqual(
            targets(listeners),
            [Target(HERE, Purpose.STLS), Target(HERE, Purpose.IMPLICIT_TLS, proxied=True)],
        )


class Telling(Notifier):
    """Remembers what systemd would be told."""

    def __init__(self, interval: float) -> None:
        super().__init__({})
        self.told: list[str] = []
        self._interval = interval

    @property
    def watchdog_interval(self) -> float:
        """The interval."""
        return self._interval

    def _tell(self, *assignments: str) -> None:
        self.told += assignments


class Crew:
    """Two processes with three sessions."""

    deaths = 0

    def processes(self) -> list[Process]:
        """There are none to tell of."""
        return []

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """Count."""
        return succeed([1, 2])


class WatchmanTests(ProbeCase):
    """What systemd hears."""

    def watchman(self, interval: float = 30.0) -> Watchman:
        """Start one."""
        self.notifier = Telling(interval)
        self.where = [Target(HERE, Purpose.CLEARTEXT)]
        watchman = Watchman(self.reactor, self.notifier, self.insider, lambda: self.where, Crew())
        watchman.startService()
        return watchman

    def told(self) -> list[str]:
        """Return what was told since this was asked last."""
        told, self.notifier.told = self.notifier.told, []
        return told

    def let_in(self) -> None:
        """Let the client log in that has come last."""
        client, _ = self.connected()
        for _ in range(5):
            client.dataReceived(b"+OK\r\n")

    def turn_away(self) -> None:
        """Turn it away."""
        client, _ = self.connected()
        client.dataReceived(b"-ERR no\r\n")

    def test_ready(self) -> None:
        """Popd is ready when a log-in works, and not before."""
        self.watchman()
        self.assertEqual(self.told(), [])
        self.let_in()
        self.assertEqual(self.told(), ["READY=1", "WATCHDOG=1", "STATUS=3 sessions in 2 processes"])

    def test_again(self) -> None:
        """Three times in the interval it looks, and a log-in that works feeds the watchdog."""
        self.watchman()
        self.let_in()
        self.told()
        self.reactor.advance(10)
        self.let_in()
        self.assertEqual(self.told(), ["WATCHDOG=1", "STATUS=3 sessions in 2 processes"])
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_trusting(self) -> None:
        """While another popd listens here as well nobody logs in, and the watchdog is fed."""
        watchman = self.watchman()
        self.let_in()
        watchman.trusting = True
        self.told()
        for _ in range(3):
            self.reactor.advance(10)
        self.assertEqual(self.told(), ["WATCHDOG=1"] * 3)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        watchman.trusting = False
        self.reactor.advance(10)
        self.assertEqual(len(self.reactor.tcpClients), 2)
        watchman.trusting = True
        with capturedLogs() as events:
            self.turn_away()  # it was the other popd that answered
        self.assertEqual((self.told(), events), (["WATCHDOG=1"], []))

    def test_trusting_while_broken(self) -> None:
        """What did not work before is not taken for well."""
        watchman = self.watchman()
        with capturedLogs():
            self.turn_away()
        self.told()
        watchman.trusting = True
        self.reactor.advance(10)
        self.assertEqual(self.told(), [])

    def test_broken(self) -> None:
        """A log-in that does not work feeds nothing; the log says what and when it ends."""
        self.watchman()
        self.let_in()
        self.told()
        with capturedLogs() as events:
            self.reactor.advance(10)
            self.turn_away()
            self.assertEqual(
                self.told(), ["STATUS=No log-in works at 127.0.0.1:110: the greeting is -ERR no"]
            )
            self.reactor.advance(10)
            self.let_in()
        self.assertEqual(self.told()[0], "WATCHDOG=1")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["No log-in works at 127.0.0.1:110: the greeting is -ERR no", "Log-ins work again"],
        )

    def test_broken_start(self) -> None:
        """A popd that does not work from the start does not hold up who starts it."""
        self.watchman()
        self.turn_away()
        self.assertEqual(
            self.told(),
            ["READY=1", "STATUS=No log-in works at 127.0.0.1:110: the greeting is -ERR no"],
        )

    def test_slow_answer(self) -> None:
        """Who does not say how many sessions he has holds up nobody."""
        watchman = self.watchman()
        answers: list[Deferred[list[Any]]] = []

        def ask(_what: str) -> Deferred[list[Any]]:
            answers.append(Deferred())
            return answers[-1]

        self.patch(watchman, "_crew", SimpleNamespace(ask=ask))
        self.let_in()
        self.assertEqual(self.told(), ["READY=1", "WATCHDOG=1"])
        self.reactor.advance(10)
        self.let_in()
        self.assertEqual(self.told(), ["WATCHDOG=1"])
        answers[0].callback([4])
        self.assertEqual(self.told(), ["STATUS=4 sessions in 1 processes"])

    def test_every_port(self) -> None:
        """One port after the other has to work."""
        watchman = self.watchman()
        self.where.append(Target(IPv4Address("TCP", "127.0.0.1", 995), Purpose.CLEARTEXT))
        self.let_in()
        self.assertEqual(self.told(), [])
        self.turn_away()
        self.assertIn("127.0.0.1:995", self.told()[1])
        del self.where[:]
        self.reactor.advance(10)
        self.assertEqual(self.told()[0], "WATCHDOG=1")
        self.assertTrue(watchman.running)

    def test_no_watchdog(self) -> None:
        """Without a watchdog one look is enough."""
        watchman = self.watchman(0)
        self.let_in()
        self.assertEqual(self.told()[0], "READY=1")
        self.reactor.advance(1000)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        watchman.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """With a short interval a log-in has less time."""
        self.watchman(3.0)
        self.connected()
        with capturedLogs() as events:
            self.reactor.advance(1)
        self.assertIn("longer than 1 s", formatEvent(events[0]) or "")

    def test_stop(self) -> None:
        """Who stops looks no more; what a late log-in gives is nobody's business."""
        watchman = self.watchman()
        self.let_in()
        self.told()
        self.reactor.advance(10)
        watchman.stopService()
        self.turn_away()
        self.reactor.advance(100)
        self.assertEqual(self.told(), [])
        self.assertEqual(len(self.reactor.tcpClients), 2)
