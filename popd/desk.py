"""What operators may ask of popd: of one process, and of all of them at once."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import maybeDeferred

from popd.auth.account import Client
from popd.maildrop.user import UserName
from popd.server.trace import Tracer
from popd.server.visit import KICKED

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

_KICKED: Final = "-ERR [SYS/TEMP] the administrator ended this session (session {})\r\n"


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
    :param domain: completes a bare user name.
    """

    def __init__(self, factory: POP3Factory, domain: str = "") -> None:
        self.factory = factory
        self._domain = domain
        self._born = time.time()
        self._tracer = Tracer(factory, self._is_of, time.time)
        self._answers: dict[str, Callable[[Any], Any]] = {
            "count": self._count,
            "kick": self._kick,
            "process": self._process,
            "recent": self._recent,
            "sessions": self._sessions,
            "trace": self._trace,
            "untrace": self._untrace,
        }

    def serve(self, factory: POP3Factory, domain: str) -> None:
        """Answer for the sessions of another factory, which has those of the one before."""
        factory.tracer, self.factory.tracer = self.factory.tracer, None
        self.factory, self._tracer.factory, self._domain = factory, factory, domain

    def answer(self, what: str, about: Any) -> Any:
        """Answer a question.

        - ``count``: how many sessions there are.
        - ``kick`` ``{"subject"}``: end some, see `_is_about`; how many those are.
        - ``process``: ``pid``, ``since``, ``sessions``, ``logged_in``, ``connections`` so far.
        - ``recent``: the log-ins that failed last, the newest first; with ``{"ident"}`` those of
          one session.
        - ``sessions``: which there are, by age (`age_of`); with ``{"after"}`` those behind that
          one, with ``{"limit"}`` so many at most, with ``{"subject"}`` some (`_is_about`).
        - ``trace`` ``{"token", "user"}``: what was said since the last time, see `Tracer.fetch`.
        - ``untrace`` ``{"token"}``: no more of that.

        :param what: which.
        :param about: what JSON can say; what it is depends on the question.
        :return: what JSON can say in at most 65,535 octets, or a Deferred of it.
        :raises KeyError: there is no such question.
        """
        return self._answers[what](about)

    def _count(self, _about: object) -> int:
        return len(self.factory.visits)

    def _process(self, _about: object) -> dict[str, Any]:
        visits = self.factory.visits
        return {
            "pid": os.getpid(),
            "since": self._born,
            "sessions": len(visits),
            "logged_in": sum(one.visit.logged_in is not None for one in visits),
            "connections": visits.so_far,
        }

    def _recent(self, about: Any) -> list[dict[str, Any]]:
        ident = (about or {}).get("ident")
        recent = reversed(self.factory.journal.recent)
        return _fitting((one._asdict() for one in recent if ident in {None, one.ident}), about)

    def _sessions(self, about: Any) -> list[dict[str, Any]]:
        about = about or {}
        last = age_of(about.get("after") or "")
        now, at = self.factory.clock.seconds(), time.time()  # the clock is a steady one
        subject = about.get("subject")
        rows = (
            _session(protocol, now, at)
            for protocol in self.factory.visits
            if age_of(protocol.visit.ident) > last
            and (not subject or self._is_about(protocol, subject))
        )
        return _fitting(rows, about)

    def _kick(self, about: Any) -> int:
        subject = about["subject"]
        visits = self.factory.visits
        kicked = [one for one in visits if not one.over and self._is_about(one, subject)]
        for protocol in kicked:
            protocol.dismiss(KICKED, _KICKED.format(protocol.visit.ident).encode("ascii"))
        return len(kicked)

    def _trace(self, about: Any) -> dict[str, Any]:
        return self._tracer.fetch(about["token"], self._canonical(about["user"]))

    def _untrace(self, about: Any) -> None:
        self._tracer.stop(about["token"])

    def _canonical(self, name: bytes | str) -> str:
        return str(UserName.parse(name, self._domain) or "")

    def _is_of(self, protocol: POP3Protocol, user: str) -> bool:
        return bool(user) and self._canonical(protocol.visit.user) == user

    def _is_about(self, protocol: POP3Protocol, subject: str) -> bool:
        """Tell whether *subject*, an id, an IP address or a user's name, means a session."""
        visit = protocol.visit
        if subject == visit.ident:
            return True
        address = Client(subject).ip
        if address is not None:
            return Client(visit.peer).ip == address
        return visit.logged_in is not None and self._is_of(protocol, self._canonical(subject))


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
    """Return what sorts sessions by process and then by age; of no session, what is before all."""
    prefix, _, number = ident.rpartition("-")
    return prefix, int(number) if number.isdecimal() and len(number) < len(str(1 << 64)) else 0


def _session(protocol: POP3Protocol, now: float, at: float) -> dict[str, Any]:
    visit = protocol.visit
    return {
        "ident": visit.ident,
        "user": visit.user,
        "peer": visit.peer,
        "state": _state(protocol),
        "tls": visit.tls,
        "mechanism": visit.mechanism,
        "since": round(at - (now - visit.begun), 3),
        "idle": max(0.0, round(now - protocol.active, 3)),
        "messages": visit.messages,
        "octets": visit.octets,
    }


def _state(protocol: POP3Protocol) -> str:
    if protocol.over:
        return "closing"  # nothing more is done, but the client has not closed yet
    return "authorization" if protocol.visit.logged_in is None else "transaction"


def _fitting(rows: Iterable[dict[str, Any]], about: Any) -> list[dict[str, Any]]:
    """Return the first rows, as many as are wanted and fit into an answer."""
    limit = (about or {}).get("limit", _MAX_ROWS)
    return list(_within(islice(rows, max(0, min(int(limit), _MAX_ROWS)))))


def _within(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    left = _ROOM
    for row in rows:
        cut = {key: _cut(value) for key, value in row.items()}
        left -= len(json.dumps(cut)) + 2
        if left < 0:
            return
        yield cut


def _cut(value: Any) -> Any:
    return value[:_SHOWN] if isinstance(value, str) else value
