"""The clock jumps, a worker dies, descriptors run out, and the disk of the log is full.

What else can go wrong around popd is tested where it belongs: log-in backends that are down or hang
in ``tests/e2e/test_ldap.py``, ``test_sql.py``, ``test_dovecot_auth.py`` and ``test_oauth2.py``;
workers that are killed also in ``test_workers.py`` and ``test_limits.py``; reloads without end in
``test_reload.py``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

from popd.processes import usage
from tests.e2e.server import LIMIT, ServerCase, Site, until
from tests.e2e.test_workers import connected_to

if TYPE_CHECKING:
    from tests.e2e.server import Client

MAIL = tuple(b"Subject: %d\n\nx\n" % number for number in range(4))
DAY = 86_400


class ClockTests(ServerCase):
    """The time of day is put on and back, by days."""

    options = ("--workers", "2", "--idle-timeout", "600")

    def setUp(self) -> None:
        """Start a server whose clock the test can set."""
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            raise SkipTest("needs libfaketime: apt-get install libfaketime")
        self.clock = Path(self.mktemp()).absolute()
        self.clock.write_text("+0", encoding="ascii")
        for name, value in {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }.items():
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name)
        super().setUp()
        for message in MAIL:
            self.site.deliver("alice", message)

    def set_clock(self, seconds: int) -> None:
        """Put the server's clock on or back, by so many seconds from what it really is."""
        self.clock.write_text(f"{seconds:+}", encoding="ascii")

    def unique_ids(self, client: Client) -> bytes:
        """Return what UIDL says."""
        client.expect(b"UIDL")
        return client.body()

    def test_jumps(self) -> None:
        """Sessions go on, new ones begin, unique-ids stay, and time-outs come when they should."""
        client = self.logged_in()
        before = self.unique_ids(client)
        for jump in (2 * DAY, -2 * DAY, 3 * DAY, 0):
            self.set_clock(jump)
            other = self.logged_in("bob")
            time.sleep(0.3)
            for one in (client, other):
                one.expect(b"NOOP")
            self.assertEqual(self.unique_ids(client), before)
            other.expect(b"QUIT")
        self.assertNotIn("idle", self.server.log.partition("Session")[2].partition("alice")[0])
        client.expect(b"DELE 1")
        client.expect(b"QUIT")
        with self.logged_in() as client:
            self.assertEqual(len(self.unique_ids(client).splitlines()), len(MAIL) - 1)
        self.assertNotIn("does not answer", self.server.log)
        self.assertNotIn("died", self.server.log)


class WorkerTests(ServerCase):
    """One of two workers is killed in the middle of everything."""

    options = ("--workers", "2")

    def test_killed(self) -> None:
        """Its clients are cut off and lose nothing; those of the other notice nothing."""
        until(lambda: self.server.log.count("accepts connections") == 2, "no workers")
        for user in ("alice", "bob", "carol", "dave"):
            self.site.deliver(user, b"Subject: x\n\n" + b"0123456789\n" * 300_000)
        survivor = self.logged_in("dave")
        survivor.expect(b"DELE 1")
        there = connected_to(survivor)
        clients: list[Client] = []

        def of_the_other(user: str = "") -> Client:
            while connected_to(client := self.tls_client(receive_buffer=4096)) == there:
                client.close()
            if user:
                client.log_in(user)
            clients.append(client)
            return client

        of_the_other("alice").expect(b"DELE 1")
        of_the_other("bob").send(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")  # and does not read
        of_the_other("carol").send(b"DELE 1\r\nQUI")
        of_the_other().send(b"USER erin\r\nPASS ")
        of_the_other().expect(b"AUTH PLAIN", b"+ ")
        os.kill(connected_to(clients[0]), signal.SIGKILL)
        for client in clients:
            self.assertNotIn(b"bye", client.rest())
        began = time.monotonic()
        for user in ("alice", "bob", "carol"):
            with self.logged_in(user) as client:
                self.assertTrue(client.expect(b"STAT").startswith(b"+OK 1 "))
        self.assertLess(time.monotonic() - began, 3.0)
        survivor.expect(b"QUIT")
        self.assertEqual(self.site.messages("dave"), [])
        self.assertEqual(len(self.site.messages("bob")), 1)


class DescriptorTests(ServerCase):
    """There are no more descriptors."""

    def test_out_of_descriptors(self) -> None:
        """Who is there is told the truth, who comes waits, nothing spins, and it passes."""
        for message in MAIL:
            self.site.deliver("alice", message)
        inside = self.logged_in()
        pid = self.server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        waiting = self.client(greeted=False)
        cpu = (usage(pid) or (0.0,))[0]
        time.sleep(1.2)
        self.assertLess((usage(pid) or (0.0,))[0] - cpu, 0.3)
        inside.expect(b"NOOP")
        inside.expect(b"DELE 1")
        self.assertTrue(inside.ask(b"QUIT").startswith(b"-ERR [SYS/TEMP] "))
        self.assertEqual(len(self.site.messages("alice")), len(MAIL))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        self.assertTrue(waiting.line().startswith(b"+OK "))
        with self.logged_in() as client:
            client.expect(b"DELE 1")
            client.expect(b"QUIT")
        self.assertEqual(len(self.site.messages("alice")), len(MAIL) - 1)


class FullLogTests(ServerCase):
    """The disk is full that log and mail are on."""

    def setUp(self) -> None:
        """Have all of the site on a small disk."""
        if not sys.platform.startswith("linux") or os.geteuid():
            raise SkipTest("needs root, who may mount a small disk")
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "popd-test", str(place)]
        if subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode:
            raise SkipTest("needs the right to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(place)], check=True)
        self.site = Site(place)
        self.server = self.start()

    def test_full(self) -> None:
        """Mail is fetched and deleted all the same; the log goes on when there is room again."""
        for message in MAIL:
            self.site.deliver("alice", message)
        fill = self.site.root / "fill"
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        said = ""
        while said != self.server.log:  # the page that its last line is on has room left
            said = self.server.log
            with self.logged_in("bob") as client:
                client.expect(b"QUIT")
            time.sleep(0.1)
        for left in range(len(MAIL), 0, -1):
            with self.logged_in() as client:
                self.assertTrue(client.expect(b"STAT").startswith(b"+OK %d " % left))
                client.fetch(1)
                client.expect(b"DELE 1")
                client.expect(b"QUIT", b"+OK")
        self.assertEqual(self.site.messages("alice"), [])
        fill.unlink()
        before = len(self.server.log)
        with self.logged_in() as client:
            client.expect(b"QUIT")
        until(lambda: "alice" in self.server.log[before:], "the log does not go on")
