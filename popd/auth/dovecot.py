"""Passwords checked by Dovecot, through its auth socket.

Each process makes one connection, when it first needs it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.account import FIELDS, Account, Client
from popd.auth.answers import read_account
from popd.auth.dovecot_client import AuthClient, Reply
from popd.auth.health import MAX_TIMEOUT, Standing, limited, process_reactor
from popd.auth.interfaces import AuthUncertainError, IClosable, INeeds, Needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IStreamClientEndpoint

__all__ = ["DovecotChecker", "DovecotCheckerFactory"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that a connection may take until Dovecot has said all that it says at first."""

MAX_RESPONSE: Final = 4096
"""Octets of a name and a password: Dovecot ends the connection, and everybody's log-in with it, at
a line of more than 8192."""

_PREFIX: Final = "popd_"

_ELSEWHERE: Final = frozenset(("proxy", "host"))

_DISABLED: Final = frozenset(("user_disabled", "pass_expired"))

_log = Logger()


@implementer(ICredentialsChecker, IClosable, INeeds)
class DovecotChecker:
    """Lets Dovecot check passwords.

    :param endpoint: makes the endpoint of Dovecot's socket, of a reactor.
    :param timeout: seconds that an answer may take.
    :param reactor: if it is another than the process's own.
    :param network: whether the socket is at a TCP port.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        endpoint: Callable[[Any], IStreamClientEndpoint],
        timeout: float = MAX_TIMEOUT,
        reactor: Any = None,
        *,
        network: bool = True,
    ) -> None:
        self._network = network
        self._endpoint = endpoint
        self._timeout = timeout
        self._reactor = reactor

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """Return the user's `Account`, later.

        Fails with UnauthorizedLogin and `AuthUncertainError`.
        """
        checking = Deferred.fromCoroutine(self._check(credentials))
        return limited(checking, self._timeout, self._clock, "Dovecot does not answer")

    def close(self) -> None:
        """See `IClosable`."""
        if "_standing" in self.__dict__:
            self._standing.close()

    def needs(self) -> Needs:
        """See `INeeds`."""
        return Needs(network=self._network)

    async def _check(self, credentials: IUsernamePassword) -> Account:
        username, password = credentials.username, credentials.password
        client = getattr(credentials, "client", None) or Client()
        size = len(username) + len(password)
        if not username or not password or b"\0" in username + password or size > MAX_RESPONSE:
            raise UnauthorizedLogin
        connection = await self._standing.get()
        try:
            reply = await connection.ask(username, password, client)
        except CancelledError:
            if connection.silent:
                self._standing.drop(connection, "Dovecot does not answer")
            raise
        return _account(reply, username)

    @cached_property
    def _standing(self) -> Standing[AuthClient]:
        return Standing(self._connect, self._clock)

    @cached_property
    def _clock(self) -> Any:
        return self._reactor or process_reactor()

    def _connect(self) -> Deferred[AuthClient]:
        connecting = Deferred.fromCoroutine(self._introduced())
        trouble = "Dovecot does not say a word"
        return limited(connecting, CONNECT_TIMEOUT, self._clock, trouble)

    async def _introduced(self) -> AuthClient:
        factory = Factory.forProtocol(lambda: AuthClient(self._clock, self._timeout / 2))
        factory.noisy = False
        try:
            protocol: Any = await self._endpoint(self._clock).connect(factory)
        except Exception as error:
            raise AuthUncertainError(f"Dovecot cannot be reached: {error}") from error
        client: AuthClient = await protocol.ready
        return client


def _account(reply: Reply, username: bytes) -> Account:
    """Return the account that Dovecot lets in.

    :raises UnauthorizedLogin: it lets nobody in.
    :raises AuthUncertainError: it does not know.
    """
    fields = reply.fields
    name = fields.get("user") or username
    if not reply.right:
        problems = {*fields, fields.get("code", "")}
        if not problems.isdisjoint(("temp", "temp_fail")):
            raise AuthUncertainError("Dovecot cannot tell, and its log says why")
        if not problems.isdisjoint(_DISABLED):
            return read_account("Dovecot", name, {"disabled": ""})
        raise UnauthorizedLogin
    own = {
        name.removeprefix(_PREFIX): value
        for name, value in fields.items()
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) in FIELDS
    }
    if not _ELSEWHERE.isdisjoint(fields):
        _log.error(
            "Dovecot would send {user!a} on to another server (proxy, host); popd cannot", user=name
        )
        own["disabled"] = ""
    elif "nologin" in fields:
        own["disabled"] = ""
    return read_account("Dovecot", name, own)


_ARGUMENT: Final = re.compile(
    r"(?:tcp:(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/\[\]]+):(?P<port>\d{1,5})|(?P<path>/.*?))"
    r"(?::timeout=(?P<timeout>\d{1,4}(?:\.\d+)?))?",
)


@implementer(ICheckerFactory, IPlugin)
class DovecotCheckerFactory:
    """Makes a `DovecotChecker` of ``--auth popd-dovecot:SOCKET``."""

    authType = "popd-dovecot"
    argStringFormat = "Dovecot's auth socket: /PATH or tcp:HOST:PORT; then :timeout=SECONDS if any."
    authHelp = """
Dovecot checks the passwords, and popd need not know where it has them from.

    popd-dovecot:/run/dovecot/auth-client
    popd-dovecot:tcp:auth.example.org:12345:timeout=5

The socket is one for clients (as Postfix uses), not for the master process; in
Dovecot's configuration:

    service auth {
      unix_listener auth-client {
        user = vmail
        mode = 0600
      }
    }

Passwords cross a TCP connection as they are: keep it within one machine or a
network of your own.  docs/authentication-dovecot.rst has the rest.
"""
    credentialInterfaces = DovecotChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> DovecotChecker:
        """Return a checker that asks at *argstring*; whether anybody is there, is seen later.

        :raises InvalidAuthArgumentString: it is no socket's name.
        """
        match = _ARGUMENT.fullmatch(argstring)
        timeout = float((match and match["timeout"]) or MAX_TIMEOUT)
        port = int((match and match["port"]) or 1)
        if match is None or not 0 < port < 1 << 16 or not 0 < timeout <= MAX_TIMEOUT:
            raise InvalidAuthArgumentString(
                f"{self.authType} needs a socket: {self.authType}:/PATH or tcp:HOST:PORT, and then"
                f" :timeout=SECONDS if it should be less than {MAX_TIMEOUT:g}"
            )
        path, host = match["path"], match["host"]

        def endpoint(reactor: Any) -> IStreamClientEndpoint:
            from twisted.internet import endpoints  # noqa: PLC0415 - only for who needs it

            if path:
                return endpoints.UNIXClientEndpoint(reactor, path, CONNECT_TIMEOUT)
            bare = host.strip("[]")
            return endpoints.HostnameEndpoint(reactor, bare, port, CONNECT_TIMEOUT)

        return DovecotChecker(endpoint, timeout, network=not path)
