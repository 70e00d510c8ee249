"""What the connection beneath a session is like, and what may be offered on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from popd.protocol.offer import STANDARD, Offer
from popd.protocol.sasl.mechanisms import MECHANISMS

if TYPE_CHECKING:
    from popd.protocol.sasl.mechanisms import Begin

__all__ = ["Bindings", "Channel"]

Bindings: TypeAlias = Callable[[str], bytes | None]
"""Returns the octets of the channel binding of this name (``tls-exporter`` or
``tls-server-end-point``), or None if this connection has none such."""

_NOTHING: Final = Offer((), user=False)

_CACHED: Final = 64
"""How many lists are remembered; a server makes few offers, on few kinds of channels."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The connection beneath a session, as far as the protocol cares.

    :param tls: whether TLS runs.
    :param stls: whether the server can start TLS (RFC 2595).
    :param cleartext_login: whether this client may log in without TLS.
    :param offer: which ways to log in the server has.
    :param bindings: looks up what binds an exchange to this connection, when it is asked for;
        None if nothing does, and where TLS ends at a proxy.
    :param certificate: whether the client has shown a TLS certificate that was verified.
    :param xclient: whether what connected may be a proxy, and say for whom it does.
    """

    tls: bool = False
    stls: bool = False
    cleartext_login: bool = False
    offer: Offer = STANDARD
    bindings: Bindings | None = None
    certificate: bool = False
    xclient: bool = False

    @property
    def login_allowed(self) -> bool:
        """Whether passwords may be sent now (RFC 8314 section 3, RFC 2595 section 2).

        The same goes for all other mechanisms: without TLS, whoever listens in can take over the
        connection after log-in.
        """
        return self.tls or self.cleartext_login

    @property
    def mechanisms(self) -> Mapping[bytes, Begin]:
        """The mechanisms that are on offer here and now, the strongest first."""
        offer = self.offer if self.login_allowed else _NOTHING
        return _mechanisms(offer, self.bindings is not None, self.certificate)

    @property
    def binding_offered(self) -> bool:
        """Whether a mechanism with channel binding is on offer here."""
        return any(name.endswith(b"-PLUS") for name in self.mechanisms)

    def capabilities(self) -> bytes:
        """Return a whole CAPA reply (RFC 2449 section 5).

        It is the same in every state, since what can be used before log-in must be announced in
        both; only registered capabilities are in it.
        """
        return _capabilities(
            self.offer if self.login_allowed else _NOTHING,
            self.bindings is not None,
            self.certificate,
            self.stls and not self.tls,
        )


@lru_cache(_CACHED)
def _mechanisms(offer: Offer, bindings: bool, certificate: bool) -> Mapping[bytes, Begin]:
    return {
        name.encode("ascii"): MECHANISMS[name]
        for name in offer.sasl
        if (bindings or not name.endswith("-PLUS")) and (certificate or name != "EXTERNAL")
    }


@lru_cache(_CACHED)
def _capabilities(offer: Offer, bindings: bool, certificate: bool, stls: bool) -> bytes:
    sasl = b" ".join(_mechanisms(offer, bindings, certificate))
    lines = [b"+OK", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"]
    if offer.user:
        lines.append(b"USER")
    if sasl:
        lines.append(b"SASL " + sasl)
    if stls:
        lines.append(b"STLS")
    lines += [b"EXPIRE NEVER", b"IMPLEMENTATION popd", b".", b""]
    return b"\r\n".join(lines)
