"""Tests of `popd.maildrop.memory`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.maildrop.interfaces import (
    IMaildropStore,
    MaildropInUseError,
    MaildropPermanentError,
    MaildropTemporaryError,
)
from popd.maildrop.memory import MemoryBox, MemoryMaildrop, MemoryStore
from popd.maildrop.user import UserName
from tests.maildrop.contract import MAIL, MaildropContract


class MemoryMaildropTests(MaildropContract, SynchronousTestCase):
    """A maildrop in memory keeps the contract."""

    def setUp(self) -> None:
        """Make a box of mail."""
        self.box = MemoryBox(MAIL.copy())

    def session(self) -> MemoryMaildrop:
        """Return a session's view of the box."""
        return MemoryMaildrop(self.box)

    def add(self, uid: bytes, content: bytes) -> None:
        """Put a message into the box, in front."""
        self.box.messages.insert(0, (uid, content))

    def take(self, uid: bytes) -> None:
        """Take a message out of the box."""
        self.box.messages.remove((uid, dict(MAIL)[uid]))

    def stick(self, uid: bytes) -> None:
        """Fix a message in the box."""
        self.box.stuck.add(uid)

    def tear(self, uid: bytes) -> None:
        """Tear a message."""
        self.box.torn.add(uid)

    def break_down(self) -> None:
        """Break the box."""
        self.box.trouble = MaildropTemporaryError("no disk")

    def test_list(self) -> None:
        """A list of messages makes a maildrop with a box of its own."""
        self.assertEqual(MemoryMaildrop([(b"x", b"y")]).open().uids, [b"x"])

    def test_closed(self) -> None:
        """A message can be asked whether it was closed."""
        maildrop = self.session()
        maildrop.open()
        message = maildrop.message(0)
        self.assertFalse(message.closed)
        message.close()
        self.assertTrue(message.closed)


class MemoryStoreTests(SynchronousTestCase):
    """A store in memory."""

    def test_maildrop(self) -> None:
        """Each user has the box of that name, and its sessions exclude each other."""
        store = MemoryStore({"a@b": MemoryBox([(b"x", b"y")]), "c": MemoryBox()})
        self.assertTrue(verifyObject(IMaildropStore, store))
        self.assertEqual(store.maildrop(UserName("a", "b")).open().uids, [b"x"])
        self.assertEqual(store.maildrop(UserName("c")).open().uids, [])
        self.assertRaises(MaildropInUseError, store.maildrop(UserName("c")).open)

    def test_stranger(self) -> None:
        """A user without a box has no maildrop."""
        with self.assertRaises(MaildropPermanentError) as caught:
            MemoryStore({}).maildrop(UserName("\u2028x"))
        self.assertIn(r"'\u2028x'", str(caught.exception))
