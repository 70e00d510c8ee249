"""How long other clients wait while one opens a large maildrop that the server knows nothing of.

One client polls every 10 ms.  Each poll counts from when it was due, so that one which is kept
waiting makes those behind it late as well, as they would be if they came from other clients.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import maildrops
from measure import MeasureError, recover, told
from rows import HUGE, POLLED, Row, shrunk

if TYPE_CHECKING:
    from measure import Bench
    from servers import Server

TARGET: Final = 0.025
"""Seconds that 99 of 100 polls of popd are to take at most."""

_EVERY: Final = 0.01
_WARM_UP: Final = 0.5

Poll = tuple[float, float]
"""When a poll was due, on the monotonic clock, and the seconds until it was done."""


@dataclass
class Waits:
    """What one server's clients waited, in seconds.

    :param opening: how long the cold maildrop took to be opened and listed, each time.
    :param alone: of polls with nobody else there.
    :param beside: of polls while the cold maildrop was being opened.
    """

    opening: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


@dataclass
class Fairness:
    """What was measured.

    :param waits: by server.
    :param failures: by server.
    """

    waits: dict[str, Waits] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[list[str]]:
        """Return the table, with its head."""
        lines = [["server", "one client opens", "its seconds", "polls", "50 %", "99 %", "slowest"]]
        lines[0].append(f"99 % <= {TARGET * 1000:g} ms")
        for server, waits in self.waits.items():
            opening = " / ".join(f"{s:.2f}" for s in _some(sorted(waits.opening)))
            if waits.alone:
                lines.append([server, "nothing", "", *_line(waits.alone), ""])
            if server in self.failures:
                lines.append([server, "100,000 cold messages", "failed", "", "", "", "", ""])
                continue
            met = "yes" if 0 < _share(waits.beside, 0.99) <= TARGET else "no"
            lines.append([server, "100,000 cold messages", opening, *_line(waits.beside), met])
        return lines


def measure(servers: list[Server], bench: Bench, rounds: int, *, smoke: bool) -> Fairness:
    """Measure all *servers*, in turn.  They must not run yet, and do not run afterwards."""
    result = Fairness({server.name: Waits() for server in servers})
    large = replace(shrunk(HUGE) if smoke else HUGE, users=1)
    small = shrunk(POLLED) if smoke else POLLED
    for _ in range(rounds):
        for server in servers:
            if server.name not in result.failures:
                try:
                    _once(server, bench, large, small, result.waits[server.name])
                except MeasureError as error:
                    bench.tell(error)
                    result.failures[server.name] = str(error)
                    recover(server)
                finally:
                    server.stop()
    return result


def _once(
    server: Server,
    bench: Bench,
    large: maildrops.Mailset,
    small: maildrops.Mailset,
    waits: Waits,
) -> None:
    cold = Row("fairness", "", "poll", large, None, processes=1, sessions=1)
    polls = Row("fairness", "", "poll", small, None, processes=1)
    for mail in (large, small):
        maildrops.make(server.site.mail, mail)
    with told(server, "fairness"), tempfile.TemporaryDirectory() as folder:
        times = Path(folder, "times")
        bench.cool(server, cold)
        polling = bench.options(server, polls) | {"times": times, "every": _EVERY}
        del polling["seconds"]
        with bench.load.beside(**polling):
            time.sleep(_WARM_UP)
            quiet = time.monotonic()
            time.sleep(max(bench.seconds, 2 * _WARM_UP))
            begun = time.monotonic()
            bench.load.run(**bench.options(server, cold))
            ended = time.monotonic()
            time.sleep(_WARM_UP)  # so that those which were due meanwhile are done
        taken = [_poll(line) for line in times.read_text(encoding="ascii").splitlines()]
    bench.tell("fairness", server.name, f"{ended - begun:.2f} s")
    waits.opening.append(ended - begun)
    waits.alone += [wait for due, wait in taken if quiet <= due and due + wait < begun]
    waits.beside += [wait for due, wait in taken if due < ended and due + wait > begun]


def _poll(line: str) -> Poll:
    due, wait = line.split()
    return float(due), float(wait)


def _share(waits: list[float], share: float) -> float:
    """Return what so large a share of the waits does not exceed."""
    return sorted(waits)[min(len(waits) - 1, int(share * len(waits)))] if waits else 0.0


def _some(values: list[float]) -> list[float]:
    return [values[0], values[len(values) // 2], values[-1]] if values else []


def _line(waits: list[float]) -> list[str]:
    shown = [_share(waits, share) * 1000 for share in (0.5, 0.99, 1)]
    return [f"{len(waits):,}", *(f"{milliseconds:.1f} ms" for milliseconds in shown)]
