"""Tests of `popd.maildrop.maildir`: what a session finds at log-in."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from popd.maildrop import beneath
from popd.maildrop.interfaces import (
    MaildropInUseError,
    MaildropTemporaryError,
)
from tests.maildrop.contract import MAIL, MaildropContract
from tests.maildrop.helpers import MaildirTestCase, read_all

if TYPE_CHECKING:
    from pathlib import Path

    from popd.maildrop.maildir import Maildir


class ContractTests(MaildropContract, MaildirTestCase):
    """A Maildir keeps the contract."""

    def setUp(self) -> None:
        """Deliver the mail; what is logged meanwhile is not of interest here."""
        super().setUp()
        silence = logging.NullHandler()
        logging.getLogger("popd.maildrop").addHandler(silence)
        self.addCleanup(logging.getLogger("popd.maildrop").removeHandler, silence)
        for uid, content in MAIL:
            self.add(uid, content)

    def session(self) -> Maildir:
        """Return a maildrop over the Maildir."""
        return MaildirTestCase.session(self)

    def add(self, uid: bytes, content: bytes) -> None:
        """Deliver a message."""
        self.deliver(b"new/" + uid, content)

    def take(self, uid: bytes) -> None:
        """Remove a message's file."""
        (self.maildir / "new" / uid.decode()).unlink()

    def stick(self, uid: bytes) -> None:
        """Have the disk refuse to remove a message, once."""
        name = "new/" + uid.decode()
        self.inject("unlink", errno.EACCES, name)

    def tear(self, uid: bytes) -> None:
        """Cut a message short as soon as its length is known."""
        path = self.maildir / "new" / uid.decode()
        real = os.fstat

        def cutting(descriptor: int) -> os.stat_result:
            status = real(descriptor)
            os.truncate(path, 5)
            return status

        self.patch(os, "fstat", cutting)

    def break_down(self) -> None:
        """Unmount the disk: nothing that was there is there any more."""
        self.ground.rename(self.ground.with_name("unmounted"))


class WhatIsAMessageTests(MaildirTestCase):
    """Which files are in the snapshot, and in what order."""

    def test_regular_files_only(self) -> None:
        """Links, FIFOs, sockets, directories and dot files are no messages, and never opened."""
        outside = self.ground / "outside"
        outside.write_bytes(b"secret")
        for directory in ("new", "cur"):
            here = self.maildir / directory
            (here / "1.link").symlink_to(outside)
            (here / "2.dangling").symlink_to("nowhere")
            os.mkfifo(here / "3.fifo")
            os.mknod(here / "4.socket", 0o140644)
            (here / "5.directory").mkdir()
            (here / "5.directory" / "6.inside").write_bytes(b"x")
            (here / ".7.hidden").write_bytes(b"x")
        self.deliver("cur/8.message:2,S")
        self.deliver("tmp/9.unfinished")
        self.deliver("10.stray")
        self.assertEqual(self.uids(), [b"8.message"])

    def test_order(self) -> None:
        """Messages are in the order of delivery time, by their names or else mtimes, then name."""
        self.deliver("new/100.M5.h")
        self.deliver("cur/100.M40.h:2,S")
        self.deliver("cur/99.z")
        self.deliver("cur/100.M5.a:2,S")
        self.deliver("new/no-time", modified=99)
        self.deliver("new/b-no-time", modified=101)
        self.assertEqual(
            self.uids(),
            [b"99.z", b"no-time", b"100.M5.a", b"100.M5.h", b"100.M40.h", b"b-no-time"],
        )

    def test_any_name(self) -> None:
        """Names with spaces, 8-bit and control characters and of full length are served."""
        names = [b"1.a b", b"2.\xff\xe9", b"3.\x01\n", b"4." + b"x" * 253, b"5.h:2,S\x7f"]
        for name in names:
            self.deliver(b"new/" + name, name)
        maildrop = self.session()
        self.assertEqual(len(maildrop.open()), len(names))
        for index, name in enumerate(names):
            self.assertEqual(read_all(maildrop.message(index)), name)
        self.assertEqual(len(maildrop.commit(range(len(names)))), 0)
        self.assertEqual(self.names(), {"popd-lock"})


class SizeTests(MaildirTestCase):
    """What LIST will say."""

    def size(self, name: str, content: bytes) -> int:
        """Return the size that a message has by that name."""
        path = self.deliver(f"new/{name}", content)
        maildrop = self.session()
        (size,) = maildrop.open().sizes
        maildrop.release()
        path.unlink()
        return size

    def test_counted(self) -> None:
        """Without a word in the name, the size is what the content makes on the wire."""
        for number, (content, size) in enumerate(
            (
                (b"", 0),
                (b"\n", 2),
                (b"a", 3),
                (b"a\nb\n", 6),
                (b"a\r\nb\r\n", 6),
                (b"a\r\nb\nc", 9),
                (b"a\r", 4),
                (b"\0\xff\r\r\n", 5),
                (b"x" * 262_143 + b"\r\n" + b"y\n" * 200_000, 262_145 + 600_000),
            )
        ):
            self.assertEqual(self.size(f"{number}.h", content), size)

    def test_believed(self) -> None:
        """The name is believed if it knows the stored size: this one is wrong, and shows it."""
        self.assertEqual(self.size("1.h,S=6,W=9", b"ab\ncd\n"), 9)

    def test_not_believed(self) -> None:
        """The name is not believed if it is wrong on what can be checked, or is impossible."""
        for fields in (
            "S=5,W=9",
            "S=7,W=9",
            "S=1000000006,W=9",
            "W=9",
            "S=6",
            "S=6,W=5",
            "S=6,W=13",
            "S=6,W=1000000008",
            "S=6,W=x",
        ):
            self.assertEqual(self.size(f"1.h,{fields}", b"ab\ncd\n"), 8, fields)

    def test_no_last_line_end(self) -> None:
        """A last line without an end is counted with one, whatever the deliverer thought of it."""
        for wire in (5, 6, 8):
            self.assertEqual(self.size(f"1.h,S=5,W={wire}", b"ab\ncd"), 8)

    def test_empty(self) -> None:
        """An empty message has no octets, whatever its name says."""
        for wire in (0, 1, 2):
            self.assertEqual(self.size(f"1.h,S=0,W={wire}", b""), 0)


class SizeErrorTests(MaildirTestCase):
    """An unreadable message never vanishes from the list."""

    def setUp(self) -> None:
        """Deliver two messages."""
        super().setUp()
        self.deliver("cur/1.h:2,S")
        self.path = self.deliver("cur/2.h:2,S")

    def assert_shut(self) -> None:
        """Check that the maildrop cannot be opened, that the log learns why, nothing is locked."""
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.session().open()
        self.assertIn(f"'{self.path}'", str(caught.exception))
        with self.assertRaises(MaildropTemporaryError):
            self.session().open()

    def test_unreadable(self) -> None:
        """A message that cannot be opened shuts the maildrop."""
        for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN):
            self.inject("open", number, "2.h:2,S")
            self.assert_shut()

    def test_unreadable_end(self) -> None:
        """A message whose last octet cannot be read shuts the maildrop."""
        self.path = self.path.rename(self.maildir / "cur/3.h,S=14,W=17")
        self.inject("pread", errno.EIO, "W=17")
        with self.assertRaises(MaildropTemporaryError):
            self.session().open()

    def test_replaced_by_a_fifo(self) -> None:
        """A FIFO that takes a message's place after the listing shuts it, without waiting."""

        def replace() -> None:
            self.path.unlink()
            os.mkfifo(self.path)

        self.meanwhile("open", "2.h:2,S", replace)
        self.assertRaises(MaildropTemporaryError, self.session().open)

    def test_replaced_by_a_link(self) -> None:
        """A link that takes a message's place after the listing shuts it, and is not followed."""
        outside = self.ground / "outside"
        outside.write_bytes(b"secret")

        def replace() -> None:
            self.path.unlink()
            self.path.symlink_to(outside)

        self.meanwhile("open", "2.h:2,S", replace)
        self.assertRaises(MaildropTemporaryError, self.session().open)


class WrongPlaceTests(MaildirTestCase):
    """A Maildir that looks wrong is an error, never empty."""

    def assert_shut(self, path: Path) -> None:
        """Check that opening names *path* as the trouble, and makes and locks nothing."""
        before = self.names()
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.session().open()
        self.assertIn(f"'{path}'", str(caught.exception))
        self.assertNotIsInstance(caught.exception, MaildropInUseError)
        self.assertEqual(self.names() - {"popd-lock"}, before)

    def test_a_directory_is_missing(self) -> None:
        """Without cur or new it is shut, and nothing is made in what may be no Maildir at all."""
        for name in ("cur", "new"):
            path = self.maildir / name
            path.rmdir()
            self.assert_shut(path)
            self.assertEqual(self.names(), set())
            path.mkdir()

    def test_not_a_directory(self) -> None:
        """A file, or a link even to a directory, is no cur and no new."""
        for name in ("cur", "new"):
            path = self.maildir / name
            path.rmdir()
            path.write_bytes(b"")
            self.assert_shut(path)
            path.unlink()
            path.symlink_to(self.maildir / "tmp")
            self.assert_shut(path)
            path.unlink()
            path.symlink_to(path)
            self.assert_shut(path)
            path.unlink()
            path.mkdir()

    def test_linked_meanwhile(self) -> None:
        """A link that takes the place of cur at the last moment is not followed."""
        (self.maildir / "tmp" / "1.h").write_bytes(b"x")

        def replace() -> None:
            (self.maildir / "cur").rmdir()
            (self.maildir / "cur").symlink_to(self.maildir / "tmp")

        self.meanwhile("open", "/cur", replace)
        self.assert_shut(self.maildir / "cur")

    def test_unreadable(self) -> None:
        """A directory that cannot be opened, listed or looked at shuts it."""
        for call in ("lstat", "open", "scandir"):
            for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN):
                self.inject(call, number, "/cur")
                with self.subTest((call, number)), self.assertRaises(MaildropTemporaryError):
                    self.session().open()
                self.heal()

    def test_root_is_a_file(self) -> None:
        """A file in the Maildir's place shuts it."""
        self.maildir.rename(self.ground / "moved")
        self.maildir.write_bytes(b"")
        self.assertRaises(MaildropTemporaryError, self.session().open)

    def test_linked(self) -> None:
        """A link in its place shuts it, be it to a Maildir or to a disk that is not there."""
        self.deliver("new/1.h")
        self.maildir.rename(self.ground / "disk")
        self.maildir.symlink_to(self.ground / "disk")
        self.assertRaises(MaildropTemporaryError, self.session().open)
        self.assertEqual(self.names(), {"new/1.h"})
        (self.ground / "disk").rename(self.ground / "unmounted")
        self.assertRaises(MaildropTemporaryError, self.session().open)

    def test_linked_above(self) -> None:
        """A link above shuts it, and the log says why; nothing is made where that leads to."""
        self.deliver("new/1.h")
        there = self.ground.rename(self.ground.with_name("elsewhere"))
        self.ground.symlink_to(there)
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.session().open()
        self.assertIn(beneath.LINKED, str(caught.exception))
        self.assertEqual(self.names(), {"new/1.h"})

    def test_linked_later(self) -> None:
        """Nothing is read or removed through a link that takes a directory's place in a session."""
        for directory in ("new", "cur"):
            (self.maildir / "elsewhere" / directory).mkdir(parents=True)
            self.deliver(f"{directory}/1.{directory}")
            self.deliver(f"elsewhere/{directory}/1.{directory}")
        maildrop = self.session()
        self.assertEqual(len(maildrop.open()), 2)
        for directory in ("new", "cur"):
            (self.maildir / directory).rename(self.maildir / f"old-{directory}")
            (self.maildir / directory).symlink_to(self.maildir / "elsewhere" / directory)
        for index in (0, 1):
            self.assertRaises(MaildropTemporaryError, maildrop.message, index)
            self.assertIsNone(maildrop.read_promptly(index, 1000))
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(maildrop.commit([0, 1])), 2)
        for directory in ("new", "cur"):
            self.assertTrue((self.maildir / "elsewhere" / directory / f"1.{directory}").exists())

    def test_linked_at_the_last_moment(self) -> None:
        """What a link leads to is not removed, if it comes between the last look and removal."""
        self.deliver("new/1.h")
        (self.maildir / "elsewhere").mkdir()
        other = self.deliver("elsewhere/1.h")
        maildrop = self.session()
        maildrop.open()

        def swap() -> None:
            (self.maildir / "new").rename(self.maildir / "old")
            (self.maildir / "new").symlink_to("elsewhere")

        self.meanwhile("unlink", "/1.h", swap)
        with self.assertLogs("popd.maildrop", "WARNING"):  # the directory cannot be made durable
            maildrop.commit([0])
        self.assertTrue(other.exists())
        self.assertFalse((self.maildir / "old" / "1.h").exists())

    def test_missing(self) -> None:
        """One that does not exist is an error unless its store says otherwise."""
        self.maildir.rename(self.ground / "moved")
        self.assert_shut(self.maildir)
        self.assertFalse(self.maildir.exists())

    def test_nothing_stays_locked(self) -> None:
        """After an error, the maildrop can be opened as soon as it is right again."""
        self.deliver("new/1.h")
        self.inject("open", errno.EIO, "1.h")
        self.assertRaises(MaildropTemporaryError, self.session().open)
        self.heal()
        self.assertEqual(self.uids(), [b"1.h"])


class LogInTests(MaildirTestCase):
    """What opening a maildrop does to the disk."""

    def test_own_files_only(self) -> None:
        """Log-in makes nothing but files of popd's own, and moves nothing to cur."""
        self.deliver("new/1.h")
        self.deliver("new/2.h", b"one")
        self.deliver("cur/2.h:2,", b"two")
        before = self.names()
        self.session().open()
        self.assertEqual(self.names() - before, {"popd-lock", "popd-uidl"})

    def test_delivery(self) -> None:
        """Mail is delivered and moved about while a session has the maildrop."""
        self.deliver("new/1.h")
        self.session().open()
        self.deliver("tmp/2.h").rename(self.maildir / "new/2.h").rename(self.maildir / "cur/2.h:2,")
        self.assertIn("cur/2.h:2,", self.names())

    def test_nothing_kept_open(self) -> None:
        """A session keeps no file but the lock open, and after it none."""

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

        self.deliver("new/1.h")
        self.deliver("new/2.h", b"one")
        self.deliver("cur/2.h:2,", b"two")
        before = descriptors()
        maildrop = self.session()
        maildrop.open()
        maildrop.message(0).close()
        self.assertEqual(descriptors(), before + 1)
        maildrop.commit([0, 1])
        maildrop.release()
        self.assertEqual(descriptors(), before)

    def test_full_disk(self) -> None:
        """On a full disk mail is served and deleted."""
        self.mount("nr_inodes=20")
        self.deliver("new/1.h", b"x\n")
        self.fill_up()
        with self.assertLogs("popd.maildrop", "WARNING"):
            maildrop = self.session()
            maildrop.open()
        self.assertEqual(read_all(maildrop.message(0)), b"x\n")
        self.assertEqual(len(maildrop.commit([0])), 0)

    def test_read_only_disk(self) -> None:
        """On a read-only disk mail is served, and not deleted."""
        self.mount("size=1m")
        self.deliver("new/1.h", b"x\n")
        self.remount("ro")
        with self.assertLogs("popd.maildrop", "WARNING") as logs:
            maildrop = self.session()
            maildrop.open()
            self.assertEqual(read_all(maildrop.message(0)), b"x\n")
            self.assertEqual(len(maildrop.commit([0])), 1)
        self.assertIn("Read-only", logs.output[-1])
        self.assertEqual(self.names(), {"new/1.h"})
