"""popd is to stop while a disk hangs.  It takes its time, and so is part of the long forms only."""

from __future__ import annotations

import signal
import time

from tests.e2e.server import LIMIT, until
from tests.faults.test_dead_disk import DeadDiskCase


class StopTests(DeadDiskCase):
    """Sessions wait for a disk that hangs."""

    options = ("--drain-timeout", "3")

    def test_stop(self) -> None:
        """It stops all the same, without what cannot be finished.

        The process itself goes when the kernel lets it: of FUSE's calls, when they are answered.
        """
        clients = [self.tls_client() for _ in self.users]
        for client, user in zip(clients, self.users, strict=True):
            client.log_in(user)
        self.disk.hang()
        for client in clients[1:]:
            client.send(b"RETR 1\r\n")
        clients[0].send(b"DELE 1\r\nQUIT\r\n")
        until(lambda: self.disk.waiting > 1, "nobody waits for the disk")
        began = time.monotonic()
        self.server.process.send_signal(signal.SIGTERM)
        until(lambda: "Server Shut Down" in self.server.log, "it does not stop", LIMIT)
        self.assertLess(time.monotonic() - began, 15)
        self.disk.revive()
        self.server.process.wait(LIMIT)
