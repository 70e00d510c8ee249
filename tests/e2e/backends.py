"""A popd that asks a real directory who may log in, and a password file besides."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.launch import Popd
from tests.e2e.server import PASSWORDS, Client, Site, until

if TYPE_CHECKING:
    import subprocess

__all__ = ["DENIED", "IN", "TEMPORARY", "BackendCase", "end", "freeze", "reachable"]

IN: Final = b"+OK"
DENIED: Final = b"-ERR [AUTH]"
TEMPORARY: Final = b"-ERR [SYS/TEMP]"

_FAST: Final = 1.5
"""Seconds that a log-in may take which waits for nobody: far less on a machine that is idle."""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that a test started, whatever it is doing."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except Exception:  # noqa: BLE001 - a stopped process does not end when asked to
            process.kill()
            process.wait(10)


def reachable(port: int) -> bool:
    """Return whether something listens on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def freeze(pid: int) -> None:
    """Stop a process that a test started; it goes on with SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    until(
        lambda: all(
            (task / "stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"
            for task in tasks.iterdir()
        ),
        "the process does not stop",
    )


class BackendCase(SynchronousTestCase):
    """A test case with a directory for files, and a popd that asks a backend.

    The site's own users, such as alice, are in a password file, which is asked *after* the backend:
    they get in as long as the backend holds nobody up.
    """

    def setUp(self) -> None:
        """Make the directory."""
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.root.chmod(0o755)
        self.site = Site(self.root)

    def start(self, backend: str, *options: str) -> None:
        """Start popd with ``--auth`` *backend* in front of the password file."""
        site = self.site
        self.popd = Popd(
            self,
            *("popd", "--listen", "tcp:0:interface=127.0.0.1", "--cleartext-login", "local"),
            *("--auth", backend, "--auth", f"popd-passwd:{site.passwords}"),
            *("--maildrop", f"maildir:{site.mail}/{{domain}}/{{local}}/Maildir"),
            *(() if "--workers" in options else ("--workers", "1")),
            *options,
            until="Listening on",
            cwd=self.root,
        )

    def log_in(self, user: str, password: str) -> tuple[bytes, float]:
        """Return what popd says at last, and how many seconds that took."""
        with Client(self.popd.ports[0]) as client:
            client.expect(b"USER " + user.encode())
            begun = time.monotonic()
            reply = client.ask(b"PASS " + password.encode())
            return reply, time.monotonic() - begun

    def assertLogIn(self, user: str, password: str, reply: bytes) -> None:
        """Assert that a log-in ends with *reply*."""
        got, _ = self.log_in(user, password)
        self.assertTrue(got.startswith(reply), f"{user}: {got!r}\n{self.popd.log}")

    def assertOthersFast(self) -> None:
        """Assert that a user of the password file logs in at once, though the backend is down."""
        got, seconds = self.log_in("alice@example.org", PASSWORDS["alice"])
        self.assertTrue(got.startswith(IN), got)
        self.assertLess(seconds, _FAST)

    def wait_for(self, user: str, password: str) -> None:
        """Wait until a user can log in again."""
        until(lambda: self.log_in(user, password)[0].startswith(IN), "the backend is not back", 40)
