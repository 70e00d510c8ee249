"""What the connection beneath a session is like, and what may be offered on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from popd.protocol.sasl import MECHANISMS

__all__ = ["Channel"]


@dataclass(frozen=True, slots=True)
class Channel:
    """The connection beneath a session, as far as the protocol cares.

    :param tls: whether TLS runs.
    :param stls: whether the server can start TLS (RFC 2595).
    :param cleartext_login: whether this client may log in without TLS.
    """

    tls: bool = False
    stls: bool = False
    cleartext_login: bool = False

    @property
    def login_allowed(self) -> bool:
        """Whether passwords may be sent now (RFC 8314 section 3, RFC 2595 section 2)."""
        return self.tls or self.cleartext_login

    def capabilities(self) -> bytes:
        """Return a whole CAPA reply (RFC 2449 section 5).

        It is the same in every state, since what can be used before log-in must be announced in
        both; only registered capabilities are in it.
        """
        return _capabilities(self.login_allowed, self.stls and not self.tls)


@cache
def _capabilities(login: bool, stls: bool) -> bytes:
    lines = [b"+OK", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
    if login:
        lines += [b"USER", b"SASL " + b" ".join(MECHANISMS)]
    if stls:
        lines.append(b"STLS")
    lines += [b"EXPIRE NEVER", b"IMPLEMENTATION popd", b".", b""]
    return b"\r\n".join(lines)
