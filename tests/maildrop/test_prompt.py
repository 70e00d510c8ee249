"""Tests of what a Maildir can do without waiting for a disk."""

from __future__ import annotations

import os
from unittest import mock

from zope.interface.verify import verifyObject

from popd.maildrop import beneath, local
from popd.maildrop.interfaces import IPromptMaildrop, MessageGoneError
from popd.maildrop.local import is_local
from popd.maildrop.maildir import Maildir
from tests.maildrop.helpers import MaildirTestCase

MAIL = b"Subject: x\n\nhello\n"


class PromptTests(MaildirTestCase):
    """A Maildir on a local disk, with one message that was just written."""

    disk_is_local = True

    def setUp(self) -> None:
        """Open it."""
        super().setUp()
        patch = mock.patch("popd.maildrop.maildir.is_local", return_value=self.disk_is_local)
        patch.start()
        self.addCleanup(patch.stop)
        self.path = self.deliver("cur/1.h:2,", MAIL)
        self.empty = self.deliver("cur/2.h:2,", b"")
        self.settle()
        self.maildrop = self.session()
        self.maildrop.open()

    def read(self, index: int = 0, limit: int = 1000) -> bytes | None:
        """Read a message promptly."""
        return self.maildrop.read_promptly(index, limit)

    def test_interface(self) -> None:
        """It is a prompt maildrop; to open one of which nothing is known takes time."""
        self.assertTrue(verifyObject(IPromptMaildrop, self.maildrop))
        self.assertIsNone(Maildir(self.root).open_promptly())


class NearTests(PromptTests):
    """What is near."""

    def test_read(self) -> None:
        """A small message that the kernel has in memory is read, an empty one as well."""
        self.assertEqual(self.read(), MAIL)
        self.assertEqual(self.read(1), b"")

    def test_limit(self) -> None:
        """A message of the limit is read, one octet more is not."""
        self.assertEqual(self.read(limit=len(MAIL)), MAIL)
        self.assertIsNone(self.read(limit=len(MAIL) - 1))

    def test_release(self) -> None:
        """It is released at once if there is nothing to write down, and can be opened."""
        self.assertFalse(self.maildrop.release_promptly())
        self.maildrop.release()
        self.maildrop.open()
        self.assertTrue(self.maildrop.release_promptly())
        self.session().open()

    def test_negative(self) -> None:
        """Indices count from the front."""
        self.assertRaises(IndexError, self.read, -1)


class FarTests(PromptTests):
    """What would take time, or some thought, is left to the ordinary way."""

    def test_moved(self) -> None:
        """A file that is not where it was is looked for in the ordinary way."""
        self.path.rename(self.path.with_name("1.h:2,S"))
        self.assertIsNone(self.read())
        message = self.maildrop.message(0)
        self.assertEqual(message.read(1000), MAIL)
        message.close()
        self.assertEqual(self.read(), MAIL)

    def test_gone(self) -> None:
        """So is one that was removed, for the ordinary way to say so."""
        self.path.unlink()
        for _ in range(2):
            self.assertIsNone(self.read())
            self.assertRaises(MessageGoneError, self.maildrop.message, 0)

    def test_other_size(self) -> None:
        """A file of another size is not this message."""
        self.path.write_bytes(MAIL + b"x")
        self.assertIsNone(self.read())

    def test_link(self) -> None:
        """A link is not followed."""
        self.path.rename(self.path.with_name("target"))
        self.path.symlink_to("target")
        self.assertIsNone(self.read())

    def test_not_in_memory(self) -> None:
        """What the kernel would have to fetch is not read, whatever it says then."""
        for outcome in (BlockingIOError(), OSError("not supported"), 3):
            side_effect = [outcome]
            with mock.patch("os.preadv", side_effect=side_effect):
                self.assertIsNone(self.read())

    def test_duplicates(self) -> None:
        """Duplicates are told by their content."""
        self.maildrop.release()
        self.deliver("new/1.h", b"another\n")
        self.settle()
        self.maildrop.open()
        self.assertIsNone(self.read(0))


class NetworkTests(PromptTests):
    """A Maildir on a network."""

    disk_is_local = False

    def test_nothing(self) -> None:
        """Any call may take long, so none is made."""
        with mock.patch.object(beneath, "open_beneath", side_effect=AssertionError):
            self.assertIsNone(self.read())
        self.assertFalse(self.maildrop.release_promptly())


class LocalTests(MaildirTestCase):
    """Which file systems are local."""

    def test_known(self) -> None:
        """A file system that is known to be local is."""
        kind = local._kind(self.root)
        with mock.patch.dict(local._LOCAL, {kind: "this one"}):
            self.assertTrue(is_local(self.root, self.root))

    def test_unknown(self) -> None:
        """Any other is taken for a network."""
        with mock.patch.dict(local._LOCAL, clear=True):
            self.assertFalse(is_local(self.root))

    def test_missing(self) -> None:
        """What is not there is not local."""
        self.assertFalse(is_local(self.root, os.path.join(self.root, b"nothing")))  # noqa: PTH118

    def test_proc(self) -> None:
        """The kind is what the kernel says: /proc is no disk."""
        self.assertEqual(local._kind(b"/proc"), 0x9FA0)
        self.assertFalse(is_local(b"/proc"))
