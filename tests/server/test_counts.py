"""Tests of what is counted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.offer import WAYS
from popd.server import counts
from popd.server.counts import CELLS, COUNTED, Counter, Counts, lose_all, present
from popd.server.seats import Seats
from popd.server.visit import Visit
from tests.server.helpers import LOGIN, ServerCase


class Case(SynchronousTestCase):
    """A test case with one row."""

    def setUp(self) -> None:
        """Take a seat."""
        self.row = Seats(CELLS).row(3)
        self.counts = Counts(self.row)

    def visit(self, **known: object) -> Visit:
        """Return a session about which this is known."""
        visit = Visit("x-1", "192.0.2.1", 1.0)
        for name, value in known.items():
            setattr(visit, name, value)
        return visit


class LayoutTests(SynchronousTestCase):
    """Each number has its place."""

    def test_no_overlap(self) -> None:
        """The cells follow one another without gap or overlap."""
        at = 0
        for metric in COUNTED:
            self.assertEqual(metric.first, at)
            own = len(metric.values) if isinstance(metric, Counter) else len(metric.bounds) + 2
            at += own
        self.assertEqual(at, CELLS)

    def test_cells(self) -> None:
        """Labels lead to their cell, in the order of their names."""
        cells = {counts.LOGINS.cell(*values) for values in counts.LOGINS.values}
        first = counts.LOGINS.first
        self.assertEqual(cells, set(range(first, first + len(cells))))
        self.assertRaises(ValueError, counts.LOGINS.cell, "success", "USER")

    def test_every_mechanism(self) -> None:
        """There is a number for each mechanism that there is."""
        self.assertEqual({name for name, _ in counts.LOGINS.values}, WAYS | {"other"})


class CountsTests(Case):
    """What an event counts as."""

    def test_login(self) -> None:
        """A log-in counts by its mechanism, and its time in the right bucket."""
        self.counts.let_in("PLAIN", 0.0025, remembered=False)
        self.counts.let_in("PLAIN", 99.0, remembered=True)
        self.assertEqual(self.row[counts.LOGINS.cell("PLAIN", "success")], 2)
        buckets = counts.LOGIN_TIME.buckets(self.row)
        self.assertEqual(buckets[counts.LOGIN_TIME.bounds.index(0.0025)], 1)  # le, not lt
        self.assertEqual(buckets[-1], 1)
        self.assertAlmostEqual(counts.LOGIN_TIME.seconds(self.row), 99.0025)
        self.assertEqual(self.row[counts.OPENED.cell("hit")], 1)
        self.assertEqual(self.row[counts.OPENED.cell("miss")], 1)

    def test_clock_put_back(self) -> None:
        """A time below none is none: rows hold no such numbers, and counting never fails."""
        self.counts.let_in("USER", -5.0, remembered=False)
        self.counts.sent(10, -5.0, whole=True)
        for timing in (counts.LOGIN_TIME, counts.RETR_TIME):
            self.assertEqual(timing.buckets(self.row)[0], 1)
            self.assertEqual(timing.seconds(self.row), 0)

    def test_unknown(self) -> None:
        """What has no number of its own counts as other."""
        self.counts.let_in("NEW", 0.1, remembered=False)
        self.counts.shut_out("NEW", "credentials")
        self.counts.shut_out("USER", "gone")
        self.counts.limited("new")
        self.counts.ended(self.visit(why="new"))
        for counter, values in (
            (counts.LOGINS, ("other", "success")),
            (counts.LOGINS, ("other", "credentials")),
            (counts.LOGINS, ("USER", "temporary")),
            (counts.LIMITED, ("other",)),
            (counts.ENDED, ("other",)),
        ):
            self.assertEqual(self.row[counter.cell(*values)], 1, values)

    def test_messages(self) -> None:
        """RETR, TOP and DELE are told apart; only RETR is timed."""
        self.counts.sent(1000, 0.002, whole=True)
        self.counts.sent(50, 0.002, whole=False)
        self.counts.ended(self.visit(deleted=7, logged_in=5.0, why="quit"))
        found = [self.row[c.first] for c in (counts.RETRIEVED, counts.TOPS, counts.DELETED)]
        self.assertEqual(found, [1, 1, 7])
        self.assertEqual(self.row[counts.SENT.first], 1050)
        self.assertEqual(sum(counts.RETR_TIME.buckets(self.row)), 1)
        self.assertEqual(self.row[counts.ENDED.cell("quit")], 1)

    def test_limits(self) -> None:
        """A limit counts under its option's name."""
        self.counts.limited("max-sessions-per-ip")
        self.assertEqual(self.row[counts.LIMITED.cell("max-sessions-per-ip")], 1)

    def test_duplicates(self) -> None:
        """Messages with one unique-id are counted."""
        self.counts.duplicates(3)
        self.assertEqual(self.row[counts.TWINS.first], 3)


class PresentTests(Case):
    """How many sessions there are is what came less what went."""

    def test_life(self) -> None:
        """A session is in one state after the other, and then in none."""
        self.assertEqual(present(self.row), (0, 0))
        self.counts.began()
        self.counts.began()
        self.assertEqual(present(self.row), (2, 0))
        self.counts.let_in("USER", 0.1, remembered=False)
        self.assertEqual(present(self.row), (1, 1))
        self.counts.ended(self.visit(transport="tls"))
        self.assertEqual(present(self.row), (0, 1))
        self.counts.ended(self.visit(transport="stls", logged_in=2.0))
        self.assertEqual(present(self.row), (0, 0))
        self.assertEqual(self.row[counts.SESSIONS.cell("tls", "authorization")], 1)
        self.assertEqual(self.row[counts.SESSIONS.cell("stls", "transaction")], 1)

    def test_lost(self) -> None:
        """The sessions of a process that died are there no more; what it counted stays."""
        for _ in range(3):
            self.counts.began()
        self.counts.let_in("USER", 0.1, remembered=False)
        lose_all(self.row)
        self.assertEqual(present(self.row), (0, 0))
        self.assertEqual(self.row[counts.LOST.cell("authorization")], 2)
        self.assertEqual(self.row[counts.LOST.cell("transaction")], 1)
        self.assertEqual(self.row[counts.CONNECTIONS.first], 3)
        lose_all(self.row)  # once more changes nothing
        self.assertEqual(present(self.row), (0, 0))
        self.counts.began()  # who takes the seat next
        self.assertEqual(present(self.row), (1, 0))

    def test_torn(self) -> None:
        """Numbers that were read while another process changed them never lead below none."""
        self.row[counts.SESSIONS.cell("tls", "transaction")] = 5
        self.assertEqual(present(self.row), (0, 0))


class JournalTests(ServerCase):
    """The driver tells what happens, and it is counted."""

    def number(self, counter: Counter, *values: str) -> int:
        """Return a number."""
        return int(self.row[counter.cell(*values)])

    def setUp(self) -> None:
        """Let the server's counts be seen."""
        super().setUp()
        self.clock.advance(1000)  # a time of 0 stands for never
        self.row = self.factory.journal._counts._row

    def test_session(self) -> None:
        """A whole session."""
        protocol, wire = self.log_in()
        self.assertEqual(present(self.row), (0, 1))
        protocol.dataReceived(b"RETR 1\r\nTOP 2 0\r\nDELE 3\r\nQUIT\r\n")
        self.assertIn(b"first", wire.value())
        self.lose(protocol)
        self.assertEqual(present(self.row), (0, 0))
        self.assertEqual(self.number(counts.LOGINS, "USER", "success"), 1)
        self.assertEqual(self.number(counts.SESSIONS, "cleartext", "transaction"), 1)
        found = [self.number(c) for c in (counts.RETRIEVED, counts.TOPS, counts.DELETED)]
        self.assertEqual(found, [1, 1, 1])
        self.assertGreater(self.number(counts.SENT), 20)

    def test_refused(self) -> None:
        """A wrong password, a maildrop in use, and a checker that cannot answer."""
        self.log_in()
        protocol, _ = self.connect()
        protocol.dataReceived(LOGIN)
        protocol.dataReceived(b"USER joe\r\nPASS wrong\r\n")
        self.assertEqual(self.number(counts.LOGINS, "USER", "in-use"), 1)
        self.assertEqual(self.number(counts.LOGINS, "USER", "credentials"), 1)

    def test_duplicates(self) -> None:
        """Duplicates are counted where there are any."""
        self.factory.journal.duplicates(0)
        self.factory.journal.duplicates(4)
        self.assertEqual(self.number(counts.TWINS), 4)

    def test_limited(self) -> None:
        """A limit that was hit is counted, also where there is no session."""
        self.factory.journal.limited(None, "192.0.2.1", "max-sessions")
        self.assertEqual(self.number(counts.LIMITED, "max-sessions"), 1)
