"""Tests of `popd.maildrop.scan` and `popd.maildrop.stored`: whole lists, whatever happens."""

from __future__ import annotations

import errno
import os
import time

from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.scan import PASSES, scan
from tests.maildrop.helpers import LONG_AGO, MaildirTestCase, later


class ScanTests(MaildirTestCase):
    """How often the directories are listed, and what comes of it."""

    def setUp(self) -> None:
        """Deliver a message to each directory, long ago, and count the listings."""
        super().setUp()
        self.one = self.deliver("new/1.h")
        self.two = self.deliver("cur/2.h:2,S")
        self.settle()
        self.listings = 0

        def count() -> None:
            self.listings += 1

        self.meanwhile("scandir", "/cur", count, times=99)

    def scan(self) -> set[str]:
        """Return the names that a scan finds."""
        files = scan(self.root, now=later).files
        return {
            os.fsdecode(b"%b/%b" % (directory, name))
            for directory, names in files.items()
            for name in names
        }

    def test_at_rest(self) -> None:
        """A Maildir at rest is listed once."""
        self.assertEqual(self.scan(), {"new/1.h", "cur/2.h:2,S"})
        self.assertEqual(self.listings, 1)

    def test_new_first(self) -> None:
        """What mail moves from is listed before what it moves to."""
        order: list[str] = []
        self.meanwhile("scandir", "/cur", lambda: order.append("cur"))
        self.meanwhile("scandir", "/new", lambda: order.append("new"))
        self.scan()
        self.assertEqual(order, ["new", "cur"])

    def test_fresh(self) -> None:
        """A directory that changed within the clock's tick is listed again, the other is not."""
        order: list[str] = []
        self.meanwhile("scandir", "/new", lambda: order.append("new"), times=9)
        self.meanwhile("scandir", "/cur", lambda: order.append("cur"), times=9)
        for name, other in (("new", "cur"), ("cur", "new")):
            self.settle()
            order.clear()
            os.utime(self.maildir / name, ns=(later(), later() + 10**8))
            self.assertEqual(self.scan(), {"new/1.h", "cur/2.h:2,S"})
            self.assertGreater(order.count(name), 1)
            self.assertEqual(order.count(other), 1)

    def test_future(self) -> None:
        """A directory whose mtime lies in the future is listed as often as one that never rests."""
        self.settle(time.time() + 7200)
        self.assertEqual(self.scan(), {"new/1.h", "cur/2.h:2,S"})
        self.assertEqual(self.listings, PASSES)

    def test_moved_between_the_listings(self) -> None:
        """A message that moves from new to cur between the listings counts once, where it is."""

        def move() -> None:
            self.one.rename(self.maildir / "cur/1.h:2,")

        self.meanwhile("scandir", "/cur", move)
        self.assertEqual(self.scan(), {"cur/1.h:2,", "cur/2.h:2,S"})

    def test_missed_by_readdir(self) -> None:
        """A file that a listing missed, while the directory changed, is there all the same."""
        real = os.scandir
        listings = 0

        class Missing:
            """A directory that forgets its files every second time."""

            def __init__(self, descriptor: int) -> None:
                self.entries = real(descriptor)

            def __enter__(self) -> list[os.DirEntry[str]]:
                nonlocal listings
                listings += 1
                return [] if listings % 4 in {3, 0} else list(self.entries)

            def __exit__(self, *_: object) -> None:
                self.entries.close()

        self.patch(os, "scandir", Missing)
        self.settle(time.time() + 7200)
        self.assertEqual(self.scan(), {"new/1.h", "cur/2.h:2,S"})

    def test_removed_between_the_listings(self) -> None:
        """A file that an earlier listing saw, and that was removed since, is not in the result."""
        self.settle(time.time() + 7200)
        times = iter(range(99))

        def remove_at_second() -> None:
            if next(times) == 1:
                self.one.unlink()
                self.settle(time.time() + 7200)

        self.meanwhile("scandir", "/new", remove_at_second, times=99)
        self.assertEqual(self.scan(), {"cur/2.h:2,S"})

    def test_unclear(self) -> None:
        """What may be there but cannot be looked at is an error."""
        self.settle(time.time() + 7200)
        times = iter(range(99))

        def remove_at_second() -> None:
            if next(times) == 1:
                self.one.unlink()

        self.meanwhile("scandir", "/new", remove_at_second, times=99)
        self.inject("lstat", errno.EIO, "1.h")
        self.assertRaises(MaildropTemporaryError, self.scan)


class StockTests(MaildirTestCase):
    """Files that come and go while their sizes are taken."""

    def test_removed(self) -> None:
        """A file that is removed after the listing is left out, after another look."""
        one = self.deliver("cur/1.h:2,S")
        self.deliver("cur/2.h:2,S")
        self.meanwhile("open", "1.h:2,S", one.unlink)
        self.assertEqual(self.uids(), [b"2.h"])

    def test_renamed(self) -> None:
        """A file that is renamed after the listing is in the list."""
        one = self.deliver("new/1.h")
        self.deliver("cur/2.h:2,S")
        self.meanwhile("open", "1.h", lambda: one.rename(self.maildir / "cur/1.h:2,"))
        self.assertEqual(self.uids(), [b"1.h", b"2.h"])

    def test_never_rests(self) -> None:
        """Files that are never where they were just seen are an error, not a shorter list."""
        self.deliver("cur/1.h:2,S")
        self.inject("open", errno.ENOENT, "1.h:2,S")
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.session().open()
        self.assertIn(f"'{self.maildir}'", str(caught.exception))

    def test_duplicate_removed(self) -> None:
        """A duplicate that is removed before it is read is left out, after another look."""
        self.deliver("cur/1.h:2,S", b"one", modified=LONG_AGO + 1)
        two = self.deliver("new/1.h", b"two")
        self.meanwhile("open", "new/1.h", lambda: None)
        reads = iter(range(9))
        self.meanwhile(
            "open", "new/1.h", lambda: two.unlink() if next(reads) == 1 else None, times=2
        )
        self.assertEqual(self.uids(), [b"1.h"])

    def test_duplicate_unreadable(self) -> None:
        """A duplicate that cannot be read is an error."""
        self.deliver("cur/1.h:2,S", b"one")
        self.deliver("new/1.h", b"two")
        reads = iter(range(9))

        def fail_at_second() -> None:
            if next(reads) == 1:
                raise OSError(errno.EIO, "Input/output error")

        self.meanwhile("open", "new/1.h", fail_at_second, times=9)
        self.assertRaises(MaildropTemporaryError, self.session().open)
