"""What is known of the sessions that a process serves: for the log, counts, and who looks on."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.server.protocol import POP3Protocol

__all__ = ["Visit", "Visits"]

_BASE: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Visit:
    """One session, from its connection to its end.

    Octets are those on the wire.  Times are the clock's, in seconds.
    """

    __slots__ = (
        "account",
        "begun",
        "by",
        "deleted",
        "ident",
        "left",
        "logged_in",
        "mechanism",
        "messages",
        "octets",
        "peer",
        "tls",
        "tops",
        "transport",
        "user",
        "why",
    )

    def __init__(self, ident: str, peer: str, begun: float) -> None:
        self.ident = ident
        """What this session is called, here and in what its client is told."""
        self.peer = peer
        """The client's IP address; empty if it has none."""
        self.begun = begun
        """When it connected."""
        self.logged_in = 0.0
        """When it logged in; 0 if it has not."""
        self.user = b""
        """The name of whose mail it is, once logged in."""
        self.account = ""
        """The same, as the chain of checkers spells it."""
        self.by = ""
        """Who logged in in place of the user: a master, or an app password's name."""
        self.mechanism = ""
        self.tls = ""
        """TLS version and cipher, as ``TLSv1.3 TLS_AES_256_GCM_SHA384``; empty if there is none."""
        self.transport = "cleartext"
        """How it is protected: ``tls`` from the start, ``stls`` from STLS on, ``cleartext`` not."""
        self.messages = self.octets = 0
        """How many messages RETR sent whole, and how many octets RETR and TOP sent together."""
        self.tops = 0
        """How many messages TOP sent."""
        self.deleted = 0
        """How many messages were removed."""
        self.left = 0
        """How many messages are in the maildrop after that."""
        self.why = ""
        """Why the session ended; empty as long as it has not."""


class Visits:
    """The sessions that a process serves now.

    :param seat: which of the processes of this popd this is.
    """

    def __init__(self, seat: int = 0) -> None:
        self._prefix = f"{_spelled(int(time()))}{_spelled(seat)}-"
        self._count = 0
        self._present: dict[str, POP3Protocol] = {}

    def begin(self, protocol: POP3Protocol, peer: str, now: float) -> Visit:
        """Return what is known of a client that has just connected."""
        self._count += 1
        ident = self._prefix + str(self._count)
        self._present[ident] = protocol
        return Visit(ident, peer, now)

    def end(self, visit: Visit) -> None:
        """Forget a session.  A second call does nothing."""
        self._present.pop(visit.ident, None)

    def get(self, ident: str) -> POP3Protocol | None:
        """Return the connection of a session, if it is still there."""
        return self._present.get(ident)

    def __iter__(self) -> Iterator[POP3Protocol]:
        """Yield all connections, the oldest first, as they are now."""
        return iter(list(self._present.values()))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._present)


def _spelled(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_BASE))
        digits = _BASE[digit] + digits
    return digits
