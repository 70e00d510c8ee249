"""The disk fails, or the server dies, in the middle of what it does."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT, PASSWORDS, ServerCase, stored, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server import Client

MAIL = (
    b"Subject: one\n\nfirst\n",
    b"Subject: two\n\nsecond\n",
    b"Subject: three\n\nthird\n",
    b"Subject: four\n\nfourth\n",
)
NOT_REMOVED = b"-ERR [SYS/TEMP] some deleted messages not removed"
END = b"\r\n.\r\n"


class FaultCase(ServerCase):
    """A server whose system calls can be made to fail."""

    def setUp(self) -> None:
        """Deliver mail."""
        if shutil.which("strace") is None:
            raise SkipTest("needs strace: apt-get install strace")
        super().setUp()
        self.files = [self.site.deliver("alice", message) for message in MAIL]

    def inject(
        self, calls: str, fault: str, path: Path | None = None, thread: int = 0
    ) -> Callable[[], str]:
        """From now on, let system calls of the server fail.

        :param calls: which calls.
        :param fault: how and when they fail, as strace puts it.
        :param path: the file that the calls must be about, or None for any.
        :param thread: the only thread that they fail for, or 0 for all.
        :return: a function that ends it, and returns what the calls were.
        """
        trace = self.site.root / "strace"
        trace.unlink(missing_ok=True)
        whose = ["-p", str(thread)] if thread else ["-f", "-p", str(self.server.process.pid)]
        command = ["strace", *whose, "-o", str(trace)]
        command += ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
        if path is not None:
            command += ["-P", str(path), "-P", path.name]  # calls may be relative to its directory
        with tempfile.TemporaryFile(dir=self.site.root) as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)

            def attached() -> bool:
                text = os.pread(said.fileno(), 65536, 0)
                if b" attached" in text:
                    return True
                if process.poll() is not None and b"ermitted" in text:
                    raise SkipTest("strace may not trace here: needs ptrace, see ptrace(2)")
                if process.poll() is not None:
                    raise AssertionError(f"strace ended: {text.decode(errors='replace')}")
                return False

            def detach() -> str:
                process.terminate()
                process.wait(LIMIT)
                return trace.read_text(encoding="utf-8", errors="replace")

            self.addCleanup(detach)
            until(attached, "strace does not attach")
        return detach

    def delete(self, *numbers: int) -> Client:
        """Log in and mark messages as deleted."""
        client = self.logged_in()
        for number in numbers:
            client.expect(b"DELE %d" % number)
        return client

    def left(self) -> list[int]:
        """Return the numbers of the messages that are still there, and check that they are whole.

        Their numbers are what they were in the beginning.
        """
        for file, message in zip(self.files, MAIL, strict=True):
            if file.exists():
                self.assertEqual(file.read_bytes(), message)
        return [number for number, file in enumerate(self.files, 1) if file.exists()]


class ReadTests(FaultCase):
    """Mail cannot be read."""

    def setUp(self) -> None:
        """Deliver a message that takes many reads."""
        super().setUp()
        self.message = b"Subject: big\n\n" + b"0123456789\r\n" * 350_000 + b"end\n"
        self.big = self.site.deliver("bob", self.message)

    def _fetch(self, calls: str, fault: str) -> None:
        """Fetch the message while *calls* that read its file fail, and see the session break."""
        client = self.logged_in("bob")
        detach = self.inject(calls, fault, self.big)
        client.send(b"RETR 1\r\nQUIT\r\n")
        received = client.rest()
        self.assertIn("INJECTED", detach())
        self._assert_broken_off(received)

    def _assert_broken_off(self, received: bytes) -> None:
        self.assertTrue(received.startswith(b"+OK "), received[:80])
        self.assertLess(len(received), len(self.message))
        self.assertFalse(END in received, "the reply is ended as if the message were whole")
        self.assertFalse(b"bye" in received, "the session goes on")

    def _assert_intact(self) -> None:
        with self.log_in_when_free("bob") as client:
            fetched = client.fetch(1).replace(b"\r\n", b"\n")
            self.assertTrue(fetched == stored(self.message), "not what was delivered")

    def test_in_the_middle(self) -> None:
        """When a message cannot be read to its end, nothing looks like its end to the client."""
        for when in ("2", "4+"):  # strace counts for each thread by itself
            self._fetch("read,pread64", f"error=EIO:when={when}")
        self._assert_intact()

    def test_while_the_client_is_slow(self) -> None:
        """So it is when the client has read a part already, and waits for more."""
        client = self.tls_client(receive_buffer=4096)
        client.log_in("bob")
        client.send(b"RETR 1\r\nQUIT\r\n")
        first = client.line()
        detach = self.inject("read,pread64", "error=EIO", self.big)
        received = first + client.rest()
        self.assertIn("INJECTED", detach())
        self._assert_broken_off(received)
        self._assert_intact()

    def test_shorter(self) -> None:
        """A file that ends too early, because somebody cut it short, is no whole message either."""
        self._fetch("read,pread64", "retval=0:when=3+")
        self._assert_intact()

    def test_at_the_beginning(self) -> None:
        """When it cannot be read at all there is an error, and the session goes on."""
        client = self.logged_in("bob")
        detach = self.inject("read,pread64", "error=EIO:when=1", self.big)
        client.expect(b"RETR 1", b"-ERR [SYS/TEMP]")
        self.assertIn("INJECTED", detach())
        client.close()
        self._assert_intact()

    def test_at_log_in(self) -> None:
        """When the mail cannot be looked at, log-in fails for now, and never shows no mail."""
        directory = self.site.maildir("bob") / "new"
        for calls, path in (("read,pread64", self.big), ("getdents64", directory)):
            detach = self.inject(calls, "error=EIO", path)
            with self.tls_client() as client:
                client.expect(b"USER bob")
                client.expect(b"PASS " + PASSWORDS["bob"].encode(), b"-ERR [SYS/TEMP]")
            self.assertIn("INJECTED", detach())
        with self.logged_in("bob") as client:
            self.assertTrue(client.expect(b"STAT").startswith(b"+OK 1 "))


class RemoveTests(FaultCase):
    """Mail cannot be removed."""

    def _one_fails(self, error: str) -> None:
        client = self.delete(1, 2, 3)
        detach = self.inject("unlink,unlinkat", f"error={error}", self.files[1])
        self.assertTrue(client.ask(b"QUIT").startswith(NOT_REMOVED))
        self.assertIn("INJECTED", detach())
        self.assertEqual(client.rest(), b"")
        self.assertEqual(self.left(), [2, 4])
        with self.logged_in() as client:
            self.assertTrue(client.expect(b"STAT").startswith(b"+OK 2 "))
            client.expect(b"DELE 1")
            client.expect(b"QUIT")
        self.assertEqual(self.left(), [4])

    def test_eio(self) -> None:
        """QUIT says so when the disk fails to remove a message, and removes the others."""
        self._one_fails("EIO")

    def test_eacces(self) -> None:
        """QUIT says so when one message must not be removed, and removes the others."""
        self._one_fails("EACCES")

    def test_none(self) -> None:
        """QUIT says so when nothing can be removed, and the messages are there the next time."""
        client = self.delete(1, 2, 3)
        detach = self.inject("unlink,unlinkat", "error=EROFS")
        self.assertTrue(client.ask(b"QUIT").startswith(NOT_REMOVED))
        self.assertEqual(detach().count("INJECTED"), 3)
        self.assertEqual(self.left(), [1, 2, 3, 4])
        self.logged_in().expect(b"QUIT")

    def test_sync(self) -> None:
        """QUIT promises nothing that a power cut may undo: the directory could not be synced."""
        client = self.delete(1)
        detach = self.inject("fsync", "error=EIO")
        self.assertTrue(client.ask(b"QUIT").startswith(NOT_REMOVED))
        self.assertIn("INJECTED", detach())

    def test_already_gone(self) -> None:
        """A message that another program removes in the very moment of QUIT is no failure."""
        client = self.delete(1, 2)
        self.files[0].unlink()
        client.expect(b"QUIT", b"+OK")
        self.assertEqual(self.left(), [3, 4])

    def test_killed(self) -> None:
        """When the server dies while it removes messages, only marked ones are gone.

        The next server lets the client in at once, and it can finish what it began.
        """
        for marked, when, left in (3, 1, [1, 2, 3, 4]), (3, 2, [2, 3, 4]), (2, 2, [3, 4]):
            client = self.delete(*range(1, marked + 1))
            self.inject("unlink,unlinkat", f"signal=SIGKILL:when={when}")
            client.send(b"QUIT\r\n")
            self.assertEqual(client.rest(), b"")
            self.server.process.wait(LIMIT)
            self.assertEqual(self.left(), left)
            self.server = self.start()
            with self.logged_in() as client:
                client.expect(b"UIDL")
                self.assertEqual(len(client.body().splitlines()), len(left))
                client.expect(b"QUIT")
        self.delete(1).expect(b"QUIT")
        self.assertEqual(self.left(), [4])


class DiskTests(ServerCase):
    """The disk is full, or cannot be written."""

    def setUp(self) -> None:
        """Mount a small disk where a user's Maildir is, and deliver mail."""
        if not sys.platform.startswith("linux") or os.geteuid():
            raise SkipTest("needs root, who may mount a small disk")
        super().setUp()
        self.maildir = self.site.maildir("alice")

    def _mount(self, options: str) -> None:
        self._command("mount", "-t", "tmpfs", "-o", options, "popd-test", str(self.maildir))
        self.addCleanup(self._unmount)
        for directory in ("tmp", "new", "cur"):
            (self.maildir / directory).mkdir()
        for message in MAIL:
            self.site.deliver("alice", message)

    def _command(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False)
        if done.returncode:
            raise SkipTest(f"needs a right to mount: {done.stderr.decode(errors='replace')}")

    def _unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.maildir)], timeout=LIMIT, check=True)

    def _read_everything(self, client: Client) -> None:
        self.assertTrue(client.expect(b"STAT").startswith(b"+OK %d " % len(MAIL)))
        for command in (b"LIST", b"UIDL"):
            client.expect(command)
            self.assertEqual(len(client.body().splitlines()), len(MAIL))
        for number, message in enumerate(MAIL, 1):
            self.assertEqual(stored(client.fetch(number)), message)
        client.expect(b"TOP 1 0")
        client.body()

    def _make_room(self) -> None:
        """Check that the very first session can read its mail, and delete to make room."""
        client = self.logged_in()
        self._read_everything(client)
        client.expect(b"DELE 1")
        client.expect(b"DELE 3")
        client.expect(b"QUIT", b"+OK")
        self.assertEqual([file.read_bytes() for file in self.site.messages("alice")], [*MAIL[1::2]])
        self.logged_in().expect(b"QUIT")

    def test_no_space(self) -> None:
        """On a disk without a free block a user can read, and delete to make room."""
        self._mount("size=64k")
        with contextlib.suppress(OSError), (self.maildir / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self._make_room()

    def test_no_inodes(self) -> None:
        """On a disk on which no file can be made a user can read, and delete to make room."""
        self._mount("size=64k,nr_inodes=64")
        with contextlib.suppress(OSError):
            for number in range(100):
                (self.maildir / "tmp" / str(number)).touch()
        with self.assertRaises(OSError):
            (self.maildir / "another").touch()
        self._make_room()

    def test_read_only(self) -> None:
        """On a read-only disk a user can read from the first session on, and QUIT is honest."""
        self._mount("size=64k")
        self._command("mount", "-o", "remount,ro", str(self.maildir))
        for _ in range(2):
            client = self.logged_in()
            self._read_everything(client)
            client.expect(b"DELE 1")
            self.assertTrue(client.ask(b"QUIT").startswith(NOT_REMOVED))
        client = self.logged_in()
        self._read_everything(client)
        client.expect(b"QUIT", b"+OK")
        self.assertEqual(len(self.site.messages("alice")), len(MAIL))
