"""Tests of what is written down about sessions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from twisted.logger import Logger, capturedLogs, formatEvent

from popd.maildrop.interfaces import MaildropPermanentError, MaildropTemporaryError
from popd.server import visit
from popd.server.counts import ENDED, LOGINS
from popd.server.journal import RECENT, Journal
from popd.server.limits import IDLE_TIMEOUT, LOGIN_SILENCE
from popd.server.note import Event, _json
from popd.server.reasons import WORDS, explained
from popd.server.visit import shown
from tests.server.helpers import LOGIN, ServerCase

DOCS = Path(__file__).parent.parent.parent / "docs" / "logging.rst"


class JournalCase(ServerCase):
    """Conversations of which the log is looked at."""

    def setUp(self) -> None:
        """Begin to look."""
        super().setUp()
        self.events: Any = self.enterContext(capturedLogs())
        self.box.messages.append((b"big", b"Subject: big\n\n" + (b"x" * 70 + b"\n") * 3_000))

    def records(self) -> list[dict[str, Any]]:
        """Return what was logged, for programs."""
        return [json.loads(_json(event) or "") for event in self.events]

    def lines(self) -> list[str]:
        """Return what was logged, for people."""
        return [re.sub(r"Session \w+-", "Session ", str(formatEvent(one))) for one in self.events]


class SummaryTests(JournalCase):
    """The line at the end of a session."""

    def test_text(self) -> None:
        """It has what was done, and how long it took."""
        protocol, _ = self.log_in()
        protocol.dataReceived(b"RETR 1\r\nTOP 2 0\r\nDELE 1\r\n")
        self.clock.advance(1.5)
        protocol.dataReceived(b"QUIT\r\n")
        self.lose(protocol)
        self.assertEqual(self.lines()[0], "Session 1: deleted uid-1 of 23 octets, user joe")
        self.assertEqual(
            self.lines()[1],
            "Session 1: user joe, from 192.0.2.1, no TLS, mechanism USER, retrieved 1, top 1,"
            " octets 39, deleted 1, left 3, 1.500 s, quit",
        )

    def test_reasons(self) -> None:
        """It says why the session ended."""
        for said, reason in (
            (b"QUIT\r\n", visit.QUIT),
            (b"NOOP\r\n", visit.DISCONNECTED),
            (b"X\r\n" * 60, visit.TOO_MANY_ERRORS),
        ):
            self.events.clear()
            protocol, _ = self.log_in()
            protocol.dataReceived(said)
            self.lose(protocol)
            self.assertEqual(self.records()[-1]["reason"], reason)
            self.assertEqual(len(self.factory.visits), 0)

    def test_idle(self) -> None:
        """So it does when nobody says anything."""
        protocol, _ = self.log_in()
        self.clock.advance(IDLE_TIMEOUT + 1)
        self.clock.advance(1)
        self.lose(protocol)
        self.assertEqual(self.records()[-1]["reason"], visit.IDLE)

    def test_not_reading(self) -> None:
        """And when nobody reads."""
        protocol, wire = self.log_in()
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\n")
        self.clock.advance(IDLE_TIMEOUT + 1)
        self.clock.advance(1)
        self.lose(protocol, clean=False)
        self.assertEqual(self.records()[-1]["reason"], visit.NOT_READING)

    def test_read_error(self) -> None:
        """A message that breaks off is another reason, and the error is there."""
        self.box.torn = {b"big"}
        protocol, _ = self.log_in()
        protocol.dataReceived(b"RETR 4\r\n")
        self.lose(protocol)
        last = self.records()[-1]
        self.assertEqual(last["reason"], visit.READ_ERROR)
        self.assertTrue(last["detail"])
        self.assertEqual(self.factory.journal.recent[-1].ident, last["session"])

    def test_some_stay(self) -> None:
        """Only what was removed is called deleted."""
        protocol, _ = self.log_in()
        self.box.stuck = {b"uid-2"}
        protocol.dataReceived(b"DELE 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n")
        self.lose(protocol)
        *deleted, last = self.records()
        self.assertEqual([one["uid"] for one in deleted], ["uid-1", "uid-3"])
        self.assertEqual((last["deleted"], last["left"]), (2, 2))


class RefusalTests(JournalCase):
    """Lines about log-ins that did not succeed."""

    def test_refused(self) -> None:
        """A wrong password, and the session that saw nothing else."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"USER joe\r\nPASS no\r\n")
        self.lose(protocol)
        refused, ended = self.records()
        self.assertEqual((refused["event"], refused["result"]), ("log-in-refused", "credentials"))
        self.assertEqual((ended["refused"], ended["logged_in"], ended["user"]), (1, False, "joe"))

    def test_failed(self) -> None:
        """What went wrong is there, and its session is in what the client is told."""
        for error, result in (
            (MaildropTemporaryError("no disk"), "temporary"),
            (MaildropPermanentError("no place"), "permanent"),
        ):
            self.events.clear()
            self.box.trouble = error
            protocol, wire = self.connect()
            protocol.dataReceived(LOGIN)
            (failed,) = self.records()
            self.assertEqual((failed["result"], failed["why"]), (result, str(error)))
            self.assertIn(f"(session {failed['session']})\r\n".encode(), wire.value())
            recent = self.factory.journal.recent[-1]
            self.assertEqual(
                recent[1:], (failed["session"], "joe", "192.0.2.1", result, str(error))
            )

    def test_bounded(self) -> None:
        """The last failures are remembered, and no more of them."""
        journal = Journal()
        for number in range(RECENT + 5):
            a_visit = visit.Visit(str(number), "", 0.0)
            a_visit.ends(visit.IDLE)
            journal.ended(a_visit, 1.0)
        self.assertEqual(len(journal.recent), RECENT)
        self.assertEqual(journal.recent[0].ident, "5")

    def test_names(self) -> None:
        """What is no name is not shown, and nothing breaks out of a line."""
        self.assertEqual(shown(b"ada+x@example.org"), "ada+x@example.org")
        self.assertEqual(shown("\N{LATIN SMALL LETTER E WITH ACUTE}".encode()), r"\xe9")
        for name in (
            b"AGFsaWNlAGh1bnRlcjI=",
            b"CorrectHorse12",
            b"a b",
            b"a\n",
            b"a\0",
            b"\xff",
            b"",
            "a\u2028".encode(),
            b"a,b",
            b"'a'",
        ):
            self.assertEqual(shown(name), f"(no name, {len(name)} octets)")
        self.assertEqual(shown(b"x" * 10_000), "x" * 255)


class NobodyTests(JournalCase):
    """Connections on which nobody tries to log in."""

    def test_one_line(self) -> None:
        """They share a line a minute."""
        self.clock.advance(1000)
        for _ in range(5):
            protocol, _ = self.connect()
            self.lose(protocol)
        self.assertEqual([one["count"] for one in self.records()], [1])
        self.clock.advance(61)
        protocol, _ = self.connect()
        protocol.dataReceived(b"QUIT\r\n")
        self.lose(protocol)
        self.assertEqual([one["count"] for one in self.records()], [1, 5])
        self.assertEqual(self.records()[1]["why"], visit.QUIT)

    def test_too_late(self) -> None:
        """Who does not log in in time is one of them."""
        self.clock.advance(1000)
        protocol, _ = self.connect()
        self.clock.advance(LOGIN_SILENCE + 1)
        self.clock.advance(1)
        self.lose(protocol)
        self.assertEqual(self.records()[-1]["why"], visit.LOGIN_TIMEOUT_PASSED)


class InjectionTests(JournalCase):
    """An attack has a line of its own."""

    tls = object()

    def test_line(self) -> None:
        """So has what stands behind STLS."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"STLS\r\nCAPA\r\n")
        self.lose(protocol)
        self.assertEqual(self.records()[-1]["reason"], visit.STLS_INJECTION)


class SchemaTests(JournalCase):
    """``docs/logging.rst`` says what is in each record."""

    def setUp(self) -> None:
        """Read it."""
        super().setUp()
        self.page = DOCS.read_text(encoding="utf-8")

    def documented(self) -> dict[str, set[str]]:
        """Return the events that are documented, with their fields."""
        events: dict[str, set[str]] = {}
        for heads, text in re.findall(
            r"^((?:``[a-z-]+``(?:, )?)+)\n((?:    .*\n)+)", self.page, re.MULTILINE
        ):
            fields = set(re.findall(r"``([a-z_]+)``", re.sub(r"\([^)]*\)", "", text)))
            events |= dict.fromkeys(re.findall(r"``([a-z-]+)``", heads), fields)
        return events

    def test_events(self) -> None:
        """Each event that popd writes is documented with the fields that it has, and no others."""
        self.clock.advance(1000)
        for said in (b"", LOGIN + b"DELE 1\r\nQUIT\r\n", b"USER joe\r\nPASS no\r\n"):
            protocol, _ = self.connect()
            protocol.dataReceived(said)
            self.lose(protocol)
        self.box.trouble = MaildropTemporaryError("no disk")
        protocol, _ = self.connect()
        protocol.dataReceived(LOGIN)
        by_master = visit.Visit("x-1", "", 0.0)
        by_master.by = "master root"
        self.factory.journal.let_in(by_master, 0.1)
        Logger("popd.test").info("something else")
        written: dict[str, set[str]] = {}
        for record in self.records():
            fields = set(record) - {"time", "level", "event"}
            self.assertEqual(written.setdefault(record["event"], fields), fields)
        self.assertEqual(written, self.documented())
        self.assertEqual(set(written), set(get_args(Event)))

    def test_reasons(self) -> None:
        """Each reason is explained, and there are no others; so is what came of a log-in."""
        reasons = {getattr(visit, name) for name in visit.__all__ if name.isupper()}
        rows = self.page.partition("Why sessions end\n")[2].partition("What is never logged")[0]
        self.assertEqual(
            set(re.findall(r"^``([a-z-]+)`` ", rows, re.MULTILINE)), reasons | {"reason"}
        )
        results = {result for _, result in LOGINS.values} - {"success"}
        (listed,) = re.findall(r"``result`` \(([^)]*)\)", self.page)
        self.assertEqual(set(re.findall(r"``([a-z-]+)``", listed)), results)

    def test_words(self) -> None:
        """For whatever goes wrong there are words."""
        reasons = {reason for (reason,) in ENDED.values} - {"quit", "disconnected", "other"}
        results = {result for _, result in LOGINS.values} - {"success"}
        self.assertEqual(set(WORDS), reasons | results)
        self.assertEqual(explained("in-use", "x"), (WORDS["in-use"], "x"))
        self.assertEqual(explained("credentials", ""), (WORDS["credentials"], ""))
        self.assertEqual(explained("credentials", "it is disabled"), ("it is disabled", ""))
        self.assertEqual(explained("something", ""), ("something", ""))
