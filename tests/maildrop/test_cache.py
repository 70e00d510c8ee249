"""Tests of what is remembered of a Maildir: nothing is looked at twice, and no change is missed."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop import facts
from popd.maildrop.interfaces import MaildropInUseError, MaildropTemporaryError
from popd.maildrop.maildir import Maildir
from popd.maildrop.snapshots import SnapshotCache
from popd.maildrop.stock import NOTHING, Change
from tests.maildrop.helpers import LONG_AGO, MaildirTestCase, later, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.protocol.snapshot import Snapshot


class CacheTestCase(MaildirTestCase):
    """A Maildir with three messages, and a process that remembers what it opened."""

    def setUp(self) -> None:
        """Deliver the messages."""
        super().setUp()
        patch = mock.patch("popd.maildrop.maildir.is_local", return_value=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.memory = SnapshotCache(10**6, now=later)
        self.ticks = 0
        self.one = self.deliver("new/1.h", b"one\n")
        self.two = self.deliver("cur/2.h:2,", b"two\n")
        self.three = self.deliver("cur/3.h:2,S", b"three\n")
        self.tick()
        self.looked: list[str] = []
        real = os.read

        def read(descriptor: int, octets: int) -> bytes:
            path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            self.looked.append(os.path.basename(path))  # noqa: PTH119
            return real(descriptor, octets)

        self.patch(os, "read", read)

    def cache(self) -> SnapshotCache:
        """Return what this process remembers."""
        return self.memory

    def restart(self) -> None:
        """Let the process forget."""
        self.memory = SnapshotCache(10**6, now=later)

    def tick(self) -> None:
        """Let time pass, so that what changed in the directories can be seen by their times."""
        self.ticks += 1
        self.settle(LONG_AGO + self.ticks)

    def look(self) -> dict[bytes, int]:
        """Have a whole session; return the sizes by unique-ids."""
        maildrop = self.session()
        snapshot = maildrop.open()
        maildrop.release()
        return self.shown(snapshot)

    def shown(self, snapshot: Snapshot) -> dict[bytes, int]:
        """Return the sizes of a snapshot by unique-ids, in order."""
        return dict(zip(snapshot.uids, snapshot.sizes, strict=True))

    def promptly(self) -> dict[bytes, int] | None:
        """Return what a session is shown that opens promptly, None if it cannot."""
        maildrop = self.session()
        snapshot = maildrop.open_promptly()
        if snapshot is None:
            return None
        self.assertTrue(maildrop.release_promptly())
        return self.shown(snapshot)

    def looked_into(self) -> list[str]:
        """Return the names of the files that were looked into since this was called last."""
        looked, self.looked = self.looked, []
        return sorted(looked)


ALL = {b"1.h": 5, b"2.h": 5, b"3.h": 7}


class MemoryTests(CacheTestCase):
    """What a process remembers while it runs."""

    def setUp(self) -> None:
        """Have a first session."""
        super().setUp()
        self.assertEqual(self.look(), ALL)
        self.assertEqual(self.looked_into(), ["1.h", "2.h:2,", "3.h:2,S"])

    def test_nothing_changed(self) -> None:
        """The next session needs no listing and no look into any file, and reads what it wants."""
        with mock.patch("os.scandir", side_effect=AssertionError):
            self.assertEqual(self.promptly(), ALL)
        maildrop = self.session()
        maildrop.open_promptly()
        self.assertEqual(read_all(maildrop.message(2)), b"three\n")
        self.assertEqual(maildrop.read_promptly(1, 99), b"two\n")
        self.assertEqual(len(maildrop.commit([0])), 0)
        self.assertEqual(self.looked_into(), [])

    def test_unique_ids(self) -> None:
        """Each unique-id can be asked for by itself, also one that is not the base name."""
        self.deliver("new/4 .h")
        self.tick()
        uids = self.session().open().uids
        self.assertEqual([uids[i] for i in range(4)], list(uids))
        self.assertEqual(len(uids[3]), 64)
        for index in (-1, 4):
            self.assertRaises(IndexError, uids.__getitem__, index)

    def test_shared(self) -> None:
        """Sessions are shown the same snapshot, with what is rendered of it."""
        snapshots = []
        for _ in range(2):
            maildrop = self.session()
            snapshots.append(maildrop.open_promptly())
            maildrop.release()
        self.assertIs(*snapshots)

    def test_delivered(self) -> None:
        """New mail is noticed; only its directory is listed, only itself looked into."""
        self.deliver("new/4.h")
        self.tick_only("new")
        self.assertIsNone(self.promptly())
        looks: list[str] = []
        self.meanwhile("scandir", "/new", lambda: looks.append("new"))
        self.meanwhile("scandir", "/cur", lambda: looks.append("cur"))
        self.assertEqual(self.look(), ALL | {b"4.h": 17})
        self.assertEqual(looks, ["new"])
        self.assertEqual(self.looked_into(), ["4.h"])
        self.assertEqual(self.promptly(), ALL | {b"4.h": 17})

    def tick_only(self, directory: str) -> None:
        """Let time pass in one directory."""
        self.ticks += 1
        os.utime(self.maildir / directory, (LONG_AGO + self.ticks, LONG_AGO + self.ticks))

    def test_delivered_before(self) -> None:
        """Mail whose place is before others' is put there."""
        self.deliver("new/0.h")
        self.deliver("cur/2.M5.h:2,")
        self.tick()
        expected = [b"0.h", b"1.h", b"2.h", b"2.M5.h", b"3.h"]
        self.assertEqual(list(self.look()), expected)
        self.assertEqual(self.looked_into(), ["0.h", "2.M5.h:2,"])
        self.assertEqual(list(self.promptly() or ()), expected)

    def test_removed(self) -> None:
        """Removed mail is noticed, and nothing is looked into."""
        self.two.unlink()
        self.tick()
        self.assertIsNone(self.promptly())
        self.assertEqual(self.look(), {b"1.h": 5, b"3.h": 7})
        self.assertEqual(self.looked_into(), [])
        maildrop = self.session()
        maildrop.open_promptly()
        self.assertEqual(read_all(maildrop.message(1)), b"three\n")

    def test_all_removed(self) -> None:
        """So it is when all are removed, and when mail comes again."""
        for path in (self.one, self.two, self.three):
            path.unlink()
        self.tick()
        self.assertEqual(self.look(), {})
        self.assertEqual(self.promptly(), {})
        self.deliver("cur/9.h:2,")
        self.tick()
        self.assertEqual(self.look(), {b"9.h": 17})

    def test_renamed(self) -> None:
        """A file with other flags or in the other directory is the same message, and is found."""
        self.one.rename(self.maildir / "cur/1.h:2,S")
        self.two.rename(self.maildir / "cur/2.h:2,T")
        self.deliver("new/4.h")
        self.tick()
        self.assertEqual(self.look(), ALL | {b"4.h": 17})
        self.assertEqual(self.looked_into(), ["4.h"])
        maildrop = self.session()
        maildrop.open_promptly()
        with mock.patch("popd.maildrop.maildir.scan", side_effect=AssertionError):
            self.assertEqual([read_all(maildrop.message(i)) for i in (0, 1)], [b"one\n", b"two\n"])

    def test_renamed_and_removed(self) -> None:
        """Messages are told apart when some moved and others went."""
        self.one.rename(self.maildir / "cur/1.h:2,S")
        self.two.unlink()
        self.tick()
        self.assertEqual(self.look(), {b"1.h": 5, b"3.h": 7})

    def test_many_places(self) -> None:
        """However often flags change, what is remembered of them is bounded."""
        for number in range(200):
            self.two = self.two.rename(self.maildir / f"cur/2.h:2,{number}")
            self.tick()
            self.assertEqual(self.look(), ALL)
        opened = self.memory.get(self.root)
        assert opened is not None
        self.assertLess(len(opened.stock._columns.where), 80)

    def test_another_file(self) -> None:
        """A file that was replaced by another of its name is looked into."""
        other = self.deliver("tmp/2", b"another\n")
        other.rename(self.two)
        self.tick()
        self.assertEqual(self.look(), ALL | {b"2.h": 9})
        self.assertEqual(self.looked_into(), ["2.h:2,"])

    def test_another_file_with_its_inode(self) -> None:
        """So is one that got the inode number of the one before, on a local disk."""
        self.two.write_bytes(b"another\n")
        self.three.write_bytes(b"longer than that\n")
        self.three.rename(self.maildir / "cur/3.h:2,T")
        self.tick()
        self.assertEqual(self.look(), {b"1.h": 5, b"2.h": 9, b"3.h": 18})
        self.assertEqual(self.looked_into(), ["2.h:2,", "3.h:2,T"])

    def test_on_a_network(self) -> None:
        """On a network the names of files and their inode numbers say enough."""
        self.restart()
        with mock.patch("popd.maildrop.maildir.is_local", return_value=False):
            self.look()
            self.assertIsNone(self.promptly())
            self.deliver("new/4.h")
            self.tick()
            looks: list[None] = []
            self.meanwhile("lstat", ".h:2,S", lambda: looks.append(None), times=9)
            self.assertEqual(self.look(), ALL | {b"4.h": 17})
            self.assertEqual(looks, [])

    def test_duplicate(self) -> None:
        """A second file of a base name is noticed, and nothing is remembered while it is there."""
        twin = self.deliver("new/2.h", b"twin\n", modified=LONG_AGO + 9)
        self.tick()
        uids = list(self.look())
        self.assertEqual(len(uids), 4)
        self.assertIsNone(self.promptly())
        self.assertEqual(list(self.look()), uids)
        twin.unlink()
        self.tick()
        self.assertEqual(self.look(), ALL)

    def test_duplicates_that_come_together(self) -> None:
        """Two new files of one base name are both there."""
        self.deliver("new/4.h", b"4\n")
        self.deliver("cur/4.h:2,", b"four\n")
        self.tick()
        self.assertEqual(len(self.look()), 5)

    def test_many_new_names(self) -> None:
        """Among many new files a duplicate is found as well."""
        for number in range(10, 90):
            self.deliver(f"new/{number}.h")
        self.tick()
        self.assertEqual(len(self.look()), 83)
        for number in range(89, 169):
            self.deliver(f"cur/{number}.h:2,")
        self.tick()
        self.assertEqual(len(self.look()), 163)

    def test_ledger(self) -> None:
        """A ledger that comes back from a backup counts at once."""
        twin = self.deliver("new/2.h", b"twin\n", modified=LONG_AGO + 9)
        self.tick()
        self.look()
        ledger = (self.maildir / "popd-uidl").read_bytes()
        (self.maildir / "popd-uidl").unlink()
        twin.unlink()
        self.tick()
        self.look()
        self.assertEqual(self.promptly(), ALL)
        (self.maildir / "popd-uidl").write_bytes(ledger)
        self.assertIsNone(self.promptly())

    def test_another_maildir(self) -> None:
        """Another Maildir in its place is not taken for it."""
        self.maildir.rename(self.ground / "moved")
        for directory in ("new", "cur"):
            (self.maildir / directory).mkdir(parents=True)
        self.tick()
        self.assertIsNone(self.promptly())
        self.assertEqual(self.look(), {})

    def test_trouble(self) -> None:
        """What cannot be looked at is left for `open` to complain about, and nothing is locked."""
        self.inject("lstat", errno.EIO, "/cur")
        self.assertIsNone(self.promptly())
        self.assertRaises(MaildropTemporaryError, self.session().open)
        self.maildir.rename(self.ground / "moved")
        self.assertIsNone(self.promptly())

    def test_in_use(self) -> None:
        """A maildrop that another session has is in use, promptly."""
        self.session().open()
        self.assertRaises(MaildropInUseError, self.session().open_promptly)

    def test_maildir_touched(self) -> None:
        """A Maildir that itself has times in the future is looked at for a ledger each time."""
        maildrop = self.session()
        maildrop.open()
        maildrop.release()
        future = 2 * later()
        os.utime(self.root, ns=(future, future))
        for _ in range(2):
            self.assertIsNotNone(maildrop.open_promptly())
            maildrop.release()

    def test_unlocked_after_a_change(self) -> None:
        """Where it cannot be opened promptly it is not locked either."""
        self.deliver("new/4.h")
        self.tick()
        self.assertIsNone(self.promptly())
        self.session().open()

    def test_changed_in_place(self) -> None:
        """A file that is not what it was is not served; afterwards all is found out anew."""
        self.two.write_bytes(b"another\n")
        maildrop = self.session()
        maildrop.open_promptly()
        self.assertIsNone(maildrop.read_promptly(1, 99))
        self.assertRaises(MaildropTemporaryError, maildrop.message, 1)
        self.assertFalse(maildrop.release_promptly())
        maildrop.release()
        self.assertIsNone(self.promptly())
        self.assertEqual(self.look(), ALL | {b"2.h": 9})
        self.assertEqual(len(self.looked_into()), 3)

    def test_bounded(self) -> None:
        """No more is remembered than there is room for; what was not used for longest goes."""
        opened = self.memory.get(self.root)
        assert opened is not None
        cache = SnapshotCache(2.5 * opened.stock.weight, now=later)
        for root in (b"a", b"b", b"a", b"c"):
            cache.put(root, opened)
        self.assertEqual(
            [bool(cache.get(root)) for root in (b"a", b"b", b"c")], [True, False, True]
        )
        cache.discard(b"a")
        cache.discard(b"a")
        cache.put(b"d", opened)
        self.assertEqual(
            [bool(cache.get(root)) for root in (b"a", b"c", b"d")], [False, True, True]
        )


class ClockTests(CacheTestCase):
    """When the times of a directory vouch for a listing."""

    def vouched(self, skew: float, age: float) -> bool:
        """Tell whether a listing is remembered that was made so many seconds after a change."""
        self.settle(LONG_AGO)
        changed = (self.maildir / "cur").stat().st_ctime_ns
        self.memory = SnapshotCache(10**6, skew, now=lambda: changed + int(age * 1e9))
        self.look()
        return self.promptly() is not None

    def test_skew(self) -> None:
        """They must be older than clocks may differ, and than a clock's tick in any case."""
        for skew, age, vouched in (
            (1, 0.9, False),
            (1, 1.1, True),
            (20, 19, False),
            (20, 21, True),
            (0, 0.01, False),
            (0, 0.1, True),
        ):
            self.assertEqual(self.vouched(skew, age), vouched, (skew, age))

    def test_future(self) -> None:
        """Times that lie ahead, from a machine whose clock is fast, vouch for nothing."""
        self.assertFalse(self.vouched(1, -5))

    def test_mtime_set_back(self) -> None:
        """A directory whose mtime was set back, as some programs do, has changed all the same."""
        self.look()
        time.sleep(0.02)
        self.two.unlink()
        self.settle(LONG_AGO + self.ticks)
        self.assertIsNone(self.promptly())

    def test_unsettled(self) -> None:
        """What changed too lately is listed again, and found unchanged without a look into it."""
        self.memory = SnapshotCache(10**6, now=time.time_ns)
        self.look()
        self.looked_into()
        self.assertIsNone(self.promptly())
        self.assertEqual(self.look(), ALL)
        self.assertEqual(self.looked_into(), [])


class FileTests(CacheTestCase):
    """What the next process knows."""

    path = property(lambda self: self.maildir / "popd-cache")

    @contextmanager
    def one_warning(self, word: str) -> Iterator[None]:
        """Check that exactly one line is logged, with a word in it and the file's name."""
        with self.assertLogs("popd.maildrop", "WARNING") as logs:
            yield
        self.assertEqual(len(logs.output), 1, logs.output)
        self.assertIn(word, logs.output[0])
        self.assertIn(str(self.maildir), logs.output[0])

    def test_restart(self) -> None:
        """After a restart no file is looked into."""
        self.look()
        self.looked_into()
        self.restart()
        self.assertEqual(self.look(), ALL)
        self.assertEqual(self.looked_into(), [])

    def test_written_when_needed(self) -> None:
        """It is written when something was found out, at the session's end."""
        maildrop = self.session()
        maildrop.open()
        self.assertFalse(self.path.exists())
        maildrop.release()
        before = self.path.stat().st_ino
        self.look()
        self.assertEqual(self.path.stat().st_ino, before)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_fetched_and_deleted(self) -> None:
        """Mail that does not outlive the session is not written down."""
        maildrop = self.session()
        maildrop.open()
        self.assertEqual(len(maildrop.commit(range(3))), 0)
        maildrop.release()
        self.assertFalse(self.path.exists())

    def test_damaged(self) -> None:
        """A damaged one is logged in a line, not used, and replaced."""
        self.look()
        whole = self.path.read_bytes()
        head, _, body = whole.partition(b"\n")
        for content in (
            b"",
            b"popd-cache 2 " + whole[13:],
            whole[:-1],
            whole + b"x",
            whole[:-1] + b"x",
            head,
            b"popd-cache 1 4 " + whole[15:],
            body,
            b"\0" * len(whole),
        ):
            self.path.write_bytes(content)
            self.restart()
            self.looked_into()
            with self.one_warning("damaged"):
                self.assertEqual(self.look(), ALL, content[:40])
            self.assertEqual(len(self.looked_into()), 3)
            self.assertEqual(self.path.read_bytes(), whole)

    def test_made_up(self) -> None:
        """One that contradicts itself is not used either."""
        self.look()
        body = self.path.read_bytes().partition(b"\n")[2] + b"4.h\0"
        digest = hashlib.blake2b(body, digest_size=32).hexdigest().encode()
        self.path.write_bytes(b"popd-cache 1 3 %b\n%b" % (digest, body))
        self.restart()
        with self.one_warning("damaged"):
            self.assertEqual(self.look(), ALL)

    def test_foreign(self) -> None:
        """Another user's is not used, and replaced."""
        self.look()
        self.restart()
        with mock.patch("os.geteuid", return_value=12345), self.one_warning("another user"):
            self.assertEqual(self.look(), ALL)
        self.assertEqual(len(self.looked_into()), 6)

    def test_too_large(self) -> None:
        """One that is too large is not even read."""
        self.look()
        self.restart()
        with mock.patch.object(facts, "_MAX_OCTETS", 10), self.one_warning("too large"):
            self.assertEqual(self.look(), ALL)

    def test_no_file(self) -> None:
        """What is no file in its place is not opened, and not waited for."""
        for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")):
            self.restart()
            make(self.path)
            with self.assertLogs("popd.maildrop", "WARNING"):
                self.assertEqual(self.look(), ALL)
            if self.path.is_dir():
                self.path.rmdir()
            self.path.unlink(missing_ok=True)

    def test_unreadable(self) -> None:
        """One that the disk fails to read is not used."""
        self.look()
        self.restart()
        self.inject("open", errno.EIO, "popd-cache")
        with self.one_warning("Input/output"):
            self.assertEqual(self.look(), ALL)

    def test_unwritable(self) -> None:
        """Where it cannot be written that is logged once, and mail is served and remembered."""
        self.inject("rename", errno.EROFS, "popd-cache.new")
        with self.one_warning("Read-only"):
            self.assertEqual(self.look(), ALL)
        self.assertEqual(self.promptly(), ALL)
        self.assertEqual({path.name for path in self.maildir.iterdir()} & {"popd-cache.new"}, set())

    def test_full_disk(self) -> None:
        """On a full disk mail is served, fetched and deleted."""
        self.mount("nr_inodes=20")
        self.deliver("new/1.h", b"x\n")
        self.fill_up()
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(self.look(), {b"1.h": 3})
            self.restart()
            maildrop = self.session()
            maildrop.open()
            self.assertEqual(len(maildrop.commit([0])), 0)
            maildrop.release()

    def test_left_by_a_crash(self) -> None:
        """A file that a crash left half written is in nobody's way."""
        (self.maildir / "popd-cache.new").write_bytes(b"half")
        self.look()
        self.assertEqual(
            {path.name for path in self.maildir.iterdir()},
            {"new", "cur", "tmp", "popd-lock", "popd-cache"},
        )

    def test_stale(self) -> None:
        """What it says of files that were replaced is not believed."""
        self.look()
        self.restart()
        self.deliver("tmp/2", b"another\n").rename(self.two)
        self.three.write_bytes(b"longer than that\n")
        self.tick()
        self.assertEqual(self.look(), {b"1.h": 5, b"2.h": 9, b"3.h": 18})

    def test_duplicates(self) -> None:
        """Duplicates get the same unique-ids as without it."""
        self.deliver("new/2.h", b"twin\n", modified=LONG_AGO + 9)
        self.tick()
        before = self.look()
        self.restart()
        self.assertEqual(self.look(), before)
        self.path.unlink()
        self.restart()
        self.assertEqual(self.look(), before)


class RecentTests(CacheTestCase):
    """In a large maildrop, what is found out later is written apart at first."""

    def setUp(self) -> None:
        """Take ten messages for many, and have a first session."""
        super().setUp()
        self.patch(facts, "_FEW", 10)
        self.memory.put = mock.Mock(wraps=self.memory.put)  # type: ignore[method-assign]
        for number in range(10, 23):
            self.deliver(f"cur/{number}.h:2,S", b"x\n" * number)
        self.tick()
        self.all = self.look()
        self.number = 22
        self.main = (self.maildir / "popd-cache").stat()
        self.recent = self.maildir / "popd-cache-new"
        self.looked_into()

    def more(self) -> None:
        """Deliver another message, and have a session."""
        self.number += 1
        self.deliver(f"new/{self.number}.h", b"x\n" * self.number)
        self.tick()
        self.all[b"%d.h" % self.number] = 3 * self.number
        self.assertEqual(self.look(), self.all)

    def test_apart(self) -> None:
        """A few are written apart; after a restart all is known."""
        for count in range(4):
            self.more()
            self.assertEqual((self.maildir / "popd-cache").stat().st_ino, self.main.st_ino, count)
            self.assertTrue(self.recent.exists())
        self.assertEqual(self.looked_into(), ["23.h", "24.h", "25.h", "26.h"])
        self.restart()
        self.assertEqual(self.look(), self.all)
        self.assertEqual(self.looked_into(), [])
        self.more()
        self.assertEqual(self.looked_into(), ["27.h"])

    def test_together(self) -> None:
        """When they become many, all is written anew, in one file."""
        for _ in range(5):
            self.more()
        self.assertNotEqual((self.maildir / "popd-cache").stat().st_ino, self.main.st_ino)
        self.assertFalse(self.recent.exists())
        self.looked_into()
        self.restart()
        self.assertEqual(self.look(), self.all)
        self.assertEqual(self.looked_into(), [])

    def test_two_processes(self) -> None:
        """What one process found out, another need not."""
        one, other = self.memory, SnapshotCache(10**6, now=later)
        self.memory = other
        self.look()
        for _ in range(12):
            self.memory = one
            self.more()
            self.assertEqual(len(self.looked_into()), 1)
            self.memory = other
            self.assertEqual(self.look(), self.all)
            self.assertEqual(self.looked_into(), [])

    def test_damaged(self) -> None:
        """When that file is damaged, what was in it is found out again."""
        self.more()
        self.recent.write_bytes(b"x")
        self.restart()
        self.looked_into()
        with self.assertLogs("popd.maildrop", "WARNING") as logs:
            self.assertEqual(self.look(), self.all)
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(self.looked_into(), ["23.h"])

    def test_main_file_lost(self) -> None:
        """When the main file is gone, all is written anew."""
        (self.maildir / "popd-cache").unlink()
        self.more()
        self.restart()
        self.looked_into()
        self.assertEqual(self.look(), self.all)
        self.assertEqual(self.looked_into(), [])


class LargeTests(MaildirTestCase):
    """What is done for large maildrops, so that it need not be done while others wait."""

    def test_rendered(self) -> None:
        """The listings of a large maildrop are there before they are asked for."""
        for number in range(3):
            self.deliver(f"cur/{number}.h:2,")
        with mock.patch("popd.maildrop.maildir._LARGE", 3):
            maildrop = self.session()
            snapshot = maildrop.open()
        self.assertIn(b"\n3 2.h\r\n", snapshot._uidl)

    def test_sorted_in_runs(self) -> None:
        """The order is the same whether it is made in one call or in many."""
        logging.getLogger("popd.maildrop").addHandler(logging.NullHandler())
        names = [f"{number * 7919 % 100}.h" for number in range(100)]
        for name in names:
            self.deliver(f"cur/{name}:2,")
        for run in (1, 7, 64, 1000):
            with mock.patch("popd.maildrop.stock._RUN", run):
                self.assertEqual(self.uids(), sorted((n.encode() for n in names), key=_number))


def _number(uid: bytes) -> int:
    return int(uid.partition(b".")[0])


class WidthTests(SynchronousTestCase):
    """Numbers of any size, in columns that are no wider than they must be."""

    def test_chained(self) -> None:
        """Wide numbers come behind narrow ones, and negative ones behind those."""
        seen: dict[bytes, tuple[int, int]] = {}
        stock = NOTHING
        for name, inode, modified in ((b"1.h", 7, 5), (b"2.h", 2**64 - 1, -9), (b"3.h", 8, 2**40)):
            seen[name] = inode, modified
            change = Change([], {}, [(b"cur", name, inode)])
            stock = stock.after(change, lambda _, mtime=modified: (3, mtime, 4))  # type: ignore[misc]
            rows = [stock.row(index) for index in range(len(stock))]
            self.assertEqual({row[0][1]: (row[0][2], row[1][1]) for row in rows}, seen)
        table = facts._parse(facts._format(stock))
        assert table is not None
        for name, (inode, modified) in seen.items():
            self.assertEqual(table.get(name, inode), (3, modified, 4))


class DefaultTests(MaildirTestCase):
    """A Maildir by itself."""

    def test_nothing_remembered(self) -> None:
        """Without a cache nothing is remembered."""
        self.deliver("new/1.h")
        for _ in range(2):
            maildrop = Maildir(self.root)
            self.assertIsNone(maildrop.open_promptly())
            self.assertEqual(list(maildrop.open().uids), [b"1.h"])
            self.assertRaises(RuntimeError, lambda: Maildir(self.root)._lock.which)
            maildrop.release()
