"""What operators may ask of popd: of one process, and of all of them at once."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import maybeDeferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.defer import Deferred

    from popd.server.factory import POP3Factory
    from popd.server.protocol import POP3Protocol

__all__ = ["Alone", "Crew", "Desk", "Process", "age_of"]

_ROOM: Final = 60_000
"""Octets of JSON that the rows of an answer may take."""

_MAX_ROWS: Final = 1000

_SHOWN: Final = 120
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Process:
    """A process that serves.

    :param pid: its process id.
    :param seat: which of the seats it has.
    :param born: when it was made, in seconds since 1970.
    :param state: ``starting``, ``serving``, or ``retiring`` while it only finishes its sessions.
    :param generation: how often popd had been reloaded by then.
    """

    pid: int
    seat: int
    born: float
    state: str = "serving"
    generation: int = 0


class Crew(Protocol):
    """All processes that serve, be they one or many."""

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """Ask each; return the answers of those that gave one in time (see `Desk.answer`)."""

    def processes(self) -> list[Process]:
        """Return which there are."""

    @property
    def deaths(self) -> int:
        """How many died, and were replaced."""


class Desk:
    """Answers for the process that it is in.

    :param factory: what the process serves with.
    """

    def __init__(self, factory: POP3Factory) -> None:
        self.factory = factory
        self._answers: dict[str, Callable[[Any], Any]] = {
            "count": self._count,
            "recent": self._recent,
            "sessions": self._sessions,
        }

    def answer(self, what: str, about: Any) -> Any:
        """Answer a question.

        :param what: which: ``count`` returns how many sessions there are; ``sessions`` which,
            ``recent`` the log-ins that failed last, the newest first.  About these two a dictionary
            may say how many at most (``limit``), and with which session to go on (``after``).
        :param about: what JSON can say; what it is depends on the question.
        :return: what JSON can say in at most 65,535 octets, or a Deferred of it.
        :raises KeyError: there is no such question.
        """
        return self._answers[what](about)

    def _count(self, _about: object) -> int:
        return len(self.factory.visits)

    def _recent(self, about: Any) -> list[dict[str, Any]]:
        return _fitting(map(_cut, reversed(self.factory.journal.recent)), about)

    def _sessions(self, about: Any) -> list[dict[str, Any]]:
        after = (about or {}).get("after")
        last = age_of(after) if after else None
        now = self.factory.clock.seconds()
        rows = (
            _cut(_session(protocol, now))
            for protocol in self.factory.visits
            if last is None or age_of(protocol.visit.ident) > last
        )
        return _fitting(rows, about)


class Alone:
    """A crew of one: this process.

    :param desk: answers for it.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._born = time.time()

    deaths = 0

    def processes(self) -> list[Process]:
        """See `Crew`."""
        return [Process(os.getpid(), 0, self._born)]

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """See `Crew`."""
        return maybeDeferred(self._desk.answer, what, about).addCallback(lambda answer: [answer])


def age_of(ident: str) -> tuple[str, int]:
    """Return what sorts sessions by process and then by age."""
    prefix, _, number = ident.rpartition("-")
    return prefix, int(number) if number.isdecimal() and len(number) < len(str(1 << 64)) else 0


def _session(protocol: POP3Protocol, now: float) -> dict[str, Any]:
    visit = protocol.visit
    return {
        "ident": visit.ident,
        "user": visit.user.decode(errors="replace"),
        "peer": visit.peer,
        "state": "transaction" if visit.logged_in else "authorization",
        "tls": visit.tls or ("" if visit.transport == "cleartext" else visit.transport),
        "mechanism": visit.mechanism,
        "since": visit.begun,
        "idle": max(0.0, round(now - protocol.active, 3)),
        "messages": visit.messages,
        "octets": visit.octets,
    }


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value[:_SHOWN] if isinstance(value, str) else value for key, value in row.items()}


def _fitting(rows: Iterable[dict[str, Any]], about: Any) -> list[dict[str, Any]]:
    """Return the first rows, as many as are wanted and fit into an answer."""
    limit = (about or {}).get("limit", _MAX_ROWS)
    return list(_within(islice(rows, max(0, min(int(limit), _MAX_ROWS)))))


def _within(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    left = _ROOM
    for row in rows:
        left -= len(json.dumps(row)) + 1
        if left < 0:
            return
        yield row
