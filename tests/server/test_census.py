"""Tests of `popd.server.census`."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.server.census import _BUCKETS, _WAYS, Census, Tally


class TallyTests(SynchronousTestCase):
    """How often a key is there."""

    def setUp(self) -> None:
        """Make a tally."""
        self.tally = Tally("test")

    def test_limit(self) -> None:
        """As many as the limit says are counted, in all processes together."""
        for seat in (0, 1, 2):
            self.assertTrue(self.tally.enter(seat, b"key", 3, 3))
        for seat in (0, 1, 2):
            self.assertIs(self.tally.enter(seat, b"key", 3, 3), False)
        self.assertTrue(self.tally.enter(0, b"other", 3, 3))
        self.tally.leave(1, b"key")
        self.assertTrue(self.tally.enter(2, b"key", 3, 3))
        self.assertIs(self.tally.enter(1, b"key", 3, 3), False)

    def test_leave_too_often(self) -> None:
        """What is not there cannot become less."""
        self.tally.leave(0, b"key")
        self.assertTrue(self.tally.enter(0, b"key", 1, 1))
        self.assertIs(self.tally.enter(0, b"key", 1, 1), False)

    def test_clear(self) -> None:
        """What one process had can be forgotten."""
        self.tally.enter(0, b"key", 9, 2)
        self.tally.enter(1, b"key", 9, 2)
        self.tally.clear(0)
        self.assertIs(self.tally.enter(1, b"key", 1, 2), False)
        self.assertTrue(self.tally.enter(0, b"key", 2, 2))

    def test_many(self) -> None:
        """However many keys there are, none is taken for another."""
        keys = [b"%d" % number for number in range(20_000)]
        for key in keys:
            self.assertTrue(self.tally.enter(0, key, 1, 1))
        self.assertTrue(all(self.tally.enter(0, key, 1, 1) is False for key in keys))

    def test_full(self) -> None:
        """A key for which there is no room is not counted, and refused nothing."""
        results = [
            self.tally.enter(0, b"%d" % number, 1, 1) for number in range(2 * _WAYS * _BUCKETS)
        ]
        self.assertNotIn(False, results)
        left_out = b"%d" % results.index(None)
        self.assertIsNone(self.tally.enter(0, left_out, 1, 1))
        self.tally.leave(0, left_out)

    def test_octets_across_words(self) -> None:
        """Octets that look like a mark, but lie across two words, are none."""
        mark, octets, bucket = self.tally._find(b"key")
        begin = bucket // 8
        for shift in range(1, 8):
            both = int.from_bytes(octets, "little") << 16 << 8 * shift
            self.tally._words[begin] = both & (1 << 64) - 1
            self.tally._words[begin + 1] = both >> 64
            self.assertIsNone(self.tally._place(0, octets, bucket), shift)
        self.tally._words[begin + 1] = mark << 16 | 1
        self.assertEqual(self.tally._place(0, octets, bucket), begin + 1)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.sampled_from([b"a", b"b"]))))
    def test_as_counted_by_hand(self, steps: list[tuple[bool, int, bytes]]) -> None:
        """It is what a table of all would say."""
        tally, table = (
            Tally("test"),
            dict.fromkeys([(s, k) for s in range(3) for k in (b"a", b"b")], 0),
        )
        for come, seat, key in steps:
            if come:
                there = sum(table[other, key] for other in range(3))
                self.assertEqual(tally.enter(seat, key, 2, 3), there < 2)
                table[seat, key] += there < 2
            elif table[seat, key]:
                tally.leave(seat, key)
                table[seat, key] -= 1


class CensusTests(SynchronousTestCase):
    """How many sessions there are."""

    def test_sessions(self) -> None:
        """Those of all processes are added up."""
        census = Census()
        for seat, sessions in ((0, 5), (3, 7)):
            census.take(seat)
            census.publish(seat, sessions)
        self.assertEqual((census.sessions(), census.seats), (12, 4))

    def test_vacate(self) -> None:
        """Those of a process that is no more do not count, nor when its seat is taken again."""
        for forget in (Census.vacate, Census.take):
            census = Census()
            census.take(0)
            census.take(1)
            census.publish(0, 4)
            census.publish(1, 5)
            census.addresses.enter(1, b"key", 1, census.seats)
            census.users.enter(1, b"key", 1, census.seats)
            forget(census, 1)
            self.assertEqual(census.sessions(), 4)
            self.assertTrue(census.addresses.enter(0, b"key", 1, census.seats))
            self.assertTrue(census.users.enter(0, b"key", 1, census.seats))

    def test_fork(self) -> None:
        """Processes that were forked see each other's sessions."""
        census = Census()
        census.take(0)
        pid = os.fork()
        if pid == 0:
            census.take(1)
            census.publish(1, 3)
            os._exit(census.addresses.enter(1, b"key", 1, 2) is not True)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(census.sessions(), 3)
        self.assertIs(census.addresses.enter(0, b"key", 1, census.seats), False)

    def test_race(self) -> None:
        """Processes that count as fast as they can never exceed a limit together."""
        census = Census()
        reader, writer = os.pipe()
        children = []
        for seat in range(3):
            pid = os.fork()
            if pid == 0:
                census.take(seat)
                os.read(reader, 1)
                for number in range(2_000):
                    census.addresses.enter(seat, b"%d" % (number % 50), 20, 3)
                os._exit(0)
            children.append(pid)
        os.write(writer, b"go!")
        for pid in children:
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(reader)
        os.close(writer)
        tally = census.addresses
        for number in range(50):
            key = b"%d" % number
            _, octets, bucket = tally._find(key)
            places = [tally._place(seat, octets, bucket) for seat in range(3)]
            there = sum(tally._words[at] & 0xFFFF for at in places if at is not None)
            self.assertTrue(10 < there <= 20, there)
