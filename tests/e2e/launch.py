"""The real ``twistd popd``, in a process of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import popd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.trial.unittest import SynchronousTestCase

__all__ = ["TIME_LIMIT", "Popd", "free_port", "start"]

TIME_LIMIT: Final = 60.0
"""How long anything here may take, in seconds."""

_ROOT: Final = Path(popd.__file__).parent.parent
_TWISTD: Final = Path(sys.executable).with_name("twistd")


def free_port() -> int:
    """Return the number of a TCP port on 127.0.0.1 that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def start(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    stdout: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start ``twistd`` with *arguments* in *cwd*.

    :param environment: is added to this process's own.
    :param wrapper: the start of a command that runs another one.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [*wrapper, sys.executable, str(_TWISTD), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )


class Popd:
    """A ``twistd -n`` that listens, until the test is over.

    :param arguments: what follows ``twistd -n --pidfile=``, such as ``popd`` and its options.
    :param until: the log is waited for that has this in it.
    :param how: how to `start` it.
    """

    def __init__(self, test: SynchronousTestCase, *arguments: str, until: str, **how: Any) -> None:
        self._log = Path(test.mktemp()).absolute()
        with self._log.open("wb") as log:
            self.process = start("-n", "--pidfile=", *arguments, stdout=log.fileno(), **how)
        test.addCleanup(self.stop)
        deadline = time.monotonic() + TIME_LIMIT
        while until not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"popd does not start: {self.log}{self.stderr}")
            time.sleep(0.02)

    stderr = ""
    """What popd wrote to stderr, once it has stopped."""

    @property
    def log(self) -> str:
        """What popd wrote to stdout so far: its log."""
        return self._log.read_text()

    @property
    def ports(self) -> list[int]:
        """The TCP ports that popd listens on, in the order in which it says so."""
        return [int(port) for port in re.findall(r"Listening on \S+:(\d+), ", self.log)]

    def stop(self) -> int:
        """End the process, if it still runs, and return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            _, stderr = self.process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, stderr = self.process.communicate()
        self.stderr += stderr or ""
        return self.process.returncode
