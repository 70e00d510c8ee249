"""Tests of `popd.maildrop.look`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.lock import LOCK_FILE, MaildropLock
from popd.maildrop.look import is_locked, look
from popd.maildrop.maildir import Maildir


class LookTests(SynchronousTestCase):
    """A Maildir is looked at."""

    def setUp(self) -> None:
        """Make one with two messages, and a duplicate."""
        self.path = Path(self.mktemp()).absolute()
        for name in ("new", "cur", "tmp"):
            (self.path / name).mkdir(parents=True)
        self.root = os.fsencode(self.path)
        (self.path / "new" / "1.a.host").write_bytes(b"Subject: x\n\nx\n")
        (self.path / "cur" / "2.b.host:2,S").write_bytes(b"Subject: y\n\ny\n")
        (self.path / "new" / "2.b.host").write_bytes(b"Subject: z\n\nz\n")

    def files(self) -> set[str]:
        """Return what is in the Maildir itself."""
        return {path.name for path in self.path.iterdir()}

    def test_as_a_session(self) -> None:
        """It shows what a session would be shown, and leaves nothing behind."""
        stock = look(self.root)
        self.assertEqual(self.files(), {"new", "cur", "tmp"})
        maildir = Maildir(self.root)
        snapshot = maildir.open()
        maildir.release()
        self.assertEqual(list(stock.snapshot.uids), list(snapshot.uids))
        self.assertEqual(list(stock.snapshot.sizes), list(snapshot.sizes))
        self.assertEqual(len(stock), 3)

    def test_in_use(self) -> None:
        """A session that has it does not stand in the way, and is noticed."""
        self.assertFalse(is_locked(self.root))
        lock = MaildropLock(self.root)
        lock.acquire()
        self.assertTrue(is_locked(self.root))
        self.assertEqual(len(look(self.root)), 3)
        lock.release()
        self.assertFalse(is_locked(self.root))
        self.assertIn(LOCK_FILE.decode(), self.files())

    def test_not_there(self) -> None:
        """What is not there, or cannot be looked at, is an error."""
        self.assertRaises(MaildropTemporaryError, look, self.root + b"x")
        (self.path / os.fsdecode(LOCK_FILE)).symlink_to("x")
        self.assertRaises(MaildropTemporaryError, is_locked, self.root)
