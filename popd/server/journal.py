"""What is written down, and counted, about sessions: each event in one place."""

from __future__ import annotations

from collections import deque
from time import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from popd.server.visit import Visit

__all__ = ["Journal"]

_RECENT: Final = 1000
_SHOWN: Final = 255


class Journal:
    """Is told what happens in a process's sessions.  Nothing here waits for anything, or fails."""

    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        """The last failures: ``time``, ``ident``, ``user``, ``peer``, and ``why``."""

    def failed(self, visit: Visit, user: bytes, why: str) -> None:
        """Remember a log-in that failed."""
        name = user[:_SHOWN].decode(errors="replace")
        self.recent.append(
            {"time": time(), "ident": visit.ident, "user": name, "peer": visit.peer, "why": why}
        )

    def began(self, visit: Visit) -> None:
        """A client connected."""

    def let_in(self, visit: Visit, seconds: float) -> None:
        """It logged in, *seconds* after it had shown its credentials."""

    def shut_out(self, visit: Visit, mechanism: str, result: str) -> None:
        """It could not log in.

        :param result: ``credentials``, ``temporary``, ``in-use``, ``permanent`` or ``too-soon``.
        """

    def sent(self, visit: Visit, octets: int, seconds: float, *, whole: bool) -> None:
        """It was sent a message, or with TOP a part of one, in so many seconds."""

    def removed(self, visit: Visit, uid: str, octets: int) -> None:
        """A message that it had marked was removed."""

    def ended(self, visit: Visit) -> None:
        """It is gone, and nothing more is done for it."""
