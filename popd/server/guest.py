"""Who a client is by what proxies say, and whether there is room for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.interfaces import ISSLTransport

from popd.protocol.events import Problem
from popd.protocol.session import Session
from popd.server.addresses import address_of
from popd.server.bindings import channel_binding, tls_connection
from popd.server.connection import Connection
from popd.server.visit import LIMIT, REPLACED

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from popd.protocol.channel import Bindings
    from popd.protocol.proxy import Introduction
    from popd.server.factory import POP3Factory
    from popd.server.protocol import POP3Protocol
    from popd.server.visit import Visit

__all__ = ["Guest"]

_TLS_THERE: Final = "TLS at the proxy"
"""What is known of TLS if nothing else is."""


class Guest(Connection):
    """A connection of which it is known who is at its other end.

    :param factory: what it has in common with the others.
    """

    __slots__ = ("_idle_login", "_relayed", "_secure", "_session", "introduction", "visit")

    factory: POP3Factory
    visit: Visit
    _session: Session

    def __init__(self, factory: POP3Factory) -> None:
        super().__init__(factory.clock, factory.watch)
        self.factory = factory
        self.introduction: Introduction | None = None
        """What a proxy said of the client, if there is one."""
        self._relayed = False  # TLS, if the client speaks it, ends at a proxy
        self._idle_login: Deferred[Any] | None = None  # made to wait, or the half of one

    def connectionMade(self) -> None:
        """Greet the client, if there is room for it."""
        factory, said = self.factory, self.introduction
        insider = factory.insider.expected and factory.insider.is_at(self.transport.getPeer())
        address: str | None = getattr(self.transport, "host", None)
        if said is not None and said.address:
            address = said.address
        elif address is None:
            address = address_of(self.transport.getPeer())
        self._secure = ISSLTransport.providedBy(self.transport)
        if said is not None and said.tls:
            self._secure = self._relayed = True
        bindings = self._bindings() if self._secure and not self._relayed else None
        relays = factory.gate.relays
        relay = relays is not None and (address or "") in relays
        this, now = cast("POP3Protocol", self), self._clock.seconds()
        visit = self.visit = factory.visits.begin(this, address or "", now, insider=insider)
        if self._secure:
            visit.transport = "tls"
        channel = factory.channel(
            address, bindings, tls=self._secure, xclient=relay, insider=insider
        )
        self._session = Session(channel, visit.ident)
        Connection.connectionMade(self)  # which takes less than with super()
        if said is not None and said.tls:
            visit.tls = said.cipher or _TLS_THERE
        factory.journal.began(visit)
        if insider or factory.gate.begin(self, proxy=relay or self.of_proxy):
            self.write(self._session.greeting)
        else:
            self._turn_away()

    @property
    def of_proxy(self) -> bool:
        """Whether it is a proxy's own connection, to see whether the server is well."""
        return self.introduction is not None and not self.introduction.address

    def give_way(self) -> bool:
        """End to make room for another client; not while it is being found out who this one is.

        Returns whether it ended.
        """
        login, self._idle_login = self._idle_login, None
        if self._working and login is None:
            return False
        if not self.over:
            self.visit.ends(REPLACED)
            self.write(Problem.TOO_MANY.value)
        self.end()
        if login is not None:
            login.cancel()
        if not self.lost:  # it could take long to say good-bye
            self.abort()
        return True

    def deadline(self) -> float:
        """See `Connection.deadline`."""
        gate = self.factory.gate
        if self._session.logged_in:
            return self.active + gate.idle_timeout
        return min(self.active + gate.login_silence, self.begun + gate.login_timeout)

    def closed(self) -> None:
        """See `Connection.closed`."""
        self.factory.gate.end(self)
        self.factory.visits.end(self.visit)
        self.factory.journal.ended(self.visit, self._clock.seconds())
        if self.factory.tracer is not None:
            self.factory.tracer.ended(cast("POP3Protocol", self))

    def _take_for(self, said: Introduction) -> None:
        """Take the client for whom a proxy says that it is."""
        self.introduction, self._relayed = said, True
        if said.tls is not None:
            self._secure = said.tls
        self.visit.tls = _TLS_THERE if self._secure else ""
        if self.factory.gate.moved(self, said.address):
            self._session.introduced(self.factory.channel(said.address, tls=self._secure))
        else:
            self._turn_away()

    def _turn_away(self) -> None:
        """Close because of a limit.  Where TLS would have to begin first, nothing is said."""
        self.visit.ends(LIMIT)
        if not self._secure or self._relayed:
            self.write(Problem.TOO_MANY.value)
        self.end()

    def _bindings(self) -> Bindings:
        """Return what finds out what binds an exchange to the connection, see `Channel`."""
        transport = self.transport  # not all of this protocol, which has the session
        return lambda name: channel_binding(tls_connection(transport), name)
