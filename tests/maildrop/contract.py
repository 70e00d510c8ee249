"""What every maildrop must do: run against each implementation of `IMaildrop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zope.interface.verify import verifyObject

from popd.maildrop.interfaces import (
    IMaildrop,
    MaildropInUseError,
    MaildropTemporaryError,
    Message,
    MessageGoneError,
)
from tests.maildrop.helpers import read_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from twisted.trial.unittest import SynchronousTestCase

    from popd.protocol.snapshot import Snapshot

    Base = SynchronousTestCase
else:
    Base = object

MAIL = [
    (b"1.a", b"Subject: one\n\nbody\n"),
    (b"2.b", b"Subject: two\r\n\r\nno line end"),
    (b"3.c", b""),
    (b"4.d", b"\r\rbare\rmixed\r\n\n\0\xff\n"),
]


class Maildrop(Protocol):
    """A maildrop, in words that mypy understands."""

    def open(self) -> Snapshot:
        """See `IMaildrop.open`."""

    def message(self, index: int) -> Message:
        """See `IMaildrop.message`."""

    def commit(self, deleted: Iterable[int]) -> Collection[int]:
        """See `IMaildrop.commit`."""

    def release(self) -> None:
        """See `IMaildrop.release`."""


class MaildropContract(Base):
    """The tests.  An implementation says how its storage is made, changed and broken."""

    def session(self) -> Maildrop:
        """Return the maildrop for one more session; it starts out with `MAIL`."""
        raise NotImplementedError

    def add(self, uid: bytes, content: bytes) -> None:
        """Deliver a message."""
        raise NotImplementedError

    def take(self, uid: bytes) -> None:
        """Remove a message, as another program does."""
        raise NotImplementedError

    def stick(self, uid: bytes) -> None:
        """See to it that a message cannot be removed."""
        raise NotImplementedError

    def tear(self, uid: bytes) -> None:
        """See to it that a message, once opened, ends half-way."""
        raise NotImplementedError

    def break_down(self) -> None:
        """See to it that nothing can be read or removed any more."""
        raise NotImplementedError

    def opened(self) -> Maildrop:
        """Return a maildrop that was opened."""
        maildrop = self.session()
        maildrop.open()
        return maildrop

    def uids(self) -> list[bytes]:
        """Return the unique-ids that a new session is shown."""
        maildrop = self.session()
        try:
            return list(maildrop.open().uids)
        finally:
            maildrop.release()

    def test_interface(self) -> None:
        """It provides IMaildrop."""
        self.assertTrue(verifyObject(IMaildrop, self.session()))

    def test_snapshot(self) -> None:
        """Opening it shows sizes with CRLF line ends, and unique-ids, in order."""
        snapshot = self.session().open()
        self.assertEqual(list(snapshot.uids), [uid for uid, _ in MAIL])
        self.assertEqual(list(snapshot.sizes), [22, 29, 0, 20])

    def test_messages(self) -> None:
        """Each message reads as it is stored, in pieces of any size, and says how long it is."""
        maildrop = self.opened()
        for limit in (1, 7, 65_536):
            for index, (_, content) in enumerate(MAIL):
                message = maildrop.message(index)
                self.assertEqual(message.octets, len(content))
                self.assertEqual(read_all(message, limit), content)

    def test_limit(self) -> None:
        """A read gives no more than was asked for, and after the end nothing, repeatedly."""
        message = self.opened().message(0)
        self.assertEqual(message.read(4), b"Subj")
        self.assertEqual(message.read(99), b"ect: one\n\nbody\n")
        self.assertEqual([message.read(9), message.read(9)], [b"", b""])
        message.close()
        message.close()

    def test_no_such_index(self) -> None:
        """An index that is not in the snapshot is a mistake; -1 is not the last message."""
        maildrop = self.opened()
        for index in (-1, len(MAIL)):
            self.assertRaises(IndexError, maildrop.message, index)
            self.assertRaises(IndexError, maildrop.commit, [0, index])
        maildrop.release()
        self.assertEqual(len(self.uids()), len(MAIL))

    def test_new_mail(self) -> None:
        """Mail that arrives is not seen, moves no index, and is not removed."""
        maildrop = self.opened()
        self.add(b"0.z", b"new")
        self.assertEqual(read_all(maildrop.message(0)), MAIL[0][1])
        self.assertRaises(IndexError, maildrop.message, len(MAIL))
        self.assertEqual(len(maildrop.commit(range(len(MAIL)))), 0)
        maildrop.release()
        self.assertEqual(self.uids(), [b"0.z"])

    def test_gone(self) -> None:
        """A message that was removed meanwhile is gone; the others are as before."""
        maildrop = self.opened()
        self.take(b"2.b")
        for _ in range(2):
            self.assertRaises(MessageGoneError, maildrop.message, 1)
        for index in (0, 2, 3):
            self.assertEqual(read_all(maildrop.message(index)), MAIL[index][1])

    def test_commit(self) -> None:
        """A commit removes what is marked and nothing else; gone already is as good as removed."""
        maildrop = self.opened()
        self.take(b"2.b")
        self.assertEqual(len(maildrop.commit([1, 3, 3])), 0)
        self.assertRaises(MessageGoneError, maildrop.message, 3)
        self.assertEqual(len(maildrop.commit({3})), 0)
        maildrop.release()
        self.assertEqual(self.uids(), [b"1.a", b"3.c"])

    def test_commit_nothing(self) -> None:
        """A commit without marks removes nothing, and neither does a session without a commit."""
        maildrop = self.opened()
        self.assertEqual(len(maildrop.commit([])), 0)
        maildrop.release()
        self.assertEqual(self.uids(), [uid for uid, _ in MAIL])

    def test_stuck(self) -> None:
        """What cannot be removed is counted and stays; all the rest is removed."""
        maildrop = self.opened()
        self.stick(b"2.b")
        self.assertEqual(len(maildrop.commit([0, 1, 2])), 1)
        self.assertEqual(read_all(maildrop.message(1)), MAIL[1][1])
        maildrop.release()
        self.assertEqual(self.uids(), [b"2.b", b"4.d"])

    def test_torn(self) -> None:
        """A message that ends too early raises an error instead of ending."""
        maildrop = self.opened()
        message = maildrop.message(0)
        message.close()
        self.tear(b"1.a")
        with self.assertRaises(MaildropTemporaryError):
            read_all(maildrop.message(0))

    def test_broken_down(self) -> None:
        """When the storage fails nothing is empty, gone or removed: it is an error."""
        maildrop = self.opened()
        self.break_down()
        self.assertRaises(MaildropTemporaryError, maildrop.message, 0)
        self.assertEqual(len(maildrop.commit([0, 1])), 2)
        maildrop.release()
        maildrop = self.session()
        self.assertRaises(MaildropTemporaryError, maildrop.open)
        maildrop.release()

    def test_in_use(self) -> None:
        """One session has it at a time, until it is released; the loser's release is its own."""
        first = self.opened()
        second = self.session()
        self.assertRaises(MaildropInUseError, second.open)
        second.release()
        self.assertRaises(MaildropInUseError, self.session().open)
        first.release()
        first.release()
        second.open()
        first.release()
        self.assertRaises(MaildropInUseError, self.session().open)

    def test_release_unopened(self) -> None:
        """It can be released before it was opened."""
        self.session().release()
        self.assertEqual(len(self.uids()), len(MAIL))
