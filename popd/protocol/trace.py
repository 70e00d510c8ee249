"""A session that somebody looks on: what is said in it, without what is secret or private."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from popd.protocol.events import Close, Reply, Send, Stream
from popd.protocol.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.protocol.events import Event

    Tell: TypeAlias = "Callable[[str, str], object]"

__all__ = ["TracedSession", "trace"]

_HARMLESS: Final = re.compile(
    rb"(?:STAT|LIST|RETR|DELE|NOOP|RSET|QUIT|TOP|UIDL|CAPA|STLS)(?: [0-9 ]{0,40})?", re.IGNORECASE
)
"""Commands that are shown as they are: with nothing behind them but numbers."""

_VERB: Final = re.compile(rb"(USER|PASS|APOP|AUTH|STAT|LIST|RETR|DELE|TOP|UIDL)\b", re.IGNORECASE)
"""Verbs that are shown where what follows is not."""

_SHOWN: Final = 200
"""Octets of a reply's first line that are shown."""


class TracedSession(Session):
    """A session whose lines are told; made of a `Session` by `trace`, and back again.

    Of commands numbers are told, and nothing else that follows the verb; of replies the first line:
    no password, no SASL exchange and nothing of a message comes out.  Whoever is told may
    end the trace at once, so that this is a `Session` again before a method is over.

    `Session.tell` is called with ``>`` for what the client says, ``<`` for what it is told, and a
    line.
    """

    __slots__ = ()

    def next_event(self) -> Event:
        """See `Session`."""
        event = super().next_event()
        match event:
            case Reply(data) | Close(data):
                self.tell("<", _reply(data))
            case Stream():
                self.tell("<", "+OK (a long listing)")
        return event

    def sent(self) -> None:
        """See `Session`."""
        if isinstance(self._waiting, Send):
            self.tell("<", f"{_reply(self._waiting.status)} (the message follows)")
        Session.sent(self)

    def _execute(self, line: bytes) -> Event:
        self.tell(">", _command(line))
        return Session._execute(self, line)  # noqa: SLF001 - this is one

    def _line_too_long(self) -> Event:
        self.tell(">", "(a line that is too long)")
        return Session._line_too_long(self)  # noqa: SLF001 - likewise


def trace(session: Session, tell: Tell | None) -> None:
    """Have the lines of *session* told from now on; with None, no more.

    A session that nobody looks on is none the slower for it: it becomes one of another class.
    """
    if tell is None:
        session.__class__ = Session
    else:
        session.__class__ = TracedSession
        session.tell = tell


def _command(line: bytes) -> str:
    if _HARMLESS.fullmatch(line):
        return line.decode("ascii")
    verb = _VERB.match(line)
    if verb is None:
        return f"({len(line)} octets that are no command)"
    return f"{verb[1].decode('ascii')} ({len(line) - len(verb[1])} octets are not shown)"


def _reply(data: bytes) -> str:
    line, _, rest = data.partition(b"\r\n")
    shown = ascii(line[:_SHOWN])[2:-1]
    return f"{shown} (and {len(rest)} octets)" if rest else shown
