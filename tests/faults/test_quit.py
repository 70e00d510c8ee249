"""Whatever cannot be removed, QUIT says so, and does the rest."""

from __future__ import annotations

import errno
import os
from itertools import combinations
from pathlib import Path
from typing import Any

from popd.maildrop.template import MaildirStore
from tests.maildrop.helpers import path_of
from tests.server.helpers import ServerCase, told

ERRORS = (errno.EIO, errno.EACCES, errno.EROFS, errno.EBUSY)
NAMES = ("new/1.h", "new/2.h", "cur/3.h:2,", "cur/4.h:2,S", "cur/5.h:2,RS")


class QuitTests(ServerCase):
    """Five messages are deleted, of which some cannot be removed."""

    def setUp(self) -> None:
        """Make a Maildir."""
        self.maildir = Path(self.mktemp()).absolute() / "joe"
        for directory in ("tmp", "new", "cur"):
            (self.maildir / directory).mkdir(parents=True)
        super().setUp()

    def mail_store(self) -> MaildirStore:
        """Have real Maildirs."""
        return MaildirStore.from_template(f"maildir:{self.maildir.parent}/{{local}}")

    def quit(self, stuck: tuple[str, ...], number: int) -> bytes:
        """Delete everything while some files cannot be removed; return the answer to QUIT."""
        for name in (*NAMES, "new/0.h", "cur/6.h:2,"):
            (self.maildir / name).write_bytes(b"Subject: x\n\nx\n")
        protocol, wire = self.log_in()
        protocol.dataReceived(b"".join(b"DELE %d\r\n" % n for n in range(2, 7)))
        wire.clear()
        unlink = os.unlink

        def failing(path: Any, **more: Any) -> None:
            if f"{path_of(more['dir_fd'])}/{os.fsdecode(path)}".endswith(stuck):
                raise OSError(number, os.strerror(number), path)
            unlink(path, **more)

        self.patch(os, "unlink", failing)
        expects = self.assertLogs if stuck else self.assertNoLogs
        with expects("popd.maildrop", "WARNING"):
            protocol.dataReceived(b"QUIT\r\n")
        self.patch(os, "unlink", unlink)
        self.assertTrue(wire.disconnecting)
        self.lose(protocol)
        return told(wire.value())

    def test_every_subset(self) -> None:
        """Of each subset of the five and each of four errors, 124 in all."""
        subsets = [subset for size in range(1, 6) for subset in combinations(NAMES, size)]
        self.assertEqual(len(subsets) * len(ERRORS), 124)
        for number in ERRORS:
            for stuck in subsets:
                said = self.quit(stuck, number)
                self.assertEqual(said, b"-ERR [SYS/TEMP] some deleted messages not removed\r\n")
                left = {
                    f"{directory}/{path.name}"
                    for directory in ("new", "cur")
                    for path in (self.maildir / directory).iterdir()
                }
                self.assertEqual(left, {*stuck, "new/0.h", "cur/6.h:2,"})

    def test_none(self) -> None:
        """If all can be removed, QUIT says that."""
        self.assertTrue(self.quit((), 0).startswith(b"+OK "))
