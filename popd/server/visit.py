"""What is known of the sessions that a process serves: for the log, counts, and who looks on."""

from __future__ import annotations

import re
from time import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.server.census import Entry
    from popd.server.protocol import POP3Protocol

__all__ = [
    "DISCONNECTED",
    "DRAINED",
    "HTTP_REQUEST",
    "IDLE",
    "INTERNAL_ERROR",
    "KICKED",
    "LIMIT",
    "LOGIN_TIMEOUT_PASSED",
    "NOT_READING",
    "QUIT",
    "READ_ERROR",
    "REPLACED",
    "STLS_INJECTION",
    "TLS_ERROR",
    "TOO_MANY_ERRORS",
    "Visit",
    "Visits",
    "shown",
]

QUIT: Final = "quit"
"""The client said QUIT."""
DISCONNECTED: Final = "disconnected"
"""The client closed the connection, or lost it, without QUIT."""
IDLE: Final = "idle"
"""Nothing was said for too long after log-in."""
LOGIN_TIMEOUT_PASSED: Final = "login-timeout"
"""There was no log-in in time."""
TOO_MANY_ERRORS: Final = "too-many-errors"
"""Too many commands were refused."""
STLS_INJECTION: Final = "stls-injection"
"""Something stood behind STLS in plaintext."""
HTTP_REQUEST: Final = "http-request"
"""The client spoke HTTP."""
READ_ERROR: Final = "read-error"
"""A message could not be read to its end."""
TLS_ERROR: Final = "tls-error"
"""The TLS handshake failed."""
NOT_READING: Final = "not-reading"
"""The client did not read what it was sent."""
DRAINED: Final = "drained"
"""popd was about to end."""
KICKED: Final = "kicked"
"""An operator ended the session."""
REPLACED: Final = "replaced"
"""All places were taken, and this client had not logged in for longest."""
LIMIT: Final = "limit"
"""There were too many sessions, of all or of one user or address."""
INTERNAL_ERROR: Final = "internal-error"
"""Something went wrong in popd; the log has a traceback."""

_BASE: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

_FINENESS: Final = len(_BASE)
"""Into how many parts a second is divided, in one of which a process begins: so fine that none that
has the seat of another begins in the same, be that of this popd or of one whose place it takes."""

_NAME: Final = re.compile(r"[\w.@+*=~-]+")
_BASE64: Final = re.compile(r"(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9+]{12,}={0,2}")
"""What may be SASL data, a token or a password: long, without a dot or an ``@``, in mixed case."""
_SHOWN: Final = 255
"""Octets of a user name that are shown."""


def shown(name: bytes) -> str:
    """Return a name that a client has given, so that nothing in it can forge a line of the log.

    What no user is called so is not shown: somebody may have typed a password there, or behind the
    name.
    """
    text = name[:_SHOWN].decode("utf-8", "replace")
    if _NAME.fullmatch(text) and not _BASE64.fullmatch(text):
        return ascii(text)[1:-1]
    return f"(no name, {len(name)} octets)"


class Visit:
    """One session, from its connection to its end.

    Octets are those on the wire.  Times are the clock's, in seconds.
    """

    __slots__ = (
        "begun",
        "by",
        "counted",
        "deleted",
        "detail",
        "ident",
        "insider",
        "left",
        "logged_in",
        "mechanism",
        "messages",
        "octets",
        "of_address",
        "of_user",
        "peer",
        "tls",
        "tops",
        "transport",
        "tries",
        "user",
        "why",
    )

    def __init__(self, ident: str, peer: str, begun: float, *, insider: bool = False) -> None:
        self.ident = ident
        """What this session is called, here and in what its client is told."""
        self.peer = peer
        """The client's IP address; empty if it has none."""
        self.begun = begun
        """When it connected."""
        self.insider = insider
        """Whether popd itself is the client, see `Insider`.  It is not written down, not counted,
        not limited, and shown to nobody."""
        self.logged_in: float | None = None
        """When it logged in; None if it has not."""
        self.tries = 0
        """How many log-ins were refused."""
        self.user = ""
        """Whose mail it is, as the chain of checkers spells it; before log-in, who was tried."""
        self.by = ""
        """Who logged in in place of the user: ``master NAME`` or ``app password NAME``."""
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
        """How many messages are in the maildrop."""
        self.why = ""
        """Why the session ended, one of the constants here; empty as long as it has not."""
        self.detail = ""
        """More about that, for people."""
        self.counted = False
        """Whether it is counted as a session, see `popd.server.limits.Gate`."""
        self.of_address: Entry | None = None
        self.of_user: Entry | None = None
        """As what it is counted, see `popd.server.census`."""

    def ends(self, why: str, detail: str = "") -> None:
        """Note why the session ends.  The first reason is the one that counts."""
        if not self.why:
            self.why, self.detail = why, detail


class Visits:
    """The sessions that a process serves now.

    :param seat: which of the processes of this popd this is.
    """

    def __init__(self, seat: int = 0) -> None:
        self._prefix = f"{_spelled(int(time() * _FINENESS))}{_spelled(seat)}-"
        self._count = 0
        self._present: dict[str, POP3Protocol] = {}

    def begin(
        self, protocol: POP3Protocol, peer: str, now: float, *, insider: bool = False
    ) -> Visit:
        """Return what is known of a client that has just connected.

        :param insider: whether popd itself is the client, who is not one of these.
        """
        self._count += 1
        ident = self._prefix + str(self._count)
        if not insider:
            self._present[ident] = protocol
        return Visit(ident, peer, now, insider=insider)

    def end(self, visit: Visit) -> None:
        """Forget a session.  A second call does nothing."""
        self._present.pop(visit.ident, None)

    def get(self, ident: str) -> POP3Protocol | None:
        """Return the connection of a session, if it is still there."""
        return self._present.get(ident)

    def __iter__(self) -> Iterator[POP3Protocol]:
        """Yield all connections, the oldest first, as they are now."""
        return iter(list(self._present.values()))

    @property
    def so_far(self) -> int:
        """How many there have been since the process began."""
        return self._count

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._present)


def _spelled(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_BASE))
        digits = _BASE[digit] + digits
    return digits
