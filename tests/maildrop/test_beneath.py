"""Opening files where anybody may have put links, FIFOs and the like (T16)."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd.maildrop import beneath
from popd.maildrop.beneath import is_linked, open_beneath, unlink_beneath
from popd.maildrop.files import READ

if TYPE_CHECKING:
    from collections.abc import Iterator

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class BeneathTests(SynchronousTestCase):
    """With openat2(2), where the kernel has it."""

    def setUp(self) -> None:
        """Make a directory, a file in it, and a link to the directory."""
        if type(self) is BeneathTests and not beneath._is_there():
            raise SkipTest("this kernel has no openat2")
        self.root = Path(self.mktemp()).absolute()
        (self.root / "inside" / "deeper").mkdir(parents=True)
        self.file = self.root / "inside" / "deeper" / "file"
        self.file.write_bytes(b"content")
        (self.root / "link").symlink_to(self.root / "inside")

    def read(self, path: Path) -> bytes:
        """Return the content of a file."""
        with os.fdopen(open_beneath(os.fsencode(path), READ), "rb") as file:
            return file.read()

    @contextmanager
    def refused(self, *numbers: int) -> Iterator[None]:
        """Expect an error, one of these."""
        with self.assertRaises(OSError) as caught:
            yield
        self.assertIn(caught.exception.errno, numbers)

    def test_file(self) -> None:
        """What has no link on the way is opened."""
        self.assertEqual(self.read(self.file), b"content")

    def test_root_directory(self) -> None:
        """Something in the root directory is opened as well."""
        os.close(open_beneath(b"/proc", READ))

    def test_last(self) -> None:
        """A link is not opened."""
        (self.root / "other").symlink_to(self.file)
        with self.refused(errno.ELOOP):
            self.read(self.root / "other")

    def test_on_the_way(self) -> None:
        """What a link leads to on the way is not opened, be the link the site's or a user's."""
        for path in (self.root / "link/deeper/file", self.root / "link/deeper"):
            with self.refused(errno.ELOOP, errno.ENOTDIR):
                self.read(path)

    def test_magic(self) -> None:
        """Nor is what the links in /proc lead to."""
        with self.refused(errno.ELOOP, errno.ENOTDIR):
            self.read(Path("/proc/self/cwd/anything"))

    def test_missing(self) -> None:
        """What is not there is not there, and the error says what."""
        for path in (self.root / "nothing", self.root / "nowhere/file"):
            with self.assertRaises(FileNotFoundError) as caught:
                self.read(path)
            self.assertEqual(caught.exception.filename, os.fsencode(path))

    def test_create(self) -> None:
        """Files are made with the mode asked for, and not through a link."""
        path = self.root / "inside" / "new"
        os.close(open_beneath(os.fsencode(path), CREATE, 0o600))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        with self.refused(errno.ELOOP, errno.ENOTDIR):
            open_beneath(os.fsencode(self.root / "link" / "newer"), CREATE, 0o600)
        self.assertFalse((self.root / "inside" / "newer").exists())

    def test_closed_on_exec(self) -> None:
        """Programs that are started get none of it."""
        descriptor = open_beneath(os.fsencode(self.file), READ)
        self.addCleanup(os.close, descriptor)
        self.assertFalse(os.get_inheritable(descriptor))

    def test_fifo(self) -> None:
        """A FIFO holds nobody up."""
        os.mkfifo(self.root / "fifo")
        os.close(open_beneath(os.fsencode(self.root / "fifo"), READ))

    def test_unlink(self) -> None:
        """A file is removed, but not if a link is on the way to it."""
        with self.refused(errno.ELOOP, errno.ENOTDIR):
            unlink_beneath(os.fsencode(self.root / "link/deeper/file"))
        self.assertTrue(self.file.exists())
        unlink_beneath(os.fsencode(self.file))
        self.assertFalse(self.file.exists())

    def test_is_linked(self) -> None:
        """It can be told whether there is a link on the way."""
        self.assertTrue(is_linked(os.fsencode(self.root / "link/deeper")))
        self.assertFalse(is_linked(os.fsencode(self.root / "inside//deeper")))

    def test_no_descriptors_left(self) -> None:
        """Nothing stays open, whether it went well or not."""
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        self.test_file()
        self.test_on_the_way()
        self.test_missing()
        self.assertEqual(os.listdir("/proc/self/fd"), before)  # noqa: PTH208


class WalkTests(BeneathTests):
    """Without it, one directory at a time."""

    def setUp(self) -> None:
        """Take openat2 away."""
        super().setUp()
        self.fail_with(errno.ENOSYS)

    def fail_with(self, number: int) -> None:
        """Have openat2 fail."""
        beneath._is_there.cache_clear()
        self.addCleanup(beneath._is_there.cache_clear)

        def call(*_: Any) -> int:
            ctypes.set_errno(number)
            return -1

        self.patch(beneath, "_syscall", call)


class FilteredTests(WalkTests):
    """With a filter of system calls that does not know it, as in some containers."""

    def setUp(self) -> None:
        """Forbid openat2."""
        BeneathTests.setUp(self)
        self.fail_with(errno.EPERM)


class CallTests(SynchronousTestCase):
    """What the kernel answers."""

    def answer(self, *numbers: int) -> None:
        """Have openat2 fail so often, with these errors; and then work."""
        real, left = beneath._syscall, list(numbers)

        def call(*arguments: Any) -> int:
            if not left:
                return int(real(*arguments))
            ctypes.set_errno(left.pop(0))
            return -1

        self.patch(beneath, "_syscall", call)

    def test_interrupted(self) -> None:
        """A signal that comes meanwhile is nobody's error."""
        self.answer(errno.EINTR, errno.EINTR)
        os.close(open_beneath(b"/", READ))

    def test_forbidden(self) -> None:
        """Where there is openat2, what it forbids is forbidden."""
        beneath._is_there()
        self.answer(errno.EPERM)
        self.assertRaises(PermissionError, open_beneath, b"/", READ)
