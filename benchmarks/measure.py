"""Measures rows: one server, one row, one round at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import maildrops
from check import check
from load import LoadError
from rows import WARM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from load import Load
    from rows import Row
    from servers import Server

_SETTLE: Final = 0.3
"""Seconds for a server to come to rest before its memory is looked at."""

_WARM_SESSIONS: Final = 20


@dataclass(frozen=True)
class Sample:
    """What one measurement gave.

    :param cost: seconds of CPU a session; for memory, octets a session.
    :param rate: sessions a second on all cores; for memory, 0.
    """

    cost: float
    rate: float


class Bench:
    """Measures.

    :param load: makes the sessions.
    :param seconds: how long a measurement takes, more or less.
    :param pause: seconds between a delivery and the poll that finds it.
    """

    def __init__(self, load: Load, seconds: float, pause: float) -> None:
        self._load = load
        self._seconds = seconds
        self._pause = pause
        self._checked: set[tuple[str, str, bool]] = set()

    def sample(self, server: Server, row: Row) -> Sample:
        """Measure *row* once.

        :raises LoadError: the server answers wrongly.
        """
        maildrops.make(server.site.mail, row.mail)
        maildrops.undeliver(server.site.mail, row.mail)
        self._check(server, row)
        try:
            return self._memory(server, row) if row.of_memory else self._cpu(server, row)
        except LoadError as error:
            raise LoadError(f"{server.name}, {row.name}: {error}") from error
        finally:
            maildrops.undeliver(server.site.mail, row.mail)

    def _check(self, server: Server, row: Row) -> None:
        what = (server.name, row.mail.name, bool(row.tls))
        if what not in self._checked:
            check(server, row.mail, tls=bool(row.tls))
            self._checked.add(what)

    def _options(self, server: Server, row: Row) -> dict[str, object]:
        return {
            "port": server.tls_port if row.tls else server.port,
            "work": row.work,
            "tls": row.tls,
            "user": row.mail.name,
            "users": row.mail.users,
            "password": maildrops.PASSWORD,
            "processes": row.processes,
            "seconds": self._seconds,
            "limit": row.sessions,
            "messages": row.mail.messages,
            "octets": row.mail.octets,
            "wire": row.mail.wire,
        }

    def _cpu(self, server: Server, row: Row) -> Sample:
        if row.cold:
            server.stop()
            maildrops.forget(server.site.mail, row.mail)
            server.start()
        options = self._options(server, row)
        warm: dict[str, Any] = {"seconds": self._seconds / 5}
        if row.cold:  # the processes are to be there, but not to know the maildrop
            maildrops.make(server.site.mail, WARM)
            warm |= {"work": "login", "user": WARM.name, "users": WARM.users, "processes": 4}
            warm |= {"limit": 1_000_000}
        self._load.run(**{**options, **warm})
        if row.deliver:
            template = next((server.site.mail / f"{row.mail.name}0" / "cur").iterdir())
            options |= {
                "deliver": server.site.mail,
                "template": template,
                "pause": self._pause,
                "seconds": 3600,
            }
        before = server.meter.cpu()
        result = self._load.run(**options)
        spent = server.meter.cpu() - before
        if row.tls > 1 and not result["resumed"]:
            raise LoadError("no TLS session was resumed")
        return Sample(spent / result["sessions"], result["rate"])

    def _memory(self, server: Server, row: Row) -> Sample:
        """Start anew, see what it takes after some sessions of one user, and with many."""
        server.restart()
        self.log_in(server, row, _WARM_SESSIONS)  # so that every process has met one
        time.sleep(_SETTLE)
        before = server.meter.memory()
        taken = self._idle(server, row, row.mail.users) - before
        return Sample(taken / row.mail.users, 0.0)

    def _idle(self, server: Server, row: Row, sessions: int) -> int:
        with self._load.held(**(self._options(server, row) | {"limit": sessions})):
            time.sleep(_SETTLE)
            return server.meter.memory()

    def idle(self, server: Server, row: Row) -> int:
        """Return what a server takes, started anew, with as many sessions as *row* has."""
        server.restart()
        return self._idle(server, row, row.sessions)

    def log_in(self, server: Server, row: Row, times: int = 1) -> None:
        """Run so many sessions of the first user, one after the other."""
        only = {"work": "login", "users": 1, "processes": 1, "seconds": 60, "limit": times}
        self._load.run(**(self._options(server, row) | only))


def interleaved(
    bench: Bench, servers: list[Server], rows: list[Row], rounds: int
) -> Iterator[tuple[Row, Server, Sample]]:
    """Measure everything: row by row, round by round, the servers in turn."""
    for row in rows:
        for _ in range(rounds):
            for server in servers:
                yield row, server, bench.sample(server, row)
