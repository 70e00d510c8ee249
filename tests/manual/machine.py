"""A Debian machine in a container: its own systemd, its own network, and nothing of the host's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Machine", "MachineError", "bootstrap", "missing"]

_NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit")
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND=noninteractive",
    "LC_ALL=C.UTF-8",
)
_BASE = "ca-certificates,dbus,iproute2,procps,python3,python3-venv,systemd,systemd-sysv"
_LIMIT = 120.0
"""Seconds that anything may take."""


class MachineError(Exception):
    """A command failed; the text is what it printed."""


def missing() -> str:
    """Return what has to be installed on the host for machines to be made; empty if nothing."""
    packages = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
    return " ".join(package for tool, package in packages.items() if not shutil.which(tool))


def bootstrap(tree: Path) -> None:
    """Make an empty Debian at *tree*, from where the host gets its packages.

    Where there is one in ``POPD_DEBIAN``, it is copied.

    :raises MachineError: it cannot be made.
    """
    ready = os.environ.get("POPD_DEBIAN")
    if ready and Path(ready, "bin").exists():
        _run(["cp", "--archive", "--reflink=auto", ready, str(tree)])
        return
    source = "$(REPO_URI) $(CODENAME)"
    targets = _run(["apt-get", "indextargets", "--format", source, "Created-By: Packages"])
    mirror, suite = min(targets.splitlines(), key=len).split()  # not its updates
    _run(["debootstrap", "--variant=minbase", f"--include={_BASE}", suite, str(tree), mirror])


def _run(command: list[str], *, limit: float = 3 * _LIMIT) -> str:
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        timeout=limit,
        check=False,
    )
    if ended.returncode:
        raise MachineError(
            f"{' '.join(command[:4])} ...: {ended.returncode}\n{ended.stdout[-4000:]}"
        )
    return ended.stdout


class Machine:
    """A machine that runs while it is entered, from a copy of a tree.

    :param base: the tree, see `bootstrap`.
    :param tree: where its copy goes, which is removed at the end.
    """

    def __init__(self, base: Path, tree: Path) -> None:
        self.tree = tree
        _run(["cp", "--archive", "--reflink=auto", str(base), str(tree)])
        self._nspawn: subprocess.Popen[bytes] | None = None

    def prefetch(self, script: str) -> None:
        """Download the packages that a script will install, since the machine has no network."""
        for packages in re.findall(r"^apt-get install (?:-y )?(.*)$", script, re.MULTILINE):
            install = ["apt-get", "install", "--download-only", "-y", *packages.split()]
            _run([*_NSPAWN, "--pipe", "-D", str(self.tree), "env", *_ENVIRONMENT, *install])

    def __enter__(self) -> Self:
        """Boot."""
        command = [*_NSPAWN, "--boot", "--private-network", "-D", str(self.tree)]
        with Path(f"{self.tree}.console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + _LIMIT
        while not self._is_up():
            if time.monotonic() > end or self._nspawn.poll() is not None:
                raise MachineError(f"the machine does not boot; see {self.tree}.console")
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, and remove the tree."""
        assert self._nspawn is not None
        self._nspawn.terminate()  # which powers it off
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        shutil.rmtree(self.tree, ignore_errors=True)

    def run(self, script: str) -> str:
        """Run a shell script in the machine as root; return what it prints.

        :raises MachineError: it fails.
        """
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        leader = children.read_text(encoding="ascii").split()[0]
        inside = ["nsenter", "--target", leader, "--mount", "--uts", "--ipc", "--net", "--pid"]
        return _run([*inside, "env", "-i", *_ENVIRONMENT, "bash", "-c", script], limit=_LIMIT)

    def _is_up(self) -> bool:
        try:
            return self.run("systemctl is-system-running || true").strip() in {
                "running",
                "degraded",
            }
        except (IndexError, OSError, MachineError):
            return False  # too early
