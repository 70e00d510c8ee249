"""Tests of the checker that asks Dovecot."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from popd.auth.account import Account, Client
from popd.auth.dovecot import (
    CONNECT_TIMEOUT,
    MAX_RESPONSE,
    DovecotChecker,
    DovecotCheckerFactory,
)
from popd.auth.dovecot_client import MAX_REQUESTS, AuthClient
from popd.auth.health import FIRST_PAUSE, LONGEST_PAUSE
from popd.auth.interfaces import AuthTemporaryError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

HELLO = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\t00\nDONE\n"


class Attempt(UsernamePassword):
    """What the chain asks with."""

    client = Client("192.0.2.7", tls=True)


class Transport(StringTransport):
    """A transport that tells its protocol when it is broken off."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.broken_off = False

    def abortConnection(self) -> None:
        """Break the connection off, once."""
        if not self.broken_off:
            self.broken_off = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


@implementer(IStreamClientEndpoint)
class FakeDovecot:
    """An endpoint whose far end says what a test says.

    `hello` is said at first; None refuses the connection.
    """

    def __init__(self) -> None:
        self.hello: bytes | None = HELLO
        self.connections: list[AuthClient] = []
        self.tries = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect at once, or not at all."""
        self.tries += 1
        if self.hello is None:
            return fail(ConnectError(string="refused"))
        protocol: Any = protocolFactory.buildProtocol(UNIXAddress("dovecot"))
        self.connections.append(protocol)
        protocol.makeConnection(Transport(protocol))
        protocol.dataReceived(self.hello)
        return succeed(protocol)

    @property
    def transport(self) -> Any:
        """The transport of the newest connection."""
        return self.connections[-1].transport

    def said(self) -> list[list[bytes]]:
        """Return the words of what was asked since this was called last."""
        transport = self.transport
        lines = transport.value().splitlines()
        transport.clear()
        return [line.split(b"\t") for line in lines if line.startswith(b"AUTH\t")]

    def say(self, data: bytes) -> None:
        """Say something."""
        self.connections[-1].dataReceived(data)


class DovecotCase(SynchronousTestCase):
    """A checker, and a Dovecot that says what it is told to."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.dovecot = FakeDovecot()
        self.checker = DovecotChecker(lambda _: self.dovecot, 9.0, self.clock)

    def ask(self, username: bytes = b"alice", password: bytes = b"secret") -> Deferred[Account]:
        """Ask for somebody."""
        return self.checker.requestAvatarId(Attempt(username, password))

    def answered(self, answer: bytes) -> Deferred[Account]:
        """Ask for alice, and have Dovecot answer."""
        asked = self.ask()
        number = self.dovecot.said()[-1][1]
        verb, _, rest = answer.partition(b"\t")
        self.dovecot.say(b"\t".join([verb, number, *([rest] if rest else [])]) + b"\n")
        return asked

    def assertUnavailable(self, asked: Deferred[Account], why: str) -> None:
        """Assert that it could not be told, for a reason that begins with *why*."""
        failure = self.failureResultOf(asked, AuthTemporaryError)
        self.assertTrue(failure.getErrorMessage().startswith(why), failure.getErrorMessage())


class AskingTests(DovecotCase):
    """What Dovecot is asked, and what its answers mean."""

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_question(self) -> None:
        """All that Dovecot may want to know is in the question, and the secret is its last word."""
        self.assertNoResult(self.ask(b"alice@example.org", b"p\t\nw"))
        ((verb, _, mechanism, *words, response),) = self.dovecot.said()
        self.assertEqual((verb, mechanism), (b"AUTH", b"PLAIN"))
        expected = {b"service=pop3", b"nologin", b"no-penalty", b"rip=192.0.2.7", b"secured"}
        self.assertEqual(set(words), expected)
        self.assertTrue(response.startswith(b"resp="))
        self.assertEqual(b64decode(response[5:]), b"\0alice@example.org\0p\t\nw")

    def test_cleartext(self) -> None:
        """A connection from elsewhere without TLS is not called secure, one from here is."""
        for address, secured in (("192.0.2.7", False), ("::1", True), ("", True)):
            attempt = Attempt(b"alice", b"secret")
            attempt.client = Client(address)
            self.checker.requestAvatarId(attempt)
            self.assertEqual(b"secured" in self.dovecot.said()[-1], secured, address)

    def test_right(self) -> None:
        """The account has the name that Dovecot gives, and the fields that are meant for popd."""
        asked = self.answered(b"OK\tuser=alice@example.org\tpopd_quota=1K\tpopd_x=1\tquota=no\tx")
        self.assertEqual(self.successResultOf(asked), Account("alice@example.org", quota=1024))

    def test_right_without_name(self) -> None:
        """Where Dovecot gives no name it is the one that was asked about."""
        self.assertEqual(self.successResultOf(self.answered(b"OK")), Account("alice"))

    def test_escaped(self) -> None:
        """Some octets come as two."""
        asked = self.answered(b"OK\tuser=alice\tpopd_maildrop=maildir:/a\1tb\1\x31\1x")
        self.assertEqual(self.successResultOf(asked).maildrop, "maildir:/a\tb\1x")

    def test_impossible_name(self) -> None:
        """A name that could lead a path astray gets nobody in."""
        for name in (b"../etc", b"a\1tb", b"a\1" + b"0", b"\xff/"):
            self.failureResultOf(self.answered(b"OK\tuser=" + name), UnauthorizedLogin)

    def test_wrong(self) -> None:
        """A plain FAIL is a wrong password, and so is a master user's without the right to it."""
        for answer in (b"FAIL", b"FAIL\tuser=alice", b"FAIL\tuser=alice\tauthz"):
            self.failureResultOf(self.answered(answer), UnauthorizedLogin)

    def test_temporary(self) -> None:
        """Dovecot may not know either."""
        for answer in (b"FAIL\tuser=alice\ttemp", b"FAIL\tcode=temp_fail"):
            self.assertUnavailable(self.answered(answer), "Dovecot cannot tell")

    def test_continuation(self) -> None:
        """Nothing but a password can be had from popd."""
        self.assertUnavailable(self.answered(b"CONT\tbW9yZQ=="), "Dovecot wants more")

    def test_disabled(self) -> None:
        """Every way to say that a user may not log in is understood."""
        for answer in (
            b"OK\tuser=alice\tnologin",
            b"OK\tuser=alice\tnologin\treason=later",
            b"OK\tuser=alice\tpopd_disabled",
            b"OK\tuser=alice\tpopd_quota=lots",
            b"FAIL\tuser=alice\tuser_disabled",
            b"FAIL\tuser=alice\tcode=user_disabled",
            b"FAIL\tuser=alice\tpass_expired",
        ):
            account = self.successResultOf(self.answered(answer))
            self.assertEqual((account.name, account.disabled), ("alice", True), answer)

    def test_elsewhere(self) -> None:
        """A user whose mail is on another server is not let in here, and the log says why."""
        events: list[Any] = []
        observer = cast("Any", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        account = self.successResultOf(self.answered(b"OK\tuser=alice\tproxy\thost=192.0.2.9"))
        self.assertTrue(account.disabled)
        self.assertIn("proxy", events[-1]["log_format"])

    def test_never_asked(self) -> None:
        """What could be mistaken for something else is refused here."""
        long = b"p" * MAX_RESPONSE
        for username, password in ((b"a", b""), (b"", b"p"), (b"a", b"p\0q"), (b"a", long)):
            self.failureResultOf(self.ask(username, password), UnauthorizedLogin)
        self.assertEqual(self.dovecot.tries, 0)


class ConnectionTests(DovecotCase):
    """One connection, shared by all, and what happens when it breaks."""

    def test_lazy(self) -> None:
        """There is no connection before somebody logs in, and then one for all."""
        self.assertEqual(self.dovecot.tries, 0)
        asked = [self.ask(b"user%d" % n) for n in range(3)]
        self.assertEqual(self.dovecot.tries, 1)
        numbers = [words[1] for words in self.dovecot.said()]
        for number in reversed(numbers):
            self.dovecot.say(b"OK\t%b\tuser=number%b\n" % (number, number))
        names = [self.successResultOf(deferred).name for deferred in asked]
        self.assertEqual(names, [f"number{number.decode()}" for number in numbers])

    def test_closed(self) -> None:
        """When it is closed the connection is, also one that is not there yet."""
        DovecotChecker(lambda _: self.dovecot, 9.0, self.clock).close()  # which has none
        self.answered(b"OK")
        first = self.dovecot.transport
        self.checker.close()
        self.assertTrue(first.broken_off)
        self.setUp()
        self.dovecot.hello = b"VERSION\t1\t1\n"
        asked = self.ask()
        self.checker.close()
        self.dovecot.say(b"MECH\tPLAIN\nDONE\n")
        self.assertTrue(self.dovecot.transport.broken_off)
        self.failureResultOf(asked, AuthTemporaryError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_down(self) -> None:
        """A Dovecot that is down is not tried any more."""
        self.dovecot.hello = None
        self.failureResultOf(self.ask(), AuthTemporaryError)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.checker.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_while_tried(self) -> None:
        """Nor is one again that was being tried."""
        self.dovecot.hello = None
        self.failureResultOf(self.ask(), AuthTemporaryError)
        self.dovecot.hello = b"VERSION\t1\t1\n"  # and then no word more
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.dovecot.tries, 2)
        self.checker.close()
        self.clock.advance(100 * FIRST_PAUSE)
        self.assertEqual((self.dovecot.tries, self.clock.getDelayedCalls()), (2, []))

    def test_waiting(self) -> None:
        """Who comes while the connection is made waits for it."""
        self.dovecot.hello = b"VERSION\t1\t1\n"
        asked = [self.ask(), self.ask()]
        self.assertEqual(self.dovecot.tries, 1)
        self.dovecot.say(b"MECH\tPLAIN\nDONE\n")
        self.assertEqual(len(self.dovecot.said()), len(asked))

    def test_unfit(self) -> None:
        """A server that is not Dovecot, or has no PLAIN, is told from one that is down."""
        for hello in (b"+OK ready\n", b"VERSION\t2\t0\n", b"VERSION\t1\t1\nMECH\tLOGIN\nDONE\n"):
            self.setUp()
            self.dovecot.hello = hello
            self.assertUnavailable(self.ask(), "Dovecot cannot be asked")
            self.assertTrue(self.dovecot.transport.broken_off)

    def test_endless(self) -> None:
        """Lines without end, or an endless line, end the connection."""
        for hello in (HELLO[:12] + b"MECH\tX\n" * 1000, HELLO[:12] + b"x" * 20_000):
            self.setUp()
            self.dovecot.hello = hello
            self.ask().addErrback(lambda failure: failure.trap(AuthTemporaryError))
            transport = self.dovecot.transport
            self.assertTrue(transport.disconnecting or transport.broken_off)

    def test_down(self) -> None:
        """Nobody waits for a Dovecot that is down; it is tried with growing pauses."""
        self.dovecot.hello = None
        self.assertUnavailable(self.ask(), "Dovecot cannot be reached")
        pauses, last, tries = [], 0.0, 1
        for _ in range(600):
            self.assertUnavailable(self.ask(), "Dovecot cannot be reached")
            self.clock.advance(0.1)
            if self.dovecot.tries > tries:
                tries = self.dovecot.tries
                pauses.append(round(self.clock.seconds() - last))
                last = self.clock.seconds()
        self.assertEqual(pauses[:6], [FIRST_PAUSE, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE])
        self.dovecot.hello = HELLO
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.successResultOf(self.answered(b"OK")), Account("alice"))

    def test_lost(self) -> None:
        """Who waits when the connection ends is not told that the password was wrong."""
        asked = self.ask()
        self.dovecot.connections[-1].connectionLost(Failure(ConnectionDone()))
        self.assertUnavailable(asked, "Dovecot ended the connection")
        self.assertEqual(self.successResultOf(self.answered(b"OK")), Account("alice"))
        self.assertEqual(self.dovecot.tries, 2)

    def test_silent_at_first(self) -> None:
        """A connection on which nobody says a word is given up."""
        self.dovecot.hello = b""
        asked = self.ask()
        self.clock.advance(CONNECT_TIMEOUT)
        self.assertUnavailable(asked, "Dovecot does not say a word")
        self.assertTrue(self.dovecot.transport.broken_off)

    def test_silent(self) -> None:
        """A Dovecot that says nothing to anybody is down."""
        asked = [self.ask(), self.ask()]
        self.clock.advance(9.0)
        for deferred in asked:
            self.failureResultOf(deferred, AuthTemporaryError)
        self.assertTrue(self.dovecot.transport.broken_off)
        self.assertUnavailable(self.ask(), "Dovecot does not answer")
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.successResultOf(self.answered(b"OK")), Account("alice"))

    def test_one_slow(self) -> None:
        """One answer that does not come says nothing about the others, and may come too late."""
        slow = self.ask()
        number = self.dovecot.said()[0][1]
        self.clock.advance(8.0)
        self.successResultOf(self.answered(b"OK"))
        self.clock.advance(1.0)
        self.assertUnavailable(slow, "Dovecot does not answer")
        self.dovecot.say(b"OK\t%b\tuser=mallory\n" % number)
        self.assertEqual(self.successResultOf(self.answered(b"OK")), Account("alice"))
        self.assertEqual(self.dovecot.tries, 1)

    def test_bounded(self) -> None:
        """Beyond a number that no site has, nobody more is asked about; the others go on."""
        self.successResultOf(self.answered(b"OK"))
        self.clock.advance(1000)
        asked = [self.ask() for _ in range(MAX_REQUESTS)]
        self.assertUnavailable(self.ask(), "Dovecot has more log-ins")
        self.dovecot.say(b"OK\t%b\n" % self.dovecot.said()[0][1])
        self.assertEqual(self.successResultOf(asked[0]), Account("alice"))
        self.assertNoResult(self.ask())


class FactoryTests(SynchronousTestCase):
    """The factory makes checkers from the argument of --auth."""

    factory = DovecotCheckerFactory()

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)

    def test_sockets(self) -> None:
        """A path, or a host and a port; either with a time-out."""
        reactor = MemoryReactorClock()
        unix = self.factory.generateChecker("/run/dovecot/auth-client")
        self.assertIsInstance(unix._endpoint(reactor), UNIXClientEndpoint)
        tcp = self.factory.generateChecker("tcp:[2001:db8::1]:12345:timeout=1.5")
        self.assertIsInstance(tcp._endpoint(reactor), HostnameEndpoint)
        self.assertEqual(tcp._timeout, 1.5)
        self.assertEqual(self.factory.generateChecker("/a:timeout=3")._timeout, 3.0)

    def test_wrong(self) -> None:
        """The error says what is meant."""
        for argument in (
            "",
            "auth-client",
            "tcp:host",
            "tcp:host:0",
            "tcp:host:99999",
            "tcp:::1",
            "/a:timeout=10",
        ):
            error = self.assertRaises(
                InvalidAuthArgumentString, self.factory.generateChecker, argument
            )
            self.assertIn("popd-dovecot:/PATH", str(error))
