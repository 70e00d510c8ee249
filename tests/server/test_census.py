"""Tests of `popd.server.census`."""

from __future__ import annotations

import os
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.server.census import _BUCKETS, _IDLE, _WAYS, Census, Entry, LimitError, Row, Tally


def fits(row: Row, key: bytes, limit: int, seats: int) -> bool:
    """Return whether one more of a key may come; then it is counted."""
    try:
        return row.enter(key, limit, seats) is not None
    except LimitError:
        return False


class TallyTests(SynchronousTestCase):
    """How often a key is there."""

    def setUp(self) -> None:
        """Make a tally that three processes write to."""
        self.tally = Tally()
        self.rows = [self.tally.row(seat) for seat in range(3)]

    def test_limit(self) -> None:
        """As many as the limit says are counted, in all processes together."""
        entries = [row.enter(b"key", 3, 3) for row in self.rows]
        for row in self.rows:
            self.assertFalse(fits(row, b"key", 3, 3))
        self.assertTrue(fits(self.rows[0], b"other", 3, 3))
        assert entries[1] is not None
        self.rows[1].leave(entries[1])
        self.assertTrue(fits(self.rows[2], b"key", 3, 3))
        self.assertFalse(fits(self.rows[1], b"key", 3, 3))

    def test_leaves_little(self) -> None:
        """Of what came and went no more than some places are kept, each for who comes again."""
        row = self.rows[0]
        entries = [row.enter(b"key", 2, 1) for _ in range(2)]
        self.assertFalse(fits(row, b"key", 2, 1))
        for entry in entries:
            assert entry is not None
            row.leave(entry)
        self.assertFalse(fits(row, b"key", 0, 1))
        self.assertTrue(fits(row, b"stays", 1, 1))
        for number in range(3 * _IDLE):
            entry = row.enter(b"%d" % number, 1, 1)
            assert entry is not None
            row.leave(entry)
            self.assertLessEqual(len(row._entries), _IDLE + 1)
        self.assertNotIn(b"key", row._entries)
        self.assertIn(b"stays", row._entries)
        self.assertEqual(sum(word != 0 for word in self.tally.words[: 1 << 17]), len(row._entries))

    def test_room_of_those_gone(self) -> None:
        """A place that is only kept goes to who needs one."""
        row = self.rows[0]
        _, _, bucket = self.tally.find(b"key")
        for number in range(16):
            word = Entry(number << 16 | 1 << 20, b"", bucket)
            word.place = bucket // 8 + number
            self.tally.words[word.place] = word.word
            row._entries[b"%d" % number] = word
        self.assertIsNone(row.enter(b"key", 1, 1))
        row._idle = 16
        self.assertIsNotNone(row.enter(b"key", 1, 1))

    def test_clear(self) -> None:
        """What one process had can be forgotten."""
        self.rows[0].enter(b"key", 9, 2)
        self.rows[1].enter(b"key", 9, 2)
        self.tally.clear(0)
        self.assertFalse(fits(self.rows[1], b"key", 1, 2))
        self.assertTrue(fits(self.tally.row(0), b"key", 2, 2))

    def test_many(self) -> None:
        """However many keys there are, none is taken for another."""
        keys = [b"%d" % number for number in range(20_000)]
        first, second, _ = self.rows
        self.assertTrue(all(fits(first, key, 1, 2) for key in keys))
        self.assertFalse(any(fits(second, key, 1, 2) for key in keys))
        self.assertFalse(any(fits(first, key, 1, 2) for key in keys))

    def test_full(self) -> None:
        """A key for which there is no room is not counted, and refused nothing."""
        row = self.rows[0]
        keys = [b"%d" % number for number in range(2 * _WAYS * _BUCKETS)]
        left_out = [key for key in keys if row.enter(key, 1, 1) is None]
        self.assertLess(len(left_out), len(keys))
        self.assertIsNone(row.enter(left_out[0], 1, 1))

    def test_octets_across_words(self) -> None:
        """Octets that look like a mark, but lie across two words, are none."""
        _, octets, bucket = self.tally.find(b"key")
        begin = bucket // 8
        for shift in range(1, 8):
            both = int.from_bytes(octets, "little") << 16 << 8 * shift
            self.tally.words[begin] = both & (1 << 64) - 1 | 1
            self.tally.words[begin + 1] = both >> 64
            entry = self.rows[1].enter(b"key", 1, 2)
            assert entry is not None
            self.rows[1].leave(entry)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.sampled_from([b"a", b"b"]))))
    def test_as_counted_by_hand(self, steps: list[tuple[bool, int, bytes]]) -> None:
        """It is what a table of all would say."""
        tally = Tally()
        rows = [tally.row(seat) for seat in range(3)]
        table: dict[tuple[int, bytes], list[Entry]] = defaultdict(list)
        for come, seat, key in steps:
            if not come:
                if table[seat, key]:
                    rows[seat].leave(table[seat, key].pop())
                continue
            there = sum(len(table[other, key]) for other in range(3))
            try:
                entry = rows[seat].enter(key, 2, 3)
            except LimitError:
                self.assertEqual(there, 2)
            else:
                self.assertLess(there, 2)
                assert entry is not None
                table[seat, key].append(entry)


class CensusTests(SynchronousTestCase):
    """How many sessions there are."""

    def test_sessions(self) -> None:
        """Each process has its place, up to the last that is taken."""
        census = Census()
        for seat, sessions in ((0, 5), (3, 7)):
            census.take(seat)
            census.sessions[seat] = sessions
        self.assertEqual((list(census.sessions[:4]), census.seats), ([5, 0, 0, 7], 4))

    def test_vacate(self) -> None:
        """Those of a process that is no more do not count, nor when its seat is taken again."""
        for forget in (Census.vacate, Census.take):
            census = Census()
            for seat in (0, 1):
                census.take(seat)
                census.sessions[seat] = 4
            tallies = (census.addresses, census.users)
            for tally in tallies:
                tally.row(1).enter(b"key", 1, census.seats)
            forget(census, 1)
            self.assertEqual(list(census.sessions[:2]), [4, 0])
            for tally in tallies:
                self.assertTrue(fits(tally.row(0), b"key", 1, census.seats))

    def test_fork(self) -> None:
        """Processes that were forked see each other's sessions."""
        census = Census()
        census.take(0)
        pid = os.fork()
        if pid == 0:
            census.take(1)
            census.sessions[1] = 3
            os._exit(not fits(census.addresses.row(1), b"key", 1, 2))
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual((census.sessions[1], census.seats), (3, 2))
        self.assertFalse(fits(census.addresses.row(0), b"key", 1, census.seats))

    def test_race(self) -> None:
        """Processes that count as fast as they can never exceed a limit together."""
        tally = Tally()
        reader, writer = os.pipe()
        children = []
        for seat in range(3):
            pid = os.fork()
            if pid == 0:
                row = tally.row(seat)
                os.read(reader, 1)
                for number in range(2_000):
                    fits(row, b"%d" % (number % 50), 20, 3)
                os._exit(0)
            children.append(pid)
        os.write(writer, b"go!")
        for pid in children:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(reader)
        os.close(writer)
        for number in range(50):
            entry = Entry(*tally.find(b"%d" % number))
            self.assertTrue(10 < tally.count(entry, 3, -1) <= 20)
