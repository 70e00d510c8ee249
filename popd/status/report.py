"""What the status page shows, as values that JSON can say; ``/status.json`` is just that."""

from __future__ import annotations

import re
import socket
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from popd import __version__
from popd.desk import age_of
from popd.server.counts import present
from popd.status.history import SERIES, STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from popd.metrics import Sources
    from popd.status.history import History

__all__ = ["DAY", "PAGE", "Reporter"]

DAY: Final = 86_400.0

PAGE: Final = 50
"""How many sessions are shown at a time."""

_FAILURES: Final = 25
"""How many failures are shown; those of one user, one client and one kind are one."""

_LOOKED_AT: Final = 200
"""How many failures each process is asked for."""

_CERTIFICATES: Final = 50

_USUAL: Final = frozenset({"login-timeout", "idle-timeout"})
"""Limits that are hit every day; nobody has to care."""

_SOON: Final = 14 * DAY
"""Seconds before a certificate expires from which on that is a concern."""

_SHARE: Final = 0.5
"""Which part of all log-ins has to be refused for that to be a concern."""

_ENOUGH: Final = 20
"""How many log-ins there have to be for their shares to tell something."""

_IDENT: Final = re.compile(r"[0-9a-z]{1,32}-[0-9]{1,19}")
_DIGITS: Final = 4


class Reporter:
    """Finds out all about a popd.

    :param sources: where.
    :param history: the last hour.
    :param now: tells the seconds since 1970.
    :param draining: tells whether popd takes no new sessions because it is about to end.
    """

    def __init__(
        self,
        sources: Sources,
        history: History,
        now: Callable[[], float],
        draining: Callable[[], bool],
    ) -> None:
        self._sources = sources
        self._history = history
        self._now = now
        self._draining = draining

    def trouble(self) -> str:
        """Return why popd does not serve new clients; empty if it does."""
        if self._draining():
            return "draining: it ends when the sessions that there are have ended"
        if not any(one.state == "serving" for one in self._sources.crew.processes()):
            return "no workers: the log says why they died"
        return ""

    async def report(self, after: str = "") -> dict[str, Any]:
        """Return everything but the last hour.

        :param after: the name of the session after which to go on with the list.
        """
        after = after if _IDENT.fullmatch(after) else ""
        sessions = await self._sessions(after)
        failures = await self._sources.crew.ask("recent", {"limit": _LOOKED_AT})
        certificates = self._certificates()
        trouble = self.trouble()
        return {
            "version": __version__,
            "host": socket.gethostname(),
            "time": self._now(),
            "since": self._sources.since,
            "ok": not trouble,
            "trouble": trouble,
            "concerns": list(self._concerns(certificates)),
            "sessions": sessions,
            "failures": _grouped(chain(*failures)),
            "workers": self._workers(),
            "certificates": certificates,
            "penalties": self._sources.slowed(),
        }

    async def _sessions(self, after: str) -> dict[str, Any]:
        about = {"after": after or None, "limit": PAGE + 1}
        answers = await self._sources.crew.ask("sessions", about)
        rows = sorted(chain(*answers), key=lambda row: age_of(row["ident"]))
        authorization, transaction = present(self._sources.meter.sums())
        more = len(rows) > PAGE
        return {
            "authorization": authorization,
            "transaction": transaction,
            "after": after,
            "rows": rows[:PAGE],
            "next": rows[PAGE - 1]["ident"] if more else "",
        }

    def _workers(self) -> list[dict[str, Any]]:
        used = {name: (cpu, memory) for name, cpu, memory in self._sources.usages()}
        rows = []
        for one in sorted(self._sources.crew.processes(), key=lambda one: one.seat):
            cpu, memory = used.get(f"worker-{one.seat}", (0.0, 0))
            counted = self._sources.meter.numbers(one.seat)
            rows.append(
                {
                    "pid": one.pid,
                    "state": one.state,
                    "generation": one.generation,
                    "since": one.born,
                    "sessions": sum(present(counted)),
                    "cpu_seconds": cpu,
                    "memory_octets": memory,
                }
            )
        return rows

    def _certificates(self) -> list[dict[str, Any]]:
        now = self._now()
        return [
            {
                "names": list(one.names),
                "path": one.path,
                "not_after": one.not_after.timestamp(),
                "days_left": int((one.not_after.timestamp() - now) // DAY),
            }
            for one in self._sources.soonest()[:_CERTIFICATES]
        ]

    def _concerns(self, certificates: list[dict[str, Any]]) -> Any:
        """Yield what somebody should look after."""
        for one in certificates:
            left = one["days_left"]
            if left * DAY < _SOON:
                when = f"expires in {left} days" if left >= 0 else "has expired"
                yield f"The certificate in {one['path']} {when}: renew it."
        hour = self._history.since_first
        deaths = hour("deaths")
        limits = [(name, hits) for name, hits in self._history.limits().items() if hits > 0]
        limited = ", ".join(f"{name} {hits}" for name, hits in limits if name not in _USUAL)
        if deaths:
            yield f"Workers that died in the last hour: {deaths}. The log says how."
        if limited:
            yield f"Limits hit in the last hour: {limited}. The log says by whom."
        let_in, refused, failed = hour("let_in"), hour("refused"), hour("failed")
        if failed:
            yield (
                f"Log-ins in the last hour that failed through no fault of the user: {failed}."
                " See which below."
            )
        if refused >= _ENOUGH and refused > _SHARE * (refused + let_in):
            yield (
                f"Of {refused + let_in} log-ins in the last hour {refused} were refused:"
                " somebody guesses passwords, or users cannot be verified."
            )

    def past(self) -> dict[str, Any]:
        """Return the last hour."""
        return {
            "step": STEP,
            "times": [round(time, 1) for time in self._history.times],
            "series": {name: list(map(_rounded, self._history.series(name))) for name in SERIES},
        }


def _grouped(failures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest failures first, those that are alike in one row, with their number."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in sorted(failures, key=lambda one: -one["time"]):
        row = rows.setdefault((one["user"], one["peer"], one["what"]), {**one, "times": 0})
        row["times"] += 1
    return list(islice(rows.values(), _FAILURES))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
