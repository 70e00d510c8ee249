"""A world for sessions to live in, and conversations to hold with them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import TYPE_CHECKING, assert_never

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.credentials import (
    CertificateCredentials,
    Credentials,
    DigestCredentials,
    PasswordCredentials,
    ScramCredentials,
    ScramKeys,
    TokenCredentials,
)
from popd.protocol.events import (
    Authenticate,
    Close,
    CloseReason,
    Commit,
    Introduce,
    Lookup,
    Problem,
    Reply,
    Send,
    Signal,
    StartTLS,
    Stream,
)
from popd.protocol.message import MessageEncoder, OctetCounter
from popd.protocol.session import Session
from popd.protocol.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from popd.protocol.proxy import Introduction

PROTECTED = Channel(tls=True)
"""Under TLS, as most sessions are."""

CRAM_SECRET = b"tanstaaftanstaaf"
"""The password in RFC 2195 section 2."""

APOP_SECRET = b"tanstaaf"
"""The password in RFC 1939 section 7."""

MAIL = (
    b"Subject: one\n\nfirst\n",
    b"Subject: two\r\n\r\n.dot\r\n..\r\nlast",
    b"Subject: three\n\n" + b"line\n" * 5,
)


def size(message: bytes) -> int:
    """Return the octets of a stored message as LIST gives them."""
    counter = OctetCounter()
    counter.feed(message)
    return counter.octets()


def whole(data: bytes) -> list[bytes]:
    """Cut nothing."""
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    """Cut everywhere."""
    return [data[i : i + 1] for i in range(len(data))]


def good(credentials: Credentials) -> bool:
    """Tell whether somebody is let in: with the password ``secret``, say."""
    match credentials:
        case PasswordCredentials(password=password):
            return password == b"secret"
        case ScramCredentials(proven=proven):
            return proven
        case TokenCredentials(token=token):
            return token.startswith(b"good")
        case DigestCredentials(_, challenge, response, "CRAM-MD5"):
            return response == hmac.digest(CRAM_SECRET, challenge, "md5").hex().encode()
        case DigestCredentials(_, challenge, response):
            return response == md5(challenge + APOP_SECRET).hexdigest().encode()  # noqa: S324
        case CertificateCredentials():
            return True


@dataclass
class World:
    """Answers a session's events at once, and writes down what happened."""

    messages: tuple[bytes, ...] = MAIL
    channel: Channel = PROTECTED
    login_problem: Problem | None = None
    message_problem: Problem | None = None
    commit_failures: int = 0
    keys: ScramKeys | None = None
    lookup_problem: Problem | None = None
    lookups: list[Lookup] = field(default_factory=list)
    credentials: list[Credentials] = field(default_factory=list)
    introduced: list[Introduction] = field(default_factory=list)
    committed: frozenset[int] | None = None
    closed: CloseReason | None = None

    def __post_init__(self) -> None:
        self.session = Session(self.channel)
        self.output = self.session.greeting
        self.snapshot = Snapshot(
            [size(message) for message in self.messages],
            [b"uid-%d" % i for i in range(1, len(self.messages) + 1)],
        )

    def say(self, chunks: Iterable[bytes]) -> None:
        """Feed the session until it closes, acting on its events."""
        for chunk in chunks:
            if self.closed is not None:
                return
            self.session.feed(chunk)
            while self.act():
                pass

    def act(self) -> bool:  # noqa: C901 - one case for each event
        """Act on one event; return whether there may be another."""
        event = self.session.next_event()
        match event:
            case Reply(data):
                self.output += data
            case Authenticate(credentials):
                self.authenticate(credentials)
            case Lookup():
                self.look_up(event)
            case Send():
                self.send(event)
            case Stream(pieces):
                self.output += b"".join(pieces)
                self.session.sent()
            case StartTLS(reply):
                self.output += reply
                self.session.tls_started()
            case Introduce(introduction):
                self.introduced.append(introduction)
                self.session.introduced(replace(self.channel, xclient=False, bindings=None))
            case Commit(deleted):
                self.committed = deleted
                self.session.committed(self.commit_failures)
            case Close(reply, reason):
                self.output += reply
                self.closed = reason
            case Signal.NEED_DATA | Signal.PAUSED:
                return False
            case _:
                assert_never(event)
        return True

    def look_up(self, lookup: Lookup) -> None:
        """Find the same keys for everybody."""
        self.lookups.append(lookup)
        if self.lookup_problem is not None or self.keys is None:
            self.session.denied(self.lookup_problem or Problem.TEMPORARY)
        else:
            self.session.found(self.keys)

    def authenticate(self, credentials: Credentials) -> None:
        """Let everybody in whose credentials are good."""
        self.credentials.append(credentials)
        if self.login_problem is not None:
            self.session.denied(self.login_problem)
        elif good(credentials):
            self.session.authenticated(self.snapshot)
        else:
            self.session.denied(Problem.CREDENTIALS)

    def send(self, send: Send) -> None:
        """Send a message as the server does."""
        if self.message_problem is not None:
            self.session.unsent(self.message_problem)
            return
        encoder = MessageEncoder(send.body_lines)
        self.output += send.status + encoder.feed(self.messages[send.index]) + encoder.finish()
        self.session.sent()


LOGIN = (
    b"C: USER joe",
    b"S: +OK send PASS",
    b"C: PASS secret",
    b"S: +OK maildrop locked and ready",
)


class ConversationCase(SynchronousTestCase):
    """A test case that holds conversations, each in one chunk and byte by byte."""

    def converse(self, *lines: bytes, **world: object) -> World:
        """Say every ``C:`` line and expect every ``S:`` line, in this order, and nothing else.

        Returns the world after it, as it is when the conversation came byte by byte.
        """
        said = b"".join(line[3:] + b"\r\n" for line in lines if line.startswith(b"C: "))
        expected = b"".join(line[3:] + b"\r\n" for line in lines if line.startswith(b"S: "))
        for cut in (whole, byte_by_byte):
            result = World(**world)  # type: ignore[arg-type]
            greeting = result.output
            result.say(cut(said))
            self.assertEqual(result.output, greeting + expected, f"cut {cut.__name__}")
        return result

    def after_login(self, *lines: bytes, **world: object) -> World:
        """Log in, then converse."""
        return self.converse(*LOGIN, *lines, **world)
