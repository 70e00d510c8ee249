"""What a session asks of the world, and what the world may answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.protocol.credentials import Credentials
    from popd.protocol.proxy import Introduction

__all__ = [
    "NEED_DATA",
    "PAUSED",
    "Authenticate",
    "Close",
    "CloseReason",
    "Commit",
    "Event",
    "Introduce",
    "Lookup",
    "Problem",
    "Reply",
    "Send",
    "StartTLS",
    "Stream",
]


@dataclass(slots=True)  # frozen ones take twice the time to make, and these are made most
class Reply:
    """Send these octets: one whole reply, its line ends included."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Find out whether the credentials are good, and open the maildrop if they are.

    Answer with ``Session.authenticated`` or ``Session.denied``.
    """

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find the keys with which a user's password can be checked by SCRAM.

    Answer with ``Session.found``, or, if that cannot be told now, with ``Session.denied``.  For a
    user who does not exist, or has no such keys, invent some: always the same for the same name,
    and with None for their owner.

    :param username: whose keys, in UTF-8.
    :param mechanism: ``SCRAM-SHA-256`` or ``SCRAM-SHA-1``, never ``-PLUS``: the keys are the same.
    """

    username: bytes
    mechanism: str


@dataclass(slots=True)  # see `Reply`
class Send:
    """Send *status*, then the message as a ``MessageEncoder(body_lines)`` encodes it.

    Answer with ``Session.sent``, or, before the first octet went out, with ``Session.unsent``.
    After the first octet there is no way back: what fails then must break the connection.

    :param index: 0-based index of the message in the snapshot.
    :param body_lines: how many lines of the body, or None for the whole message.
    :param status: the ``+OK`` line that goes before the message.
    """

    index: int
    body_lines: int | None
    status: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """Send these pieces as the client reads them: together they are one whole reply.

    Answer with ``Session.sent``.
    """

    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class StartTLS:
    """Send *reply*, then begin TLS.  Answer with ``Session.tls_started``."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Introduce:
    """Take the client for whom a proxy says that it is.  Answer with ``Session.introduced``."""

    introduction: Introduction


@dataclass(frozen=True, slots=True)
class Commit:
    """Remove the messages at these 0-based indices, and let go of the maildrop.

    Answer with ``Session.committed``.
    """

    deleted: frozenset[int]


class CloseReason(enum.Enum):
    """Why a session ends."""

    QUIT = "quit"
    TOO_MANY_ERRORS = "too many bad commands"
    INJECTION = "plaintext behind STLS"
    HTTP = "an HTTP request"
    DISMISSED = "ended by popd"


@dataclass(frozen=True, slots=True)
class Close:
    """Send *reply*, then close the connection."""

    reply: bytes
    reason: CloseReason


class Signal(enum.Enum):
    """The types of `NEED_DATA` and `PAUSED`."""

    NEED_DATA = enum.auto()
    PAUSED = enum.auto()


NEED_DATA: Final = Signal.NEED_DATA
"""There is no complete command: feed more octets."""

PAUSED: Final = Signal.PAUSED
"""The session waits for the answer to an earlier event, or is over."""

Event: TypeAlias = (
    Reply
    | Authenticate
    | Lookup
    | Send
    | Stream
    | StartTLS
    | Introduce
    | Commit
    | Close
    | Literal[Signal.NEED_DATA, Signal.PAUSED]
)


class Problem(enum.Enum):
    """Why the world could not do what it was asked; the value is the reply to the client.

    The texts are the same for everybody: no reply tells whether a user exists.
    """

    CREDENTIALS = b"-ERR [AUTH] wrong user name or password\r\n"  # RFC 3206 section 5
    TOO_SOON = b"-ERR [LOGIN-DELAY] too soon after the last log-in\r\n"  # RFC 2449 section 8.1.1
    IN_USE = b"-ERR [IN-USE] another session holds the maildrop\r\n"  # RFC 2449 section 8.1.2
    TEMPORARY = b"-ERR [SYS/TEMP] not possible now, try again later\r\n"  # RFC 3206 section 4
    TOO_MANY = b"-ERR [SYS/TEMP] too many sessions, try again later\r\n"
    USED_UP = b"-ERR [SYS/TEMP] today's download limit is reached, try again after 00:00 UTC\r\n"
    PERMANENT = b"-ERR [SYS/PERM] not possible, tell the administrator\r\n"
    GONE = b"-ERR that message is no longer there\r\n"
