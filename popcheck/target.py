"""The server that is looked at, and what is known of it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from popcheck.client import Connection
from popcheck.rule import Failed, Skipped

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from popcheck.maildir import Maildir

__all__ = ["WRONG", "Target", "capabilities"]

WRONG: Final = b"popcheck-wrong-password"
"""The one wrong password that is tried: the same each time, which careful servers count once."""

_BUSY: Final = 60.0
"""Seconds that a server may take to let go of a maildrop after a session."""


def capabilities(connection: Connection) -> dict[bytes, list[bytes]]:
    """Return what CAPA lists, in upper case, and the parameters of each; none without CAPA."""
    if not connection.ask(b"CAPA").startswith(b"+OK"):
        return {}
    lines = connection.body().split(b"\r\n")[:-1]
    return {tag.upper(): values for tag, *values in (line.split(b" ") for line in lines)}


@dataclass
class Target:
    """A server.

    :param host: its name or address.
    :param port: its port for cleartext and STLS; 0 if it has none.
    :param tls_port: its port for implicit TLS; 0 if it has none.
    :param user: who has an account there.
    :param password: whose password is this.
    :param context: how to speak TLS with it.
    :param maildir: where the user's mail is; None if that cannot be reached.
    :param timeout: how many seconds it may take to answer.
    :param idle: how many seconds of silence it has to bear; 0 if nobody wants to wait for that.
    """

    host: str
    port: int
    tls_port: int
    user: bytes
    password: bytes
    context: ssl.SSLContext
    maildir: Maildir | None = None
    timeout: float = 30.0
    idle: float = 0.0

    def connect(self, *, tls: bool) -> Connection:
        """Connect to a port and read the greeting."""
        port = self.tls_port if tls else self.port
        if not port:
            raise Skipped(f"needs the port for {'TLS' if tls else 'cleartext'}")
        return Connection((self.host, port), self.timeout, self.context if tls else None)

    @cached_property
    def announced(self) -> Mapping[bytes, list[bytes]]:
        """What is announced to those who may log in."""
        connection = self.open()
        with contextlib.closing(connection):
            return capabilities(connection)

    @cached_property
    def announced_in_cleartext(self) -> Mapping[bytes, list[bytes]]:
        """What is announced on the port for cleartext."""
        connection = self.connect(tls=False)
        with contextlib.closing(connection):
            return capabilities(connection)

    @cached_property
    def way(self) -> str:
        """How to log in: ``TLS``, ``STLS`` or ``cleartext``, which is last."""
        if self.tls_port:
            return "TLS"
        return "STLS" if b"STLS" in self.announced_in_cleartext else "cleartext"

    def open(self) -> Connection:
        """Connect in such a way that log-in is possible."""
        connection = self.connect(tls=self.way == "TLS")
        if self.way == "STLS":
            connection.ok(b"STLS")
            connection.secure(self.context)
        return connection

    def try_log_in(self, connection: Connection) -> bytes:
        """Send USER and PASS; return the last reply."""
        connection.ok(b"USER " + self.user)
        return connection.ask(b"PASS " + self.password)

    def log_in(self, connection: Connection) -> None:
        """Log in on a connection."""
        reply = self.try_log_in(connection)
        if not reply.startswith(b"+OK"):
            raise Failed(f"log-in was refused: {reply.decode('latin-1')}")

    def session(self) -> Connection:
        """Connect and log in; try again as long as another session is not quite over."""
        end = time.monotonic() + min(_BUSY, 2 * self.timeout)
        while True:
            connection = self.open()
            reply = b""
            try:
                reply = self.try_log_in(connection)
            finally:
                if not reply.startswith(b"+OK"):
                    connection.close()
            if reply.startswith(b"+OK"):
                return connection
            if time.monotonic() > end or not reply.upper().startswith(b"-ERR [IN-USE]"):
                raise Failed(f"log-in was refused: {reply.decode('latin-1')}")
            time.sleep(0.02)

    def free(self) -> None:
        """Wait until no session has the maildrop."""
        self.session().quit()

    @cached_property
    def wrong_login(self) -> Mapping[str, bytes]:
        """What a wrong password, and commands behind it, are answered with.  Asked once, since
        servers take their time.
        """
        self.free()
        connection = self.open()
        with contextlib.closing(connection):
            said = {}
            for key, command in {
                "user": b"USER " + self.user,
                "pass": b"PASS " + WRONG,
                "stat": b"STAT",
                "forgotten": b"PASS " + self.password,
                "again-user": b"USER " + self.user,
                "again-pass": b"PASS " + self.password,
            }.items():
                try:
                    said[key] = connection.ask(command)
                except Failed as failure:
                    said[key] = str(failure).encode()
                    break
            if said.get("again-pass", b"").startswith(b"+OK"):
                connection.quit()
            return said

    @cached_property
    def unknown_login(self) -> tuple[bytes, bytes]:
        """What USER and PASS are answered with for somebody who does not exist."""
        connection = self.open()
        with contextlib.closing(connection):
            return connection.ask(b"USER popcheck-nobody"), connection.ask(b"PASS " + WRONG)
