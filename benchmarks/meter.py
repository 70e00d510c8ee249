"""What a server costs, from the kernel: CPU and memory of all its processes.

CPU comes from a control group of the server's own (cgroup v2, ``usage_usec`` of ``cpu.stat``) if
one can be made.  Otherwise it is summed over the process tree: every thread's time on a CPU from
``schedstat``, in nanoseconds, and for children that are gone already their parents' ``cutime`` and
``cstime``, in clock ticks.  Memory is the sum of the proportional set sizes (``smaps_rollup``).
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_CUTIME, _CSTIME = 13, 14  # fields 16 and 17 of stat, counted from behind the name


class Meter:
    """Measures one server.  Start it with `wrapped`, then tell the `pid`.

    :param allow_cgroup: whether to try to make a control group.
    """

    def __init__(self, *, allow_cgroup: bool = True) -> None:
        self.pid = 0
        self._group = _make_group() if allow_cgroup else None

    @property
    def method(self) -> str:
        """Where CPU figures come from, in words."""
        return "cgroup v2 cpu.stat" if self._group else "/proc of the process tree"

    def wrapped(self, command: list[str]) -> list[str]:
        """Return *command* such that it is measured from the beginning."""
        if self._group is None:
            return command
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self._group / "cgroup.procs"), *command]

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has used so far."""
        if self._group is None:
            return sum(map(_seconds, self.processes()))
        for line in (self._group / "cpu.stat").read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "usage_usec":
                return int(value) / 1e6
        raise RuntimeError("cpu.stat has no usage_usec")

    def memory(self) -> int:
        """Return how many octets of memory the server takes: its proportional set size."""
        total = 0
        for pid in self.processes():
            with suppress(OSError):
                for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def processes(self) -> list[int]:
        """Return the server's processes."""
        if self._group is not None:
            return [int(line) for line in (self._group / "cgroup.procs").read_text().split()]
        found = [self.pid]
        for pid in found:  # it grows meanwhile
            with suppress(OSError):
                for task in (_PROC / str(pid) / "task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found

    def close(self) -> None:
        """Remove the control group.  Its processes must be gone."""
        if self._group is not None:
            with suppress(OSError):
                self._group.rmdir()


def _seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children that are gone."""
    total = 0.0
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        total += (int(fields[_CUTIME]) + int(fields[_CSTIME])) * _TICK
    return total


def _make_group() -> Path | None:
    """Make a control group below the one that this process is in; None if that cannot be done."""
    with suppress(OSError, StopIteration):
        mount = next(
            fields[4]
            for fields in map(str.split, (_PROC / "self/mountinfo").read_text().splitlines())
            if "cgroup2" in fields[fields.index("-") :]
        )
        own = next(
            line.removeprefix("0::")
            for line in (_PROC / "self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
        group = Path(mount, own.lstrip("/"), f"popd-bench-{secrets.token_hex(4)}")
        group.mkdir()
        # It counts only if processes may be moved there, which takes a try.
        if (group / "cpu.stat").exists() and os.access(group / "cgroup.procs", os.W_OK):
            return group
        group.rmdir()
    return None
