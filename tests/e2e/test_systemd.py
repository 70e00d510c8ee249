"""A real popd whose systemd is the test: sockets, notifications, the watchdog."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

import popd
from tests.e2e.server import LIMIT, Client, Site, until

BECOME = """
import os, sys
for number, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does with sockets, which have higher numbers before."""

WATCHDOG = 3.0
"""Seconds within which popd has to say that it works."""


class SystemdCase(SynchronousTestCase):
    """A test case that starts popd as systemd does."""

    workers = 1

    def setUp(self) -> None:
        """Listen where clients come, and where popd says how it is."""
        directory = TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        self.site = Site(Path(directory.name))
        self.log = self.site.root / "log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notify.close)
        self.notify.bind(str(self.site.root / "notify"))
        self.notify.settimeout(LIMIT)
        self.stls = self.listening(socket.AF_INET6, "::")
        self.tls = self.listening(socket.AF_INET, "127.0.0.1")
        self.port = int(self.stls.getsockname()[1])

    def listening(self, family: socket.AddressFamily, host: str) -> socket.socket:
        """Return a socket as systemd makes it: for IPv6, and for IPv4 too."""
        server = socket.create_server(
            (host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=128
        )
        self.addCleanup(server.close)
        return server

    def start(self, *options: str, names: str = "pop3:pop3s") -> subprocess.Popen[bytes]:
        """Start popd, without a word about where to listen."""
        site = self.site
        high = [
            fcntl.fcntl(server.fileno(), fcntl.F_DUPFD, 100) for server in (self.stls, self.tls)
        ]
        command = [
            *(sys.executable, "-c", BECOME, ",".join(map(str, high)), sys.executable),
            *(str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "popd"),
            *("--certificate", str(site.certificate), "--private-key", str(site.private_key)),
            *("--auth", f"popd-passwd:{site.passwords}", "--control", "none"),
            *("--maildrop", f"maildir:{site.mail}/{{domain}}/{{local}}/Maildir"),
            *("--default-domain", "example.org", "--workers", str(self.workers), *options),
        ]
        environment = dict(
            os.environ,
            PYTHONPATH=str(Path(popd.__file__).parents[1]),
            NOTIFY_SOCKET=str(site.root / "notify"),
            WATCHDOG_USEC=str(int(WATCHDOG * 1e6)),
            LISTEN_FDS="2",
            LISTEN_FDNAMES=names,
        )
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=site.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=high,
            )
        for descriptor in high:
            os.close(descriptor)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """End popd, whatever its state."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def heard(self, beginning: str) -> str:
        """Return the next message that begins so; pass over others."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            message = self.notify.recv(4096).decode()
            if message.startswith(beginning):
                return message
        raise AssertionError(f"no {beginning}")

    def silent(self, seconds: float) -> bool:
        """Return whether the watchdog is not fed for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.notify.settimeout(left)
            with contextlib.suppress(TimeoutError):
                if self.notify.recv(4096) == b"WATCHDOG=1":
                    return False
        self.notify.settimeout(LIMIT)
        return True

    def fetch(self) -> None:
        """Fetch a message by both ports; by the first with IPv6 and with IPv4."""
        context = self.site.client_context()
        with Client(self.port) as client:
            client.stls(context)
            client.log_in()
            client.expect(b"STAT", b"+OK 1 ")
            client.expect(b"QUIT")
        with Client(int(self.tls.getsockname()[1]), context) as client:
            client.log_in()
            self.assertIn(b"hello", client.fetch(1))
            client.expect(b"QUIT")
        with socket.create_connection(("::1", self.port), LIMIT) as end:
            self.assertTrue(end.recv(100).startswith(b"+OK"))


class OneTests(SystemdCase):
    """Popd with one process."""

    def test_served(self) -> None:
        """It says when it is ready, feeds the watchdog, and says when it stops."""
        self.site.deliver("alice", b"hello\n")
        process = self.start()
        self.assertEqual(self.heard(""), "READY=1")
        self.assertEqual(self.heard(""), "WATCHDOG=1")
        self.assertRegex(self.heard("STATUS"), r"^STATUS=0 sessions in \d processes$")
        self.fetch()
        self.heard("WATCHDOG")
        process.terminate()
        self.heard("STOPPING=1")
        process.wait(LIMIT)
        log = self.log.read_text()
        self.assertEqual(log.count("Listening on [::]:"), 1, log)
        self.assertNotIn("insider", log)
        for word in ("Traceback", "Unhandled"):
            self.assertNotIn(word, log)

    def test_reload(self) -> None:
        """A reload begins and ends, and the sockets stay."""
        self.site.deliver("alice", b"hello\n")
        process = self.start()
        self.heard("READY=1")
        process.send_signal(signal.SIGHUP)
        self.heard("RELOADING=1\nMONOTONIC_USEC=")
        self.heard("READY=1")
        self.heard("WATCHDOG=1")
        self.fetch()

    def test_restart(self) -> None:
        """While popd is not there, clients wait: nobody is refused, however many."""
        self.start().terminate()
        waiting = [Client(self.port, greeted=False) for _ in range(100)]
        for client in waiting:
            self.addCleanup(client.close)
        first = self.start()
        for client in waiting:
            self.assertTrue(client.line().startswith(b"+OK"))
        self.end(first)
        with Client(self.port, greeted=False) as client:
            self.start()
            self.assertTrue(client.line().startswith(b"+OK"))


class SettingsTests(SystemdCase):
    """What popd is told to do, and its log-ins to itself."""

    def test_unclear(self) -> None:
        """A socket of which it is not clear what it is for ends the start with a line."""
        process = self.start(names="popd.socket:popd.socket")
        self.assertEqual(process.wait(LIMIT), 1)
        (line,) = self.log.read_text().splitlines()
        self.assertIn("twistd popd: systemd handed over a socket at port", line)

    def test_behind_proxy(self) -> None:
        """Where clients come by a proxy alone, popd comes without one."""
        self.start("--proxy-protocol", "127.0.0.0/8,::1,::ffff:127.0.0.1")
        self.heard("WATCHDOG=1")

    def test_full(self) -> None:
        """A popd that is full is not one that hangs."""
        self.start("--max-sessions", "1")
        self.heard("READY=1")
        with Client(int(self.tls.getsockname()[1]), self.site.client_context()) as client:
            client.log_in()
            for _ in range(3):
                self.heard("WATCHDOG=1")
            client.expect(b"NOOP")


class SeveralTests(OneTests):
    """Popd with several processes."""

    workers = 2

    def test_hang(self) -> None:
        """If no worker lets anybody in, the watchdog is not fed; it is again when they do."""
        process = self.start()
        self.heard("STATUS")
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        workers = [int(word) for word in text.split()]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.heard("STATUS=No log-in works at ")
            self.assertTrue(self.silent(WATCHDOG))
            self.assertIn("No log-in works at ", self.log.read_text())
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        self.heard("WATCHDOG=1")
        until(lambda: "Log-ins work again" in self.log.read_text(), "it is well again")
