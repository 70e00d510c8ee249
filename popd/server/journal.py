"""What is written down, and counted, about sessions: each event in one place."""

from __future__ import annotations

from collections import deque
from time import time
from typing import TYPE_CHECKING, Any, Final

from popd.server.counts import CELLS, Counts

if TYPE_CHECKING:
    from popd.server.visit import Visit

__all__ = ["Journal"]

_RECENT: Final = 1000
"""How many failures are remembered."""

_SHOWN: Final = 255
"""Octets of a user name that are remembered."""


class Journal:
    """Is told what happens in a process's sessions.  Nothing here waits for anything, or fails.

    :param counts: where it is counted.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts or Counts(memoryview(bytearray(8 * CELLS)).cast("Q"))
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        """Log-ins that failed lately: ``time``, ``ident``, ``user``, ``peer`` and ``why``."""

    def began(self, _visit: Visit) -> None:
        """A client connected."""
        self._counts.began()

    def recognised(self) -> None:
        """Credentials were known from a short while ago."""
        self._counts.recognised()

    def let_in(self, visit: Visit, seconds: float, *, remembered: bool = False) -> None:
        """It logged in, *seconds* after it had shown its credentials.

        :param remembered: whether its maildrop was remembered and had not changed.
        """
        self._counts.let_in(visit.mechanism, seconds, remembered=remembered)

    def duplicates(self, messages: int) -> None:
        """So many messages of a maildrop had a unique-id that another had as well."""
        if messages:
            self._counts.duplicates(messages)

    def shut_out(
        self, visit: Visit, mechanism: str, result: str, user: bytes = b"", why: str = ""
    ) -> None:
        """It could not log in.

        :param result: ``credentials``, ``temporary``, ``in-use``, ``permanent`` or ``too-soon``.
        :param user: who it said that it is.
        :param why: more about it, if more is known.
        """
        self._counts.shut_out(mechanism, result)
        self.recent.append(
            {
                "time": time(),
                "ident": visit.ident,
                "user": user[:_SHOWN].decode(errors="replace"),
                "peer": visit.peer,
                "why": f"{result}: {why[:_SHOWN]}" if why else result,
            }
        )

    def sent(self, visit: Visit, octets: int, seconds: float, *, whole: bool) -> None:
        """It was sent a message, or with TOP a part of one, in so many seconds."""
        visit.octets += octets
        if whole:
            visit.messages += 1
        else:
            visit.tops += 1
        self._counts.sent(octets, seconds, whole=whole)

    def removed(self, visit: Visit, uid: str, octets: int) -> None:
        """A message that it had marked was removed."""

    def limited(self, _visit: Visit | None, _peer: str, limit: str) -> None:
        """A client was refused, or its session ended, because of a limit.

        :param limit: the option that sets it.
        """
        self._counts.limited(limit)

    def ended(self, visit: Visit) -> None:
        """It is gone, and nothing more is done for it."""
        self._counts.ended(visit)
