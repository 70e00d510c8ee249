"""Tests of `popd.server.protocol`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer, noLongerProvides
from zope.interface.verify import verifyObject

from popd.auth.realm import MaildropRealm
from popd.maildrop.interfaces import (
    IPromptMaildrop,
    MaildropPermanentError,
    MaildropTemporaryError,
)
from popd.maildrop.memory import MemoryMaildrop, MemoryStore
from popd.protocol.session import Session
from popd.server.connection import LINGER, READ_AHEAD, SLICE
from popd.server.factory import POP3Factory
from popd.server.limits import IDLE_TIMEOUT, LOGIN_SILENCE, LOGIN_TIMEOUT
from popd.server.protocol import _LINES
from popd.server.transfer import CHUNK
from tests.server.helpers import LOGGED_IN, LOGIN, MAIL, ServerCase, Wire, told

if TYPE_CHECKING:
    from popd.protocol.snapshot import Snapshot

DENIED = b"-ERR [AUTH] wrong user name or password\r\n"
OCTETS = sum(len(message.replace(b"\n", b"\r\n")) for _, message in MAIL)
TEMPORARY = b"-ERR [SYS/TEMP] not possible now, try again later\r\n"


@implementer(ICredentialsChecker)
class SlowChecker:
    """A checker that answers when the test does."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """Wait."""
        self.asked.append(Deferred())
        return self.asked[-1]


class SessionTests(ServerCase):
    """A client does its business."""

    def test_interfaces(self) -> None:
        """A protocol keeps the promises that Twisted relies on."""
        protocol, _ = self.connect()
        verifyObject(IPushProducer, protocol)
        verifyObject(IHalfCloseableProtocol, protocol)

    def test_whole_session(self) -> None:
        """Log in, list, fetch, delete, quit: pipelined in one segment, answered in order."""
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN + b"STAT\r\nRETR 2\r\nDELE 2\r\nTOP 1 0\r\nQUIT\r\n")
        self.assertEqual(
            wire.value(),
            LOGGED_IN
            + b"+OK 3 %d\r\n" % OCTETS
            + b"+OK 22 octets\r\nSubject: two\r\n\r\n..dot\r\n.\r\n+OK\r\n"
            b"+OK\r\nSubject: one\r\n\r\n.\r\n+OK bye\r\n",
        )
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.aborted)
        self.assertEqual(self.left(), [b"uid-1", b"uid-3"])
        self.assertFalse(self.box.locked)
        self.lose(protocol)
        self.assertEqual(len(self.factory.watch), 0)

    def test_byte_by_byte(self) -> None:
        """It is the same when every octet comes by itself."""
        protocol, wire = self.connect()
        for octet in LOGIN + b"DELE 1\r\nQUIT\r\n":
            protocol.dataReceived(bytes([octet]))
        self.assertEqual(wire.value(), LOGGED_IN + b"+OK\r\n+OK bye\r\n")
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])

    def test_many_messages(self) -> None:
        """Ten thousand commands in one segment need no deep stack, and leave others their turns."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"RETR 1\r\n" * 10_000)
        self.assertEqual(wire.value().count(b"Subject: one"), SLICE)
        self.settle()
        self.assertEqual(wire.value().count(b"Subject: one"), 10_000)

    def test_data_after_the_end(self) -> None:
        """What comes after QUIT is ignored and not kept."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"QUIT\r\n")
        wire.clear()
        protocol.dataReceived(b"x" * 100_000)
        self.assertEqual(wire.value(), b"")
        self.assertEqual(protocol._session.buffered, 0)

    def test_quit_failure(self) -> None:
        """QUIT says so when a message could not be removed, and removes the rest."""
        self.box.stuck = {b"uid-2"}
        protocol, wire = self.log_in()
        protocol.dataReceived(b"DELE 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n")
        self.assertIn(b"-ERR [SYS/TEMP] some deleted messages not removed\r\n", told(wire.value()))
        self.assertEqual(self.left(), [b"uid-2"])
        self.assertFalse(self.box.locked)

    def test_released_before_the_reply(self) -> None:
        """When QUIT is answered the maildrop is free for the next session."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"QUIT\r\n")
        self.assertEqual(wire.value(), b"")
        self.offload.go()
        self.assertEqual(wire.value(), b"+OK bye\r\n")
        self.assertFalse(self.box.locked)
        self.assertEqual(self.offload.waiting, [])


class LoginTests(ServerCase):
    """Log-in from the driver's side."""

    def test_wrong(self) -> None:
        """A wrong password and an unknown user get the same reply."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"USER joe\r\nPASS wrong\r\nUSER ann\r\nPASS secret\r\n")
        self.assertEqual(wire.value(), (b"+OK send PASS\r\n" + DENIED) * 2)
        self.assertFalse(self.box.locked)

    def test_slow_checker(self) -> None:
        """While a checker thinks, what is pipelined behind PASS waits."""
        checker = SlowChecker()
        self.use_checker(checker)
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN + b"STAT\r\n")
        protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(wire.value(), b"+OK send PASS\r\n")
        checker.asked[0].callback(b"joe")
        self.assertEqual(wire.value(), LOGGED_IN + b"+OK 3 %d\r\n+OK\r\n" % OCTETS)

    def test_broken_checker(self) -> None:
        """A checker that fails is a temporary problem, never a wrong password."""
        checker = SlowChecker()
        self.use_checker(checker)
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        checker.asked[0].errback(RuntimeError("down"))
        self.assertEqual(told(wire.value()), b"+OK send PASS\r\n" + TEMPORARY)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_problems(self) -> None:
        """A maildrop that cannot be opened is told by its response code, and logged."""
        for trouble, code in (
            (MaildropTemporaryError("no disk"), b"-ERR [SYS/TEMP]"),
            (MaildropPermanentError("no place"), b"-ERR [SYS/PERM]"),
        ):
            self.box.trouble = trouble
            protocol, wire = self.connect()
            protocol.dataReceived(LOGIN)
            self.assertIn(code, wire.value())
            self.assertFalse(wire.disconnecting)

    def test_in_use(self) -> None:
        """A second session is told that the maildrop is in use, until the first ends."""
        first, _ = self.log_in()
        second, wire = self.connect()
        second.dataReceived(LOGIN)
        self.assertIn(b"-ERR [IN-USE] ", wire.value())
        self.lose(first)
        wire.clear()
        second.dataReceived(LOGIN)
        self.assertEqual(wire.value(), LOGGED_IN)

    def test_lost_while_opening(self) -> None:
        """A maildrop that opens after its client has gone is released."""
        protocol, _ = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN)
        self.lose(protocol)
        self.offload.hold = False
        self.offload.go()
        self.assertFalse(self.box.locked)
        self.assertEqual(len(self.factory.watch), 0)

    def test_error_of_ours(self) -> None:
        """An error that nobody thought of is logged, and ends the session with everything."""
        protocol, wire = self.log_in()
        with mock.patch.object(Session, "sent", side_effect=ZeroDivisionError):
            protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(wire.aborted)
        self.assertFalse(self.box.locked)

    def test_release_fails(self) -> None:
        """A maildrop that cannot be released is logged."""
        protocol, _ = self.log_in()
        with mock.patch.object(protocol._maildrop, "release", side_effect=ZeroDivisionError):
            self.lose(protocol)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class UnixTests(ServerCase):
    """Connections that are not TCP."""

    def test_unix(self) -> None:
        """A UNIX socket has no TCP options, and serves all the same."""
        protocol = self.factory.buildProtocol(None)
        wire = Wire()
        noLongerProvides(wire, ITCPTransport)
        protocol.makeConnection(wire)
        protocol.dataReceived(LOGIN)
        self.assertTrue(wire.value().endswith(LOGGED_IN))


class CleartextTests(ServerCase):
    """Who may log in without TLS."""

    def refused(self, peer: str) -> bool:
        """Tell whether a client from *peer* is refused without TLS."""
        protocol, wire = self.connect(peer)
        protocol.dataReceived(b"USER joe\r\n")
        return b"-ERR [AUTH] log-in needs TLS" in wire.value()

    def test_never(self) -> None:
        """By default nobody may."""
        self.cleartext_login = "never"
        self.setUp()
        self.assertTrue(self.refused("127.0.0.1"))

    def test_local(self) -> None:
        """With ``local``, clients on this machine may."""
        self.cleartext_login = "local"
        self.setUp()
        self.assertFalse(self.refused("127.0.0.1"))
        self.assertTrue(self.refused("192.0.2.1"))

    def test_always(self) -> None:
        """With ``always``, everybody may."""
        self.assertFalse(self.refused("192.0.2.1"))


class MessageTests(ServerCase):
    """RETR and TOP from the driver's side."""

    big = b"Subject: big\n\n" + (b"x" * 70 + b"\n") * 3_000

    def setUp(self) -> None:
        """Add a message that takes many reads."""
        super().setUp()
        self.box.messages.append((b"big", self.big))

    def test_big(self) -> None:
        """A message of many pieces comes whole."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"RETR 4\r\nNOOP\r\n")
        status, _, rest = wire.value().partition(b"\r\n")
        wire_form = self.big.replace(b"\n", b"\r\n")
        self.assertEqual(status, b"+OK %d octets" % len(wire_form))
        self.assertEqual(rest, wire_form + b".\r\n+OK\r\n")

    def test_slow_reader(self) -> None:
        """A client that does not read gets no more than a piece ahead; others are not held up."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\nNOOP\r\n")
        self.assertLess(len(wire.value()), 2 * CHUNK)
        self.assertNotIn(b"\r\n.\r\n", wire.value())
        wire.unstick()
        self.assertTrue(wire.value().endswith(b"\r\n.\r\n+OK\r\n"))

    def test_gone(self) -> None:
        """A message that vanished is an error of its own."""
        protocol, wire = self.log_in()
        del self.box.messages[1]
        protocol.dataReceived(b"RETR 2\r\nTOP 2 1\r\nRETR 3\r\n")
        gone = b"-ERR that message is no longer there\r\n"
        self.assertEqual(
            wire.value(), gone * 2 + b"+OK 24 octets\r\nSubject: three\r\n\r\nlast\r\n.\r\n"
        )

    def test_trouble(self) -> None:
        """A message that cannot be opened is a temporary error."""
        protocol, wire = self.log_in()
        self.box.trouble = MaildropTemporaryError("no disk")
        protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(told(wire.value()), TEMPORARY)

    def test_read_error(self) -> None:
        """A read error in the middle of a message breaks the connection, with no terminator."""
        self.box.torn = {b"big"}
        protocol, wire = self.log_in()
        protocol.dataReceived(b"DELE 1\r\nRETR 4\r\nQUIT\r\n")
        self.assertTrue(wire.aborted)
        self.assertTrue(wire.value().startswith(b"+OK\r\n+OK "))
        self.assertNotIn(b"\r\n.\r\n", wire.value())
        self.assertEqual(len(self.left()), 4)
        self.assertFalse(self.box.locked)

    def test_read_error_at_once(self) -> None:
        """A read error before the first octet went out is a mere error."""
        self.box.messages.append((b"short", b"Subject: short\n\nx\n"))
        self.box.torn = {b"short"}
        protocol, wire = self.log_in()
        with mock.patch("popd.maildrop.memory.MemoryMessage.read", side_effect=TORN):
            protocol.dataReceived(b"RETR 5\r\nNOOP\r\n")
        self.assertEqual(told(wire.value()), TEMPORARY + b"+OK\r\n")

    def test_lost_in_a_message(self) -> None:
        """A client that goes away in a message gets no deletion done that stood behind it."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\nDELE 4\r\nQUIT\r\n")
        self.lose(protocol, clean=False)
        self.assertEqual(len(self.left()), 4)
        self.assertFalse(self.box.locked)
        self.assertEqual(len(self.factory.watch), 0)

    def test_lost_while_reading(self) -> None:
        """It is the same when it goes away while the disk is read."""
        protocol, _ = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"RETR 4\r\nDELE 4\r\nQUIT\r\n")
        self.lose(protocol, clean=False)
        self.offload.hold = False
        self.offload.go()
        self.assertEqual(len(self.left()), 4)
        self.assertFalse(self.box.locked)


TORN = MaildropTemporaryError("torn")


class ListingTests(ServerCase):
    """Long listings."""

    uids = tuple(b"uid-%d" % i for i in range(20_000))
    reply = b"+OK\r\n" + b"".join(b"%d %b\r\n" % (i + 1, u) for i, u in enumerate(uids)) + b".\r\n"

    def setUp(self) -> None:
        """Put many messages into the maildrop."""
        super().setUp()
        self.box.messages = [(uid, b"x") for uid in self.uids]

    def test_whole(self) -> None:
        """They are sent whole, and what is pipelined behind them comes behind them."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"UIDL\r\nNOOP\r\nDELE 1\r\nUIDL\r\nNOOP\r\n")
        self.settle()
        marked = self.reply.replace(b"1 uid-0\r\n", b"", 1)
        self.assertEqual(wire.value(), self.reply + b"+OK\r\n+OK\r\n" + marked + b"+OK\r\n")

    def test_slow_reader(self) -> None:
        """A client that does not read has one piece waiting for it."""
        for command in (b"UIDL\r\nNOOP\r\n", b"DELE 1\r\nUIDL\r\nNOOP\r\n"):
            protocol, wire = self.log_in()
            wire.stuck = True
            protocol.dataReceived(command)
            self.assertLessEqual(len(wire.value()), 65_536)
            wire.unstick()
            self.settle()
            self.assertTrue(wire.value().endswith(b"\r\n.\r\n+OK\r\n"))
            self.lose(protocol)

    def test_lost(self) -> None:
        """A client that goes away in a listing still gets its deletions."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"UIDL\r\nDELE 1\r\nQUIT\r\n")
        self.lose(protocol)
        self.assertEqual(len(self.left()), 19_999)


class SizeTests(ServerCase):
    """A size that LIST got wrong is noticed."""

    def test_wrong_size(self) -> None:
        """RETR of more or fewer octets than LIST said is logged; TOP and right sizes are not."""
        protocol, _ = self.log_in()
        protocol._snapshot.sizes[1] += 1  # type: ignore[index]
        with capturedLogs() as events:
            protocol.dataReceived(b"RETR 1\r\nTOP 2 0\r\n")
            self.assertEqual(events, [])
            protocol.dataReceived(b"RETR 2\r\n")
        self.assertIn(": message uid-2 has 22 octets, not 23", str(formatEvent(events[0])))


@implementer(IPromptMaildrop)
class PromptMaildrop(MemoryMaildrop):
    """A maildrop with some things near at hand."""

    near = True

    def open_promptly(self) -> Snapshot | None:
        """Open if it is near."""
        return self.open() if self.near else None

    def read_promptly(self, index: int, limit: int) -> bytes | None:
        """Read if it is near and not too much."""
        if not self.near:
            return None
        message = self.message(index)
        return message.read(limit) if message.octets <= limit else None

    def release_promptly(self) -> bool:
        """Release if it is near."""
        if self.near:
            self.release()
        return self.near


class RememberedTests(ServerCase):
    """A client whose credentials are remembered is let in without asking anybody."""

    def setUp(self) -> None:
        """Serve a prompt maildrop to one who was here a moment ago."""
        super().setUp()
        self.maildrop = PromptMaildrop(self.box)
        store = mock.patch("popd.maildrop.memory.MemoryStore.maildrop", return_value=self.maildrop)
        self.store = store.start()
        self.addCleanup(store.stop)
        remembered = mock.patch("popd.auth.chain.CheckerChain.remembered", return_value=b"joe")
        remembered.start()
        self.addCleanup(remembered.stop)
        self.offload.hold = True

    def test_near(self) -> None:
        """If the maildrop is near, nothing has to be waited for."""
        with mock.patch("twisted.cred.portal.Portal.login") as login:
            self.log_in()
        login.assert_not_called()
        self.assertTrue(self.box.locked)

    def test_far(self) -> None:
        """If not, it takes the long way."""
        self.maildrop.near = False
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        self.offload.go()
        self.assertEqual(wire.value(), LOGGED_IN)

    def test_trouble(self) -> None:
        """Errors are told in the same way."""
        self.box.locked = True
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        self.assertIn(b"-ERR [IN-USE]", wire.value())

    def test_no_user(self) -> None:
        """So is one whom the realm does not know."""
        self.store.side_effect = UnauthorizedLogin
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        self.assertTrue(wire.value().endswith(DENIED))

    def test_slow_realm(self) -> None:
        """A realm that takes its time is waited for."""
        avatar: Deferred[Any] = Deferred()
        with mock.patch("popd.auth.realm.MaildropRealm.requestAvatar", return_value=avatar):
            protocol, wire = self.connect()
            protocol.dataReceived(LOGIN)
            avatar.callback((None, self.maildrop, None))
        self.assertEqual(wire.value(), LOGGED_IN)

    def test_other_checkers(self) -> None:
        """Checkers that are in no chain are always asked."""
        self.factory = POP3Factory(
            Portal(MaildropRealm(MemoryStore({})), [self.users]),
            self.offload,  # type: ignore[arg-type]
            self.clock,
            cleartext_login="always",
        )
        self.log_in()


class PromptTests(ServerCase):
    """What would not have to wait for a disk is done at once."""

    def setUp(self) -> None:
        """Serve a prompt maildrop, and let nothing else have its way."""
        super().setUp()
        self.maildrop = PromptMaildrop(self.box)
        realm = mock.patch("popd.maildrop.memory.MemoryStore.maildrop", return_value=self.maildrop)
        realm.start()
        self.addCleanup(realm.stop)
        self.offload.hold = True

    def test_near(self) -> None:
        """Log-in, messages and QUIT without deletions need no thread."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"RETR 2\r\nTOP 2 0\r\nQUIT\r\n")
        self.assertEqual(
            wire.value(),
            b"+OK 22 octets\r\nSubject: two\r\n\r\n..dot\r\n.\r\n"
            b"+OK\r\nSubject: two\r\n\r\n.\r\n+OK bye\r\n",
        )
        self.assertEqual(self.offload.waiting, [])
        self.assertFalse(self.box.locked)

    def test_far(self) -> None:
        """What is far away goes the long way."""
        self.maildrop.near = False
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN + b"RETR 2\r\nQUIT\r\n")
        for _ in range(3):
            self.assertEqual(len(self.offload.waiting), 1)
            self.offload.go()
        self.assertTrue(wire.value().endswith(b"..dot\r\n.\r\n+OK bye\r\n"))
        self.assertFalse(self.box.locked)

    def test_deletions(self) -> None:
        """Deletions go the long way."""
        protocol, _ = self.log_in()
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\n")
        self.assertEqual(len(self.left()), 3)
        self.offload.go()
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])

    def test_big(self) -> None:
        """So do big messages."""
        self.box.messages.append((b"big", MessageTests.big))
        protocol, wire = self.log_in()
        protocol.dataReceived(b"RETR 4\r\n")
        self.assertEqual(wire.value(), b"")
        self.assertEqual(len(self.offload.waiting), 1)

    def test_problems(self) -> None:
        """Errors are told in the same way."""
        protocol, wire = self.log_in()
        del self.box.messages[0]
        protocol.dataReceived(b"RETR 1\r\n")
        self.assertEqual(wire.value(), b"-ERR that message is no longer there\r\n")
        other, wire = self.connect()
        other.dataReceived(LOGIN)
        self.assertIn(b"-ERR [IN-USE]", wire.value())

    def test_lost(self) -> None:
        """Nothing is deleted behind a message that the client cannot have read."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 1\r\nRETR 2\r\nDELE 1\r\nQUIT\r\n")
        self.lose(protocol, clean=False)
        self.offload.hold = False
        while self.offload.waiting:
            self.offload.go()
        self.assertEqual(len(self.left()), 3)
        self.assertFalse(self.box.locked)


class LastWordsTests(ServerCase):
    """What a client said before it closed still counts."""

    def test_quit_then_close(self) -> None:
        """A client that closes right behind QUIT gets its deletions, however slow the disk is."""
        protocol, _ = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\n")
        self.lose(protocol)
        self.assertEqual(len(self.left()), 3)
        self.offload.go()
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])
        self.assertFalse(self.box.locked)

    def test_everything_then_close(self) -> None:
        """So does one that said all it had to say in advance, while log-in took its time."""
        checker = SlowChecker()
        self.use_checker(checker)
        protocol, _ = self.connect()
        protocol.dataReceived(LOGIN + b"DELE 1\r\nQUIT\r\n")
        self.lose(protocol)
        checker.asked[0].callback(b"joe")
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])
        self.assertFalse(self.box.locked)

    def test_message_never_read(self) -> None:
        """But nothing is deleted behind a message that the client cannot have read."""
        protocol, _ = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.offload.go()  # open
        self.offload.go()  # read
        self.lose(protocol)
        self.offload.hold = False
        self.offload.go()  # commit was under way: the client had QUIT answered, but for the disk
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])

    def test_message_lost(self) -> None:
        """Nor when it goes away between the message and QUIT."""
        protocol, _ = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN + b"RETR 1\r\nTOP 1 0\r\nDELE 1\r\nQUIT\r\n")
        self.offload.go()  # open
        self.offload.go()  # read for RETR
        self.lose(protocol)
        self.offload.hold = False
        self.offload.go()  # read for TOP
        self.assertEqual(len(self.left()), 3)
        self.assertFalse(self.box.locked)

    def test_message_in_the_buffer(self) -> None:
        """Nor when the message was written, but the client went away without reading it."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.assertTrue(wire.value().endswith(b"\r\n.\r\n+OK\r\n"))
        self.lose(protocol, clean=False)
        self.assertEqual(len(self.left()), 3)
        self.assertFalse(self.box.locked)

    def test_message_read(self) -> None:
        """A client that says QUIT after it has read the message gets its deletions."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"RETR 1\r\n")
        wire.stuck = True
        protocol.dataReceived(b"STAT\r\n")
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\n")
        self.lose(protocol)
        self.assertEqual(self.left(), [b"uid-2", b"uid-3"])

    def test_no_quit(self) -> None:
        """Without QUIT nothing is deleted."""
        protocol, _ = self.log_in()
        protocol.dataReceived(b"DELE 1\r\n")
        self.lose(protocol)
        self.assertEqual(len(self.left()), 3)
        self.assertFalse(self.box.locked)

    def test_half_close(self) -> None:
        """A client that only stops sending still gets every reply."""
        protocol, wire = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN + b"STAT\r\nQU")
        protocol.readConnectionLost()
        self.assertFalse(wire.disconnecting)
        self.offload.hold = False
        self.offload.go()
        self.assertEqual(wire.value(), LOGGED_IN + b"+OK 3 %d\r\n" % OCTETS)
        self.assertTrue(wire.disconnecting)
        self.assertFalse(self.box.locked)

    def test_write_side_lost(self) -> None:
        """A client that reads no more is no client."""
        protocol, wire = self.log_in()
        protocol.writeConnectionLost()
        self.assertTrue(wire.aborted)


class BackPressureTests(ServerCase):
    """Nothing is queued without bound."""

    def test_output(self) -> None:
        """Commands wait while the client does not read, and reading stops."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"CAPA\r\n" * 10_000)
        self.assertEqual(wire.value().count(b"+OK"), SLICE)
        self.assertEqual(wire.producerState, "paused")
        wire.unstick()
        self.settle()
        self.assertEqual(wire.value().count(b"+OK"), 10_000)
        self.assertEqual(wire.producerState, "producing")

    def test_crowd(self) -> None:
        """Where many have much to do, each does little in a turn, so that turns are short."""
        clients = [self.connect() for _ in range(40)]
        for protocol, _ in clients:
            protocol.dataReceived(b"CAPA\r\n" * 200)
        done = [wire.value().count(b"IMPLEMENTATION") for _, wire in clients]
        self.assertEqual(done, [SLICE] * 32 + [4] * 8)
        self.settle()
        self.assertEqual({wire.value().count(b"IMPLEMENTATION") for _, wire in clients}, {200})
        self.assertEqual(self.factory.watch.in_line, 0)

    def test_slow_disk(self) -> None:
        """Reading stops while the disk is slow and much is waiting, and goes on after it."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"RETR 1\r\n")
        protocol.dataReceived(b"NOOP\r\n" * READ_AHEAD)
        self.assertEqual(wire.producerState, "paused")
        self.offload.hold = False
        self.offload.go()
        self.settle()
        self.assertEqual(wire.value().count(b"+OK"), 1 + READ_AHEAD)
        self.assertEqual(wire.producerState, "producing")

    def test_prompt_reader(self) -> None:
        """A transport that pauses and resumes its producer within a write confuses nobody."""
        protocol, wire = self.log_in()
        wire.prompt = True
        protocol.dataReceived(b"STAT\r\nRETR 1\r\nNOOP\r\n")
        self.assertEqual(
            wire.value(),
            b"+OK 3 %d\r\n+OK 23 octets\r\nSubject: one\r\n\r\nfirst\r\n.\r\n+OK\r\n" % OCTETS,
        )

    def test_gathered(self) -> None:
        """The replies to what came in one segment are written at once, within bounds."""
        protocol, wire = self.log_in()
        with mock.patch.object(wire, "write") as write:
            protocol.dataReceived(b"NOOP\r\nRETR 1\r\nSTAT\r\n")
            self.assertEqual(write.call_count, 1)
            write.reset_mock()
            self.box.messages[0] = (b"uid-1", b"x" * 14_000)
            protocol.dataReceived(b"RETR 1\r\n" * 6)
            self.assertEqual(write.call_count, 2)

    def test_gathered_before_waiting(self) -> None:
        """What there is to say is said before something is waited for."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"NOOP\r\nRETR 1\r\nNOOP\r\n")
        self.assertEqual(wire.value(), b"+OK\r\n")

    def test_many_deletions(self) -> None:
        """Many are written down bit by bit, and others have their turn meanwhile."""
        lines: list[int] = []
        self.patch(self.factory.journal, "removed", lambda _, messages: lines.append(len(messages)))
        self.box.messages[:] = [(b"%d" % number, b"x\n") for number in range(2 * _LINES + 1)]
        protocol, wire = self.log_in()
        wire.clear()
        protocol.dataReceived(b"".join(b"DELE %d\r\n" % n for n in range(1, 2 * _LINES + 2)))
        for _ in range(50):
            self.clock.advance(0)
        protocol.dataReceived(b"QUIT\r\n")
        self.assertEqual(lines, [_LINES])
        self.assertFalse(wire.value().endswith(b"+OK bye\r\n"))
        self.clock.advance(0)
        self.assertEqual(lines, [_LINES, _LINES, 1])
        self.assertTrue(wire.value().endswith(b"+OK bye\r\n"))

    def test_deletion_waits(self) -> None:
        """Nothing is removed while what was said before QUIT is not read."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.assertEqual(len(self.left()), 3)
        wire.unstick()
        self.assertEqual(len(self.left()), 2)
        self.assertTrue(wire.value().endswith(b".\r\n+OK\r\n+OK bye\r\n"))

    def test_small_backlog(self) -> None:
        """A few commands that wait do not stop reading."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"RETR 1\r\nNOOP\r\n")
        self.assertEqual(wire.producerState, "producing")

    def test_long_line(self) -> None:
        """A long command that comes little by little is read to its end."""
        protocol, wire = self.connect()
        for _ in range(3):
            protocol.dataReceived(b"x" * READ_AHEAD)
        self.assertEqual(wire.producerState, "producing")

    def test_resumed_for_the_end(self) -> None:
        """A connection that is closing is read to its end."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"QUIT\r\n" + b"x" * 2 * READ_AHEAD)
        self.assertEqual(wire.producerState, "producing")
        self.assertTrue(wire.disconnecting)


class TimeoutTests(ServerCase):
    """Time-outs send nothing and delete nothing."""

    def test_before_login(self) -> None:
        """A minute without a command ends a session before log-in."""
        protocol, wire = self.connect()
        self.clock.advance(LOGIN_SILENCE - 1)
        protocol.dataReceived(b"CAPA\r\n")
        wire.clear()
        self.clock.advance(LOGIN_SILENCE - 1)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value(), b"")

    def test_trickle(self) -> None:
        """Octets that make no command do not count."""
        protocol, wire = self.connect()
        for _ in range(6):
            self.clock.advance(LOGIN_SILENCE / 6)
            protocol.dataReceived(b"X")
        self.assertTrue(wire.disconnecting)

    def test_login_deadline(self) -> None:
        """Whatever it says, a client must log in within three minutes."""
        protocol, wire = self.connect()
        for _ in range(int(LOGIN_TIMEOUT / 30)):
            self.assertFalse(wire.disconnecting)
            protocol.dataReceived(b"CAPA\r\n")
            self.clock.advance(30)
        self.assertTrue(wire.disconnecting)

    def test_after_login(self) -> None:
        """Ten minutes without a command end a session, and delete nothing."""
        protocol, wire = self.log_in()
        self.clock.pump([60] * 9)
        protocol.dataReceived(b"DELE 1\r\n")
        wire.clear()
        self.clock.pump([60] * 9 + [59])
        self.assertFalse(wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value(), b"")
        self.assertEqual(len(self.left()), 3)
        self.assertFalse(self.box.locked)

    def test_commands_that_came_too_late(self) -> None:
        """A QUIT that comes after the time-out deletes nothing."""
        protocol, _ = self.log_in()
        protocol.dataReceived(b"DELE 1\r\n")
        self.clock.pump([IDLE_TIMEOUT / 2, IDLE_TIMEOUT / 2])
        protocol.dataReceived(b"QUIT\r\n")
        self.lose(protocol)
        self.assertEqual(len(self.left()), 3)

    def test_reader_that_stops(self) -> None:
        """A client that stops reading in the middle is cut off."""
        self.box.messages.append((b"big", MessageTests.big))
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\n")
        self.clock.pump([60] * 9)
        self.assertFalse(wire.aborted)
        self.clock.pump([60] * 2)
        self.assertTrue(wire.aborted)
        self.lose(protocol, clean=False)
        self.assertFalse(self.box.locked)
        self.assertEqual(len(self.factory.watch), 0)

    def test_slow_but_steady(self) -> None:
        """A client that reads slowly is not cut off."""
        self.box.messages.append((b"big", MessageTests.big * 4))
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\n")
        for _ in range(5):
            self.clock.pump([60] * 9)
            wire.reader.resumeProducing()
            self.assertFalse(wire.aborted)

    def test_popd_at_work(self) -> None:
        """While the client waits for popd, no time runs."""
        protocol, wire = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN)
        self.clock.pump([30] * 20)
        self.assertFalse(wire.disconnecting)
        self.offload.hold = False
        self.offload.go()
        self.assertEqual(wire.value(), LOGGED_IN)
        self.clock.pump([60] * 9)
        self.assertFalse(wire.disconnecting)

    def test_slow_checker(self) -> None:
        """Nor does it while a checker thinks."""
        self.use_checker(SlowChecker())
        protocol, wire = self.connect()
        protocol.dataReceived(LOGIN)
        self.clock.pump([30] * 3)
        self.assertFalse(wire.disconnecting)

    def test_lost_at_the_last_moment(self) -> None:
        """A client that goes away as its time runs out is not looked after any more."""
        protocol, wire = self.connect()
        self.lose(protocol)
        self.clock.advance(LOGIN_SILENCE)
        protocol.check_time()
        self.assertFalse(wire.disconnecting)
        self.assertEqual(len(self.factory.watch), 0)

    def test_linger(self) -> None:
        """A client that does not close after the end is cut off."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"QUIT\r\n")
        self.clock.advance(LINGER - 1)
        self.assertFalse(wire.aborted)
        self.clock.advance(1)
        self.assertTrue(wire.aborted)


class StlsTests(ServerCase):
    """STLS from the driver's side; see the end-to-end tests for real TLS."""

    cleartext_login = "never"
    tls = object()

    def test_started(self) -> None:
        """TLS is started behind the reply, and what was pipelined is not executed."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"STLS\r\n")
        self.assertEqual(wire.value(), b"+OK begin TLS\r\n")
        self.assertIs(wire.tls, self.tls)
        protocol.dataReceived(b"USER joe\r\n")
        self.assertIn(b"+OK send PASS", wire.value())

    def test_injection(self) -> None:
        """Plaintext behind STLS closes the connection."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"STLS\r\nCAPA\r\n")
        self.assertIsNone(wire.tls)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value(), b"-ERR nothing may follow STLS\r\n")


class SecrecyTests(ServerCase):
    """What is logged."""

    def test_passwords(self) -> None:
        """No password is ever logged, and no name can forge a log line."""
        with capturedLogs() as events:
            protocol, _ = self.connect()
            protocol.dataReceived(
                b"USER joe\r\nPASS hunter2\r\nUSER j\x1b\xff\rx\r\nPASS hunter2\r\n"
            )
            protocol.dataReceived(LOGIN)
            self.lose(protocol)
        texts = [str(formatEvent(event)) for event in events]
        self.assertEqual(len(texts), 3)
        self.assertNotIn("hunter2", repr(events))
        self.assertIn("user joe, from 192.0.2.1", texts[0])
        self.assertIn("user (no name, 5 octets), from 192.0.2.1", texts[1])
        self.assertTrue(all(text.isprintable() for text in texts))

    def test_slips(self) -> None:
        """A password behind the name, in its place, or where a command belongs is not logged."""
        with capturedLogs() as events:
            protocol, _ = self.connect()
            for line in (
                b"USER joe hunter2!",
                b"PASS x",
                b"PASS hunter2!",
                b"hunter2!",
                b"USER hunter2!",
                b"PASS x",
                b"AUTH PLAIN AGpvZQBodW50ZXIyIQ==hunter2!",
                b"AGpvZQBodW50ZXIyIQ==",
            ):
                protocol.dataReceived(line + b"\r\n")
            self.lose(protocol)
        self.assertEqual(len(events), 3)
        self.assertNotIn("hunter2", repr(events))
        self.assertNotIn("AGpvZ", repr(events))

    def test_long_names(self) -> None:
        """Of a long name the beginning is logged."""
        with capturedLogs() as events:
            protocol, _ = self.connect()
            protocol.dataReceived(b"USER " + b"x" * 10_000 + b"\r\nPASS hunter2\r\n")
        self.assertIn("user " + "x" * 255 + ", from", str(formatEvent(events[0])))


assert len(MAIL) == 3
