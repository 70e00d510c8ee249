"""LDAP (RFC 4511) on a Twisted transport: what it takes to find a user and to bind as him.

The messages are sansldap's; TLS is Twisted's, which has host names verified by service-identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from sansldap import (
    BindResponse,
    ExtendedOperations,
    ExtendedResponse,
    LDAPClient,
    LDAPResultCode,
    SearchResultDone,
    SearchResultEntry,
    SearchScope,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from popd.auth.health import limited
from popd.auth.health import reason as explained
from popd.auth.interfaces import AuthTemporaryError, AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sansldap import LDAPFilter, LDAPMessage
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from popd.auth.ldap_settings import LdapServer

__all__ = ["CONNECT_TIMEOUT", "Dialer", "Entry", "LdapConnection", "Outcome", "trust"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that it may take to reach a server, TLS included."""

MAX_MESSAGE: Final = 1 << 20
"""Octets of an answer: a few attributes of one entry are far fewer."""

MAX_OPERATIONS: Final = 1000
"""How many questions may be open on a connection."""

_WANTED: Final = 2
"""How many entries of a search are of interest: whether there is one, and no other."""


class Entry(NamedTuple):
    """An entry that was found.

    :param attributes: their values, by their names in lower case.
    """

    dn: str
    attributes: Mapping[str, Sequence[bytes]]


class Outcome(NamedTuple):
    """How an operation ended.

    :param text: its code and what the server says about it, in one line.
    """

    code: LDAPResultCode
    text: str
    entries: Sequence[Entry]

    @property
    def success(self) -> bool:
        """Whether it went well."""
        return self.code == LDAPResultCode.SUCCESS


@implementer(IHandshakeListener)
class LdapConnection(Protocol):
    """The client's end of a connection to a directory.

    :param clock: the reactor.
    :param patience: seconds without an answer after which the server is `silent`.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._session = LDAPClient()
        self._pending: dict[int, Deferred[Outcome]] = {}
        self._entries: dict[int, list[Entry]] = {}
        self._unfinished = 0
        self._heard = 0.0
        self.lost = False
        self._secured: Deferred[None] | None = None
        self.on_lost: Callable[[], object] = lambda: None

    @property
    def silent(self) -> bool:
        """Whether the server owed answers and gave none for as long as it may take."""
        return self._clock.seconds() - self._heard >= self._patience

    def abort(self) -> None:
        """Break the connection off."""
        self.transport.abortConnection()

    def handshakeCompleted(self) -> None:
        """Take note that TLS runs.

        Twisted says so of an impostor's certificate as well, but ends the connection before.
        """
        if self._secured is not None and not self.transport.disconnecting:
            secured, self._secured = self._secured, None
            secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Take octets from the server."""
        try:
            messages = self._session.receive(data)
        except Exception as error:  # noqa: BLE001 - whatever it says that is no LDAP
            self._end(f"the directory ends the session, or what it says is no LDAP: {error}")
            return
        self._heard = self._clock.seconds()
        self._unfinished = 0 if messages else self._unfinished + len(data)
        if self._unfinished > MAX_MESSAGE:
            self._end("the directory's answer is too long")
        for message in messages:
            self._take(message)

    def _take(self, message: LDAPMessage) -> None:
        number = message.message_id
        if isinstance(message, SearchResultEntry):
            entries = self._entries.get(number, [])
            if len(entries) < _WANTED:
                attributes = {part.name.lower(): part.values for part in message.attributes}
                entries.append(Entry(message.object_name, attributes))
        elif isinstance(message, BindResponse | ExtendedResponse | SearchResultDone):
            waiting = self._pending.pop(number, None)
            found = self._entries.pop(number, [])
            if waiting is not None:
                result = message.result
                text = f"{result.result_code.name} {result.diagnostics_message[:200]!a}"
                waiting.callback(Outcome(result.result_code, text, found))
        # A reference to another server is not followed: there the service has no business.

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Let everybody know who waits for an answer."""
        why = explained(reason.value) if reason and reason.value else ""
        self._end(f"the directory's connection has ended: {why}")
        self.on_lost()

    def _end(self, why: str) -> None:
        if not self.lost:
            self.lost = True
            self.abort()
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.errback(AuthUncertainError(why))
        secured, self._secured = self._secured, None
        if secured is not None:
            secured.errback(AuthUncertainError(why))

    def start_tls(self) -> Deferred[Outcome]:
        """Ask for TLS (RFC 4511 section 4.14)."""
        return self._operation(
            lambda: self._session.extended_request(ExtendedOperations.LDAP_START_TLS.value)
        )

    def secure(self, options: Any) -> Deferred[None]:
        """Speak TLS from here on; what came before and was not asked for is forgotten."""
        self._session = LDAPClient()
        self.transport.startTLS(options)
        return self.secured()

    def secured(self) -> Deferred[None]:
        """Wait until TLS runs, which it has begun with, and the server is who it should be."""
        if self.lost:
            raise AuthUncertainError("the directory's connection has ended")
        self._secured = Deferred()
        return self._secured

    def bind(self, dn: str, password: str) -> Deferred[Outcome]:
        """Be somebody.

        :raises ValueError: the name or the password is empty.  Such a bind is no proof of anything,
            and goes well (RFC 4513 section 5.1).
        """
        if not dn or not password:
            raise ValueError("a bind needs a name and a password")
        return self._operation(lambda: self._session.bind_simple(dn, password))

    def search(
        self, base: str, scope: int, wanted: LDAPFilter, attributes: Sequence[str]
    ) -> Deferred[Outcome]:
        """Find entries; more than one are as good as two."""
        return self._operation(
            lambda: self._session.search_request(
                base,
                SearchScope(scope),
                size_limit=_WANTED,
                time_limit=max(1, round(self._patience)),
                filter=wanted,
                attributes=list(attributes) or ["1.1"],
            )
        )

    def _operation(self, ask: Callable[[], int]) -> Deferred[Outcome]:
        if self.lost or len(self._pending) >= MAX_OPERATIONS:
            raise AuthUncertainError("the directory's connection has ended, or has too much to do")
        if not self._pending:
            self._heard = self._clock.seconds()
        number = ask()
        waiting: Deferred[Outcome] = Deferred(lambda _: self._forget(number))
        self._pending[number] = waiting
        self._entries[number] = []
        self.transport.write(self._session.data_to_send())
        return waiting

    def _forget(self, number: int) -> None:
        self._pending.pop(number, None)
        self._entries.pop(number, None)


def trust(ca: str) -> Any:
    """Return the authorities in the PEM file *ca*, or the system's if it is empty.

    :raises ValueError: the file cannot be read, or has no certificate in it.
    """
    if not ca:
        return platformTrust()
    try:
        certificates = load_pem_x509_certificates(Path(ca).read_bytes())
    except OSError as error:
        raise ValueError(f"ca {ca}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"ca {ca}: {error}") from error
    return trustRootFromCertificates(
        [Certificate(X509.from_cryptography(certificate)) for certificate in certificates]
    )


class Dialer:
    """Makes connections to servers, which are told apart from impostors first.

    :param servers: the next is tried where one cannot be reached.
    :param start_tls: whether to speak TLS with ``ldap`` servers.
    :param authorities: who vouches for a server's name.
    :param patience: see `LdapConnection`.
    """

    def __init__(
        self,
        servers: Sequence[LdapServer],
        authorities: Any,
        patience: float,
        *,
        start_tls: bool,
    ) -> None:
        self._servers = servers
        self._start_tls = start_tls
        self._authorities = authorities
        self._patience = patience

    async def connect(self, reactor: Any) -> LdapConnection:
        """Return a connection, on which nobody is anybody yet.

        :raises AuthUncertainError: there is none to be had; the text says why of each server.
        """
        troubles = []
        for server in self._servers:
            one = Deferred.fromCoroutine(self._connect(server, reactor))
            trouble = "the directory cannot be reached"
            try:
                return await limited(one, CONNECT_TIMEOUT, reactor, trouble)
            except AuthTemporaryError as error:
                troubles.append(f"{server.host or server.path}: {error}")
        raise AuthUncertainError("; ".join(troubles))

    async def _connect(self, server: LdapServer, reactor: Any) -> LdapConnection:
        factory = Factory.forProtocol(lambda: LdapConnection(reactor, self._patience))
        factory.noisy = False
        endpoint: Any
        if server.scheme == "ldapi":
            endpoint = UNIXClientEndpoint(reactor, server.path, CONNECT_TIMEOUT)
        else:
            endpoint = HostnameEndpoint(reactor, server.host, server.port, CONNECT_TIMEOUT)
        if server.scheme == "ldaps":
            endpoint = wrapClientTLS(self._tls(server), endpoint)
        try:
            connection: LdapConnection = await endpoint.connect(factory)
        except CancelledError:
            raise
        except Exception as error:
            raise AuthUncertainError(f"the directory cannot be reached: {error}") from error
        try:
            await self._secured(connection, server)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _secured(self, connection: LdapConnection, server: LdapServer) -> None:
        if server.scheme == "ldap" and self._start_tls:
            outcome = await connection.start_tls()
            if not outcome.success:
                raise AuthUncertainError(f"the directory refuses TLS: {outcome.text}")
            await connection.secure(self._tls(server))
        elif server.scheme == "ldaps":
            await connection.secured()

    def _tls(self, server: LdapServer) -> Any:
        return optionsForClientTLS(server.host, self._authorities)
