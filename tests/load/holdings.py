"""A popd whose processes are looked at: what they have, and how it grows."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.e2e.server import RunningServer, Site, until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WORKERS", "Holdings", "Watched", "growth"]

WORKERS: Final = 2

COUNTING: Final = """
import os, signal, sys

def waited_for(call):
    watch = getattr(call.func, "__self__", None)
    return getattr(call.func, "__name__", "") != "_ring" or bool(watch._slots.get(*call.args))

def count(*_):
    reactor = sys.modules["twisted.internet.reactor"]
    with open(f"{os.environ['SOAK']}/{os.getpid()}.new", "w") as file:
        file.write(str(sum(map(waited_for, reactor.getDelayedCalls()))))
    os.rename(file.name, file.name.removesuffix(".new"))

signal.signal(signal.SIGRTMIN, count)
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""
"""A twistd whose processes write down how many timers they have when they are sent SIGRTMIN.

One of popd's for a second in which nobody waits for anything any more (`Watch`) does not count.
"""


class Holdings(NamedTuple):
    """What all of popd's processes together have.

    :param descriptors: of what they are, with numbers left out, as ``/proc`` names it.
    :param timers: those that somebody waits for.
    :param memory: octets of memory that belongs to no file, what is shared counted once.
    :param tables: those among them that all processes share: tables of fixed size, whose pages are
        counted once they have been written to.
    :param resident: octets of all memory, what is shared counted in parts (PSS).
    """

    processes: int
    descriptors: Counter[str]
    timers: int
    memory: int
    tables: int
    resident: int


class Watched(RunningServer):
    """A popd whose processes can be looked at."""

    program = (sys.executable, "-c", COUNTING)

    def __init__(self, site: Site) -> None:
        self._counts = site.root / "timers"
        self._counts.mkdir()
        os.environ["SOAK"] = str(self._counts)
        super().__init__(site, "--control", "none", workers=str(WORKERS))

    def holdings(self) -> Holdings:
        """Look at all of its processes."""
        pids = family(self.process.pid)
        descriptors = Counter(itertools.chain.from_iterable(map(opened, pids)))
        sizes = [memory(pid) for pid in pids]
        totals = [sum(column) for column in zip(*sizes, strict=True)]
        return Holdings(len(pids), descriptors, sum(map(self._timers, pids)), *totals)

    def _timers(self, pid: int) -> int:
        path = self._counts / str(pid)
        path.unlink(missing_ok=True)
        os.kill(pid, signal.SIGRTMIN)
        until(path.exists, "a process does not count its timers")
        return int(path.read_text(encoding="ascii"))


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *itertools.chain.from_iterable(family(int(child)) for child in children)]


def opened(pid: int) -> Iterator[str]:
    """Yield what a process has descriptors of, without numbers."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield re.sub(r"\d+", "N", str(link.readlink()))


def memory(pid: int) -> tuple[int, int, int]:
    """Return a process's memory: what belongs to no file, what of that it shares, and all of it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    own, shared, whole = (1024 * int(sizes[name]) for name in ("Pss_Anon", "Pss_Shmem", "Pss"))
    return own + shared, shared, whole


def growth(samples: list[tuple[float, int]]) -> float:
    """Return the slope of the line that fits best, for each hour; *samples* are in seconds."""
    if len(samples) < 2:
        return 0.0
    x = sum(when for when, _ in samples) / len(samples)
    y = sum(size for _, size in samples) / len(samples)
    spread = sum((when - x) ** 2 for when, _ in samples)
    return 3600 * sum((when - x) * (size - y) for when, size in samples) / spread
