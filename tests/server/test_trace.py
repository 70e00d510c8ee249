"""Tests of `popd.server.trace`, and of what operators do with sessions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from popd.desk import Desk, age_of
from popd.protocol.session import Session
from popd.server.trace import FORGET, LINES, TRACES, Tracer
from tests.server.helpers import LOGIN, ServerCase

if TYPE_CHECKING:
    from popd.server.protocol import POP3Protocol


class DeskCase(ServerCase):
    """A desk, and its tracer, by a clock that stands still."""

    def setUp(self) -> None:
        """Set up the desk."""
        super().setUp()
        self.desk = Desk(self.factory)
        self.tracer = Tracer(self.factory, self.desk._is_of, self.clock.seconds)

    def fetch(self, who: str = "one", user: str = "joe") -> list[str]:
        """Return the lines since the last time."""
        return [f"{line['way']} {line['text']}" for line in self.tracer.fetch(who, user)["lines"]]


class TracerTests(DeskCase):
    """Somebody looks on."""

    def test_nobody(self) -> None:
        """While nobody looks on, sessions are what they always are."""
        protocol, _ = self.log_in()
        self.assertIsNone(self.factory.tracer)
        self.assertIs(type(protocol._session), Session)

    def test_from_the_middle(self) -> None:
        """A session that goes on is seen from then on, and is itself again afterwards."""
        protocol, _ = self.log_in()
        protocol.dataReceived(b"STAT\r\n")
        self.assertEqual(self.fetch(), [])
        protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.fetch(), ["> NOOP", "< +OK"])
        self.tracer.stop("one")
        self.assertIs(type(protocol._session), Session)
        self.assertIsNone(self.factory.tracer)
        self.tracer.stop("one")

    def test_whole(self) -> None:
        """One that begins is seen from its log-in to its end."""
        self.fetch()
        protocol, _ = self.connect()
        protocol.dataReceived(LOGIN + b"QUIT\r\n")
        self.lose(protocol)
        self.assertEqual(
            self.fetch(),
            [
                *("* logged in by USER", "< +OK maildrop locked and ready", "> QUIT", "< +OK bye"),
                "* the client is gone: quit",
            ],
        )

    def test_others(self) -> None:
        """Who is somebody else, or nobody yet, is not seen."""
        self.fetch("one", "ann")
        protocol, _ = self.log_in()
        other, _ = self.connect()
        self.lose(other)
        protocol.dataReceived(b"NOOP\r\n")
        self.assertIs(type(protocol._session), Session)
        self.fetch("two", "joe")
        protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.fetch("one", "ann"), [])
        self.assertEqual(self.fetch("two", "joe"), ["> NOOP", "< +OK"])

    def test_slow(self) -> None:
        """Who fetches too slowly gets the newest lines, and hears how many are lost."""
        self.fetch()
        protocol, _ = self.log_in()
        for _ in range(LINES):
            protocol.dataReceived(b"NOOP\r\n")
        fetched = self.tracer.fetch("one", "joe")
        self.assertEqual(fetched["lost"], LINES + 2)
        count, lost = 0, 0
        while fetched["lines"]:
            self.assertLess(len(json.dumps(fetched)), 65_535)
            count += len(fetched["lines"])
            fetched = self.tracer.fetch("one", "joe")
            lost += fetched["lost"]
        self.assertEqual((count, lost), (LINES, 0))

    def test_forgotten(self) -> None:
        """Who does not fetch any more is forgotten."""
        self.fetch()
        protocol, _ = self.log_in()
        self.clock.advance(FORGET + 1)
        protocol.dataReceived(b"NOOP\r\n")
        self.assertIs(type(protocol._session), Session)
        self.assertIsNone(self.factory.tracer)

    def test_bounded(self) -> None:
        """No more look on than are let."""
        for number in range(2 * TRACES):
            self.fetch(str(number))
        self.assertRaises(ValueError, self.fetch, "another")


class DeskTests(DeskCase):
    """Questions about sessions."""

    def sessions(self, **about: Any) -> list[dict[str, Any]]:
        """Ask for sessions."""
        answer: list[dict[str, Any]] = self.desk.answer("sessions", about)
        return answer

    def some(self, count: int) -> list[POP3Protocol]:
        """Open connections."""
        return [self.connect()[0] for _ in range(count)]

    def test_sessions(self) -> None:
        """They are told in pages, the oldest first, with all that there is to know."""
        protocols = [self.log_in()[0], *self.some(11)]
        self.clock.advance(7)
        first = self.sessions(limit=5)
        self.assertEqual(
            [row["ident"] for row in first], [one.visit.ident for one in protocols[:5]]
        )
        rest = self.sessions(after=first[-1]["ident"])
        self.assertEqual(len(rest), 7)
        self.assertEqual(self.sessions(after=rest[-1]["ident"]), [])
        row = first[0]
        self.assertEqual(
            (row["user"], row["peer"], row["state"], row["mechanism"], row["idle"]),
            ("joe", "192.0.2.1", "transaction", "USER", 7.0),
        )
        self.assertEqual(first[1]["state"], "authorization")
        self.assertEqual(self.desk.answer("count", None), 12)
        process = self.desk.answer("process", None)
        self.assertEqual(
            (process["sessions"], process["logged_in"], process["connections"]), (12, 1, 12)
        )

    def test_size(self) -> None:
        """An answer fits into what can be sent, whatever users are called."""
        for protocol in self.some(300):
            protocol.visit.user = "\xff\n" * 300
        self.assertLess(len(json.dumps(self.sessions())), 65_535)
        self.assertGreater(len(self.sessions()), 20)

    def test_about(self) -> None:
        """A session is meant by its id, its user's name, or its client's address."""
        self.desk = Desk(self.factory, "example.org")
        protocol, _ = self.log_in()
        self.connect("2001:db8::1")
        ident = protocol.visit.ident
        for subject in (ident, "joe", "JOE@example.org", "192.0.2.1"):
            self.assertEqual([row["ident"] for row in self.sessions(subject=subject)], [ident])
        for subject in ("ann", "joe@example.com", "192.0.2.2", "x-1", "@"):
            self.assertEqual(self.sessions(subject=subject), [])
        self.assertEqual(len(self.sessions(subject="2001:DB8:0::1")), 1)
        self.connect("::ffff:192.0.2.7")
        self.connect("")
        self.assertEqual(len(self.sessions(subject="192.0.2.7")), 1)

    def test_kick(self) -> None:
        """Sessions are ended, each once, and with a reason."""
        protocol, wire = self.log_in()
        protocol.dataReceived(b"DELE 1\r\n")
        wire.clear()
        self.assertEqual(self.desk.answer("kick", {"subject": "joe"}), 1)
        ident = protocol.visit.ident.encode()
        text = b"-ERR [SYS/TEMP] the administrator ended this session (session %b)\r\n" % ident
        self.assertEqual(wire.value(), text)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(protocol.visit.why, "kicked")
        self.assertEqual(len(self.left()), 3)
        self.assertEqual(self.sessions()[0]["state"], "closing")
        self.assertEqual(self.desk.answer("kick", {"subject": "joe"}), 0)

    def test_recent(self) -> None:
        """Failures are told, the newest first, or those of one session."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"USER joe\r\nPASS wrong\r\nUSER ann\r\nPASS wrong\r\n")
        other, _ = self.connect()
        other.dataReceived(b"USER bob\r\nPASS wrong\r\n")
        recent = self.desk.answer("recent", None)
        self.assertEqual([one["user"] for one in recent], ["bob", "ann", "joe"])
        of_one = self.desk.answer("recent", {"ident": protocol.visit.ident})
        self.assertEqual([one["user"] for one in of_one], ["ann", "joe"])

    def test_trace(self) -> None:
        """The desk knows the tracer."""
        about = {"token": "x", "user": "Joe"}
        self.assertEqual(self.desk.answer("trace", about)["lines"], [])
        self.log_in()
        self.assertEqual(len(self.desk.answer("trace", about)["lines"]), 2)
        self.desk.answer("untrace", about)
        self.assertIsNone(self.factory.tracer)

    def test_age(self) -> None:
        """Ids sort by process and by number; nonsense is before all."""
        self.assertLess(age_of("ab-9"), age_of("ab-10"))
        self.assertLess(age_of(""), age_of("0-1"))
        self.assertEqual(age_of("a-" + "9" * 99), ("a", 0))
