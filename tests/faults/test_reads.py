"""The disk fails at any read of a message: what is cut short is never presented as whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popd.maildrop.stored import OpenMessage
from popd.maildrop.template import MaildirStore
from popd.server.transfer import CHUNK
from tests.server.helpers import ServerCase, told

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = int(os.environ.get("POPD_READS", "9"))
"""At which reads something fails: each ninth, or with ``python -m tests.faults reads`` at each."""

MESSAGE = b"Subject: large\n\n" + b".0123456789abcde\n" * 61_700  # some 1 MB
READS = -(-len(MESSAGE) // CHUNK)
END = b"\r\n.\r\n"


class Broken:
    """A file that cannot be read any more."""

    def __init__(self, file: Any) -> None:
        self.close = file.close

    def read(self, limit: int) -> bytes:
        """Fail as a broken disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class ReadTests(ServerCase):
    """A message of 1 MB is fetched, and something happens before one of its reads."""

    def setUp(self) -> None:
        """Deliver the message."""
        self.mail = Path(self.mktemp()).absolute()
        for directory in ("tmp", "new", "cur"):
            (self.mail / "joe" / directory).mkdir(parents=True)
        self.file = self.mail / "joe" / "new" / "1.h"
        super().setUp()

    def mail_store(self) -> MaildirStore:
        """Have real Maildirs."""
        return MaildirStore.from_template(f"maildir:{self.mail}/{{local}}")

    def fetch(self, command: bytes, at: int, fault: Callable[[Any], object]) -> tuple[bytes, bool]:
        """Return what a client is sent, and whether it was cut off.

        :param at: which read something happens before, from 1 on.
        :param fault: what happens; it is given the open message.
        """
        self.file.write_bytes(MESSAGE)
        protocol, wire = self.log_in()
        reads = 0

        def read(message: Any, limit: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads == at:
                fault(message)
            return original(message, limit)

        original = OpenMessage.read
        self.patch(OpenMessage, "read", read)
        try:
            protocol.dataReceived(command + b"\r\n")
            self.settle()
        finally:
            self.patch(OpenMessage, "read", original)
        self.lose(protocol)
        self.happened += reads >= at
        return told(wire.value()), wire.aborted

    happened = 0

    def check(self, fault: Callable[[Any], object], *, harmless: bool = False) -> None:
        """Check what comes of a fault, at every read.

        :param harmless: whether the message can be read nevertheless.
        """
        for command in (b"RETR 1", b"TOP 1 99999", b"TOP 1 30000"):
            whole, aborted = self.fetch(command, 0, fault)
            self.assertTrue(whole.endswith(END))
            self.assertFalse(aborted)
            self.happened = 0
            for at in (1, *range(2, READS, STEP), READS):
                before = self.happened
                received, aborted = self.fetch(command, at, fault)
                if harmless or self.happened == before:
                    self.assertTrue(received == whole, "not what was delivered")
                    self.assertFalse(aborted)
                elif received.startswith(b"-ERR [SYS/TEMP] "):
                    self.assertEqual((at, received.count(b"\r\n"), aborted), (1, 1, False))
                else:
                    self.assertTrue(whole.startswith(received), "not what was delivered")
                    self.assertFalse(END in received, "ended as if it were whole")
                    self.assertTrue(aborted)
            self.assertGreater(self.happened, 1)
        self.flushLoggedErrors()

    def test_error(self) -> None:
        """A read fails with EIO."""
        self.check(lambda message: setattr(message, "_file", Broken(message._file)))

    def test_truncated(self) -> None:
        """The file is cut short, to what was read of it so far."""
        self.check(lambda message: os.truncate(self.file, message._file.tell()))

    def test_removed(self) -> None:
        """The file is removed: who has it open reads all of it."""
        self.check(lambda _: self.file.unlink(), harmless=True)
