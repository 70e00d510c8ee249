"""What a rule has to do with: connections to the server, and its user's mail."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from popcheck.rule import Failed, Skipped
from popcheck.target import Target, capabilities

if TYPE_CHECKING:
    from pathlib import Path

    from popcheck.client import Connection
    from popcheck.maildir import Maildir

__all__ = ["MAIL", "Check", "need", "same", "wire"]

MAIL: Final = b"From: popcheck\nTo: you\nSubject: a message\n\nFirst line\nSecond line\n"
"""A message where no rule cares what it says."""

_STALE: Final = 5.0
"""Seconds that a server may have what is no longer in the Maildir."""


def wire(stored: bytes) -> bytes:
    """Return a message that was stored with LF line ends as it has to arrive."""
    return stored.replace(b"\n", b"\r\n")


def need(condition: object, text: str) -> None:
    """Fail with *text* unless *condition* is true."""
    if not condition:
        raise Failed(text)


def same(got: bytes, expected: bytes, what: str = "the message") -> None:
    """Fail unless the octets are the same; say where they begin to differ."""
    if got == expected:
        return
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((at for at, (one, two) in pairs if one != two), min(len(got), len(expected)))
    raise Failed(
        f"{what} differs at octet {at}: {got[at : at + 20]!r} instead of "
        f"{expected[at : at + 20]!r} ({len(got)} octets instead of {len(expected)})"
    )


class Check:
    """One rule's look at a server; `close` ends its connections and takes its mail away.

    :param target: the server.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._connections: list[Connection] = []

    @property
    def maildir(self) -> Maildir:
        """The user's Maildir."""
        if self.target.maildir is None:
            raise Skipped("needs --maildir")
        return self.target.maildir

    def connect(self, *, tls: bool = False) -> Connection:
        """Connect to a port and read the greeting."""
        return self._keep(self.target.connect(tls=tls))

    def open(self) -> Connection:
        """Connect in such a way that log-in is possible."""
        return self._keep(self.target.open())

    def log_in(self, *contents: bytes) -> Connection:
        """Deliver messages and log in.

        If the server still has messages that were taken out of the Maildir behind its back, which
        is no fault, it is given a moment.
        """
        for content in contents:
            self.stage(content)
        end = time.monotonic() + min(_STALE, self.target.timeout)
        while True:
            session = self._keep(self.target.session())
            maildir = self.target.maildir
            if maildir is None or session.stat()[0] <= len(maildir.files()):
                return session
            if time.monotonic() > end:
                return session
            session.quit()
            time.sleep(0.05)

    def refused(self, connection: Connection) -> bytes:
        """Return what a log-in that must be refused was answered with."""
        reply = self.target.try_log_in(connection)
        need(reply.startswith(b"-ERR"), f"log-in was answered with {reply!r}")
        return reply[5:]

    def stage(self, content: bytes = MAIL, *, at: str = "new", name: str = "") -> Path:
        """Deliver a message; return its file."""
        return self.maildir.stage(content, at=at, name=name)

    def fetched(self, content: bytes) -> bytes:
        """Deliver a message as the only one, and return what RETR makes of it."""
        return self.log_in(content).message(b"RETR 1")

    def capability(self, name: bytes) -> list[bytes]:
        """Return the parameters of a capability.

        :raises Skipped: it is not announced.
        """
        if name not in self.target.announced:
            raise Skipped(f"{name.decode('ascii')} is not announced")
        return self.target.announced[name]

    def stls(self) -> Connection:
        """Connect to the port that has STLS.

        :raises Skipped: there is none.
        """
        if b"STLS" not in self.target.announced_in_cleartext:
            raise Skipped("STLS is not announced")
        return self.connect()

    def mechanism(self, name: bytes) -> Connection:
        """Connect, if one may log in by a SASL mechanism, when nobody has the maildrop.

        :raises Skipped: it is not announced.
        """
        if name not in self.capability(b"SASL"):
            raise Skipped(f"SASL {name.decode('ascii')} is not announced")
        self.target.free()
        return self.open()

    def capabilities(self, connection: Connection) -> dict[bytes, list[bytes]]:
        """Return what CAPA lists on a connection."""
        return capabilities(connection)

    def close(self) -> None:
        """Close what was opened and remove what was delivered."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.close()
        self._connections.clear()
        if self.target.maildir is not None:
            self.target.maildir.tidy()

    def _keep(self, connection: Connection) -> Connection:
        self._connections.append(connection)
        return connection
