"""Looking on while a user's sessions go on: the lines wait here until somebody fetches them."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.server.factory import POP3Factory
    from popd.server.protocol import POP3Protocol

__all__ = ["FORGET", "LINES", "TRACES", "Tracer"]

FORGET: Final = 15.0
"""Seconds after which what nobody fetches is not kept any more."""

LINES: Final = 1000
"""How many lines wait to be fetched; then the oldest are lost, and counted."""

TRACES: Final = 8
"""How many can look on at the same time."""

_ROOM: Final = 60_000
"""Octets of JSON that are fetched at once."""


class _Trace:
    """What one onlooker waits for."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.fetched = 0.0
        self.lines: deque[dict[str, Any]] = deque()
        self.lost = 0

    def add(self, line: dict[str, Any]) -> None:
        if len(self.lines) >= LINES:
            self.lines.popleft()
            self.lost += 1
        self.lines.append(line)

    def take(self) -> dict[str, Any]:
        taken, left = [], _ROOM
        while self.lines and (left := left - len(json.dumps(self.lines[0])) - 2) > 0:
            taken.append(self.lines.popleft())
        lost, self.lost = self.lost, 0
        return {"lines": taken, "lost": lost}


class Tracer:
    """Shows what the sessions of some users say.

    The factory knows of it only while somebody looks on.

    :param factory: whose sessions.
    :param is_of: tells whether a session is one of a user's, who is called by his canonical name.
    :param now: tells the time, in seconds since 1970.
    """

    def __init__(
        self,
        factory: POP3Factory,
        is_of: Callable[[POP3Protocol, str], bool],
        now: Callable[[], float],
    ) -> None:
        self.factory = factory
        self._is_of = is_of
        self._now = now
        self._traces: dict[str, _Trace] = {}

    def fetch(self, token: str, user: str) -> dict[str, Any]:
        """Return the lines of *user* since the last time, and begin to wait for more.

        :param token: which onlooker it is that asks.
        :return: ``lines``, each with ``time``, ``ident``, ``peer``, ``way`` (``>`` from the client,
            ``<`` to it, ``*`` for what happens) and ``text``; and how many were ``lost``.
        :raises ValueError: more look on than are let.
        """
        trace = self._traces.get(token)
        if trace is None:
            self._forget()
            if len(self._traces) >= 2 * TRACES:  # some may be gone without a word
                raise ValueError("too many look on")
            trace = self._traces[token] = _Trace(user)
            self.factory.tracer = self
            for protocol in self.factory.visits:
                if protocol.visit.logged_in is not None and self._is_of(protocol, user):
                    protocol.trace(self._teller(protocol))
        trace.fetched = self._now()
        return trace.take()

    def stop(self, token: str) -> None:
        """Let one who looks on go."""
        self._traces.pop(token, None)
        self._tidy()

    def let_in(self, protocol: POP3Protocol) -> None:
        """Somebody has logged in."""
        if any(self._is_of(protocol, trace.user) for trace in self._traces.values()):
            protocol.trace(self._teller(protocol))
            visit = protocol.visit
            self._tell(protocol, "*", f"logged in by {visit.mechanism or 'other means'}")

    def ended(self, protocol: POP3Protocol) -> None:
        """Somebody is gone."""
        if protocol.visit.logged_in is not None:
            why = protocol.visit.why
            self._tell(protocol, "*", f"the client is gone{why and f': {why}'}")

    def _teller(self, protocol: POP3Protocol) -> Callable[[str, str], None]:
        return lambda way, text: self._tell(protocol, way, text)

    def _tell(self, protocol: POP3Protocol, way: str, text: str) -> None:
        self._forget()
        visit = protocol.visit
        line = {"time": self._now(), "ident": visit.ident, "peer": visit.peer}
        for trace in self._traces.values():
            if self._is_of(protocol, trace.user):
                trace.add({**line, "way": way, "text": text})

    def _forget(self) -> None:
        """Drop what nobody fetches."""
        since = self._now() - FORGET
        for token in [token for token, one in self._traces.items() if one.fetched < since]:
            del self._traces[token]
        self._tidy()

    def _tidy(self) -> None:
        if self._traces or self.factory.tracer is None:
            return
        self.factory.tracer = None
        for protocol in self.factory.visits:
            protocol.trace(None)
