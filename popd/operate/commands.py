"""What ``popctl`` can ask over the control socket, and how all processes together answer."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from popd import __version__
from popd.auth.penalties import forgive, penalties
from popd.desk import age_of
from popd.server.trace import TRACES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from popd.auth.tablefile import GuessTable
    from popd.desk import Crew
    from popd.server.tls import Served

__all__ = ["Asker", "Commands", "Operated"]

_LOOK: Final = 0.2
"""Seconds between two looks at what was said in a session that is traced."""

_ANSWER: Final = 0.2
"""Seconds in which an answer reaches who asked."""

_PENALTIES: Final = 10_000
"""How many penalties are told, the worst first."""


class Asker(Protocol):
    """Who asks."""

    lost: bool
    reads: bool

    def say(self, word: str, what: Any) -> None:
        """Tell it an ``answer`` or an ``error``."""


class Operated(Protocol):
    """All of popd, as operators see it."""

    reloaded: tuple[float, str] | None

    @property
    def guesses(self) -> GuessTable:
        """What is known of guesses."""

    @property
    def crew(self) -> Crew:
        """All processes that serve."""

    def reload(self) -> Deferred[str]:
        """Take up the configuration anew; return what is wrong with it, in a line, or ``""``."""

    def reload_code(self) -> Deferred[str]:
        """Have another popd, of the code that is installed now, take over; likewise."""

    def drain(self) -> object:
        """Let the sessions that there are finish, and end."""

    def certificates(self) -> Sequence[Served]:
        """Return the server's certificates."""


class Commands:
    """Answers questions.

    - ``status``: version, process id, since when, processes, certificates, the last reload.
    - ``who`` ``{"after", "subject"}``: a page of sessions, by age; an empty one is behind the last.
    - ``kick`` ``{"subject"}``: ends sessions; how many.
    - ``explain`` ``{"ident"}``: the failed log-ins, and the session, of that id.
    - ``penalties`` ``{"users", "subject"}`` and ``forgive`` ``{"subject"}``: see
      `popd.auth.penalties`.
    - ``reload``: what is wrong with the new configuration, or ``""``; with ``{"code": true}`` why
      no popd of the code that is installed now could take over.
    - ``drain``: popd ends when its sessions have.
    - ``trace`` ``{"user"}``: answers until the client has enough, each with ``lines`` and how many
      were ``lost``, see `popd.server.trace.Tracer`.

    :param reactor: keeps the time.
    :param server: all of popd.
    """

    def __init__(self, reactor: Any, server: Operated) -> None:
        self._reactor = reactor
        self._server = server
        self._since = time.time()
        self._traces = 0
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "drain": self._drain,
            "explain": self._explain,
            "forgive": self._forgive,
            "kick": self._kick,
            "penalties": self._penalties,
            "reload": self._reload,
            "status": self._status,
            "who": self._who,
        }

    async def answer(self, asker: Asker, what: str, about: dict[str, Any]) -> None:
        """Answer a question.

        :raises ValueError: it cannot be answered; the text is for whoever asked.
        """
        if what == "trace":
            await self._trace(asker, _text(about, "user"))
        elif what in self._commands:
            asker.say("answer", await self._commands[what](about))
        else:
            raise ValueError(f"popd {__version__} knows nothing of {what[:40]!a}")

    async def _status(self, _about: dict[str, Any]) -> dict[str, Any]:
        processes = await self._server.crew.ask("process")
        return {
            "version": __version__,
            "pid": os.getpid(),
            "since": self._since,
            "processes": processes,
            "certificates": [
                {"names": one.names, "path": one.path, "not_after": one.not_after.timestamp()}
                for one in self._server.certificates()
            ],
            "reloaded": self._server.reloaded,
        }

    async def _who(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        asked = {key: _text(about, key) for key in ("after", "subject") if about.get(key)}
        return _page(await self._server.crew.ask("sessions", asked))

    async def _kick(self, about: dict[str, Any]) -> int:
        return sum(await self._server.crew.ask("kick", {"subject": _text(about, "subject")}))

    async def _explain(self, about: dict[str, Any]) -> dict[str, Any]:
        ident = _text(about, "ident")
        failures = await self._server.crew.ask("recent", {"ident": ident})
        sessions = await self._server.crew.ask("sessions", {"subject": ident})
        return {
            "failures": sorted(chain(*failures), key=lambda one: one["time"]),
            "sessions": [one for one in chain(*sessions) if one["ident"] == ident],
        }

    async def _penalties(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        users = about.get("users") or []
        if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
            raise ValueError("users are a list of names")
        found = penalties(self._server.guesses, time.time(), users, _text(about, "subject", ""))
        return [asdict(penalty) for penalty in found[:_PENALTIES]]

    async def _forgive(self, about: dict[str, Any]) -> int:
        return forgive(self._server.guesses, _text(about, "subject", ""))

    async def _reload(self, about: dict[str, Any]) -> str:
        done: Deferred[str] = Deferred()
        work = self._server.reload_code() if about.get("code") else self._server.reload()
        work.addBoth(done.callback)  # whoever asked may go: it is not broken off
        return await done

    async def _drain(self, _about: dict[str, Any]) -> None:
        # The answer goes first: with nobody there, popd ends at once.
        self._reactor.callLater(_ANSWER, self._server.drain)

    async def _trace(self, asker: Asker, user: str) -> None:
        """Tell what is said in a user's sessions, until nobody listens."""
        if self._traces >= TRACES:
            raise ValueError(f"{TRACES} look on already: end one of those")
        self._traces += 1
        about = {"token": secrets.token_hex(8), "user": user}
        try:
            while not asker.lost:
                if asker.reads:  # else the lines wait where they are said, or are lost
                    answers = await self._server.crew.ask("trace", about)
                    lines = list(chain(*(one["lines"] for one in answers)))
                    lost = sum(one["lost"] for one in answers)
                    if lines or lost:
                        lines.sort(key=lambda line: line["time"])
                        asker.say("answer", {"lines": lines, "lost": lost})
                await deferLater(self._reactor, _LOOK)
        finally:
            self._traces -= 1
            self._server.crew.ask("untrace", about).addErrback(lambda _: None)


def _page(answers: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows that come first in all answers, each of which may go on behind its last."""
    begun = [rows for rows in answers if rows]
    if not begun:
        return []
    end = min(age_of(rows[-1]["ident"]) for rows in begun)
    page = [row for rows in begun for row in rows if age_of(row["ident"]) <= end]
    return sorted(page, key=lambda row: age_of(row["ident"]))


def _text(about: dict[str, Any], key: str, default: str | None = None) -> str:
    value = about.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise ValueError(f"{key} is missing, or no text")
    return value
