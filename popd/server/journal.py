"""What is written down about sessions: each event in one place."""

from __future__ import annotations

from collections import deque
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.logger import Logger, LogLevel

from popd.protocol.events import Problem
from popd.server.counts import CELLS, Counts
from popd.server.note import note
from popd.server.visit import DISCONNECTED, QUIT, STLS_INJECTION, TLS_ERROR, shown

if TYPE_CHECKING:
    from popd.server.note import Event
    from popd.server.visit import Visit

__all__ = ["RECENT", "Failing", "Journal"]

RECENT: Final = 1_000
"""How many failures are remembered."""

_log = Logger()

_ALWAYS_TOLD: Final = frozenset({TLS_ERROR, STLS_INJECTION})
"""Why sessions end that have a line even if nobody tried to log in."""

_LULL: Final = 60.0
"""Seconds between two lines about connections on which nobody tried to log in."""

_RESULTS: Final = {
    Problem.CREDENTIALS: "credentials",
    Problem.TOO_SOON: "too-soon",
    Problem.IN_USE: "in-use",
    Problem.TOO_MANY: "limit",
    Problem.PERMANENT: "permanent",
}


class Failing(NamedTuple):
    """A failure that somebody may ask about.

    :param time: when it was, in seconds since 1970.
    :param ident: the session.
    :param user: whose; as the client has given it if it did not log in.
    :param peer: the client's address.
    :param what: what came of a log-in, as ``popd_logins_total`` has it; or why a session ended.
    :param why: more about that, for people; or empty.
    """

    time: float
    ident: str
    user: str
    peer: str
    what: str
    why: str


class Journal:
    """Is told what happens in a process's sessions.  Nothing here waits for anything, or fails.

    Of popd's own sessions with itself (`Visit.insider`) nothing is written down.

    :param counts: where it is counted.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts or Counts(memoryview(bytearray(8 * CELLS)).cast("Q"))
        self.recent: deque[Failing] = deque(maxlen=RECENT)
        """The last failures, the oldest first."""
        self._idle = 0  # connections on which nobody tried to log in, since the last line
        self._told = 0.0

    def began(self, visit: Visit) -> None:
        """A client connected."""
        if not visit.insider:
            self._counts.began()

    def recognised(self) -> None:
        """Credentials were known from a short while ago."""
        self._counts.recognised()

    def duplicates(self, messages: int) -> None:
        """So many messages of a maildrop had a unique-id that another had as well."""
        if messages:
            self._counts.duplicates(messages)

    def let_in(self, visit: Visit, seconds: float, *, remembered: bool = False) -> None:
        """It logged in, *seconds* after it had shown its credentials.

        :param remembered: whether its maildrop was remembered and had not changed.
        """
        if visit.insider:
            return
        self._counts.let_in(visit.mechanism, seconds, remembered=remembered)
        if visit.by.startswith("master "):
            _write(
                "log-in-by-master",
                f"Session {visit.ident}: log-in, user {_safe(visit.user)}, by {_safe(visit.by)},"
                f" from {_peer(visit)}",
                session=visit.ident,
                user=visit.user,
                by=visit.by,
                address=visit.peer,
            )

    def shut_out(
        self, visit: Visit, name: bytes, mechanism: str, problem: Problem, why: str
    ) -> None:
        """It could not log in.

        :param name: as the client has given it.
        :param problem: what it is told.
        :param why: what else is known; empty if nothing is.
        """
        if visit.insider:
            return
        visit.tries += 1
        visit.user, visit.mechanism = shown(name), mechanism
        result = _RESULTS.get(problem, "temporary")
        self._counts.shut_out(mechanism, result)
        event: Event = "log-in-failed"
        what, level = "failed", LogLevel.warn
        if problem is Problem.CREDENTIALS:
            event, what, level = "log-in-refused", "refused", LogLevel.info
        said = f"user {visit.user}, from {_peer(visit)}, mechanism {mechanism}"
        _write(
            event,
            f"Session {visit.ident}: log-in {what}: {said}{why and f': {why}'}",
            level,
            session=visit.ident,
            user=visit.user,
            address=visit.peer,
            mechanism=mechanism,
            result=result,
            why=why,
        )
        self._remember(visit, result, why)

    def sent(self, visit: Visit, octets: int, seconds: float, *, whole: bool) -> None:
        """It was sent a message, or with TOP a part of one, in so many seconds."""
        visit.octets += octets
        if whole:
            visit.messages += 1
        else:
            visit.tops += 1
        self._counts.sent(octets, seconds, whole=whole)

    def removed(self, visit: Visit, messages: list[tuple[str, int]]) -> None:
        """Messages that it had marked were removed.

        :param messages: the unique-id of each, and its octets.
        """
        visit.deleted += len(messages)
        visit.left -= len(messages)
        user = _safe(visit.user)
        for uid, octets in messages:
            _write(
                "deleted",
                f"Session {visit.ident}: deleted {uid} of {octets} octets, user {user}",
                session=visit.ident,
                user=visit.user,
                uid=uid,
                octets=octets,
            )

    def limited(self, visit: Visit | None, peer: str, limit: str) -> None:
        """A client was refused, or its session ended, because of a limit.

        :param limit: the option that sets it.
        """
        self._counts.limited(limit)

    def ended(self, visit: Visit, now: float) -> None:
        """It is gone, and nothing more is done for it."""
        if visit.insider:
            return
        visit.ends(DISCONNECTED)
        self._counts.ended(visit)
        if visit.why != QUIT and visit.why != DISCONNECTED:  # noqa: PLR1714 - half the time
            self._remember(visit, visit.why, visit.detail)
        if visit.logged_in is None and not visit.tries and visit.why not in _ALWAYS_TOLD:
            self._nobody(visit, now)
            return
        seconds = now - visit.begun
        by = f", by {_safe(visit.by)}" if visit.by else ""
        outcome = (
            f"retrieved {visit.messages}, top {visit.tops}, octets {visit.octets},"
            f" deleted {visit.deleted}, left {visit.left}"
            if visit.logged_in is not None
            else "no log-in"
        )
        said = (
            f"user {_safe(visit.user)}{by}, from {_peer(visit)}, {visit.tls or 'no TLS'},"
            f" mechanism {visit.mechanism}"
            if visit.mechanism
            else f"from {_peer(visit)}"
        )
        detail = f" ({visit.detail})" if visit.detail else ""
        note(
            _log,
            LogLevel.info,
            f"Session {visit.ident}: {said}, {outcome}, {seconds:.3f} s, {visit.why}{detail}",
            "session",
            {"visit": visit, "seconds": seconds},
        )

    def _nobody(self, visit: Visit, now: float) -> None:
        """Count a connection on which nobody tried to log in: scans and health checks are many."""
        self._idle += 1
        if now - self._told >= _LULL:
            _write(
                "connections",
                f"{self._idle} connections on which nobody tried to log in, the last one from"
                f" {_peer(visit)}, {visit.why}",
                count=self._idle,
                address=visit.peer,
                why=visit.why,
            )
            self._told, self._idle = now, 0

    def _remember(self, visit: Visit, what: str, why: str) -> None:
        self.recent.append(Failing(time(), visit.ident, visit.user, visit.peer, what, why))


def _peer(visit: Visit) -> str:
    return visit.peer or "this machine"


def _safe(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _write(event: Event, text: str, level: Any = LogLevel.info, **fields: object) -> None:
    note(_log, level, text, event, fields)
