"""What a running server takes: memory, descriptors."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server import RunningServer

__all__ = ["KB", "MB", "descriptors", "memory", "raise_limit"]

KB, MB = 1 << 10, 1 << 20

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def _processes(server: RunningServer) -> Iterator[Path]:
    """Yield the supervisor, if there is one, and all workers."""
    waiting = [server.process.pid]
    while waiting:
        pid = waiting.pop()
        yield Path(f"/proc/{pid}")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        waiting += [int(child) for child in children.split()]


def memory(server: RunningServer) -> int:
    """Return the octets that all its processes take together (proportional set size)."""
    total = 0
    for process in _processes(server):
        found = _PSS.search((process / "smaps_rollup").read_text(encoding="ascii"))
        assert found is not None
        total += int(found[1]) * KB
    return total


def descriptors(server: RunningServer) -> int:
    """Return how many files all its processes have open."""
    return sum(len(os.listdir(process / "fd")) for process in _processes(server))  # noqa: PTH208


def raise_limit(files: int) -> None:
    """Let this process and those that it starts open so many files.

    :raises ValueError: the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(hard, files)))
