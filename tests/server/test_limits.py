"""Tests of `popd.server.limits`, and of what `popd.server.guest` does about them."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any
from unittest import mock

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from popd.auth.chain import CheckerChain
from popd.auth.realm import MaildropRealm
from popd.maildrop.memory import MemoryBox, MemoryStore
from popd.protocol.proxy import Introduction
from popd.server.allowance import Allowance
from popd.server.factory import POP3Factory
from popd.server.journal import Journal
from popd.server.limits import (
    MEGABYTE,
    Gate,
    Limits,
    Registry,
    network_of,
    raise_file_limit,
    shortage,
)
from popd.server.networks import Networks
from tests.server.helpers import LOGGED_IN, LOGIN, MAIL, Held, Wire

if TYPE_CHECKING:
    from popd.server.protocol import POP3Protocol
    from popd.server.visit import Visit

GREETING = b"+OK POP3 server ready\r\n"
TOO_MANY = b"-ERR [SYS/TEMP] too many sessions, try again later\r\n"
USED_UP = b"-ERR [SYS/TEMP] today's download limit is reached, try again after 00:00 UTC\r\n"


class Book(Journal):
    """A journal that remembers what was refused, and why sessions ended."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[tuple[str, str]] = []
        self.ends: list[str] = []

    def limited(self, visit: Visit | None, peer: str, limit: str) -> None:
        """Remember it."""
        self.limits.append((peer, limit))

    def ended(self, visit: Visit, now: float) -> None:
        """Remember it."""
        self.ends.append(visit.why)


class LimitCase(SynchronousTestCase):
    """A test case with two processes that serve the same users: ``joe`` and ``ann``."""

    def set_up(self, limits: Limits, **options: Any) -> None:
        """Set up the processes."""
        self.clock = Clock()
        self.day = 0.0
        self.book = Book()
        self.registry = Registry()
        self.offload = Held()
        self.boxes = {name: MemoryBox(list(MAIL)) for name in ("joe", "ann")}
        users = InMemoryUsernamePasswordDatabaseDontUse(joe=b"secret", ann=b"secret")
        chain = CheckerChain([options.pop("checker", users)])
        self.factories = [
            POP3Factory(
                Portal(MaildropRealm(MemoryStore(self.boxes)), [chain]),
                self.offload,  # type: ignore[arg-type]
                self.clock,
                cleartext_login=options.get("cleartext_login", "always"),
                journal=self.book,
                gate=Gate(limits, self.registry, self.book, self.clock, seat),
            )
            for seat in (0, 1)
        ]
        for factory in self.factories:
            factory.gate._now = lambda: self.day * 86_400
        self.lines: list[str] = []
        for factory in self.factories:
            factory.gate.sparing.warn = self.warn  # type: ignore[method-assign]

    def warn(self, kind: str, text: str) -> None:
        """Remember a warning."""
        self.assertTrue(kind)
        self.lines.append(text)

    def come(
        self, peer: str = "192.0.2.1", at: int = 0, said: Introduction | None = None
    ) -> tuple[POP3Protocol, Wire]:
        """Let a client connect."""
        protocol = self.factories[at].buildProtocol(None)
        protocol.introduction = said
        wire = Wire(peer)
        protocol.makeConnection(wire)
        return protocol, wire

    def go(self, protocol: POP3Protocol) -> None:
        """Let a client go."""
        protocol.connectionLost()

    def heard(self, *args: Any, **kwargs: Any) -> bytes:
        """Let a client connect, and return what it hears."""
        value: bytes = self.come(*args, **kwargs)[1].value()
        return value

    def log_in(self, user: str = "joe", **kwargs: Any) -> tuple[POP3Protocol, Wire]:
        """Let a client connect and log in."""
        protocol, wire = self.come(**kwargs)
        wire.clear()
        protocol.dataReceived(LOGIN.replace(b"joe", user.encode()))
        return protocol, wire


class AddressTests(LimitCase):
    """How many may come from one address."""

    def test_limit(self) -> None:
        """So many may come from one, to all processes together; others still come."""
        self.set_up(Limits(per_address=2))
        first, _ = self.come(at=0)
        self.assertEqual(self.heard(at=1), GREETING)
        protocol, wire = self.come(at=0)
        self.assertEqual((wire.value(), wire.disconnecting), (TOO_MANY, True))
        self.go(protocol)
        self.assertEqual(self.heard("::ffff:192.0.2.1", at=1), TOO_MANY)
        self.assertEqual(self.heard("192.0.2.2"), GREETING)
        self.assertEqual(
            self.lines,
            [
                "Refused: from 192.0.2.1: --max-sessions-per-ip 2 is reached",
                "Refused: from ::ffff:192.0.2.1: --max-sessions-per-ip 2 is reached",
            ],
        )
        self.assertEqual(self.book.limits[0], ("192.0.2.1", "max-sessions-per-ip"))
        self.assertEqual(self.book.ends, ["limit"])
        self.go(first)
        self.assertEqual(self.heard(at=0), GREETING)

    def test_ipv6(self) -> None:
        """An IPv6 /64 is one, and has nothing to do with IPv4."""
        self.assertEqual(network_of("2001:db8::1"), network_of("2001:db8::ffff:0:0:2"))
        self.assertNotEqual(network_of("2001:db8::1"), network_of("2001:db8:0:1::1"))
        self.assertEqual(network_of("fe80::1%eth0"), network_of("fe80::2%eth1"))
        self.assertEqual(network_of("::ffff:192.0.2.1"), network_of("192.0.2.1"))

    def test_no_limit(self) -> None:
        """0 is no limit."""
        self.set_up(Limits(per_address=0, sessions=0))
        self.assertEqual({self.heard() for _ in range(20)}, {GREETING})

    def test_this_machine(self) -> None:
        """On a UNIX socket there is no address, and no limit of addresses."""
        self.set_up(Limits(per_address=1))
        self.assertEqual([self.heard("") for _ in range(3)], [GREETING] * 3)

    def test_tls(self) -> None:
        """Where TLS would begin first nothing is said."""
        self.set_up(Limits(per_address=1))
        self.come()
        protocol = self.factories[0].buildProtocol(None)
        wire = Wire()
        directlyProvides(wire, ISSLTransport)
        protocol.makeConnection(wire)
        self.assertEqual((wire.value(), wire.disconnecting), (b"", True))

    def test_bucket_full(self) -> None:
        """Whom there is no room to count is let in, and not counted when he goes."""
        self.set_up(Limits(per_address=1))
        with mock.patch.object(self.factories[0].gate._addresses, "enter", return_value=None):
            protocol, wire = self.come()
        self.assertEqual(wire.value(), GREETING)
        self.come(at=1)
        self.go(protocol)
        self.assertEqual(self.heard(), TOO_MANY)


class SessionTests(LimitCase):
    """How many there may be at all."""

    def test_replaced(self) -> None:
        """The oldest who has not logged in makes room."""
        self.set_up(Limits(sessions=3))
        self.assertEqual(self.log_in()[1].value(), LOGGED_IN)
        old, wire = self.come("192.0.2.7")
        _, younger = self.come()
        wire.clear()
        self.assertEqual(self.heard(), GREETING)
        self.assertEqual(wire.value(), TOO_MANY)
        self.assertTrue(wire.aborted)
        self.assertEqual(younger.value(), GREETING)
        self.go(old)
        self.assertEqual(self.book.ends, ["replaced"])
        self.assertEqual(self.book.limits, [("192.0.2.7", "max-sessions")])
        self.assertEqual(sum(self.registry.census.sessions), 3)
        self.assertIn("192.0.2.7", self.lines[0])

    def test_all_logged_in(self) -> None:
        """If all have logged in, the new one goes."""
        self.set_up(Limits(sessions=2))
        first, _ = self.log_in("joe")
        self.log_in("ann", at=1)
        for at in (0, 1):
            self.assertEqual(self.heard(at=at), TOO_MANY)
        self.assertEqual(sum(self.registry.census.sessions), 2)
        self.go(first)
        self.assertEqual(self.heard(at=1), GREETING)

    def test_of_this_process(self) -> None:
        """Those of another process do not make room."""
        self.set_up(Limits(sessions=1))
        self.come(at=0)
        self.assertEqual(self.heard(at=1), TOO_MANY)

    def test_logging_in(self) -> None:
        """Nor does one of whom it is being found out who it is."""
        self.set_up(Limits(sessions=1))
        self.offload.hold = True
        protocol, wire = self.log_in()
        self.assertEqual(self.heard(), TOO_MANY)
        self.offload.hold = False
        self.offload.go()
        self.assertEqual(wire.value(), LOGGED_IN)
        self.assertFalse(protocol.over)

    def test_made_to_wait(self) -> None:
        """But one who only has to wait for guessing does, and its log-in is given up."""
        self.set_up(Limits(sessions=1))
        protocol, _ = self.come()
        cancelled: list[object] = []
        waiting: Deferred[Any] = Deferred(cancelled.append)
        protocol._idle_login, protocol._working = waiting, True
        waiting.addErrback(lambda _: None)
        self.assertEqual(self.heard(), GREETING)
        self.assertEqual((cancelled, protocol.over), ([waiting], True))

    def test_on_its_way_out(self) -> None:
        """One who has said good-bye makes room, and is told nothing more."""
        self.set_up(Limits(sessions=1))
        protocol, wire = self.come()
        protocol.dataReceived(b"QUIT\r\n")
        wire.clear()
        self.assertEqual(self.heard(), GREETING)
        self.assertEqual((wire.value(), wire.aborted), (b"", True))

    def test_dead_process(self) -> None:
        """The sessions of a process that died do not count."""
        self.set_up(Limits(sessions=1, per_address=1, per_user=1))
        self.log_in(at=0)
        self.boxes["joe"].locked = False
        self.assertEqual(self.heard(at=1), TOO_MANY)
        self.registry.vacate(0)
        self.assertEqual(self.log_in(at=1)[1].value(), LOGGED_IN)

    def test_most_of_all(self) -> None:
        """What one process can count is a limit, whatever is said."""
        self.set_up(Limits(sessions=0))
        self.factories[0].gate._sessions = 49_152
        self.log_in()
        self.assertIn("--max-sessions 49152 is reached", self.lines[-1])


class UserTests(LimitCase):
    """How many sessions a user may have."""

    def test_limit(self) -> None:
        """So many, in all processes; the mail is let go of where there are too many."""
        self.set_up(Limits(per_user=1))
        first, _ = self.log_in()
        self.boxes["joe"].locked = False  # as in a maildrop that several may have
        protocol, wire = self.log_in(at=1)
        self.assertEqual(wire.value(), LOGGED_IN[: LOGGED_IN.index(b"\n") + 1] + TOO_MANY)
        self.assertFalse(self.boxes["joe"].locked)
        self.assertFalse(protocol.over)
        self.assertEqual(self.book.limits, [("192.0.2.1", "max-sessions-per-user")])
        self.assertEqual(
            self.book.recent[-1][-2:], ("limit", "--max-sessions-per-user 1 is reached")
        )
        self.assertEqual(self.log_in("ann")[1].value(), LOGGED_IN)
        self.go(first)
        wire.clear()
        protocol.dataReceived(LOGIN)
        self.assertEqual(wire.value(), LOGGED_IN)


class DownloadTests(LimitCase):
    """How much a user may download in a day."""

    def test_used_up(self) -> None:
        """After that there are no messages, but all else; and on the next day there are."""
        self.set_up(Limits(per_day=30))
        protocol, wire = self.log_in()
        wire.clear()
        protocol.dataReceived(b"RETR 1\r\nTOP 2 0\r\n")
        self.assertEqual(wire.value().count(b"+OK"), 2)
        wire.clear()
        protocol.dataReceived(b"RETR 1\r\nTOP 1 0\r\n")
        self.assertEqual(wire.value(), 2 * USED_UP)
        self.assertEqual(self.book.limits, 2 * [("192.0.2.1", "max-download-per-day")])
        wire.clear()
        protocol.dataReceived(b"LIST 1\r\nUIDL 1\r\nDELE 1\r\nQUIT\r\n")
        self.assertEqual(wire.value().count(b"+OK"), 4)
        self.go(protocol)
        protocol, wire = self.log_in(at=1)
        protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(wire.value(), LOGGED_IN + USED_UP)
        self.day = 1
        wire.clear()
        protocol.dataReceived(b"RETR 1\r\n")
        self.assertTrue(wire.value().startswith(b"+OK"))

    def test_by_user(self) -> None:
        """What one downloads another need not answer for."""
        self.set_up(Limits(per_day=1))
        for user in ("joe", "ann"):
            protocol, wire = self.log_in(user)
            protocol.dataReceived(b"RETR 1\r\nRETR 1\r\n")
            self.assertTrue(wire.value().endswith(USED_UP))
            self.assertEqual(wire.value().count(b"first"), 1)

    def test_no_limit(self) -> None:
        """By default there is no limit, and nothing is counted."""
        self.set_up(Limits())
        protocol, _ = self.log_in()
        with mock.patch.object(Allowance, "spend") as spend:
            protocol.dataReceived(b"RETR 1\r\nRETR 1\r\n")
        spend.assert_not_called()
        self.assertIsNone(self.registry.allowance)

    def test_much(self) -> None:
        """A count that would be too large for its place stays the largest."""
        allowance = Allowance()
        for _ in range(3):
            allowance.spend(b"joe", 10**13, 0.0)
        self.assertEqual(allowance.spent(b"joe", 0.0), (1 << 44) - 1)
        self.assertEqual(allowance.spent(b"ann", 0.0), 0)
        self.assertEqual(allowance.spent(b"joe", 86_400.0), 0)


class TimeoutTests(LimitCase):
    """How long clients may take."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.clock.advance(0)

    def test_login(self) -> None:
        """A client must have logged in by a time, whatever it says."""
        self.set_up(Limits(login_timeout=20))
        protocol, wire = self.come()
        for _ in range(3):
            self.pass_time(6)
            protocol.dataReceived(b"CAPA\r\n")
        self.assertFalse(wire.disconnecting)
        self.pass_time(3)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.book.limits, [("192.0.2.1", "login-timeout")])

    def test_no_limit(self) -> None:
        """Without limits a client may talk, or be silent once logged in, for ever."""
        self.set_up(Limits(login_timeout=0, idle_timeout=0))
        talking, talk = self.come()
        _, silent = self.log_in()
        for _ in range(30):
            self.pass_time(50)
            talking.dataReceived(b"CAPA\r\n")
            if talking.over:  # it says too much
                break
        self.clock.advance(700_000)
        self.pass_time(2)
        self.assertFalse(silent.disconnecting)
        self.assertTrue(talk.disconnecting)  # it was silent before log-in

    def test_idle(self) -> None:
        """Silence is measured as was said."""
        self.set_up(Limits(idle_timeout=90))
        _, wire = self.log_in()
        self.pass_time(89)
        self.assertFalse(wire.disconnecting)
        self.pass_time(2)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.book.limits, [("192.0.2.1", "idle-timeout")])


class IntroducedTests(LimitCase):
    """Clients for whom a proxy speaks."""

    def test_address(self) -> None:
        """Their own address counts, not the proxy's."""
        self.set_up(Limits(per_address=1), cleartext_login="local")
        said = Introduction("2001:db8::1", 1234)
        protocol, wire = self.come("127.0.0.1", said=said)
        self.assertEqual(protocol.visit.peer, "2001:db8::1")
        wire.clear()
        protocol.dataReceived(b"USER joe\r\n")
        self.assertTrue(wire.value().startswith(b"-ERR"), wire.value())
        self.assertEqual(self.heard("127.0.0.1", said=said), TOO_MANY)
        self.assertEqual(self.heard("127.0.0.1", said=Introduction("2001:db8:1::", 1)), GREETING)

    def test_unknown(self) -> None:
        """A proxy that speaks for itself is not limited."""
        self.set_up(Limits(per_address=1))
        for _ in range(3):
            self.assertEqual(self.heard(said=Introduction()), GREETING)

    def test_tls(self) -> None:
        """TLS up to the proxy is as good as TLS, but nothing can be bound to it."""
        self.set_up(Limits(per_address=1), cleartext_login="never")
        said = Introduction("192.0.2.9", 1, tls=True, cipher="TLSv1.3 AES")
        protocol, wire = self.come(said=said)
        self.assertEqual(protocol.visit.tls, "TLSv1.3 AES")
        wire.clear()
        protocol.dataReceived(b"CAPA\r\nSTLS\r\n" + LOGIN)
        self.assertNotIn(b"-PLUS", wire.value())
        self.assertIn(b"-ERR TLS is active already", wire.value())
        self.assertTrue(wire.value().endswith(LOGGED_IN))
        self.assertEqual(self.heard(said=said), TOO_MANY)

    def test_no_tls(self) -> None:
        """A proxy that says that there is none is believed too."""
        self.set_up(Limits(), cleartext_login="never")
        protocol, wire = self.come(said=Introduction("192.0.2.9", 1, tls=False))
        wire.clear()
        protocol.dataReceived(b"USER joe\r\n")
        self.assertTrue(wire.value().startswith(b"-ERR"), wire.value())


class RelayTests(LimitCase):
    """XCLIENT."""

    GREETING = b"+OK [XCLIENT] POP3 server ready\r\n"
    OTHER = b"XCLIENT ADDR=192.0.2.%d PORT=4321 SESSION=x TTL=4\r\n"

    def setUp(self) -> None:
        """Trust 10.0.0.1."""
        self.set_up(Limits(per_address=1, relays=Networks.parse("10.0.0.1")))

    def test_believed(self) -> None:
        """A relay has as many connections as it likes, each for the client that it names."""
        for number in (1, 2):
            protocol, wire = self.come("10.0.0.1")
            self.assertEqual(wire.value(), self.GREETING)
            wire.clear()
            protocol.dataReceived(self.OTHER % number + b"NOOP\r\n")
            self.assertTrue(wire.value().startswith(b"+OK updated\r\n"), wire.value())
            self.assertEqual(protocol.visit.peer, f"192.0.2.{number}")
        wire.clear()
        protocol.dataReceived(LOGIN)
        self.assertEqual(wire.value(), LOGGED_IN)

    def test_limit(self) -> None:
        """The client's address counts from then on, until it goes."""
        first, _ = self.come("10.0.0.1")
        first.dataReceived(self.OTHER % 1)
        protocol, wire = self.come("10.0.0.1")
        wire.clear()
        protocol.dataReceived(self.OTHER % 1 + b"CAPA\r\n")
        self.assertEqual((wire.value(), protocol.over), (TOO_MANY, True))
        self.assertEqual(self.heard("192.0.2.1"), TOO_MANY)
        self.go(first)
        self.assertEqual(self.heard("192.0.2.1"), GREETING)

    def test_transport(self) -> None:
        """What it says about TLS counts."""
        self.set_up(Limits(relays=Networks.parse("10.0.0.1")), cleartext_login="never")
        protocol, wire = self.come("10.0.0.1")
        wire.clear()
        protocol.dataReceived(b"XCLIENT ADDR=192.0.2.1 CLIENT-TRANSPORT=TLS\r\n" + LOGIN)
        self.assertEqual(wire.value(), b"+OK updated\r\n" + LOGGED_IN)

    def test_others(self) -> None:
        """Nobody else is believed."""
        protocol, wire = self.come("10.0.0.2")
        self.assertEqual(wire.value(), GREETING)
        wire.clear()
        protocol.dataReceived(self.OTHER % 1)
        self.assertTrue(wire.value().startswith(b"-ERR unknown command"))
        self.assertEqual(protocol.visit.peer, "10.0.0.2")


class FileTests(SynchronousTestCase):
    """How many files there can be."""

    def test_raise(self) -> None:
        """The soft limit becomes the hard one."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        for _ in range(2):
            self.assertEqual(raise_file_limit(), before[1])
            self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))

    def test_shortage(self) -> None:
        """If that does not allow for all sessions there is something to say."""
        self.assertEqual(shortage(Limits(sessions=960), 2, 1024), "")
        self.assertIn("allow for 960 sessions", shortage(Limits(sessions=961), 2, 1024))
        self.assertIn("allow for 0 sessions", shortage(Limits(sessions=1), 1, 3))
        self.assertEqual(shortage(Limits(sessions=0), 1, 3), "")

    def test_megabyte(self) -> None:
        """A megabyte is what disks are sold by."""
        self.assertEqual(MEGABYTE, 10**6)
