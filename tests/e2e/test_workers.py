"""Several workers behind one port, as their clients see them."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from pathlib import Path

from tests.e2e.server import LIMIT, Client, ServerCase, until

ACCEPTS = re.compile(r"Worker (\d+) accepts connections")


def children(pid: int) -> set[int]:
    """Return the process ids of the living children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return {int(word) for word in text.split()}


def connected_to(client: Client) -> int:
    """Return the process id of the worker that serves a connection."""
    ends = client.socket.getpeername(), client.socket.getsockname()
    wanted = [
        f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}" for host, port in ends
    ]
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return holder_of(f"socket:[{fields[9]}]")
    raise AssertionError("no such connection")


def holder_of(link: str) -> int:
    """Return the process id of who has this open, this process apart."""
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(path.readlink()) == link and path.parts[2] != str(os.getpid()):
                return int(path.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody has {link}")


class WorkerTests(ServerCase):
    """Two workers share the ports."""

    options = ("--workers", "2")

    def setUp(self) -> None:
        """Wait until both workers accept connections."""
        super().setUp()
        until(lambda: len(self.workers()) == 2, "two workers")

    def workers(self) -> list[int]:
        """Return the workers that have ever been ready."""
        return [int(pid) for pid in ACCEPTS.findall(self.server.log)]

    def clients_of_both(self) -> tuple[Client, Client]:
        """Return two clients, one of each worker."""
        by_worker: dict[int, Client] = {}
        for _ in range(200):
            client = Client(self.server.port)
            self.addCleanup(client.close)
            by_worker.setdefault(connected_to(client), client)
            if len(by_worker) == 2:
                first, second = by_worker.values()
                return first, second
        raise AssertionError("one worker gets all connections")

    def log_in(self, client: Client) -> None:
        """Log in under TLS."""
        client.stls(self.site.client_context())
        client.log_in()

    def test_lock(self) -> None:
        """A maildrop that a session of one worker holds is in use for those of the other."""
        first, second = self.clients_of_both()
        self.log_in(first)
        second.stls(self.site.client_context())
        second.expect(b"USER alice")
        second.expect(b"PASS secret-of-alice", b"-ERR [IN-USE]")
        first.expect(b"QUIT")
        second.log_in()

    def test_death(self) -> None:
        """A worker that dies takes its own clients along, and is replaced, loudly."""
        first, second = self.clients_of_both()
        victim = connected_to(first)
        self.log_in(second)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(first.rest(), b"")
        until(lambda: len(self.workers()) == 3, "a new worker")
        self.assertRegex(self.server.log, rf"critical\].*Worker {victim} died \(signal 9\)")
        second.expect(b"STAT")
        self.assertEqual(len(children(self.server.process.pid)), 2)
        self.clients_of_both()

    def test_supervisor_dies(self) -> None:
        """Workers whose supervisor dies do not stay behind."""
        workers = children(self.server.process.pid)
        self.assertEqual(len(workers), 2)
        self.server.kill()
        for pid in workers:
            until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{pid} goes on")  # type: ignore[misc]

    def test_stop(self) -> None:
        """Stopping ends all processes, even where the signal goes to each of them."""
        workers = children(self.server.process.pid)
        for pid in workers:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
                os.kill(pid, number)
        self.server.stop()
        self.assertEqual(self.server.process.returncode, -signal.SIGTERM)  # as twistd ends
        self.assertFalse([pid for pid in workers if Path(f"/proc/{pid}").exists()])
        self.assertNotIn("died", self.server.log)

    def test_resumption(self) -> None:
        """A TLS session from one worker is resumed by the other."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.site.client_context()
            context.minimum_version = context.maximum_version = version
            self.resume(context)

    def resume(self, context: ssl.SSLContext) -> None:
        """Resume a session until both workers have been seen."""
        session = None
        seen: set[int] = set()
        for _ in range(200):
            raw = socket.create_connection(("127.0.0.1", self.server.tls_port), LIMIT)
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
                self.assertTrue(tls.recv(100).startswith(b"+OK"))
                self.assertEqual(tls.session_reused, session is not None)
                session = tls.session
                client = Client.__new__(Client)
                client.socket = tls
                seen.add(connected_to(client))
            if len(seen) == 2:
                return
        self.fail("one worker gets all connections")

    def test_password_file(self) -> None:
        """Every worker sees a changed password file."""
        self.site.add_user("frank")
        for client in self.clients_of_both():
            client.stls(self.site.client_context())
            client.log_in("frank")
            client.expect(b"QUIT")


class OneWorkerTests(ServerCase):
    """One worker."""

    def test_one_process(self) -> None:
        """One worker means one process."""
        self.assertEqual(children(self.server.process.pid), set())
