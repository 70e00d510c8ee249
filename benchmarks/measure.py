"""Measures rows: one server, one row, one round at a time."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import maildrops
from check import check
from load import LoadError
from rows import WARM, WARM_BIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from load import Load
    from rows import Row
    from servers import Server

_SETTLE: Final = 0.3
"""Seconds for a server to come to rest before its memory is looked at."""

_WARM_SESSIONS: Final = 200

_LONG: Final = 180.0
"""Seconds after which a row gets no further round."""

_PATIENCE: Final = 300
"""Seconds that a server may take over one command."""


@dataclass(frozen=True)
class Sample:
    """What one measurement gave.

    :param cost: seconds of CPU a session; for memory, octets a session.
    :param rate: sessions a second on all cores; for memory, 0.
    :param load: seconds of CPU that a session took of the load generator; for memory, 0.
    """

    cost: float
    rate: float
    load: float = 0.0


class MeasureError(Exception):
    """A server could not be measured: it answers wrongly, or not at all."""


class Bench:
    """Measures.

    :param load: makes the sessions.
    :param seconds: how long a measurement takes, more or less.
    :param pause: seconds between a delivery and the poll that finds it.
    :param tell: takes a line about each measurement.
    """

    def __init__(self, load: Load, seconds: float, pause: float, tell: Callable[..., None]) -> None:
        self.load = load
        self.seconds = seconds
        self._pause = pause
        self.tell = tell
        self._checked: set[tuple[str, str, bool]] = set()

    def sample(self, server: Server, row: Row) -> Sample:
        """Measure *row* once.

        :raises MeasureError: the server answers wrongly, or not at all.
        """
        maildrops.make(server.site.mail, row.mail)
        maildrops.undeliver(server.site.mail, row.mail)
        with told(server, row.name):
            try:
                self._check(server, row)
                return self._memory(server, row) if row.of_memory else self._cpu(server, row)
            finally:
                maildrops.undeliver(server.site.mail, row.mail)

    def _check(self, server: Server, row: Row) -> None:
        what = (server.name, row.mail.name, bool(row.tls))
        if what not in self._checked:
            check(server, row.mail, tls=bool(row.tls))
            self._checked.add(what)

    def options(self, server: Server, row: Row) -> dict[str, object]:
        """Return what the load generator has to know for *row*."""
        return {
            "port": server.tls_port if row.tls else server.port,
            "work": row.work,
            "tls": row.tls,
            "user": row.mail.name,
            "users": row.mail.users,
            "password": maildrops.PASSWORD,
            "processes": row.processes,
            "seconds": self.seconds,
            "limit": row.sessions,
            "messages": row.mail.messages,
            "octets": row.mail.octets,
            "wire": row.mail.wire,
            "ask": row.ask,
            "stop": row.stop,
            "patience": _PATIENCE,
        }

    def _cpu(self, server: Server, row: Row) -> Sample:
        if row.cold:
            self.cool(server, row)
        options = self.options(server, row)
        warm: dict[str, Any] = {"seconds": self.seconds / 5}
        if row.cold:  # the processes are to be there, but not to know the maildrop
            maildrops.make(server.site.mail, WARM)
            warm |= {"work": "login", "user": WARM.name, "users": WARM.users, "processes": 4}
            warm |= {"limit": 1_000_000}
        self.load.run(**{**options, **warm})
        if row.deliver:
            template = next((server.site.mail / f"{row.mail.name}0" / "cur").iterdir())
            options |= {
                "deliver": server.site.mail,
                "template": template,
                "pause": self._pause,
                "seconds": 3600,
            }
        before = server.meter.cpu()
        result = self.load.run(**options)
        spent = server.meter.cpu() - before
        if row.tls > 1 and not result["resumed"]:
            raise LoadError("no TLS session was resumed")
        sessions = result["sessions"]
        return Sample(spent / sessions, result["rate"], result["cpu"] / sessions)

    @staticmethod
    def cool(server: Server, row: Row) -> None:
        """Start a server anew, with nothing known about the maildrops of *row*."""
        server.stop()
        maildrops.forget(server.site.mail, row.mail)
        server.start()

    def _memory(self, server: Server, row: Row) -> Sample:
        """Start anew, see what it takes after some sessions, and with many."""
        server.restart()
        mail = WARM_BIG if row.work == "stall" else WARM
        maildrops.make(server.site.mail, mail)
        some = replace(row, work="retr", mail=mail, ask="")
        some_of_all = {"processes": 4, "seconds": 60, "limit": _WARM_SESSIONS}
        self.load.run(
            **(self.options(server, some) | some_of_all)
        )  # so that every process has met them
        time.sleep(_SETTLE)
        before = server.meter.memory()
        taken = self._idle(server, row, row.mail.users) - before
        return Sample(taken / row.mail.users, 0.0)

    def _idle(self, server: Server, row: Row, sessions: int) -> int:
        with self.load.held(**(self.options(server, row) | {"limit": sessions})):
            time.sleep(_SETTLE)
            return server.meter.memory()

    def idle(self, server: Server, row: Row) -> int:
        """Return what a server takes, started anew, with as many sessions as *row* has."""
        server.restart()
        return self._idle(server, row, row.sessions)

    def log_in(self, server: Server, row: Row) -> None:
        """Run one session of the first user."""
        only = {"work": "login", "users": 1, "processes": 1, "limit": 1}
        self.load.run(**(self.options(server, row) | only))


@contextmanager
def told(server: Server, what: str) -> Iterator[None]:
    """Raise whatever goes wrong with a server in the block as `MeasureError` that says where."""
    try:
        yield
    except (LoadError, RuntimeError, OSError) as error:
        raise MeasureError(f"{server.name}, {what}: {error}") from error


def interleaved(
    bench: Bench, servers: list[Server], rows: list[Row], rounds: int
) -> Iterator[tuple[Row, Server, Sample | MeasureError]]:
    """Measure everything: row by row, round by round, the servers in turn.

    A server that fails is started anew, and not asked for this row again.  A row that takes long
    gets fewer rounds.
    """
    for row in rows:
        sound, begun = list(servers), time.monotonic()
        for _ in range(rounds):
            if time.monotonic() - begun > _LONG:
                break
            for server in tuple(sound):
                sample: Sample | MeasureError
                try:
                    sample = bench.sample(server, row)
                except MeasureError as error:
                    sample = error
                    sound.remove(server)
                    recover(server)
                bench.tell(row.name, server.name, sample)
                yield row, server, sample


def recover(server: Server) -> None:
    """Start a server anew that has failed; if that fails too, the next measurement says so."""
    with suppress(RuntimeError, OSError):
        server.restart()
