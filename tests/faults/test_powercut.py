"""The power fails right after QUIT was answered."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from tests.e2e.server import ServerCase
from tests.faults.powercut import Disk

if TYPE_CHECKING:
    from pathlib import Path

CUTS = int(os.environ.get("POPD_CUTS", "3"))
"""How often the power is cut; ``python -m tests.faults cuts`` does it a hundred times."""


FEW = 10
"""So many are not worth a line."""


def unique_id(file: Path) -> bytes:
    """Return the unique-id of a message."""
    return file.name.partition(":")[0].encode()


class PowerCutCase(ServerCase):
    """Messages are deleted, and then the machine is off."""

    options: tuple[str, ...] = ("--clock-skew", "0")

    def setUp(self) -> None:
        """Have Maildirs on a disk whose power can be cut."""
        super().setUp()
        self.maildir = self.site.maildir("alice")
        stack = contextlib.ExitStack()
        self.disk = stack.enter_context(Disk(self.maildir, self.site.root / "disk"))
        self.addCleanup(stack.close)
        for directory in ("tmp", "new", "cur"):
            (self.maildir / directory).mkdir()

    def unique_ids(self) -> list[bytes]:
        """Return what UIDL says in a session, which has to begin within a second."""
        began = time.monotonic()
        with self.logged_in() as client:
            self.assertLess(time.monotonic() - began, 1.0)
            client.expect(b"UIDL")
            ids = [line.split()[1] for line in client.body().splitlines()]
            client.expect(b"QUIT")
        return ids

    def cut(self) -> tuple[int, int]:
        """Delete two of three messages, in `new` and in `cur`, and cut the power behind QUIT's +OK.

        :return: how many messages are back, and how many too few are there.
        """
        files = [self.site.deliver("alice", b"Subject: %d\n\nx\n" % number) for number in range(3)]
        files[1] = files[1].rename(self.maildir / "cur" / f"{files[1].name}:2,S")
        self.disk.sync()
        before = self.unique_ids()
        deleted = {unique_id(file) for file in files[:2]}
        with self.logged_in() as client:
            for uid in deleted:
                client.expect(b"DELE %d" % (before.index(uid) + 1))
            client.expect(b"QUIT", b"+OK")
        self.disk.cut()
        stayed = {unique_id(file) for file in self.site.messages("alice")}
        self.assertEqual([uid for uid in before if uid in stayed], self.unique_ids())
        return len(deleted & stayed), len({*before} - deleted - stayed)

    def cuts(self, times: int) -> tuple[int, int]:
        """Do that so many times; return after how many messages were back, or too few."""
        results = [self.cut() for _ in range(times)]
        back, lost = (sum(count > 0 for count in counts) for counts in zip(*results, strict=True))
        if times > FEW:
            sys.stdout.write(
                f"{times} cuts: messages were back after {back}, too few after {lost}\n"
            )
        return back, lost


class FullTests(PowerCutCase):
    """With ``--durability full``, which is the default."""

    def test_full(self) -> None:
        """What QUIT said is deleted stays so, and nothing else is gone."""
        self.assertEqual(self.cuts(CUTS), (0, 0))

    def test_duplicates(self) -> None:
        """Of two files of one name the one that stays keeps its unique-id, also for a new server.

        Which has which is in a file of popd's own, that has to be on the disk as well.
        """
        file = self.site.deliver("alice", b"Subject: one\n\nx\n")
        (self.maildir / "cur" / f"{file.name}:2,S").write_bytes(b"Subject: two\n\nx\n")
        self.disk.sync()
        first, second = self.unique_ids()
        self.assertNotEqual(first, second)
        with self.logged_in() as client:
            client.expect(b"DELE 1")
            client.expect(b"QUIT", b"+OK")
        self.disk.cut()
        self.server.stop()
        self.server = self.start(*self.options)
        self.assertEqual(self.unique_ids(), [second])

    def test_full_disk(self) -> None:
        """On a disk without a free octet deletions work, and are durable as well."""
        files = [self.site.deliver("alice", b"Subject: %d\n\nx\n" % number) for number in range(3)]
        with (self.maildir / "fill").open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        self.disk.sync()
        with self.logged_in() as client:
            client.fetch(3)
            client.expect(b"DELE 1")
            client.expect(b"DELE 2")
            client.expect(b"QUIT", b"+OK")
        self.disk.cut()
        self.assertEqual(self.site.messages("alice"), files[2:])
        self.assertEqual(self.unique_ids(), [unique_id(files[2])])


class FastTests(PowerCutCase):
    """With ``--durability fast``."""

    options = (*PowerCutCase.options, "--durability", "fast")

    def test_fast(self) -> None:
        """Messages are back that QUIT said are deleted: so the tests above can fail."""
        back, lost = self.cuts(CUTS)
        self.assertGreater(back, 0)
        self.assertEqual(lost, 0)
