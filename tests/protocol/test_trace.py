"""Tests of sessions that somebody looks on, and of those that are dismissed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.events import NEED_DATA, PAUSED, Authenticate, Close, CloseReason, Send, Stream
from popd.protocol.lines import LINE_LIMIT
from popd.protocol.session import Session
from popd.protocol.snapshot import Snapshot
from popd.protocol.trace import TracedSession, trace
from tests.protocol.helpers import PROTECTED

BYE = b"-ERR [SYS/TEMP] go\r\n"


class Case(SynchronousTestCase):
    """A session that is logged in."""

    def setUp(self) -> None:
        """Log in."""
        self.session = self.log_in(2)
        self.told: list[str] = []

    def log_in(self, messages: int) -> Session:
        """Return a session that is logged in, with so many messages."""
        session = Session(PROTECTED)
        session.feed(b"USER joe\r\nPASS secret\r\n")
        session.next_event()
        self.assertIsInstance(session.next_event(), Authenticate)
        uids = [b"uid-%d" % number for number in range(messages)]
        session.authenticated(Snapshot([100] * messages, uids))
        session.next_event()
        return session

    def tell(self, way: str, text: str) -> None:
        """Take a line."""
        self.told.append(f"{way} {text}")

    def say(self, *lines: bytes) -> None:
        """Let the client say something, and carry it out as far as that goes."""
        self.session.feed(b"".join(line + b"\r\n" for line in lines))
        while True:
            event = self.session.next_event()
            if event is NEED_DATA or event is PAUSED:
                break
            if isinstance(event, Send | Stream):
                self.session.sent()


class Traces(Case):
    """What is told."""

    def test_lines(self) -> None:
        """Commands are told, and the first lines of replies; nothing of messages."""
        trace(self.session, self.tell)
        self.say(b"STAT", b"RETR 1", b"LIST", b"dele 2", b"UIDL 1")
        self.assertEqual(
            self.told,
            [
                *("> STAT", "< +OK 2 200", "> RETR 1"),
                *("< +OK 100 octets (the message follows)", "> LIST"),
                *("< +OK (and 17 octets)", "> dele 2", "< +OK"),
                *("> UIDL 1", "< +OK 1 uid-0"),
            ],
        )

    def test_secrets(self) -> None:
        """Nothing that may be a secret is told, whatever the client says."""
        trace(self.session, self.tell)
        for line in (
            *(b"PASS secret", b"pass secret", b"AUTH PLAIN c2VjcmV0", b"c2VjcmV0", b"USER secret"),
            *(b"RETR secret", b"STAT\0secret", b"TOP 1 secret", b"x" * LINE_LIMIT),
        ):
            self.say(line)
        told = "\n".join(self.told)
        for secret in ("secret", "c2VjcmV0", "xxx"):
            self.assertNotIn(secret, told)
        self.assertIn("> PASS (7 octets are not shown)", self.told)
        self.assertIn("> (8 octets that are no command)", self.told)
        self.assertIn("> (a line that is too long)", self.told)

    def test_long_listing(self) -> None:
        """A listing that is sent in pieces is told in a word."""
        self.session = self.log_in(20_000)
        self.say(b"DELE 1")
        trace(self.session, self.tell)
        self.say(b"UIDL")
        self.assertEqual(self.told, ["> UIDL", "< +OK (a long listing)"])

    def test_end(self) -> None:
        """A trace can end at any time, also by who is just told a line."""
        for lines in ((b"NOOP",), (b"RETR 1",), (b"x" * LINE_LIMIT,)):
            for number in range(3):
                told: list[str] = []

                def tell(_way: str, text: str, told: list[str] = told, stop: int = number) -> None:
                    told.append(text)
                    if len(told) > stop:
                        trace(self.session, None)

                trace(self.session, tell)
                self.say(*lines)
                self.assertLessEqual(len(told), number + 2)  # the reply to what was told
        trace(self.session, None)
        self.assertIs(type(self.session), Session)
        trace(self.session, self.tell)
        self.assertIs(type(self.session), TracedSession)


class Dismissals(Case):
    """A session that popd ends."""

    def test_idle(self) -> None:
        """One that waits for a command ends at once."""
        self.assertFalse(self.session.pending)
        self.session.dismiss(BYE)
        self.assertTrue(self.session.pending)
        self.assertEqual(self.session.next_event(), Close(BYE, CloseReason.DISMISSED))
        self.assertFalse(self.session.pending)
        self.assertIs(self.session.next_event(), PAUSED)

    def test_at_work(self) -> None:
        """A message is sent to its end first; what the client said behind it is not carried out."""
        self.session.feed(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.assertIsInstance(self.session.next_event(), Send)
        self.session.dismiss(BYE)
        self.assertIs(self.session.next_event(), PAUSED)
        self.session.sent()
        self.assertEqual(self.session.next_event(), Close(BYE, CloseReason.DISMISSED))

    def test_after_quit(self) -> None:
        """Who has said QUIT, and whose messages are removed, hears that."""
        self.session.feed(b"DELE 1\r\nQUIT\r\n")
        self.session.next_event()
        self.session.next_event()
        self.session.dismiss(BYE)
        self.session.committed(0)
        self.assertEqual(self.session.next_event(), Close(b"+OK bye\r\n", CloseReason.QUIT))
