"""Clients that read nothing, or have a great deal of mail, are no burden to the others."""

from __future__ import annotations

import os
import select
from typing import Final

from tests.e2e.server import PASSWORDS, Client, ServerCase

READERS: Final = 30
MESSAGES: Final = 20_000
"""What there is in a large maildrop."""

LISTINGS: Final = 3
"""How many clients stop reading what is in one."""

ENOUGH: Final = 50_000_000
"""Octets of memory that the server has no need to grow by, whatever clients do.

It is a sixth of what the messages have that it is asked for.
"""


class NeighbourCase(ServerCase):
    """A server whose users may log in without TLS."""

    options = ("--cleartext-login", "always")

    def fill(self, user: str) -> None:
        """Give somebody a large maildrop, the messages of which do not tell their sizes."""
        first = self.site.deliver(user, b"Subject: one of many\n\n.\ntext\n")
        new = first.parent
        for number in range(1, MESSAGES):
            os.link(first, new / f"{first.name}-{number}")


class SlowReaderTests(NeighbourCase):
    """Clients that stop reading, and go on later."""

    def _stopped(self, number: int, user: str, command: bytes) -> Client:
        """Return a client that reads no more than the first line; every second one has TLS."""
        if number % 2:
            client = self.tls_client(receive_buffer=4096)
        else:
            client = Client(self.server.port, receive_buffer=4096)
            self.addCleanup(client.close)
        client.log_in(user)
        client.expect(command)
        return client

    def test_messages(self) -> None:
        """Thirty of them in 10 MB cost little memory, hinder nobody, and get every octet."""
        line = b"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
        message = b"Subject: big\r\n\r\n.\r\n..dots\r\n" + line * (10_000_000 // len(line))
        original = self.site.deliver("bob", message)
        before = self.server.memory
        clients = []
        for number in range(READERS):
            user = f"user{number}"
            self.site.add_user(user)
            os.link(original, self.site.maildir(user) / "new" / original.name)
            clients.append(self._stopped(number, user, b"RETR 1"))
        with self.logged_in("bob") as other:
            self.assertTrue(other.fetch(1) == message, "not what was delivered")
            other.expect(b"QUIT")
        self.assertLess(self.server.memory - before, ENOUGH)
        for number, client in enumerate(clients):
            self.assertTrue(client.body() == message, f"client {number} has something else")
            client.expect(b"QUIT")
        self.assertLess(self.server.memory - before, ENOUGH)

    def test_listings(self) -> None:
        """A few of them in a listing of 20,000 lines get every line in the end."""
        users = ("alice", "carol", "dave")[:LISTINGS]
        for user in users:
            self.fill(user)
        before = self.server.memory
        clients = [self._stopped(n, user, b"UIDL") for n, user in enumerate(users)]
        with self.logged_in("bob") as other:
            other.expect(b"STAT", b"+OK 0 0")
            other.expect(b"QUIT")
        self.assertLess(self.server.memory - before, 2 * ENOUGH)
        for user, client in zip(users, clients, strict=True):
            lines = [line.split() for line in client.body().splitlines()]
            self.assertEqual([int(number) for number, _ in lines], [*range(1, MESSAGES + 1)])
            ids = {os.fsencode(path.name) for path in self.site.messages(user)}
            self.assertEqual({uid for _, uid in lines}, ids)
            client.expect(b"QUIT")


class LargeMaildropTests(NeighbourCase):
    """A client that opens a large maildrop of which the server knows nothing yet."""

    def test_polls_go_on(self) -> None:
        """Others poll meanwhile, time and again, and get correct answers."""
        self.fill("alice")
        mail = [self.site.deliver("bob", b"Subject: %d\n\ntext\n" % n) for n in range(5)]
        large = self.client()
        large.expect(b"USER alice")
        large.send(b"PASS " + PASSWORDS["alice"].encode() + b"\r\n")
        polls = 0
        while not select.select([large.socket], [], [], 0)[0]:
            self._poll([os.fsencode(path.name) for path in mail])
            polls += 1
            self.assertLess(polls, 5_000, "it is never open")
        self.assertGreater(polls, 2, "nobody was served until the large maildrop was open")
        self.assertTrue(large.line().startswith(b"+OK"))
        self.assertTrue(large.expect(b"STAT").startswith(b"+OK %d " % MESSAGES))
        large.expect(b"QUIT")

    def _poll(self, ids: list[bytes]) -> None:
        with self.client() as client:
            client.log_in("bob")
            self.assertTrue(client.expect(b"STAT").startswith(b"+OK %d " % len(ids)))
            client.expect(b"UIDL")
            self.assertEqual([line.split()[1] for line in client.body().splitlines()], ids)
            client.expect(b"QUIT")
