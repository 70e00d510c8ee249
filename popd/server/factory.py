"""What all connections of one popd have in common."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, TypeAlias

from twisted.cred.credentials import IUsernamePassword
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory

from popd.auth.chain import CheckerChain
from popd.auth.interfaces import AuthTemporaryError
from popd.maildrop.interfaces import IMaildrop
from popd.protocol.channel import Channel
from popd.protocol.offer import STANDARD, Offer
from popd.server.journal import Journal
from popd.server.protocol import POP3Protocol
from popd.server.visit import Visits
from popd.server.watch import Watch

if TYPE_CHECKING:
    from twisted.cred.portal import Portal
    from twisted.internet.interfaces import IAddress, IReactorTime

    from popd.auth.account import Client
    from popd.auth.credentials import Claim
    from popd.protocol.channel import Bindings
    from popd.protocol.credentials import ScramKeys
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
    :param offer: which ways to log in there are.
    :param journal: is told what happens.
    :param seat: which of the processes of this popd this is.
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
        offer: Offer = STANDARD,
        journal: Journal | None = None,
        seat: int = 0,
    ) -> None:
        self.portal = portal
        self.offload = offload
        self.clock = clock
        self.tls = tls
        self.offer = offer
        self.watch = Watch(clock)
        self.visits = Visits(seat)
        self.journal = journal or Journal()
        chain = portal.checkers.get(IUsernamePassword)
        self._chain = chain if isinstance(chain, CheckerChain) else None
        self._cleartext_login = cleartext_login
        self._channels: dict[bool, Channel] = {}

    def buildProtocol(  # type: ignore[override]  # Factory's annotation is a private type
        self, addr: IAddress | None
    ) -> POP3Protocol:
        """Return the protocol for a new connection."""
        return POP3Protocol(self)

    def channel(self, peer: IAddress, bindings: Bindings | None = None) -> Channel:
        """Return what a session is told about its connection; in the clear, many share it.

        :param bindings: see `Channel`; not None if TLS runs.
        """
        stls, cleartext = self.tls is not None, self.may_log_in_without_tls(peer)
        if bindings is not None:
            return Channel(True, stls, cleartext, self.offer, bindings)
        channel = self._channels.get(cleartext)
        if channel is None:
            channel = self._channels[cleartext] = Channel(False, stls, cleartext, self.offer)
        return channel

    def remembered_maildrop(self, claim: Claim) -> IMaildrop | None:
        """Return whose maildrop it is, if that is known without asking a checker.

        :raises UnauthorizedLogin: the realm lets nobody in who is called so.
        :raises MaildropError: see `IMaildropStore`.
        """
        if self._chain is None:
            return None
        account = self._chain.remembered(claim)
        if account is None:
            return None
        self.journal.recognised()
        avatar = self.portal.realm.requestAvatar(account, None, IMaildrop)
        return None if isinstance(avatar, Deferred) else avatar[1]

    def scram_keys(self, username: bytes, mechanism: str, client: Client) -> Deferred[ScramKeys]:
        """Return the keys that a client's proof is checked with.

        Fails with `AuthTemporaryError`, and if there is nobody to ask.
        """
        if self._chain is None:
            return fail(AuthTemporaryError("no chain of checkers to ask for SCRAM keys"))
        return self._chain.scram_keys(username, mechanism, client)

    def may_log_in_without_tls(self, peer: IAddress) -> bool:
        """Return whether the client at *peer* may send its password in the clear."""
        if self._cleartext_login == "local":
            return is_local(peer)
        return self._cleartext_login == "always"


def is_local(peer: IAddress) -> bool:
    """Return whether *peer* is on this machine, so that nobody can listen in."""
    if isinstance(peer, IPv4Address | IPv6Address):
        return _is_loopback(peer.host)
    return isinstance(peer, UNIXAddress)


@lru_cache
def _is_loopback(host: str) -> bool:
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
