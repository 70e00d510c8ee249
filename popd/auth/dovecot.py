"""Passwords checked by Dovecot, through its auth socket.

Dovecot's authentication protocol, version 1 (https://doc.dovecot.org, "Dovecot Authentication
Protocol"), on one connection that each process makes when it first needs it.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

from popd.auth.account import FIELDS, Account, Client
from popd.auth.answers import read_account
from popd.auth.health import MAX_TIMEOUT, Standing, limited, process_reactor
from popd.auth.interfaces import AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
    from twisted.python.failure import Failure

__all__ = ["AuthClient", "DovecotChecker", "DovecotCheckerFactory", "Reply"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that a connection may take until Dovecot has said all that it says at first."""

MAX_REQUESTS: Final = 1000
"""How many passwords may be with Dovecot at once, from each process."""

MAX_RESPONSE: Final = 4096
"""Octets of a name and a password: Dovecot ends the connection, and everybody's log-in with it, at
a line of more than 8192."""

_FIRST_LINES: Final = 100
"""So many lines may come before DONE."""

_PREFIX: Final = "popd_"

_ELSEWHERE: Final = frozenset(("proxy", "host"))

_DISABLED: Final = frozenset(("user_disabled", "pass_expired"))

_ESCAPES: Final = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"l": b"\n"}

_log = Logger()


class Reply(NamedTuple):
    """What Dovecot says of a password.

    :param right: whether it is right.
    :param fields: what it says besides, a bare name with an empty text.
    """

    right: bool
    fields: dict[str, str]


class AuthClient(LineOnlyReceiver):
    """The client's end of a connection to Dovecot's auth process.

    :param clock: the reactor.
    :param patience: seconds without an answer after which Dovecot is `silent`.
    """

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = 16_384

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._begun = False
        self._first: list[list[bytes]] = []
        self._last_id = 0
        self._pending: dict[bytes, Deferred[Reply]] = {}
        self._heard = 0.0
        self.on_lost: Callable[[], object] = lambda: None
        self.ready: Deferred[AuthClient] = Deferred(self._abandon)

    def connectionMade(self) -> None:
        """Say who is here.

        The number has to differ from every other client's.  A process id may not, from another
        container.
        """
        self.sendLine(b"VERSION\t1\t1")
        self.sendLine(b"CPID\t%d" % (secrets.randbelow((1 << 31) - 1) + 1))

    def lineReceived(self, line: bytes) -> None:
        """Take what Dovecot says."""
        self._heard = self._clock.seconds()
        words = line.split(b"\t")
        if not self._begun:
            self._introduction(words)
        elif words[0] in {b"OK", b"FAIL", b"CONT"} and len(words) > 1:
            waiting = self._pending.pop(words[1], None)
            if waiting is None:
                return  # it came too late
            if words[0] == b"CONT":
                waiting.errback(AuthUncertainError("Dovecot wants more than a password"))
            else:
                waiting.callback(Reply(words[0] == b"OK", _fields(words[2:])))

    def _introduction(self, words: list[bytes]) -> None:
        self._first.append(words)
        if self._first[0][:2] != [b"VERSION", b"1"]:
            self._give_up("it speaks another version of its protocol, or it is no auth socket")
        elif words[0] == b"DONE":
            if not any(first[:2] == [b"MECH", b"PLAIN"] for first in self._first):
                self._give_up("its auth_mechanisms lack plain")
                return
            self._begun = True
            self._first.clear()
            self.ready.callback(self)
        elif len(self._first) > _FIRST_LINES:
            self._give_up("it does not come to the point")

    def _abandon(self, _: object) -> None:
        self._begun = True
        self.abort()

    def _give_up(self, why: str) -> None:
        self._begun = True
        self.abort()
        self.ready.errback(AuthUncertainError(f"Dovecot cannot be asked: {why}"))

    def abort(self) -> None:
        """Break the connection off."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Let everybody know who waits for an answer."""
        self.on_lost()
        if not self._begun:
            self._begun = True
            self.ready.errback(AuthUncertainError("Dovecot ends the connection at once"))
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.errback(AuthUncertainError("Dovecot ended the connection"))

    def ask(self, username: bytes, password: bytes, client: Client) -> Deferred[Reply]:
        """Ask whether a password is right; fails with `AuthUncertainError`.

        To cancel it leaves Dovecot's answer to nobody.
        """
        if len(self._pending) >= MAX_REQUESTS:
            raise AuthUncertainError("Dovecot has more log-ins to deal with than popd asks it for")
        if not self._pending:
            self._heard = self._clock.seconds()
        self._last_id += 1
        number = b"%d" % (self._last_id % (1 << 31))
        waiting: Deferred[Reply] = Deferred(lambda _: self._forget(number))
        self._pending[number] = waiting
        words = [b"AUTH", number, b"PLAIN", b"service=pop3", b"nologin", b"no-penalty"]
        if client.ip is not None:
            words.append(b"rip=" + str(client.ip).partition("%")[0].encode("ascii"))
        if client.tls or client.ip is None or client.ip.is_loopback:
            words.append(b"secured")
        words.append(b"resp=" + b64encode(b"\0%b\0%b" % (username, password)))  # the last of all
        self.sendLine(b"\t".join(words))
        return waiting

    def _forget(self, number: bytes) -> None:
        self._pending.pop(number, None)

    @property
    def silent(self) -> bool:
        """Whether Dovecot owed answers and gave none for as long as one may take."""
        return self._clock.seconds() - self._heard >= self._patience


def _fields(words: list[bytes]) -> dict[str, str]:
    pairs = (word.decode("utf-8", "replace").partition("=") for word in map(_unescaped, words))
    return {name: value for name, _, value in pairs}


def _unescaped(word: bytes) -> bytes:
    return re.sub(b"\1(.)", lambda match: _ESCAPES.get(match[1], match[1]), word, flags=re.DOTALL)


@implementer(ICredentialsChecker)
class DovecotChecker:
    """Lets Dovecot check passwords.

    :param endpoint: makes the endpoint of Dovecot's socket, of a reactor.
    :param timeout: seconds that an answer may take.
    :param reactor: if it is another than the process's own.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        endpoint: Callable[[Any], IStreamClientEndpoint],
        timeout: float = MAX_TIMEOUT,
        reactor: Any = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._reactor = reactor

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """Return the user's `Account`, later.

        Fails with UnauthorizedLogin and `AuthUncertainError`.
        """
        checking = Deferred.fromCoroutine(self._check(credentials))
        return limited(checking, self._timeout, self._clock, "Dovecot does not answer")

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
            raise AuthUncertainError("Dovecot itself cannot reach who knows the password")
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

        return DovecotChecker(endpoint, timeout)
