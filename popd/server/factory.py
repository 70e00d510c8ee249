"""What all connections of one popd have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory

from popd.auth.chain import CheckerChain
from popd.auth.interfaces import AuthTemporaryError
from popd.maildrop.interfaces import IMaildrop
from popd.protocol.channel import Channel
from popd.protocol.offer import STANDARD, Offer
from popd.server.addresses import is_local
from popd.server.insider import Insider
from popd.server.journal import Journal
from popd.server.limits import Gate, Limits, Registry
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
    from popd.server.trace import Tracer

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
    :param visits: the sessions that there are, of which these will be some.
    :param gate: lets clients in as far as the limits allow.
    """

    noisy = False

    tracer: Tracer | None = None
    """Is told what is said in some sessions, while somebody looks on."""

    def __init__(  # noqa: PLR0913 - there is much that they have in common
        self,
        portal: Portal,
        offload: Offload,
        clock: IReactorTime,
        *,
        cleartext_login: CleartextLogin = "never",
        tls: ServerTLS | None = None,
        offer: Offer = STANDARD,
        journal: Journal | None = None,
        visits: Visits | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.portal = portal
        self.offload = offload
        self.clock = clock
        self.tls = tls
        self.offer = offer
        self.watch = Watch(clock)
        self.visits = Visits() if visits is None else visits
        self.journal = journal or Journal()
        self.gate = gate or Gate(Limits(), Registry(), self.journal, clock)
        self.insider = Insider()
        """Tells which connections are popd's own; all processes of a popd have one in common."""
        chain = portal.checkers.get(IUsernamePassword)
        self._chain = chain if isinstance(chain, CheckerChain) else None
        self._cleartext_login = cleartext_login
        self._channels: dict[tuple[bool, bool, bool], Channel] = {}

    def buildProtocol(  # type: ignore[override]  # Factory's annotation is a private type
        self, addr: IAddress | None
    ) -> POP3Protocol:
        """Return the protocol for a new connection."""
        return POP3Protocol(self)

    def channel(
        self,
        address: str | None,
        bindings: Bindings | None = None,
        *,
        tls: bool,
        xclient: bool = False,
        insider: bool = False,
    ) -> Channel:
        """Return what a session is told about its connection; without bindings, many share it.

        :param address: the client's IP address, see `address_of`.
        :param bindings: see `Channel`.
        :param tls: whether TLS runs, be it here or up to a proxy.
        :param xclient: see `Channel`.
        :param insider: whether the client is popd itself, who uses USER and PASS anywhere.
        """
        stls = self.tls is not None
        if insider:
            return Channel(tls, stls, True, STANDARD, bindings)
        cleartext = self._cleartext_login == "always" or (
            self._cleartext_login == "local" and is_local(address)
        )
        if bindings is not None:
            return Channel(tls, stls, cleartext, self.offer, bindings, xclient=xclient)
        kind = tls, cleartext, xclient
        channel = self._channels.get(kind)
        if channel is None:
            channel = Channel(tls, stls, cleartext, self.offer, xclient=xclient)
            self._channels[kind] = channel
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
        return avatar[1] if isinstance(avatar, tuple) else None  # else it is a Deferred

    def scram_keys(self, username: bytes, mechanism: str, client: Client) -> Deferred[ScramKeys]:
        """Return the keys that a client's proof is checked with.

        Fails with `AuthTemporaryError`, and if there is nobody to ask.
        """
        if self._chain is None:
            return fail(AuthTemporaryError("no chain of checkers to ask for SCRAM keys"))
        return self._chain.scram_keys(username, mechanism, client)
