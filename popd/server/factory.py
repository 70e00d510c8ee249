"""What all connections of one popd have in common."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory

from popd.server.protocol import POP3Protocol
from popd.server.tls_transport import PromptTLSFactory

if TYPE_CHECKING:
    from twisted.cred.portal import Portal
    from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime

    from popd.server.offload import Offload
    from popd.server.tls import ServerTLS

__all__ = ["CleartextLogin", "POP3Factory"]

CleartextLogin: TypeAlias = Literal["never", "local", "always"]
"""Who may log in without TLS: nobody, clients on this machine, everybody."""


class POP3Factory(Factory):
    """Makes a `POP3Protocol` for each connection.

    :param portal: where credentials become maildrops (`IMaildrop`).
    :param offload: moves file work off the reactor's thread.
    :param clock: what time-outs are measured with.
    :param cleartext_login: who may log in without TLS.
    :param tls: the server's end of TLS, or None if it has no certificate.
    """

    noisy = False

    def __init__(
        self,
        portal: Portal,
        offload: Offload,
        clock: IReactorTime,
        *,
        cleartext_login: CleartextLogin = "never",
        tls: ServerTLS | None = None,
    ) -> None:
        self.portal = portal
        self.offload = offload
        self.clock = clock
        self.tls = tls
        self._cleartext_login = cleartext_login

    def buildProtocol(  # type: ignore[override]  # Factory's annotation is a private type
        self, addr: IAddress | None
    ) -> POP3Protocol:
        """Return the protocol for a new connection."""
        return POP3Protocol(self)

    def implicit_tls(self) -> IProtocolFactory:
        """Return the factory for ports where TLS runs from the first octet (RFC 8314).

        :raises ValueError: there is no certificate.
        """
        if self.tls is None:
            raise ValueError("TLS needs a certificate")
        return PromptTLSFactory(self.tls, self)

    def may_log_in_without_tls(self, peer: IAddress) -> bool:
        """Return whether the client at *peer* may send its password in the clear."""
        if self._cleartext_login == "local":
            return is_local(peer)
        return self._cleartext_login == "always"


def is_local(peer: IAddress) -> bool:
    """Return whether *peer* is on this machine, so that nobody can listen in."""
    if isinstance(peer, IPv4Address | IPv6Address):
        address = ip_address(peer.host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback
    return isinstance(peer, UNIXAddress)
