"""A real server reads from a disk that fails at any read: the twin of ``test_reads.py``."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from popd.server.transfer import CHUNK
from tests.e2e.server import ServerCase
from tests.faults.fuse import Disk

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = int(os.environ.get("POPD_READS", "60"))
"""At which reads it fails: each sixtieth, or with ``python -m tests.faults reads`` at each."""

MESSAGE = b"Subject: large\n\n" + b".0123456789abcde\n" * 61_700  # some 1 MB
READS = -(-len(MESSAGE) // CHUNK)
END = b"\r\n.\r\n"


class BrokenDiskTests(ServerCase):
    """A message of 1 MB is on a disk that breaks."""

    def setUp(self) -> None:
        """Mount the disk on a Maildir."""
        super().setUp()
        stack = contextlib.ExitStack()
        self.disk = stack.enter_context(Disk(self.site.maildir("alice")))
        self.addCleanup(stack.close)
        for directory in ("tmp", "cur"):
            self.disk.make(directory)
        self.disk.make("new/1.mx", MESSAGE)

    def fetch(self, command: bytes, at: int, fault: Callable[[bytes], bytes]) -> tuple[bytes, int]:
        """Return what a client is sent until it is cut off, or QUIT ends it, and how many reads."""
        reads = 0

        def read(content: bytes) -> bytes:
            nonlocal reads
            reads += 1
            return fault(content) if reads >= at else content

        with self.log_in_when_free() as client:
            self.disk.broken = read
            client.send(command + b"\r\nQUIT\r\n")
            received = client.rest()
            self.disk.broken = None
        return received, reads

    def check(self, fault: Callable[[bytes], bytes]) -> None:
        """Check what comes of a fault, at every read."""
        for command in (b"RETR 1", b"TOP 1 99999"):
            whole, reads = self.fetch(command, READS + 1, fault)
            self.assertEqual((reads, whole.count(END)), (READS, 1))
            for at in (1, *range(2, READS, STEP), READS):
                received, reads = self.fetch(command, at, fault)
                self.assertEqual(reads, at)
                self.assertFalse(END in received, "ended as if it were whole")
                if at == 1:
                    self.assertTrue(received.startswith(b"-ERR [SYS/TEMP] "), received[:80])
                else:
                    self.assertTrue(whole.startswith(received), "not what was delivered")

    def test_error(self) -> None:
        """A read fails with EIO."""

        def fail(_: bytes) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.check(fail)

    def test_end(self) -> None:
        """A file ends too early."""
        self.check(lambda _: b"")
