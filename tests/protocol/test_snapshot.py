"""Tests of `popd.protocol.snapshot`, and of listings of many messages."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.events import PAUSED, Reply, Stream
from popd.protocol.session import Session
from popd.protocol.snapshot import ROWS, Snapshot
from popd.protocol.transaction import PIECE
from tests.protocol.helpers import PROTECTED

if TYPE_CHECKING:
    from popd.protocol.events import Event


class LongListingTests(SynchronousTestCase):
    """Listings of many messages."""

    def listings(self, count: int, *marks: int) -> list[Event]:
        """Return what LIST and UIDL are of a maildrop with some messages marked."""
        session = Session(PROTECTED)
        session.feed(b"USER joe\r\nPASS secret\r\n")
        session.next_event()
        session.next_event()
        session.authenticated(Snapshot(range(count), [b"uid-%d" % i for i in range(count)]))
        session.next_event()
        for mark in marks:
            session.feed(b"DELE %d\r\n" % mark)
            session.next_event()
        session.feed(b"LIST\r\nUIDL\r\n")
        scan = session.next_event()
        if isinstance(scan, Stream):
            self.assertIs(session.next_event(), PAUSED)
            session.sent()
        return [scan, session.next_event()]

    def test_shared(self) -> None:
        """A long listing is handed out in pieces of the one that all sessions share."""
        scan, uidl = self.listings(20_000)
        assert isinstance(scan, Stream)
        assert isinstance(uidl, Stream)
        pieces = list(uidl.pieces)
        self.assertLessEqual(max(map(len, pieces)), PIECE)
        rows = b"".join(b"%d uid-%d\r\n" % (i + 1, i) for i in range(20_000))
        self.assertEqual(b"".join(pieces), b"+OK\r\n" + rows + b".\r\n")
        rows = b"".join(b"%d %d\r\n" % (i + 1, i) for i in range(20_000))
        self.assertEqual(b"".join(scan.pieces), b"+OK\r\n" + rows + b".\r\n")

    def test_marked(self) -> None:
        """With marks it is rendered little by little, as it is asked for."""
        scan, uidl = self.listings(20_000, 1, 300, 20_000)
        assert isinstance(scan, Stream)
        assert isinstance(uidl, Stream)
        there = [i for i in range(20_000) if i + 1 not in {1, 300, 20_000}]
        pieces = list(uidl.pieces)
        self.assertLess(max(map(len, pieces)), ROWS * 80)
        rows = b"".join(b"%d uid-%d\r\n" % (i + 1, i) for i in there)
        self.assertEqual(b"".join(pieces), b"+OK\r\n" + rows + b".\r\n")
        rows = b"".join(b"%d %d\r\n" % (i + 1, i) for i in there)
        self.assertEqual(b"".join(scan.pieces), b"+OK\r\n" + rows + b".\r\n")

    def test_small(self) -> None:
        """Short ones are plain replies."""
        self.assertEqual({type(event) for event in self.listings(ROWS)}, {Reply})
        self.assertEqual({type(event) for event in self.listings(ROWS, 1)}, {Reply})


class SnapshotTests(SynchronousTestCase):
    """`Snapshot`."""

    def test_mismatch(self) -> None:
        """Sizes and unique-ids must go in pairs."""
        self.assertRaises(ValueError, Snapshot, [1], [])

    def test_like(self) -> None:
        """What an older snapshot has rendered is copied, and gives the same octets."""
        for count, same, new_count in ((0, 0, 3), (9, 9, 9), (9, 9, 12), (12, 9, 9), (12, 5, 300)):
            old = Snapshot(range(count), [b"uid-%d" % i for i in range(count)])
            sizes = [*range(same), *range(1000, 1000 + new_count - same)]
            uids = [b"uid-%d" % i for i in sizes]
            plain = Snapshot(sizes, uids)
            unrendered = Snapshot(sizes, uids, like=old, same=same)
            old.render()
            new = Snapshot(sizes, uids, like=old, same=same)
            for snapshot in (unrendered, new):
                snapshot.render()
                self.assertEqual(snapshot.scan_listing(), plain.scan_listing())
                self.assertEqual(snapshot.unique_id_listing(), plain.unique_id_listing())
                self.assertEqual(snapshot.octets, sum(sizes))

    def test_like_is_let_go(self) -> None:
        """Nothing of an older snapshot is held once its successor is rendered."""
        old = Snapshot([1], [b"u"])
        old.render()
        new = Snapshot([1, 2], [b"u", b"v"], like=old, same=1)
        self.assertNotIn(old, gc.get_referents(new))
        new.render()
        self.assertNotIn(old.scan_listing(), gc.get_referents(new))
        self.assertNotIn(old.unique_id_listing(), gc.get_referents(new))
