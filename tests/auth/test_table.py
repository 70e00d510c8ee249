"""Tests of the tables of guesses, and of the file that they may be in."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.table import WAYS, Marks, Scores
from popd.auth.tablefile import GuessTable, GuessTableError, Shape

BUCKETS = 4
NOW = 1_800_000_000.0
SMALL = Shape(64, 256, 256)
MINUTE = 64


def scores(buckets: int = BUCKETS) -> Scores:
    """Return an empty table."""
    return Scores(memoryview(bytearray(buckets)), memoryview(bytearray(buckets * Scores.OCTETS)))


class ScoresTests(SynchronousTestCase):
    """A table of words by key."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from(["put", "drop"]), st.integers(1, 60), st.integers(1, 1 << 63))
        )
    )
    def test_model(self, steps: list[tuple[str, int, int]]) -> None:
        """It holds what a dict holds, but for what had to make room: never what is the greatest."""
        table, model = scores(), dict[int, int]()
        for what, key, word in steps:
            bucket = key % BUCKETS
            if what == "put":
                others = [model[k] for k in model if k % BUCKETS == bucket and k != key]
                table.put(key, bucket, word)
                if key not in model and len(others) == WAYS:
                    victim = min(others)
                    gone = [k for k in model if model[k] == victim and not table.get(k, k % 4)]
                    self.assertEqual(len(gone), 1)
                    del model[gone[0]]
                model[key] = word
            else:
                self.assertEqual(table.drop(key, bucket), model.pop(key, None) is not None)
            self.assertEqual(dict(table), model)
            self.assertEqual(
                {k: table.get(k, k % BUCKETS) for k in range(61)} | model,
                {k: model.get(k, 0) for k in range(61)},
            )
        table.clear()
        self.assertEqual(dict(table), {})

    def test_flood(self) -> None:
        """Any number of lesser keys leaves the worst in its place."""
        table = scores()
        table.put(1, 1, 1000)
        for key in range(2, 10_000):
            table.put(key, key % BUCKETS, key % 999 + 1)
        self.assertEqual(table.get(1, 1), 1000)
        self.assertEqual(len(dict(table)), BUCKETS * WAYS)

    def test_untouched(self) -> None:
        """A bucket in which nothing ever was is not looked at."""
        memory = memoryview(bytearray(b"\1" * 8 + bytes(56) + b"\1" * 64))
        occupied = memoryview(bytearray(1))
        self.assertEqual(Scores(occupied, memory).get(0x0101_0101_0101_0101, 0), 0)
        occupied[0] = 1
        self.assertNotEqual(Scores(occupied, memory).get(0x0101_0101_0101_0101, 0), 0)


class MarksTests(SynchronousTestCase):
    """A set of keys that were seen."""

    def setUp(self) -> None:
        """Make a table."""
        self.marks = Marks(memoryview(bytearray(256 * Marks.OCTETS)))

    def test_age(self) -> None:
        """It tells how long ago something was seen, in steps of a minute."""
        self.assertIsNone(self.marks.age(7, NOW))
        self.marks.see(7, NOW)
        self.marks.see(7 + (1 << 47), NOW - 10 * MINUTE)
        self.assertEqual(self.marks.age(7, NOW), 0)
        self.assertEqual(self.marks.age(7, NOW + 1000 * MINUTE), 1000 * MINUTE)
        self.assertEqual(self.marks.age(7 + (1 << 47), NOW), 10 * MINUTE)
        self.marks.see(7, NOW + 1000 * MINUTE)
        self.assertEqual(self.marks.age(7, NOW + 1000 * MINUTE), 0)
        self.assertIsNone(self.marks.age(8, NOW))
        self.marks.clear()
        self.assertIsNone(self.marks.age(7, NOW))

    def test_future(self) -> None:
        """What was seen in the future, before the clock was set back, is as good as new."""
        self.marks.see(7, NOW + 1000 * MINUTE)
        self.assertEqual(self.marks.age(7, NOW), 0)

    def test_oldest(self) -> None:
        """What was seen longest ago makes room; to be seen again keeps it."""
        keys = [7 | number << 8 for number in range(1, WAYS + 2)]
        for number, key in enumerate(keys[:WAYS]):
            self.marks.see(key, NOW + number * MINUTE)
        self.marks.see(keys[0], NOW + 20 * MINUTE)
        self.marks.see(keys[WAYS], NOW + 30 * MINUTE)
        left = [self.marks.age(key, NOW + 40 * MINUTE) is not None for key in keys]
        self.assertEqual(left, [True, False] + [True] * (WAYS - 1))

    def test_few_take_little(self) -> None:
        """Few keys are close together; many are all found, wherever there was room for them."""
        memory = memoryview(bytearray(65_536 * Marks.OCTETS))
        marks = Marks(memory)
        digests = [blake2b(b"%d" % n, digest_size=6).digest() for n in range(60_000)]
        keys = [int.from_bytes(digest, "little") for digest in digests]
        for number, key in enumerate(keys):
            if number in {400, 4_000}:
                octets = (256, 4_096)[number > 400] * Marks.OCTETS
                self.assertEqual(bytes(memory[octets:]).strip(b"\0"), b"")
            marks.see(key, NOW)
        self.assertEqual([key for key in keys if marks.age(key, NOW) is None], [])
        for key in keys:
            marks.see(key, NOW + 10 * MINUTE)
        self.assertEqual({marks.age(key, NOW + 10 * MINUTE) for key in keys}, {0.0})
        words = sum(1 for word in memory.cast("Q") if word)
        self.assertEqual(words, len(set(keys)))

    def test_size(self) -> None:
        """There are whole rows."""
        for buckets in (0, 128, 257):
            with self.assertRaises(ValueError):
                Marks(memoryview(bytearray(buckets * Marks.OCTETS)))


class SizeTests(SynchronousTestCase):
    """How much memory it takes."""

    def test_bound(self) -> None:
        """All of it has no more than 32 million octets, with room for a million addresses."""
        self.assertLessEqual(sum(Shape().parts), 32_000_000)
        self.assertGreater(Shape().scores * WAYS, 1_500_000)

    def test_idle(self) -> None:
        """While nothing is wrong it takes next to nothing, however much is looked up."""
        table = GuessTable.in_memory()
        self.addCleanup(table.close)
        for number in range(20_000):
            table.scores.get(number, number * 7919 % table.scores.buckets)
        self.assertLess(os.fstat(table.descriptor).st_blocks * 512, 400_000)


class FileTests(SynchronousTestCase):
    """A table in a file."""

    def setUp(self) -> None:
        """Choose a path."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "guesses"

    def open(self) -> GuessTable:
        """Open it as popd does."""
        table = GuessTable.open(self.path, SMALL)
        self.addCleanup(table.close)
        return table

    def fill(self) -> None:
        """Write something into it, and close it again."""
        table = GuessTable.open(self.path, SMALL)
        table.scores.put(1, 2, 3)
        table.wrong.see(4, NOW)
        table.proven.see(5, NOW)
        table.close()

    def assert_kept(self, *, kept: bool) -> None:
        """Check whether what was filled in is there."""
        table = self.open()
        found = (table.scores.get(1, 2), table.wrong.age(4, NOW), table.proven.age(5, NOW))
        self.assertEqual(found, (3, 0, 0) if kept else (0, None, None))

    def test_kept(self) -> None:
        """What is in it, and the key, outlast the process; nobody else may read it."""
        self.fill()
        key = self.open().key
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assert_kept(kept=True)
        self.assertEqual(self.open().key, key)
        self.assertEqual([*self.directory.iterdir()], [self.path])

    def test_whole(self) -> None:
        """All of the disk's room for it is taken at once, or writing to it could be fatal."""
        self.open()
        status = self.path.stat()
        self.assertEqual(status.st_size, sum(SMALL.parts))
        self.assertGreaterEqual(status.st_blocks * 512, status.st_size)

    def test_shared(self) -> None:
        """Two who have it open see the same, be it opened by path or looked at by popctl."""
        one, two = self.open(), self.open()
        one.scores.put(1, 2, 3)
        self.assertEqual(two.scores.get(1, 2), 3)
        looked_at = GuessTable.existing(self.path)
        self.addCleanup(looked_at.close)
        self.assertEqual(dict(looked_at.scores), {1: 3})

    def assert_replaced(self, why: str) -> None:
        """Check that the file is replaced, with one line in the log."""
        with self.assertLogs("popd.auth.tablefile", "WARNING") as logs:
            self.assert_kept(kept=False)
        self.assertEqual(len(logs.records), 1)
        self.assertIn(why, logs.output[0])
        self.assertIn(str(self.path), logs.output[0])
        self.fill()
        self.assert_kept(kept=True)

    def damage(self, offset: int, content: bytes) -> None:
        """Overwrite a part of the file."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def test_damaged(self) -> None:
        """A damaged header makes it useless."""
        self.fill()
        self.damage(30, b"xxx")
        self.assert_replaced("damaged")

    def test_zeros(self) -> None:
        """So does one that never came to the disk."""
        self.fill()
        self.damage(0, bytes(4096))
        self.assert_replaced("damaged")

    def test_cut(self) -> None:
        """So does a missing piece."""
        self.fill()
        os.truncate(self.path, 10_000)
        self.assert_replaced("damaged")

    def test_empty(self) -> None:
        """An empty file is replaced, too."""
        self.path.touch(0o600)
        self.assert_replaced("damaged")

    def test_other_size(self) -> None:
        """One whose tables have another size is replaced."""
        GuessTable.open(self.path, Shape(128, 256, 256)).close()
        self.assert_replaced("not from this version")

    def test_other_version(self) -> None:
        """So is one of another version."""
        with mock.patch("popd.auth.tablefile._VERSION", 2):
            self.fill()
        self.assert_replaced("not from this version")

    def test_readable(self) -> None:
        """One that others can read is replaced: they may know the key."""
        self.fill()
        self.path.chmod(0o640)
        self.assert_replaced("others")

    def test_foreign(self) -> None:
        """One that is another user's is replaced."""
        self.fill()
        with (
            mock.patch("os.geteuid", return_value=os.geteuid() + 1),
            self.assertLogs("popd.auth.tablefile", "WARNING"),
            self.assertRaisesRegex(
                GuessTableError, "others"
            ),  # for so is the new one, in this test
        ):
            GuessTable.open(self.path, SMALL)
        self.assert_kept(kept=False)

    def test_garbage(self) -> None:
        """Whatever is in the tables, reading them never fails."""
        self.fill()
        at = SMALL.parts[0]
        self.damage(at, os.urandom(self.path.stat().st_size - at))
        table = self.open()
        self.assertTrue(dict(table.scores))
        for key in range(1000):
            table.scores.get(key, key % 64)
            table.wrong.age(key, NOW)

    def test_something_else(self) -> None:
        """A file that never was a table is left alone."""
        self.path.write_text("joe:{PLAIN}secret\n", encoding="ascii")
        with self.assertRaisesRegex(GuessTableError, "something else"):
            GuessTable.open(self.path, SMALL)
        self.assertEqual(self.path.read_text(encoding="ascii"), "joe:{PLAIN}secret\n")

    def test_no_file(self) -> None:
        """Directories, FIFOs and links are not opened."""
        self.path.mkdir()
        with self.assertRaises(GuessTableError):
            GuessTable.open(self.path, SMALL)
        self.path.rmdir()
        os.mkfifo(self.path)
        with self.assertRaisesRegex(GuessTableError, "something else"):
            GuessTable.open(self.path, SMALL)
        self.path.unlink()
        self.path.symlink_to("elsewhere")
        with self.assertRaises(GuessTableError):
            GuessTable.open(self.path, SMALL)

    def test_no_room(self) -> None:
        """A full disk is an error, and leaves nothing."""
        full = OSError(28, "No space left on device")
        with (
            mock.patch("os.posix_fallocate", side_effect=full),
            self.assertRaisesRegex(GuessTableError, "No space left"),
        ):
            GuessTable.open(self.path, SMALL)
        self.assertEqual([*self.directory.iterdir()], [])

    def test_existing(self) -> None:
        """Who only looks makes nothing."""
        with self.assertRaisesRegex(GuessTableError, "No such file"):
            GuessTable.existing(self.path)
        self.assertEqual([*self.directory.iterdir()], [])
