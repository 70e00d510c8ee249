"""Landlock, in processes that can afford to lose their rights."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd.sandbox import landlock, privileges
from popd.sandbox.landlock import Access, Rules, restrict
from popd.sandbox.privileges import renounce

if TYPE_CHECKING:
    from collections.abc import Callable


class ForkedTestCase(SynchronousTestCase):
    """A test case with a directory to reach, and one that is out of reach."""

    def setUp(self) -> None:
        """Make the directories."""
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        self.root = Path(self.mktemp()).absolute()
        self.inside, self.outside = self.root / "inside", self.root / "outside"
        for directory in (self.inside, self.outside):
            directory.mkdir(parents=True)
            (directory / "file").write_text("content")

    def forked(self, work: Callable[[], None]) -> None:
        """Do something in a process of its own; fail if that fails."""
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            with open(write, "w", encoding="utf-8") as trouble:
                try:
                    work()
                except BaseException:  # noqa: BLE001 - it is told to the parent
                    trouble.write(traceback.format_exc())
                trouble.flush()
                os._exit(0)
        os.close(write)
        with open(read, encoding="utf-8") as trouble:
            told = trouble.read()
        os.waitpid(pid, 0)
        if told:
            self.fail(told)


def forbidden(work: Callable[[], object], *numbers: int) -> None:
    """Make sure that something is not allowed."""
    try:
        work()
    except OSError as error:
        assert error.errno in (numbers or (errno.EACCES,)), error
        return
    raise AssertionError("it is allowed")


class RestrictTests(ForkedTestCase):
    """What is allowed is possible, and nothing else."""

    def confined(self, work: Callable[[], None], **more: bool) -> None:
        """Do something where only what is inside can be read and changed."""

        def confined() -> None:
            restrict(Rules({str(self.inside): Access.CHANGE}, **more))
            work()

        self.forked(confined)

    def test_files(self) -> None:
        """Files inside are read, written, made, replaced and removed."""

        def work() -> None:
            (self.inside / "new").write_bytes(b"x")
            (self.inside / "new").rename(self.inside / "file")
            assert (self.inside / "file").read_bytes() == b"x"
            (self.inside / "file").unlink()
            assert not list(self.inside.iterdir())
            forbidden((self.outside / "file").read_bytes)
            forbidden(lambda: (self.outside / "file").write_bytes(b"y"))
            forbidden((self.outside / "new").touch)
            forbidden((self.outside / "file").unlink)
            forbidden(self.outside.iterdir().__next__)
            forbidden(lambda: os.truncate(self.outside / "file", 0))

        self.confined(work)
        self.assertEqual((self.outside / "file").read_text(), "content")

    def test_kinds(self) -> None:
        """Nothing but files is made, and nothing is executed or moved in."""

        def work() -> None:
            forbidden((self.inside / "directory").mkdir)
            forbidden(lambda: (self.inside / "link").symlink_to("file"))
            forbidden(lambda: os.mkfifo(self.inside / "fifo"))
            other = self.outside / "file"
            forbidden(lambda: os.link(other, self.inside / "hard"), errno.EXDEV, errno.EACCES)
            end = socket.socket(socket.AF_UNIX)
            forbidden(lambda: end.bind(os.path.relpath(self.inside / "socket")))
            forbidden(lambda: os.execv("/bin/true", ["true"]))
            forbidden(lambda: os.execv(sys.executable, ["python"]))

        self.confined(work)

    def test_network(self) -> None:
        """TCP ports are connected to and bound only if that is said."""
        if landlock.abi() < 4:
            raise SkipTest("this kernel's Landlock knows no network")
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()

            def connect() -> None:
                with socket.socket() as end:
                    end.connect(address)

            def bind() -> None:
                with socket.socket() as end:
                    end.bind(("127.0.0.1", 0))

            self.confined(lambda: forbidden(connect))
            self.confined(lambda: forbidden(bind))
            self.confined(connect, connect=True)
            self.confined(lambda: forbidden(bind), connect=True)
            self.confined(bind, bind=True)
            self.confined(lambda: forbidden(connect), bind=True)

    def test_signals(self) -> None:
        """Processes outside get signals only if that is said."""
        if landlock.abi() < 6:
            raise SkipTest("this kernel's Landlock knows no signals")
        self.confined(lambda: forbidden(lambda: os.kill(os.getppid(), 0), errno.EPERM))
        self.confined(lambda: os.kill(os.getppid(), 0), signals=True)

    def test_missing(self) -> None:
        """What is not there is left out, and a file can be allowed by itself."""

        def work() -> None:
            allowed = {str(self.inside / "nothing"): Access.CHANGE}
            restrict(Rules({**allowed, str(self.outside / "file"): Access.CHANGE}))
            assert (self.outside / "file").read_text() == "content"
            forbidden((self.inside / "file").read_bytes)

        self.forked(work)

    def test_children(self) -> None:
        """A program that is started has no more reach."""

        def work() -> None:
            everything = {"/": Access.READ | Access.EXECUTE}
            restrict(Rules({**everything, str(self.inside): Access.CHANGE}, signals=True))
            script = f"echo x >{self.inside}/new; echo x >{self.outside}/new"
            done = subprocess.run(["/bin/sh", "-c", script], check=False, capture_output=True)
            assert b"Permission denied" in done.stderr, done

        self.forked(work)
        self.assertTrue((self.inside / "new").exists())
        self.assertFalse((self.outside / "new").exists())

    def test_older_kernels(self) -> None:
        """Each version is asked for no more than it knows, and keeps files out of reach."""
        for version in range(1, landlock.abi() + 1):
            self.patch(landlock, "abi", lambda version=version: version)
            self.confined(lambda: forbidden((self.outside / "file").read_bytes))

    def test_handled(self) -> None:
        """What each version knows is asked for."""
        asked: list[bytes] = []

        def syscall(number: int, *arguments: object) -> int:
            if number == landlock._CREATE_RULESET and isinstance(arguments[0], bytes):
                asked.append(arguments[0])
            return -1

        class Library:
            pass

        library = Library()
        library.syscall = syscall  # type: ignore[attr-defined]
        self.patch(landlock, "_libc", library)
        for version in range(1, 8):
            self.patch(landlock, "abi", lambda version=version: version)
            with contextlib.suppress(OSError):
                restrict(Rules())
        fields = [
            [int.from_bytes(one[i : i + 8], sys.byteorder) for i in range(0, len(one), 8)]
            for one in asked
        ]
        self.assertEqual(
            fields,
            [[0x1FFF], [0x3FFF], [0x7FFF], [0x7FFF, 3], [0xFFFF, 3], *[[0xFFFF, 3, 3]] * 2],
        )

    def test_threads(self) -> None:
        """It is refused where another thread would keep its rights."""

        def work() -> None:
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()
            forbidden(lambda: restrict(Rules()), errno.EBUSY)

        self.forked(work)


class RenounceTests(ForkedTestCase):
    """Privileges are given up for good."""

    def test_status(self) -> None:
        """No capabilities are left, and none can be had."""

        def work() -> None:
            renounce()
            status = dict(
                line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[kind], 16) == 0, (kind, status[kind])
            assert status["NoNewPrivs"] == "1", status
            if os.geteuid() == 0:
                assert int(status["CapBnd"], 16) == 0, status["CapBnd"]
                done = subprocess.run(
                    ["/bin/grep", "CapEff", "/proc/self/status"], check=True, capture_output=True
                )
                assert int(done.stdout.split()[1], 16) == 0, done.stdout

        self.forked(work)

    def test_twice(self) -> None:
        """To give up what one has not is no error."""

        class Library:
            """One in a process to which systemd has forbidden capset."""

            prctl, capget = privileges._libc.prctl, privileges._libc.capget

            @staticmethod
            def capset(*_: object) -> int:
                """Refuse."""
                ctypes.set_errno(errno.EPERM)
                return -1

        def work() -> None:
            renounce()
            privileges._libc = Library()  # type: ignore[assignment]
            renounce()

        self.forked(work)
