"""What durability costs: ``python -m tests.faults.cost [DIRECTORY]``.

Prints how many milliseconds a client waits for the answer to QUIT, the median and the worst of a
hundred, after some deletions from Maildirs in DIRECTORY (by default where temporary files are),
with ``--durability full`` and ``fast``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.e2e.server import Client, RunningServer, Site

ROUNDS: Final = 100
DELETIONS: Final = (1, 10, 100)


def quit_after(site: Site, server: RunningServer, deletions: int) -> float:
    """Return how many milliseconds QUIT takes after so many deletions, half of them in `cur`."""
    for number in range(deletions):
        file = site.deliver("alice", b"Subject: x\n\n" + b"0123456789\n" * 400)
        if number % 2:
            file.rename(site.maildir("alice") / "cur" / f"{file.name}:2,S")
    with Client(server.tls_port, site.client_context()) as client:
        client.log_in()
        for number in range(deletions):
            client.expect(b"DELE %d" % (number + 1))
        began = time.perf_counter()
        client.expect(b"QUIT")
        return (time.perf_counter() - began) * 1000


def main(place: str | None) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for name in ("full", "fast"):
            (Path(directory) / name).mkdir()
        sites = {name: Site(Path(directory) / name) for name in ("full", "fast")}
        with (
            RunningServer(sites["full"], "--durability", "full") as full,
            RunningServer(sites["fast"], "--durability", "fast") as fast,
        ):
            for deletions in DELETIONS:
                for name, server in ("full", full), ("fast", fast):
                    times = sorted(
                        quit_after(sites[name], server, deletions) for _ in range(ROUNDS)
                    )
                    sys.stdout.write(
                        f"{deletions:4} deletions, {name}: median"
                        f" {statistics.median(times):6.2f} ms, worst {times[-1]:6.2f} ms\n"
                    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
