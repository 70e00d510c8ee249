"""A file server is gone, and whoever asks it waits for ever."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from popd.server.offload import THREADS
from tests.e2e.server import LIMIT, ServerCase, until
from tests.faults.fuse import Disk

if TYPE_CHECKING:
    from tests.e2e.server import Client

MESSAGE = b"Subject: dead\n\n" + b"0123456789\n" * 20_000
USERS = THREADS + 6


class DeadDiskCase(ServerCase):
    """One domain's mail is on a disk of its own, that hangs."""

    def setUp(self) -> None:
        """Mount the disk, with mail for its users, and start the server."""
        super().setUp()
        place = self.site.mail / "dead.example"
        place.mkdir()
        self.users = [f"user{number}@dead.example" for number in range(USERS)]
        with self.site.passwords.open("a", encoding="ascii") as file:
            file.writelines(f"{user}:{{PLAIN}}{user}\n" for user in self.users)
        stack = contextlib.ExitStack()
        self.disk = stack.enter_context(Disk(place))
        # The kernel keeps who waits for such a disk even from dying, so this has to come first.
        self.addCleanup(stack.close)
        for user in self.users:
            maildir = f"{user.partition('@')[0]}/Maildir"
            for directory in ("tmp", "cur"):
                self.disk.make(f"{maildir}/{directory}")
            self.disk.make(f"{maildir}/new/1.mx", MESSAGE)
        self.site.deliver("bob", b"Subject: alive\n\nwell\n")

    def begin(self, *commands: bytes, user: str = "") -> Client:
        """Say something in a session and do not wait for an answer."""
        client = self.tls_client()
        if user:
            client.log_in(user)
        client.send(b"".join(command + b"\r\n" for command in commands))
        return client

    def let_in(self, user: str) -> Client | None:
        """Log in, if that is possible."""
        client = self.tls_client()
        with contextlib.suppress(AssertionError):
            client.log_in(user)
            return client
        client.close()
        return None

    def neighbour(self) -> float:
        """Return how many seconds a session takes whose mail is on another disk."""
        began = time.monotonic()
        with self.tls_client() as client:
            client.log_in("bob")
            self.assertIn(b"well", client.fetch(1))
            client.expect(b"QUIT")
        return time.monotonic() - began


class DeadDiskTests(DeadDiskCase):
    """It hangs, and answers again."""

    def test_gone(self) -> None:
        """Its own users are told within ten seconds, and nobody else waits, be they ever so many.

        When it answers again all is as before, and no message was removed that should not be.
        """
        self.neighbour()
        descriptors = self.descriptors()
        reads = self.begin(user=self.users[0])
        removes = self.begin(b"DELE 1", user=self.users[1])
        removes.line()
        self.disk.hang()
        began = time.monotonic()
        reads.send(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        removes.send(b"QUIT\r\n")
        waiting = [self.begin(b"USER " + u, b"PASS " + u) for u in map(str.encode, self.users[2:])]
        for client in waiting:
            client.line()
        until(lambda: self.disk.waiting >= THREADS, "no thread waits for the disk")
        times = [self.neighbour() for _ in range(20)]
        self.assertLess(max(times), 1.0)
        for client in (reads, removes, *waiting):
            self.assertTrue(client.line().startswith(b"-ERR [SYS/TEMP] "))
        seconds = time.monotonic() - began
        self.assertLess(seconds, 10.0)
        self.assertEqual((reads.rest(), removes.rest()), (b"", b""))

        began = time.monotonic()
        for client in waiting:  # the same user, on the same connection
            client.expect(b"USER " + self.users[-1].encode())
            client.expect(b"PASS " + self.users[-1].encode(), b"-ERR [SYS/TEMP]")
        self.assertLess(time.monotonic() - began, 2.0)
        self.assertLessEqual(self.disk.waiting, THREADS)
        self.assertLess(self.neighbour(), 1.0)

        self.disk.revive()
        for number, user in enumerate(self.users):
            left = 0 if number == 1 else 1
            client = until(lambda user=user: self.let_in(user), f"{user} gets in", LIMIT)  # type: ignore[misc]
            self.assertTrue(client.expect(b"STAT").startswith(b"+OK %d " % left))
            client.expect(b"QUIT")
            client.close()
        for client in (reads, removes, *waiting):
            client.close()
        until(lambda: self.descriptors() <= descriptors, "something stays open")

    def descriptors(self) -> int:
        """Return how many descriptors the server has open."""
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))  # noqa: PTH208
