"""Tests of `popd.maildrop.maildir`: what happens during a session."""

from __future__ import annotations

import errno
import os

from popd.maildrop.interfaces import (
    MaildropTemporaryError,
    MessageGoneError,
)
from popd.maildrop.maildir import Maildir
from tests.maildrop.helpers import LONG_AGO, MaildirTestCase, read_all


class SessionTestCase(MaildirTestCase):
    """A test case with a session over three messages, number 1 in `new`, the others in `cur`."""

    def setUp(self) -> None:
        """Deliver the mail and open the maildrop."""
        super().setUp()
        self.one = self.deliver("new/1.h", b"one\n")
        self.two = self.deliver("cur/2.h:2,", b"two\n")
        self.three = self.deliver("cur/3.h:2,S", b"three\n")
        self.settle()
        self.maildrop: Maildir = self.session()
        self.maildrop.open()

    def content(self, index: int) -> bytes:
        """Return what the message at *index* says."""
        return read_all(self.maildrop.message(index))

    def count(self, call: str, target: str) -> list[None]:
        """Return a list that grows with each call of a function of `os` for that path."""
        calls: list[None] = []
        self.meanwhile(call, target, lambda: calls.append(None), times=10**6)
        return calls


class MovedMeanwhileTests(SessionTestCase):
    """A message whose file was renamed during the session."""

    def test_flags(self) -> None:
        """It is served and deleted when its flags changed."""
        self.two.rename(self.maildir / "cur/2.h:2,RS")
        self.assertEqual(self.content(1), b"two\n")
        self.two.with_name("2.h:2,RS").rename(self.maildir / "cur/2.h:2,RST")
        self.assertEqual(len(self.maildrop.commit([1])), 0)
        self.assertEqual(self.names(), {"new/1.h", "cur/3.h:2,S", "popd-lock"})

    def test_new_to_cur(self) -> None:
        """It is served and deleted when it moved from new to cur."""
        self.one.rename(self.maildir / "cur/1.h:2,")
        self.assertEqual(self.content(0), b"one\n")
        self.assertEqual(len(self.maildrop.commit([0])), 0)
        self.assertEqual(self.names(), {"cur/2.h:2,", "cur/3.h:2,S", "popd-lock"})

    def test_moved_before_commit(self) -> None:
        """It is deleted when it moved after it was read."""
        self.assertEqual(self.content(0), b"one\n")
        self.one.rename(self.maildir / "cur/1.h:2,S")
        self.assertEqual(len(self.maildrop.commit([0])), 0)
        self.assertNotIn("cur/1.h:2,S", self.names())

    def test_moved_at_the_last_moment(self) -> None:
        """It is deleted when it moves between a look and the deed."""
        self.meanwhile("unlink", "1.h", lambda: self.one.rename(self.maildir / "cur/1.h:2,S"))
        self.assertEqual(len(self.maildrop.commit([0])), 0)
        self.assertNotIn("cur/1.h:2,S", self.names())

    def test_one_search_for_all(self) -> None:
        """One look at the directories finds all that moved."""
        for path in (self.one, self.two, self.three):
            path.rename(self.maildir / "cur" / (path.name[:3] + ":2,T"))
        self.settle()
        looks = self.count("scandir", "/cur")
        self.assertEqual([self.content(i) for i in range(3)], [b"one\n", b"two\n", b"three\n"])
        self.assertEqual(len(looks), 1)

    def test_moves_during_the_search(self) -> None:
        """It is found though it moves on while it is looked for."""
        second, third = self.maildir / "cur/1.h:2,", self.maildir / "cur/1.h:2,S"
        self.one.rename(second)
        self.settle()
        self.meanwhile("lstat", "cur/1.h:2,", lambda: second.rename(third))
        self.assertEqual(self.content(0), b"one\n")

    def test_never_rests(self) -> None:
        """One that is always elsewhere is not gone but cannot be had now, and is not deleted."""
        names = [self.maildir / f"cur/1.h:2,{number}Z" for number in range(99)]
        self.one.rename(names[0])

        def move() -> None:
            names[0].rename(names[1])
            del names[0]

        self.meanwhile("lstat", "Z", move, times=90)
        with self.assertRaises(MaildropTemporaryError):
            self.maildrop.message(0)

    def test_another_has_the_name(self) -> None:
        """A new message that has the base name of a removed one is not taken for it."""
        self.two.unlink()
        self.deliver("cur/2.h:2,S", b"TWO\n", modified=LONG_AGO + 1)
        self.three.unlink()
        self.deliver("cur/3.h:2,", b"another\n")
        for index in (1, 2):
            self.assertRaises(MessageGoneError, self.maildrop.message, index)
        self.assertEqual(len(self.maildrop.commit([1, 2])), 0)
        self.assertLess({"cur/2.h:2,S", "cur/3.h:2,"}, self.names())

    def test_inode_changed(self) -> None:
        """A copy with the same mtime is the same message: inode numbers are not to be trusted."""
        self.deliver("cur/2.h:2,S", b"two\n")
        self.two.unlink()
        self.assertEqual(self.content(1), b"two\n")


class GoneMeanwhileTests(SessionTestCase):
    """A message that was removed during the session."""

    def test_one_search(self) -> None:
        """Once it was looked for in vain it is gone, without another look."""
        for path in (self.one, self.two):
            path.unlink()
        self.settle()
        looks = self.count("scandir", "/cur")
        for _ in range(3):
            self.assertRaises(MessageGoneError, self.maildrop.message, 0)
            self.assertRaises(MessageGoneError, self.maildrop.message, 1)
        self.assertEqual(len(self.maildrop.commit([0, 1])), 0)
        self.assertEqual(len(looks), 1)

    def test_the_disk_is_gone(self) -> None:
        """When nothing is there any more it is not gone, and not deleted either."""
        self.maildir.rename(self.ground / "moved")
        for again in (False, True):
            with self.subTest(again):
                self.assertRaises(MaildropTemporaryError, self.maildrop.message, 0)
                with self.assertLogs("popd.maildrop", "WARNING"):
                    self.assertEqual(len(self.maildrop.commit([0, 2])), 2)

    def test_another_maildir(self) -> None:
        """An empty Maildir in place of the one that was locked does not make it gone."""
        self.maildir.rename(self.ground / "moved")
        for directory in ("new", "cur"):
            (self.maildir / directory).mkdir(parents=True)
        self.assertRaises(MaildropTemporaryError, self.maildrop.message, 0)
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(self.maildrop.commit([0])), 1)

    def test_cur_is_gone(self) -> None:
        """When cur is missing it is not gone."""
        (self.maildir / "cur").rename(self.maildir / "moved")
        self.assertRaises(MaildropTemporaryError, self.maildrop.message, 1)
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(self.maildrop.commit([0, 1])), 1)

    def test_search_fails(self) -> None:
        """When the directories cannot be read it is not gone, until they can."""
        self.two.unlink()
        for number in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES):
            original = os.scandir
            self.inject("scandir", number, "/cur")
            self.assertRaises(MaildropTemporaryError, self.maildrop.message, 1)
            self.patch(os, "scandir", original)
        self.assertRaises(MessageGoneError, self.maildrop.message, 1)


class ReadTests(SessionTestCase):
    """Reading a message."""

    def test_another_size(self) -> None:
        """A file that is longer or shorter than at log-in is not served."""
        for content in (b"tw\n", b"twoo\n", b""):
            self.deliver("cur/2.h:2,", content)
            with self.assertRaises(MaildropTemporaryError) as caught:
                self.maildrop.message(1)
            self.assertIn(f"'{self.two}'", str(caught.exception))

    def test_unreadable(self) -> None:
        """A file that cannot be opened is trouble with that message alone."""
        for number in (errno.EACCES, errno.EIO, errno.ESTALE):
            self.inject("open", number, "2.h:2,")
            self.assertRaises(MaildropTemporaryError, self.maildrop.message, 1)
        self.assertEqual(self.content(2), b"three\n")

    def test_fifo(self) -> None:
        """A FIFO in a message's place is not served, and not waited for."""
        self.two.unlink()
        os.mkfifo(self.two)
        self.assertRaises(MaildropTemporaryError, self.maildrop.message, 1)

    def test_truncated(self) -> None:
        """A file that is cut while it is read raises an error where it ends."""
        message = self.maildrop.message(2)
        self.assertEqual(message.read(2), b"th")
        os.truncate(self.three, 4)
        self.assertEqual(message.read(99), b"re")
        for _ in range(2):
            with self.assertRaises(MaildropTemporaryError) as caught:
                message.read(99)
        self.assertIn(f"'{self.three}': ended 2 octets early", str(caught.exception))
        message.close()

    def test_grown(self) -> None:
        """Of a file that grows while it is read, as much is read as was promised."""
        message = self.maildrop.message(2)
        with self.three.open("ab") as file:
            file.write(b"more")
        self.assertEqual(read_all(message, 4), b"three\n")

    def test_removed(self) -> None:
        """A file that is removed while it is read is read to its end."""
        message = self.maildrop.message(2)
        self.three.unlink()
        self.assertEqual(read_all(message), b"three\n")

    def test_read_error(self) -> None:
        """An error of the disk is an error of reading, and names the file."""
        message = self.maildrop.message(2)
        with (self.ground / "write-only").open("wb") as unreadable:
            os.dup2(unreadable.fileno(), message._file.fileno())
        with self.assertRaises(MaildropTemporaryError) as caught:
            message.read(9)
        self.assertIn(f"'{self.three}': Bad file", str(caught.exception))
        message.close()


class CommitTests(SessionTestCase):
    """Removing messages."""

    def test_each_subset_fails(self) -> None:
        """Whichever removals fail, they are counted, and the others are done."""
        files = {"1.h": "new/1.h", "2.h:2,": "cur/2.h:2,", "3.h:2,S": "cur/3.h:2,S"}
        self.maildrop.release()
        for failing in range(8):
            for file in files.values():
                self.deliver(file)
            self.maildrop = self.session()
            self.maildrop.open()
            stuck = [file for bit, file in enumerate(files) if failing >> bit & 1]
            for file in stuck:
                self.inject("unlink", errno.EACCES if failing % 2 else errno.EIO, file)
            if stuck:
                with self.assertLogs("popd.maildrop", "WARNING") as logs:
                    self.assertEqual(len(self.maildrop.commit(range(3))), len(stuck))
                self.assertEqual(len(logs.output), 1)
            else:
                self.assertEqual(len(self.maildrop.commit(range(3))), 0)
            self.assertEqual(self.names(), {files[name] for name in stuck} | {"popd-lock"})
            self.heal()
            self.maildrop.release()

    def test_durable(self) -> None:
        """Each directory that lost a file is synced once, after its last removal, no other."""
        log = self.watch()
        self.maildrop.commit([1, 2])
        self.assertEqual(sorted(log[:2]), ["/2.h:2,", "/3.h:2,S"])
        self.assertEqual(log[2:], ["/cur"])

    def watch(self) -> list[str]:
        """Return what is removed and synced from now on, as it happens."""
        log: list[str] = []
        for call in ("unlink", "fsync"):
            for name in ("/new", "/cur", "/1.h", "/2.h:2,", "/3.h:2,S"):
                self.meanwhile(call, name, lambda n=name: log.append(n))  # type: ignore[misc]
        return log

    def test_removed_by_others(self) -> None:
        """What another program has removed already is made durable as well, wherever it was."""
        self.two.unlink()
        log = self.watch()
        self.assertEqual(len(self.maildrop.commit([1])), 0)
        self.assertEqual(sorted(log), ["/cur", "/new"])

    def test_fast(self) -> None:
        """Where durability is not wanted nothing is synced, and no failure to do so matters."""
        self.maildrop.release()
        self.maildrop = Maildir(self.root, cache=self.cache(), durability="fast")
        self.addCleanup(self.maildrop.release)
        self.maildrop.open()
        log = self.watch()
        self.inject("fsync", errno.EIO, "")
        self.assertEqual(len(self.maildrop.commit([0, 1, 2])), 0)
        self.assertEqual(sorted(log), ["/1.h", "/2.h:2,", "/3.h:2,S"])

    def test_sync_fails(self) -> None:
        """Removals that cannot be made durable are counted as failed, others are not."""
        self.inject("fsync", errno.EIO, "/cur")
        with self.assertLogs("popd.maildrop", "WARNING") as logs:
            self.assertEqual(len(self.maildrop.commit([0, 1, 2])), 2)
        self.assertIn("2 messages not removed", logs.output[0])

    def test_after_release(self) -> None:
        """A maildrop that was released has no messages."""
        self.maildrop.release()
        self.assertRaises(IndexError, self.maildrop.commit, [0])

    def test_replaced(self) -> None:
        """A file of the same name that is another message is not removed."""
        self.two.unlink()
        self.deliver("cur/2.h:2,", b"another\n")
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(self.maildrop.commit([1])), 1)
        self.assertIn("cur/2.h:2,", self.names())


class DuplicateTests(MaildirTestCase):
    """Two files of one base name during a session."""

    def setUp(self) -> None:
        """Deliver a message twice over, and open the maildrop."""
        super().setUp()
        self.old = self.deliver("cur/1.h:2,S", b"old\n")
        self.young = self.deliver("new/1.h", b"new\n", modified=LONG_AGO + 1)
        self.maildrop = self.session()
        self.maildrop.open()

    def content(self, index: int) -> bytes:
        """Return what the message at *index* says."""
        return read_all(self.maildrop.message(index))

    def test_served(self) -> None:
        """Each is served as itself, wherever both went."""
        self.old.rename(self.maildir / "cur/1.h:2,RS")
        self.young.rename(self.maildir / "cur/1.h:2,T")
        self.assertEqual([self.content(0), self.content(1)], [b"old\n", b"new\n"])

    def test_deleted(self) -> None:
        """The one that is meant is removed, wherever both went."""
        self.old.rename(self.maildir / "cur/1.h:2,RS")
        self.young.rename(self.maildir / "cur/1.h:2,T")
        self.assertEqual(len(self.maildrop.commit([0])), 0)
        self.assertEqual(self.names() - self.own_files(), {"cur/1.h:2,T"})

    def test_one_is_gone(self) -> None:
        """When one is gone the other is not served or removed in its stead."""
        self.old.unlink()
        self.assertRaises(MessageGoneError, self.maildrop.message, 0)
        self.assertEqual(len(self.maildrop.commit([0])), 0)
        self.assertEqual(self.content(1), b"new\n")

    def test_one_takes_the_place(self) -> None:
        """When one was renamed onto the other, it is neither served nor removed as that."""
        self.young.rename(self.old)
        self.assertRaises(MaildropTemporaryError, self.maildrop.message, 0)
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(self.maildrop.commit([0])), 1)
        self.assertEqual(self.old.read_bytes(), b"new\n")

    def test_a_third_one(self) -> None:
        """A third one that comes meanwhile is not removed with them."""
        self.deliver("cur/1.h:2,F", b"3rd\n")
        self.old.rename(self.maildir / "cur/1.h:2,RS")
        self.assertEqual(len(self.maildrop.commit([0, 1])), 0)
        self.assertEqual(self.names() - self.own_files(), {"cur/1.h:2,F"})

    def test_many(self) -> None:
        """Twins of one content, all renamed, are each found once and all removed."""
        self.maildrop.release()
        for number in range(9):
            self.deliver(f"cur/1.h:2,{number}", b"twin\n")
        self.maildrop = self.session()
        self.assertEqual(len(set(self.maildrop.open().uids)), 11)
        for path in (self.maildir / "cur").iterdir():
            path.rename(path.with_name(path.name + "X"))
        self.assertEqual(len(self.maildrop.commit(range(11))), 0)
        self.assertEqual(self.names(), self.own_files())
