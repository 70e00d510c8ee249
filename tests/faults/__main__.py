"""The long forms of these tests: ``python -m tests.faults [NAME ...]``, as root.

Each takes some minutes; without a name all are carried out.  What the test suite does a few times,
they do exhaustively:

cuts [TIMES]  the power is cut behind QUIT, 100 times
kills         the server is killed at every system call of a session
reads         every read of a message of 1 MB fails in each of three ways, and in two on a real disk
quit          every subset of five removals fails in each of four ways
disk          a file server hangs, also while popd is to stop
rest          clock, workers, descriptors, log
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

LONG: Final = {
    "cuts": (["test_powercut"], {"POPD_CUTS": "100"}),
    "kills": (["test_killed"], {"POPD_KILLS": "0"}),
    "reads": (["test_reads", "test_broken_disk"], {"POPD_READS": "1"}),
    "quit": (["test_quit"], {}),
    "disk": (["test_dead_disk", "dead_disk_stop"], {}),
    "rest": (["test_rest"], {}),
}
"""The tests by their names, and what makes them long."""


def main(arguments: list[str]) -> int:
    """Carry tests out; return how many failed."""
    names = [name for name in arguments if name in LONG]
    times = [number for number in arguments if number.isdigit()]
    if len(names) + len(times) < len(arguments) or len(times) > 1:
        sys.stderr.write(f"{__doc__}")
        return 2
    failed = 0
    for name in names or LONG:
        modules, changes = LONG[name]
        if times and "POPD_CUTS" in changes:
            changes = {"POPD_CUTS": times[0]}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", *(f"tests.faults.{one}" for one in modules)],
            env={**os.environ, **changes},
            check=False,
        )
        sys.stdout.write(f"{name}: {time.monotonic() - began:.0f} s, {changes or ''}\n")
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
