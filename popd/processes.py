"""How much processor time and memory processes take, as Linux tells it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["usage"]

_UTIME, _STIME, _RSS = 11, 12, 21
"""Where they are in ``/proc/PID/stat`` behind the name (proc_pid_stat(5))."""

_PROC: Final = Path("/proc")


def usage(pid: int, proc: Path = _PROC) -> tuple[float, int] | None:
    """Return the seconds of CPU that a process has used, and the octets that it has in memory.

    Pages that it shares with others count in each.  None if there is no such process, or no such
    file system.
    """
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[_RSS]) * os.sysconf("SC_PAGE_SIZE")
