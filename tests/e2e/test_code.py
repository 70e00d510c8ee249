"""Reload of code: another popd takes the place of one that runs, and nobody notices."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import ClassVar

from tests.e2e.server import LIMIT, Client, RunningServer, ServerCase, until
from tests.e2e.test_reload import Load
from tests.e2e.test_systemd import SystemdCase

SERVES = re.compile(r"popd \S+, process (\d+), serves from now on")


BROKEN = "raise ImportError('no good')\n"
"""A popd that cannot even be imported."""


def is_there(pid: int) -> bool:
    """Return whether a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class CodeCase(ServerCase):
    """A server of which another takes the place."""

    workers: ClassVar = "1"

    @property
    def options(self) -> tuple[str, ...]:  # type: ignore[override]
        """Have all kinds of sockets."""
        root = self.site.root
        return (
            *("--listen", f"unix:{root}/pop3", "--status", f"unix:{root}/http"),
            *("--control", f"{root}/control", "--workers", self.workers),
        )

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.pids = [self.server.process.pid]
        self.addCleanup(self.end_all)
        for user in ("alice", "bob"):
            self.site.deliver(user, b"Subject: x\n\nx\n")

    def end_all(self) -> None:
        """End what has taken the server's place."""
        for pid in self.pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                until(lambda pid=pid: not is_there(pid), "it does not end")  # type: ignore[misc]

    def ask(self, outcome: str = "serves from now on") -> None:
        """Ask for a reload of code, and wait for what becomes of it."""
        before = self.server.log.count(outcome)
        os.kill(self.pids[-1], signal.SIGUSR2)
        until(lambda: self.server.log.count(outcome) > before, f"{outcome!r} is not in the log")

    def reload(self) -> int:
        """Reload code; return the process that is popd now."""
        self.ask()
        self.pids.append(int(SERVES.findall(self.server.log)[-1]))
        return self.pids[-1]

    def gone(self, pid: int) -> bool:
        """Return whether a process has ended; the first is this one's child."""
        if pid == self.pids[0]:
            return self.server.process.poll() is not None
        return not is_there(pid)


class AloneTests(CodeCase):
    """One process."""

    def test_under_load(self) -> None:
        """Nobody is refused or cut off; who is there stays, and with him the old one."""
        staying = self.logged_in("carol")
        with Load(self) as load:
            for _ in range(2):
                served = load.done
                self.reload()
                until(lambda served=served: load.done > served + 5, "nobody is served")  # type: ignore[misc]
        self.assertEqual(load.problems, [])
        staying.expect(b"NOOP")
        self.assertFalse(self.gone(self.pids[0]))
        staying.expect(b"QUIT")
        for pid in self.pids[:2]:
            until(lambda pid=pid: self.gone(pid), "the old one does not end")  # type: ignore[misc]
        self.assertEqual(self.server.process.returncode, 0)
        self.logged_in("carol").expect(b"QUIT")

    def test_all_sockets(self) -> None:
        """UNIX sockets, the status page and the control socket are the new one's, and stay."""
        for _ in range(2):
            self.reload()
            until(lambda: self.gone(self.pids[-2]), "the old one does not end")
            Client(str(self.site.root / "pop3")).close()
            with socket.socket(socket.AF_UNIX) as status:
                status.connect(str(self.site.root / "http"))
                status.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                self.assertIn(b" 200 ", status.recv(4096))
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(str(self.site.root / "control"))
                control.sendall(b'{"ask": "status"}\n')
                self.assertIn(f'"pid":{self.pids[-1]},'.encode(), control.recv(65536))
        os.kill(self.pids[-1], signal.SIGTERM)
        until(lambda: self.gone(self.pids[-1]), "the last does not end")
        for name in ("pop3", "http", "control"):
            self.assertFalse((self.site.root / name).exists(), name)

    def test_session(self) -> None:
        """A session goes on where it began, and the end of the new one is its end, too."""
        client, marking = self.logged_in(), self.logged_in("bob")
        for one in (client, marking):
            one.expect(b"DELE 1")
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.site.root / "control"))
            control.settimeout(LIMIT)
            control.sendall(b'{"ask": "reload", "about": {"code": true}}\n')
            self.assertEqual(control.recv(4096), b'{"answer":""}\n')
        self.pids.append(int(SERVES.findall(self.server.log)[-1]))
        other = self.tls_client()
        other.expect(b"USER alice")
        other.expect(b"PASS secret-of-alice", b"-ERR [IN-USE]")
        other.close()
        marking.expect(b"QUIT")
        self.assertEqual(self.site.messages("bob"), [])
        new = self.pids[-1]
        os.kill(new, signal.SIGTERM)
        time.sleep(0.5)
        client.expect(b"NOOP")
        self.assertFalse(self.gone(new))
        os.kill(new, signal.SIGTERM)
        self.assertTrue(client.line().startswith(b"-ERR [SYS/TEMP] "))
        until(lambda: self.gone(new) and self.gone(self.pids[0]), "they do not end")
        self.assertEqual(len(self.site.messages("alice")), 1)


class WorkersTests(AloneTests):
    """Several processes."""

    workers = "2"

    def setUp(self) -> None:
        """Wait for them."""
        super().setUp()
        until(lambda: self.server.log.count("accepts connections") == 2, "no workers")


class BrokenTests(CodeCase):
    """A new version that is no good leaves the old one where it is."""

    @property
    def options(self) -> tuple[str, ...]:  # type: ignore[override]
        """Have a configuration."""
        self.config = self.site.root / "popd.toml"
        self.config.write_text("drain-timeout = 30\n", encoding="utf-8")
        return ("--config", str(self.config))

    def start(self, *options: str) -> RunningServer:
        """Start a server with a PID file."""
        self.pidfile = self.site.root / "popd.pid"
        server = RunningServer(self.site, *options, pidfile=str(self.pidfile))
        server.__enter__()
        self.addCleanup(server.stop)  # and in its log is a traceback
        return server

    def test_no_good(self) -> None:
        """What is wrong is said in a line, whatever it is; the PID file is that of who serves."""
        first = str(self.pids[0])
        self.assertEqual(self.pidfile.read_text(), first)
        staying = self.logged_in()
        broken = self.site.root / "popd"
        for what, said in (
            ("no-such = 1\n", "there is no 'no-such'"),
            ("status = 'unix:/no/such/place'\n", "cannot listen"),
            ("", "ImportError: no good"),
        ):
            with self.subTest(said):
                self.config.write_text(what or "drain-timeout = 30\n", encoding="utf-8")
                if not what:
                    broken.mkdir()
                    (broken / "__init__.py").write_text(BROKEN, encoding="utf-8")
                self.ask("Not reloaded: ")
                line = self.server.log.rpartition("Not reloaded: ")[2].splitlines()[0]
                self.assertIn(said, line)
                self.assertTrue(line.startswith("the new popd does not start: "), line)
                self.assertTrue(line.endswith("; all stays as it was"), line)
                self.logged_in("bob").expect(b"QUIT")
                self.assertEqual(self.pidfile.read_text(), first)
        shutil.rmtree(broken)
        staying.expect(b"QUIT")
        new = self.reload()
        until(lambda: self.gone(self.pids[0]), "the old one does not end")
        self.assertEqual(self.pidfile.read_text(), str(new))
        self.assertFalse(self.pidfile.with_name("popd.pid.old").exists())


class SystemdTests(SystemdCase):
    """Popd as systemd's main process."""

    workers = 2

    def test_main_process(self) -> None:
        """Systemd is told which process is popd now; the new one feeds the watchdog."""
        self.site.deliver("alice", b"hello\n")
        first = self.start()
        self.heard("WATCHDOG=1")
        for _ in range(2):
            old = first.pid if not self.successors else self.successors[-1]
            os.kill(old, signal.SIGUSR2)
            self.heard("RELOADING=1\nMONOTONIC_USEC=")
            words = dict(line.split("=") for line in self.heard("MAINPID=").splitlines())
            self.assertEqual(words["READY"], "1")
            self.successors.append(int(words["MAINPID"]))
            self.addCleanup(self.end_other, self.successors[-1])
            self.heard("WATCHDOG=1")
            self.fetch()
        first.wait(LIMIT)
        until(lambda: not is_there(self.successors[0]), "the second does not end")
        log = self.log.read_text()
        for word in ("Traceback", "Unhandled", "insider"):
            self.assertNotIn(word, log)

    def setUp(self) -> None:
        """Begin without any."""
        super().setUp()
        self.successors: list[int] = []

    @staticmethod
    def end_other(pid: int) -> None:
        """End a process that is not this one's child."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_there(pid), "it does not end")
