"""The server is killed at any system call, from log-in to the answer to QUIT."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.e2e.test_faults import MAIL, FaultCase

if TYPE_CHECKING:
    from collections.abc import Iterator

POINTS = int(os.environ.get("POPD_KILLS", "3"))
"""At how many system calls it is killed; 0 is all, as in ``python -m tests.faults kills``."""

SECOND = 1.0
"""How long the next log-in may take, in seconds."""


class Point(NamedTuple):
    """A system call."""

    thread: int
    """How many threads are older than the one that makes it."""

    call: str
    """Its name."""

    which: int
    """The how many-th of this name it is in this thread, as strace counts."""


class KillTests(FaultCase):
    """Two of four messages are fetched and deleted, and somewhere on the way the server dies."""

    slowest = 0.0
    """How long a log-in took, in seconds."""

    def threads(self) -> list[int]:
        """Return the ids of the server's threads, the oldest first."""
        tasks = Path(f"/proc/{self.server.process.pid}/task")
        return sorted(int(path.name) for path in tasks.iterdir())

    def warm(self) -> None:
        """Have all threads begin that a session needs."""
        with self.logged_in("bob") as client:
            client.expect(b"QUIT")

    def session(self) -> bool:
        """Do what a client does, until the server is gone; return whether it came to QUIT."""
        with contextlib.suppress(AssertionError, OSError), self.tls_client() as client:
            client.log_in()
            client.fetch(1)
            for command in (b"DELE 1", b"DELE 3", b"NOOP"):
                client.expect(command)
            client.send(b"QUIT\r\n")
            client.rest()
            return True
        return False

    def points(self) -> list[Point]:
        """Return all system calls of a session."""
        self.warm()
        detach = self.inject("all", "signal=SIGKILL:when=65535")
        self.session()
        threads = self.threads()
        made: Counter[tuple[str, str]] = Counter()
        points = []
        for thread, call in re.findall(r"^(\d+) +(\w+)\(", detach(), re.MULTILINE):
            made[thread, call] += 1
            points.append(Point(threads.index(int(thread)), call, made[thread, call]))
        return points

    def some(self, points: list[Point]) -> Iterator[Point]:
        """Yield some of the points, evenly spread, or all."""
        number = POINTS or len(points)
        for place in range(number):
            yield points[(2 * place + 1) * len(points) // (2 * number)]

    def test_everywhere(self) -> None:
        """Nothing is gone that was not deleted, no unique-id is another, and nobody has to help.

        The next log-in takes less than a second.
        """
        points = self.points()
        self.assertGreater(len(points), 50)
        killed = 0
        for point in self.some(points):
            for file in self.site.messages("alice"):
                file.unlink()
            self.files = [self.site.deliver("alice", message) for message in MAIL]
            self.files[2] = self.files[2].rename(
                self.site.maildir("alice") / "cur" / f"{self.files[2].name}:2,S"
            )
            self.warm()
            fault = f"signal=SIGKILL:when={point.which}"
            detach = self.inject(point.call, fault, thread=self.threads()[point.thread])
            came_to_quit = self.session()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(0.3)
                killed += 1
            detach()
            self.server.kill()
            left = self.left()
            self.assertLessEqual({2, 4} if came_to_quit else {1, 2, 3, 4}, {*left}, point)
            self.server = self.start()
            self.assert_as_it_was(left)
        if not POINTS:
            sys.stdout.write(
                f"killed at {killed} of {len(points)} calls; the next log-in took"
                f" {self.slowest:.2f} s at most\n"
            )
        # How many calls there are differs a little from session to session.
        self.assertGreaterEqual(killed, 0.8 * (POINTS or len(points)))

    def assert_as_it_was(self, left: list[int]) -> None:
        """Check that the next session begins at once and finds the messages that are left."""
        began = time.monotonic()
        with self.logged_in() as client:
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.assertLess(self.slowest, SECOND)
            client.expect(b"UIDL")
            found = {line.split()[1].decode() for line in client.body().splitlines()}
            expected = {self.files[number - 1].name.partition(":")[0] for number in left}
            self.assertEqual(found, expected)
            client.expect(b"QUIT")
