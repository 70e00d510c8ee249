"""Tests of `popd.maildrop.lock`."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys

from popd.maildrop import lock
from popd.maildrop.interfaces import (
    MaildropInUseError,
    MaildropPermanentError,
    MaildropTemporaryError,
)
from popd.maildrop.lock import LOCK_FILE, MaildropLock
from tests.maildrop.helpers import MaildirTestCase

HOLDER = """
import sys
from popd.maildrop.lock import MaildropLock
lock = MaildropLock(sys.argv[1].encode())
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""


class LockTestCase(MaildirTestCase):
    """A test case that makes locks."""

    def setUp(self) -> None:
        """Make the Maildir, and know where its lock file is."""
        super().setUp()
        self.path = self.maildir / os.fsdecode(LOCK_FILE)

    def lock(self, root: bytes | None = None) -> MaildropLock:
        """Return a lock that is released at the test's end."""
        made = MaildropLock(root or self.root)
        self.addCleanup(made.release)
        return made

    def held(self, root: bytes | None = None) -> MaildropLock:
        """Return a lock that is held."""
        made = self.lock(root)
        made.acquire()
        return made


class ExclusionTests(LockTestCase):
    """Two sessions never have one maildrop."""

    def test_same_process(self) -> None:
        """The second session of a process is told that the maildrop is in use."""
        self.held()
        with self.assertRaises(MaildropInUseError):
            self.lock().acquire()

    def test_another_path(self) -> None:
        """A Maildir is the same under every path that leads to it."""
        (self.ground / "alias").symlink_to(self.maildir)
        self.held()
        with self.assertRaises(MaildropInUseError):
            self.lock(os.fsencode(self.ground / "alias")).acquire()

    def test_kernel_lock_alone(self) -> None:
        """A record lock of somebody else's on the file is respected, and leaves nothing behind."""
        self.held().release()
        with self.path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            with self.assertRaises(MaildropInUseError):
                self.lock().acquire()
        self.held()

    def test_flock_is_another_matter(self) -> None:
        """A flock on the file, which popd never uses, does not matter."""
        self.held().release()
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.held()

    def test_release(self) -> None:
        """Once released, the maildrop is free; a second release does nothing to its next holder."""
        first = self.held()
        first.release()
        self.held()
        first.release()
        with self.assertRaises(MaildropInUseError):
            self.lock().acquire()

    def test_release_unacquired(self) -> None:
        """To release what was not acquired, or not to be had, changes nothing."""
        self.lock().release()
        self.held()
        loser = self.lock()
        self.assertRaises(MaildropInUseError, loser.acquire)
        loser.release()
        self.assertRaises(MaildropInUseError, self.lock().acquire)

    def test_other_maildrops(self) -> None:
        """A lock is on one maildrop only."""
        self.held()
        self.held(os.fsencode(self.ground))

    def test_killed_process(self) -> None:
        """A process that holds the maildrop excludes others, and when killed leaves no lock."""
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.maildir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as holder:
            self.addCleanup(holder.kill)
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), b"locked\n")
            self.assertRaises(MaildropInUseError, self.lock().acquire)
            holder.kill()
        self.held()


class FileTests(LockTestCase):
    """The lock file."""

    def test_made(self) -> None:
        """It is made for its owner alone, empty, and stays."""
        self.held().release()
        status = self.path.stat()
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_size), (0o600, 0))

    def test_not_inherited(self) -> None:
        """A program that is started meanwhile does not get the lock."""
        descriptor = self.held()._descriptor
        assert descriptor is not None
        self.assertFalse(os.get_inheritable(descriptor))

    def test_no_file(self) -> None:
        """What is no regular file is not opened for a lock; nor does that end in a wait."""

        def fifo() -> None:
            os.mkfifo(self.path)

        def link() -> None:
            self.path.symlink_to(self.ground / "elsewhere")

        def unix_socket() -> None:
            here = os.open(self.maildir, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"/proc/self/fd/{here}/{self.path.name}")
            os.close(here)

        for make in (fifo, link, unix_socket, self.path.mkdir):
            make()
            self.assertRaises(MaildropPermanentError, self.lock().acquire)
            (self.path.rmdir if self.path.is_dir() else self.path.unlink)()
        self.assertEqual(self.names(), set())
        self.assertFalse((self.ground / "elsewhere").exists())
        self.held()

    def test_maildir_replaced(self) -> None:
        """The lock knows when another directory has taken the place of the one it is on."""
        held = self.held()
        self.assertTrue(held.holds())
        self.maildir.rename(self.ground / "moved")
        self.assertRaises(MaildropTemporaryError, held.holds)
        self.maildir.mkdir()
        self.assertFalse(held.holds())


class UnwritableTests(LockTestCase):
    """Where the lock file cannot be written, mail is served all the same."""

    def assert_process_lock(self) -> None:
        """Check that the maildrop is locked in this process, with a note, and can be freed."""
        with self.assertLogs("popd.maildrop.lock", "WARNING") as logs:
            held = self.held()
        self.assertIn(f"'{self.path}'", logs.output[0])
        self.assertRaises(MaildropInUseError, self.lock().acquire)
        held.release()

    def test_each_error(self) -> None:
        """No room, no quota, no right and no writing are such cases."""
        for number in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM):
            self.inject("open", number, "popd-lock")
            self.assert_process_lock()

    def test_other_errors(self) -> None:
        """Any other error is one, that names the file, and leaves nothing locked."""
        before = set(lock._held)
        for number in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE):
            with self.subTest(number):
                self.inject("open", number, "popd-lock")
                with self.assertRaises(MaildropTemporaryError) as caught:
                    self.lock().acquire()
                self.assertIn(f"'{self.path}': {os.strerror(number)}", str(caught.exception))
        self.assertEqual(lock._held, before)

    def test_no_locks_here(self) -> None:
        """A file system that cannot lock is an error that names the file."""

        def no_locks(*_: object) -> int:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.patch(fcntl, "fcntl", no_locks)
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.lock().acquire()
        self.assertIn(str(self.path), str(caught.exception))

    def test_no_maildir(self) -> None:
        """A Maildir that is not there cannot be locked."""
        with self.assertRaises(MaildropTemporaryError):
            self.lock(self.root + b"-not").acquire()

    def test_full_disk(self) -> None:
        """On a full disk the lock is this process's."""
        self.mount("nr_inodes=20")
        self.fill_up()
        self.assert_process_lock()

    def test_read_only_disk(self) -> None:
        """On a read-only disk the lock is this process's, whether the file is there or not."""
        self.mount("size=1m")
        self.remount("ro")
        self.assert_process_lock()
        self.remount("rw")
        self.held().release()
        self.remount("ro")
        self.assert_process_lock()

    def test_room_again(self) -> None:
        """A session that began without the file still excludes one that could write it."""
        self.mount("nr_inodes=20")
        self.fill_up()
        with self.assertLogs("popd.maildrop.lock", "WARNING"):
            self.held()
        (self.ground / "filler-0").unlink()
        self.assertRaises(MaildropInUseError, self.lock().acquire)
