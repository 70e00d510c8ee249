"""How many clients the real server serves, and what it does when it cannot serve more."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SkipTest

from tests.e2e.server import Client, RunningServer, ServerCase, until

TOO_MANY = b"-ERR [SYS/TEMP] too many sessions, try again later"


def workers_of(server: RunningServer) -> list[int]:
    """Return the process ids of the workers."""
    pid = server.process.pid
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text(encoding="ascii").split()]


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class WorkersTests(ServerCase):
    """Several workers have one limit."""

    options = ("--workers", "2", "--max-sessions-per-ip", "5", "--max-sessions", "8")

    def setUp(self) -> None:
        """Wait for the workers."""
        super().setUp()
        until(lambda: self.server.log.count("accepts connections") >= 2, "workers do not start")

    def connect(self, source: str) -> Client:
        """Connect from an address of this machine."""
        client = Client(self.server.port, source=source)
        self.addCleanup(client.close)
        return client

    def test_by_address(self) -> None:
        """From one address come as many as may, whoever serves them; from another, others."""
        clients = [self.connect("127.0.0.2") for _ in range(20)]
        welcome = [client for client in clients if client.greeting.startswith(b"+OK")]
        self.assertEqual(len(welcome), 5)
        refused = [client for client in clients if client not in welcome]
        self.assertEqual({client.greeting for client in refused}, {TOO_MANY})
        self.assertEqual(refused[0].rest(), b"")
        self.assertTrue(self.connect("127.0.0.3").greeting.startswith(b"+OK"))
        self.assertIn("from 127.0.0.2: --max-sessions-per-ip 5 is reached", self.server.log)
        for client in welcome:
            client.expect(b"QUIT")
        until(lambda: self.connect("127.0.0.2").greeting.startswith(b"+OK"), "nobody else may come")

    def test_dead_worker(self) -> None:
        """The sessions of a worker that died do not count."""
        for _ in range(5):
            self.connect("127.0.0.2")
        self.assertEqual(self.connect("127.0.0.2").greeting, TOO_MANY)
        for pid in workers_of(self.server):
            os.kill(pid, 9)
        until(lambda: self.server.log.count("accepts connections") >= 4, "nobody replaces them")
        greetings = [self.connect("127.0.0.2").greeting for _ in range(6)]
        self.assertEqual(
            [greeting.startswith(b"+OK") for greeting in greetings], 5 * [True] + [False]
        )


class FullTests(ServerCase):
    """The server is full."""

    options = ("--max-sessions", "3", "--cleartext-login", "local")

    def test_replaced(self) -> None:
        """Who is logged in stays; the oldest of the others goes."""
        inside = self.logged_in()
        oldest, younger = self.client(), self.client()
        newest = self.client()
        self.assertEqual(oldest.rest(), TOO_MANY + b"\r\n")
        for client in (younger, newest):
            client.expect(b"CAPA")
        inside.expect(b"NOOP")

    def test_all_logged_in(self) -> None:
        """If all are, the new one is told; on the TLS port the connection just closes."""
        for user in ("alice", "bob", "carol"):
            self.logged_in(user)
        self.assertEqual(self.client().greeting, TOO_MANY)
        self.assertRaises(OSError, self.tls_client)


class DescriptorTests(ServerCase):
    """The server may open few files."""

    options = ("--max-sessions", "0", "--cleartext-login", "local")
    LIMIT: ClassVar = 64

    def setUp(self) -> None:
        """Take the files away."""
        super().setUp()
        pid = self.server.process.pid
        command = ["prlimit", "--pid", str(pid), f"--nofile={self.LIMIT}"]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise SkipTest("needs prlimit: apt-get install util-linux") from None

    def test_logged_out(self) -> None:
        """Clients that do not log in make room, so that others get in all the time."""
        clients = [self.client(greeted=False) for _ in range(2 * self.LIMIT)]
        until(lambda: "Too many open files" in self.server.log, "there is room for all")
        self.logged_in().expect(b"QUIT")
        self.assertTrue(any(client.rest().endswith(TOO_MANY + b"\r\n") for client in clients[:9]))

    def test_logged_in(self) -> None:
        """When nobody makes room others wait, it takes no time, and they are served later."""
        users = [f"user{number}" for number in range(self.LIMIT)]
        for user in users:
            self.site.add_user(user)
        inside = []
        for user in users[: self.LIMIT // 2]:
            client = self.client(greeted=False)
            client.send(b"USER %s\r\nPASS %s\r\n" % (user.encode(), user.encode()))
            inside.append(client)
        outside = [self.client(greeted=False) for _ in range(self.LIMIT)]
        time.sleep(1.5)
        before = processor_time(self.server.process.pid)
        time.sleep(2)
        self.assertLess(processor_time(self.server.process.pid) - before, 0.5)
        self.assertIn("Too many open files", self.server.log)
        for client in inside + outside:
            client.close()
        self.logged_in().expect(b"QUIT")


class DownloadTests(ServerCase):
    """Users may download so much in a day."""

    options = ("--workers", "2", "--max-download-per-day", "0.0005")

    def test_used_up(self) -> None:
        """What was downloaded with one worker counts with all."""
        self.site.deliver("alice", b"Subject: one\n\n" + b"x" * 70 + b"\n")
        got = 0
        for _ in range(20):
            with self.log_in_when_free("alice") as client:
                reply = client.ask(b"RETR 1")
                if reply.startswith(b"-ERR"):
                    break
                got += len(client.body())
                client.expect(b"QUIT")
        self.assertTrue(500 <= got < 700, got)
        for _ in range(6):
            with self.log_in_when_free("alice") as client:
                client.expect(b"TOP 1 0", b"-ERR [SYS/TEMP] today's download limit is reached")
                client.expect(b"LIST 1")
                client.expect(b"QUIT")
        self.site.deliver("bob", b"Subject: two\n\n")
        self.logged_in("bob").fetch(1)
