"""Tests of `popd.maildrop.uidl`: unique-ids never change and are never used again."""

from __future__ import annotations

import errno
import os
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop import uidl
from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.uidl import LEDGER_FILE, Ledger, unique_id
from tests.maildrop.helpers import LONG_AGO, MaildirTestCase

A = b"a" * 64
B = b"b" * 64


class UniqueIdTests(SynchronousTestCase):
    """The id of a message."""

    def test_base_name(self) -> None:
        """A base name that is a valid id is the id."""
        for base in (b"1.M2P3.host,S=4,W=5", b"x", b"!" * 70, b"~", b"F" * 64, b"f" * 65):
            self.assertEqual(unique_id(base), base)

    def test_not_an_id(self) -> None:
        """A base name that is no valid id gives its SHA-256 in hex."""
        for base in (b"", b"x" * 71, b"a b", b"\xe9", b"a\x7f", b"a\n", b"\x1b[2J", b"a\tb"):
            self.assertEqual(unique_id(base), sha256(base).hexdigest().encode())

    def test_mimic(self) -> None:
        """A base name that looks like a digest never is an id, so it cannot be another's."""
        victim = unique_id(b"a name with spaces")
        self.assertNotEqual(unique_id(victim), victim)

    def test_duplicates(self) -> None:
        """Of one base name, each content and each copy has an id of its own."""
        ids = {unique_id(b"x", identity, number) for identity in (A, B) for number in (1, 2, 11)}
        self.assertEqual(len(ids | {unique_id(b"x", A, 0)}), 7)

    @given(st.binary(), st.binary(), st.integers(0, 99))
    def test_valid(self, base: bytes, identity: bytes, number: int) -> None:
        """Every id has 1 to 70 octets of 0x21 to 0x7E."""
        self.assertRegex(unique_id(base, identity, number), rb"\A[\x21-\x7e]{1,70}\Z")


class NumberTests(MaildirTestCase):
    """How the ledger tells duplicates apart."""

    def ledger(self) -> Ledger:
        """Return the ledger as it is on disk."""
        return Ledger.load(self.root)

    def test_first_has_the_plain_id(self) -> None:
        """The first of several is number 0, the others count the copies of their content."""
        self.assertEqual(Ledger(self.root, {}).numbers(b"x", [A, B, A, B, B]), [0, 1, 1, 2, 3])

    def test_other_order(self) -> None:
        """Whoever was first, it stays so."""
        ledger = self.ledger()
        ledger.numbers(b"x", [A, B])
        self.assertEqual(ledger.numbers(b"x", [B, A]), [1, 0])

    def test_owner_gone(self) -> None:
        """Nobody inherits the plain id; it comes back with its owner."""
        ledger = self.ledger()
        ledger.numbers(b"x", [A, B])
        self.assertEqual(ledger.numbers(b"x", [B]), [1])
        self.assertEqual(ledger.numbers(b"x", [B, b"c" * 64]), [1, 1])
        self.assertEqual(ledger.numbers(b"x", [B, A]), [1, 0])

    def test_twin_gone(self) -> None:
        """A twin keeps its number when another's is spent, and no number is given twice."""
        ledger = self.ledger()
        ledger.numbers(b"x", [A, A, A])
        ledger.spend(b"x", A, 0)
        ledger.spend(b"x", A, 2)
        self.assertEqual(ledger.numbers(b"x", [A]), [1])
        self.assertEqual(ledger.numbers(b"x", [A, A]), [1, 3])

    def test_written(self) -> None:
        """What was secured is there for the next session, any base name whatever."""
        bases = [b"", b"x", b" ", b"%41", b"\xff\n", b"1.h,S=2", bytes(range(1, 256))]
        ledger = self.ledger()
        for base in bases:
            ledger.numbers(base, [A, B, A])
            ledger.spend(base, A, 0)
        ledger.secure()
        again = self.ledger()
        for base in bases:
            self.assertIn(base, again)
            self.assertEqual(again.numbers(base, [B, A, A]), [1, 1, 2])
        self.assertNotIn(b"A", again)

    def test_nothing_to_write(self) -> None:
        """A ledger that says nothing new is not written."""
        self.ledger().secure()
        self.assertEqual(self.own_files(), set())

    def test_forgotten(self) -> None:
        """Base names that are no longer there are kept, but of a great many only the latest."""
        self.patch(uidl, "_MAX_ABSENT", 2)
        ledger = self.ledger()
        for base in (b"0", b"1", b"2", b"3"):
            ledger.numbers(base, [A, B])
        ledger.secure()
        ledger = self.ledger()
        ledger.numbers(b"0", [A, B, B])
        ledger.secure()
        ledger = self.ledger()
        self.assertEqual([base in ledger for base in (b"0", b"1", b"2", b"3")], [1, 0, 1, 1])


class LedgerFileTests(MaildirTestCase):
    """The ledger's file."""

    def setUp(self) -> None:
        """Write a ledger."""
        super().setUp()
        self.path = self.maildir / os.fsdecode(LEDGER_FILE)
        ledger = Ledger(self.root, {})
        ledger.numbers(b"x", [A, B])
        ledger.secure()
        self.content = self.path.read_bytes()

    def unwritten(self) -> Ledger:
        """Return a ledger with something new in it."""
        ledger = Ledger.load(self.root)
        ledger.numbers(b"y", [A, B])
        return ledger

    def assert_refused(self) -> None:
        """Check that the ledger cannot be read, and the error names it."""
        with self.assertRaises(MaildropTemporaryError) as caught:
            Ledger.load(self.root)
        self.assertIn(str(self.path), str(caught.exception))

    def test_format(self) -> None:
        """It is a text file for its owner alone: a version, a checksum, a line for a base name."""
        body = b"x %b:0 %b:1\n" % (A, B)
        digest = sha256(body).hexdigest().encode()
        self.assertEqual(self.content, b"popd-uidl 1 %b\n%b" % (digest, body))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_damaged(self) -> None:
        """After any damage it is refused: changed, cut short at any octet, emptied, added to."""
        for end in range(len(self.content)):
            self.path.write_bytes(self.content[:end])
            self.assert_refused()
        for damaged in (
            self.content + b"\n",
            self.content.replace(b":1", b":2"),
            self.content.replace(b"popd-uidl 1", b"popd-uidl 2"),
            b"\0" * len(self.content),
        ):
            self.path.write_bytes(damaged)
            self.assert_refused()

    def test_wrong_lines(self) -> None:
        """It is refused if its checksum is right but a line is not."""
        for body in (b"x\n", b"x 5:1\n", b"x %b:1" % A, b"x %b:1x\n" % A, b"x %b:%b\n" % (A, B)):
            digest = sha256(body).hexdigest().encode()
            self.path.write_bytes(b"popd-uidl 1 %b\n%b" % (digest, body))
            self.assert_refused()

    def test_not_a_file(self) -> None:
        """What is no regular file in its place is refused, and never waited for."""
        self.path.unlink()
        self.path.symlink_to("/dev/null")
        self.assert_refused()
        self.path.unlink()
        os.mkfifo(self.path)
        self.assert_refused()
        self.path.unlink()
        self.path.mkdir()
        self.assert_refused()

    def test_unreadable(self) -> None:
        """It is refused if it cannot be read."""
        self.inject("open", errno.EIO, "popd-uidl")
        self.assert_refused()

    def test_absent(self) -> None:
        """Where there is none, it is empty."""
        self.path.unlink()
        self.assertNotIn(b"x", Ledger.load(self.root))

    def test_too_long(self) -> None:
        """One that is longer than popd writes is refused unread, and is not written either."""
        ledger = self.unwritten()
        self.patch(uidl, "_MAX_OCTETS", len(self.content) - 1)
        self.assertRaises(MaildropTemporaryError, ledger.secure)
        self.assertEqual(self.path.read_bytes(), self.content)
        self.assert_refused()

    def test_cannot_be_written(self) -> None:
        """Whatever fails while it is written, the old one stays whole; it can be tried again."""
        ledger = self.unwritten()
        for call, target in (("open", ".new"), ("fsync", ".new"), ("rename", ".new")):
            self.inject(call, errno.ENOSPC, target)
            with self.assertRaises(MaildropTemporaryError) as caught:
                ledger.secure()
            self.assertIn("No space left", str(caught.exception))
            self.assertEqual(self.path.read_bytes(), self.content)
            self.assertEqual(self.own_files(), {"popd-uidl"})
            self.heal()
        ledger.secure()
        self.assertIn(b"y", Ledger.load(self.root))

    def test_not_durable(self) -> None:
        """It is not secure before its directory is on disk."""
        ledger = self.unwritten()
        original = os.fsync
        self.inject("fsync", errno.EIO, "Maildir")
        self.assertRaises(MaildropTemporaryError, ledger.secure)
        self.patch(os, "fsync", original)
        self.path.write_bytes(self.content)
        ledger.secure()
        self.assertIn(b"y", Ledger.load(self.root))

    def test_left_over(self) -> None:
        """What a crash left half-written is no obstacle; a link in its place is not followed."""
        target = self.ground / "precious"
        target.write_bytes(b"precious")
        (self.maildir / "popd-uidl.new").symlink_to(target)
        self.unwritten().secure()
        self.assertIn(b"y", Ledger.load(self.root))
        self.assertEqual(target.read_bytes(), b"precious")
        self.assertEqual(self.own_files(), {"popd-uidl"})


class MaildirTests(MaildirTestCase):
    """The ids that a maildrop's sessions see."""

    def test_single_files(self) -> None:
        """Without duplicates there is no ledger, and ids are the same wherever the files move."""
        self.deliver("new/1.h")
        self.deliver(b"cur/2.\xe9 h:2,S")
        before = self.uids()
        (self.maildir / "new/1.h").rename(self.maildir / "cur/1.h:2,RS")
        self.assertEqual(before, [b"1.h", sha256(b"2.\xe9 h").hexdigest().encode()])
        self.assertEqual(self.uids(), before)
        self.assertEqual(self.own_files(), {"popd-lock"})

    def test_oldest_is_first(self) -> None:
        """Of two files of one base name the older has the plain id, and is listed first."""
        for number in range(90, 100):
            self.deliver(f"new/{number}.h", b"young", modified=LONG_AGO + 1)
            self.deliver(f"cur/{number}.h:2,S", b"older")
        maildrop = self.session()
        self.assertEqual(maildrop.duplicates, 0)
        uids = maildrop.open().uids
        self.assertEqual(maildrop.duplicates, 20)
        self.assertEqual(list(uids)[::2], [b"%d.h" % number for number in range(90, 100)])
        for index in range(20):
            self.assertEqual(maildrop.message(index).read(5), (b"older", b"young")[index % 2])

    def test_moved_about(self) -> None:
        """Duplicates keep their ids when flags, directories and mtimes change."""
        one = self.deliver("new/1.h", b"one")
        two = self.deliver("cur/1.h:2,S", b"two")
        before = self.uids()
        one.rename(self.maildir / "cur/1.h:2,")
        self.assertEqual(self.uids(), before)
        two.rename(self.maildir / "new/1.h")
        self.assertEqual(self.uids(), before)
        os.utime(self.maildir / "new/1.h", (1, 1))
        self.assertEqual(self.uids(), before)
        os.utime(self.maildir / "new/1.h", (2e9, 2e9))
        self.assertEqual(self.uids(), before)

    def test_not_inherited(self) -> None:
        """When the owner of the plain id is removed, by whomever, nobody inherits it."""
        self.deliver("new/1.h", b"one")
        two = self.deliver("cur/1.h:2,S", b"two", modified=LONG_AGO + 1)
        other = self.uids()[1]
        (self.maildir / "new/1.h").unlink()
        self.assertEqual(self.uids(), [other])
        self.deliver("new/1.h", b"three", modified=5)
        self.assertEqual(len(set(self.uids()) - {b"1.h", other}), 1)
        two.unlink()
        (self.maildir / "new/1.h").unlink()
        self.deliver("new/1.h", b"one")
        self.assertEqual(self.uids(), [b"1.h"])

    def test_hard_links(self) -> None:
        """Two links of one base name are told apart, and deleting one leaves the other its id."""
        for deleted in (0, 1):
            with self.subTest(deleted):
                path = self.deliver(f"new/{deleted}.h", b"one")
                (self.maildir / f"cur/{deleted}.h:2,S").hardlink_to(path)
                maildrop = self.session()
                uids = list(maildrop.open().uids)
                self.assertEqual(len(set(uids)), 2)
                self.assertEqual(maildrop.duplicates, 2)
                self.assertEqual(len(maildrop.commit([deleted])), 0)
                maildrop.release()
                del uids[deleted]
                for _ in range(2):
                    self.assertEqual(self.uids(), uids)
                for rest in (self.maildir / "new").iterdir(), (self.maildir / "cur").iterdir():
                    for left in rest:
                        left.unlink()

    def test_twin_gone_meanwhile(self) -> None:
        """A marked duplicate that is gone by QUIT does not pass its id to its twin."""
        path = self.deliver("new/1.h", b"same")
        self.deliver("cur/1.h:2,S", b"same")
        maildrop = self.session()
        uids = list(maildrop.open().uids)
        path.unlink()
        gone = 0 if maildrop._stock.locate(0)[0] == b"/new/1.h" else 1
        self.assertEqual(len(maildrop.commit([gone])), 0)
        maildrop.release()
        self.assertEqual(self.uids(), [uids[1 - gone]])

    def test_damaged_ledger(self) -> None:
        """A damaged ledger keeps the maildrop shut, and unlocked, until it is removed."""
        self.deliver("new/1.h")
        (self.maildir / "popd-uidl").write_bytes(b"")
        self.assertRaises(MaildropTemporaryError, self.session().open)
        (self.maildir / "popd-uidl").unlink()
        self.assertEqual(self.uids(), [b"1.h"])

    def test_unwritable_ledger(self) -> None:
        """Where it cannot be written, ids come out the same each time, and nobody inherits one."""
        self.deliver("new/1.h", b"one")
        self.deliver("cur/1.h:2,S", b"two", modified=LONG_AGO + 1)
        self.deliver("cur/2.h:2,S")
        self.inject("rename", errno.ENOSPC, "popd-uidl.new")
        with self.assertLogs("popd.maildrop", "WARNING") as logs:
            before = self.uids()
            maildrop = self.session()
            self.assertEqual(list(maildrop.open().uids), list(before))
            self.assertEqual(len(maildrop.commit([0, 2])), 1)
            maildrop.release()
            self.assertEqual(self.uids(), before[:2])
        self.assertIn("popd-uidl", logs.output[0])

    def test_room_made(self) -> None:
        """On a full disk, what else is deleted makes room for the ledger, then duplicates go."""
        self.mount("nr_inodes=20")
        self.deliver("new/1.h", b"one")
        self.deliver("cur/1.h:2,S", b"two", modified=LONG_AGO + 1)
        self.deliver("cur/2.h:2,S")
        self.fill_up()
        with self.assertLogs("popd.maildrop", "WARNING"):
            maildrop = self.session()
            uids = list(maildrop.open().uids)
        self.assertEqual(len(maildrop.commit([0, 2])), 0)
        maildrop.release()
        self.assertEqual(self.uids(), uids[1:2])

    def test_spent_unwritable(self) -> None:
        """A removal that cannot be noted, though a twin stays, is not reported as done."""
        self.deliver("new/1.h", b"same")
        self.deliver("cur/1.h:2,S", b"same")
        maildrop = self.session()
        maildrop.open()
        self.inject("rename", errno.ENOSPC, "popd-uidl.new")
        with self.assertLogs("popd.maildrop", "WARNING"):
            self.assertEqual(len(maildrop.commit([0])), 1)
        maildrop.release()
        self.assertEqual(self.uids(), [b"1.h"])
