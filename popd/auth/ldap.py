"""Users in an LDAP directory: one who can bind as the entry that is found for him gets in."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.answers import read_account
from popd.auth.health import Standing, limited, process_reactor
from popd.auth.interfaces import (
    AuthTemporaryError,
    AuthUncertainError,
    IAccounts,
    IClosable,
    IKnowsBareNames,
    INeeds,
    Needs,
)
from popd.auth.ldap_settings import SCOPES, LdapSettings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.auth.account import Account
    from popd.auth.ldap_client import Dialer, Entry, LdapConnection, Outcome
    from popd.auth.ldap_names import Names

__all__ = ["LdapChecker", "LdapCheckerFactory"]

MAX_WAITING: Final = 1000
"""How many log-ins of a process may wait for their turn to bind."""

_WRONG: Final = frozenset(
    (
        "INVALID_CREDENTIALS",
        "NO_SUCH_OBJECT",
        "INVALID_DN_SYNTAX",
        "INAPPROPRIATE_AUTHENTICATION",  # the entry has no password
        "UNWILLING_TO_PERFORM",  # the account is locked, in some servers' words
        "CONSTRAINT_VIOLATION",  # likewise
        "INSUFFICIENT_ACCESS_RIGHTS",
    )
)
"""How binds end that were refused, and not for want of a server (RFC 4511 appendix A)."""

_log = Logger()


@implementer(ICredentialsChecker, IClosable, IKnowsBareNames, INeeds)
class LdapChecker:
    """Binds as users, once they are found.

    One connection, on which the service is bound, finds users; others, each for one bind at a time,
    check passwords.

    :param settings: where the users are.
    :param names: how they are found there.
    :param dialer: connects to the directory.
    :param reactor: if it is another than the process's own.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self, settings: LdapSettings, names: Names, dialer: Dialer, reactor: Any = None
    ) -> None:
        self._settings = settings
        self._names = names
        self._dialer = dialer
        self._reactor = reactor
        self._idle: list[LdapConnection] = []
        self._closed = False
        self._turns = DeferredSemaphore(settings.connections)

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """Return the user's `Account`, later.

        Fails with UnauthorizedLogin and `AuthUncertainError`.
        """
        return self._limited(
            self._check(
                credentials.username, credentials.password, getattr(credentials, "bare", b"")
            )
        )

    def close(self) -> None:
        """See `IClosable`."""
        self._closed = True
        if "_standing" in self.__dict__:
            self._standing.close()
        for connection in self._idle[:]:
            connection.abort()

    def needs(self) -> Needs:
        """See `INeeds`."""
        servers = self._settings.servers
        network = any(server.scheme != "ldapi" for server in servers)
        return Needs((self._settings.ca,) if self._settings.ca else (), network=network)

    @cached_property
    def _clock(self) -> Any:
        return self._reactor or process_reactor()

    @cached_property
    def _standing(self) -> Standing[LdapConnection]:
        return Standing(lambda: Deferred.fromCoroutine(self._connect()), self._clock)

    def _limited(self, work: Any) -> Deferred[Any]:
        trouble = "the directory does not answer"
        return limited(Deferred.fromCoroutine(work), self._settings.timeout, self._clock, trouble)

    async def _connect(self) -> LdapConnection:
        """Return a connection on which the service is bound, if it has a name."""
        settings = self._settings
        connection = await self._dialer.connect(self._clock)
        if settings.bind_dn:
            binding = connection.bind(settings.bind_dn, settings.bind_password)
            trouble = "the directory does not answer"
            try:
                outcome = await limited(binding, settings.timeout, self._clock, trouble)
            except BaseException:
                connection.abort()
                raise
            if not outcome.success:
                connection.abort()
                raise AuthUncertainError(f"the directory refuses bind-dn: {outcome.text}")
        return connection

    async def _check(self, username: bytes, password: bytes, bare: bytes) -> Account:
        secret = _text(password)
        parts = self._names.parts(username, bare)
        if not secret or parts is None:
            raise UnauthorizedLogin
        fields: dict[str, str] = {}
        if self._settings.user_dn:
            self._standing.health.check()
            dn, name = self._names.user_dn(parts), parts["user"]
        else:
            entry = await self._find(parts)
            if entry is None:
                # An unknown user costs as many questions as a known one.
                await self._bind(f"cn=nobody,{self._names.base(parts)}", secret)
                raise UnauthorizedLogin
            dn, name, fields = entry.dn, self._name(entry, parts), self._fields(entry)
        outcome = await self._bind(dn, secret)
        if outcome.success:
            return read_account("the directory", name, fields)
        if outcome.code.name in _WRONG:
            raise UnauthorizedLogin
        raise AuthUncertainError(f"the directory cannot say: {outcome.text}")

    async def _find(self, parts: Mapping[str, str]) -> Entry | None:
        """Return the one entry of a user.

        :raises AuthUncertainError: that cannot be told now.
        """
        settings = self._settings
        connection = await self._standing.get()
        base = self._names.base(parts)
        attributes = {settings.name, *settings.fields.values()} - {""}
        scope = SCOPES.index(settings.scope)
        try:
            outcome = await connection.search(
                base, scope, self._names.filter(parts), sorted(attributes)
            )
        except CancelledError:
            if connection.silent:
                self._standing.drop(connection, "the directory does not answer")
            raise
        code = outcome.code.name
        if code == "NO_SUCH_OBJECT" and base != settings.base:
            return None  # nobody has anything in that domain
        if code not in {"SUCCESS", "SIZE_LIMIT_EXCEEDED"}:
            raise AuthUncertainError(f"the directory cannot search beneath {base}: {outcome.text}")
        if len(outcome.entries) > 1 or code != "SUCCESS":
            _log.error(
                "The directory has several entries for {user!a}; none of them is let in",
                user=parts["user"],
            )
            return None
        # An entry without a name is the server's own.  To bind as that proves nothing.
        return outcome.entries[0] if outcome.entries and outcome.entries[0].dn else None

    async def _bind(self, dn: str, password: str) -> Outcome:
        """Return how a bind as *dn* ended, on a connection that nobody else has meanwhile."""
        if len(self._turns.waiting) >= MAX_WAITING:
            raise AuthUncertainError("too many log-ins wait for the directory")
        await self._turns.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                try:
                    return await self._bind_on(connection, dn, password)
                except AuthTemporaryError:
                    if not connection.lost:
                        raise  # else it ended while it was idle: servers do that
            try:
                connection = await self._dialer.connect(self._clock)
            except AuthTemporaryError as error:
                self._standing.down(str(error))
                raise
            return await self._bind_on(connection, dn, password)
        finally:
            self._turns.release()

    async def _bind_on(self, connection: LdapConnection, dn: str, password: str) -> Outcome:
        try:
            outcome = await connection.bind(dn, password)
        except BaseException as error:
            connection.abort()
            if isinstance(error, CancelledError) and connection.silent:
                self._standing.down("the directory does not answer")
                for other in self._idle[:]:  # which may have been forgotten on the way as well
                    other.abort()
            raise
        connection.on_lost = lambda: self._discard(connection)
        self._idle.append(connection)
        if self._closed:
            connection.abort()
        return outcome

    def _discard(self, connection: LdapConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _name(self, entry: Entry, parts: Mapping[str, str]) -> str:
        """Return the user's name; empty, which is nobody's, if it cannot be told."""
        attribute = self._settings.name
        if not attribute:
            return parts["user"]
        values = entry.attributes.get(attribute.lower(), ())
        return (_text(values[0]) or "") if len(values) == 1 else ""

    def _fields(self, entry: Entry) -> dict[str, str]:
        """Return what the entry says of a user, by the names of `popd.auth.account.FIELDS`."""
        fields = {}
        for field, attribute in self._settings.fields.items():
            values = [_text(value) for value in entry.attributes.get(attribute.lower(), ())]
            if None in values or (len(values) > 1 and field != "allow_nets"):
                _log.error(
                    "The directory has no single text for {field} of {dn!a}; he is not let in",
                    field=field,
                    dn=entry.dn,
                )
                return {"disabled": ""}
            if values:
                fields[field] = ",".join(filter(None, values))
        return fields


@implementer(IAccounts)
class LdapDirectory(LdapChecker):
    """One that can find users without their passwords: where there is a search."""

    def account(self, username: bytes, bare: bytes) -> Deferred[Account | None]:
        """See `IAccounts`."""
        return self._limited(self._account(username, bare))

    async def _account(self, username: bytes, bare: bytes) -> Account | None:
        parts = self._names.parts(username, bare)
        entry = None if parts is None else await self._find(parts)
        if parts is None or entry is None:
            return None
        try:
            return read_account("the directory", self._name(entry, parts), self._fields(entry))
        except UnauthorizedLogin:
            return None


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


@implementer(ICheckerFactory, IPlugin)
class LdapCheckerFactory:
    """Makes an `LdapChecker` of ``--auth popd-ldap:FILE``."""

    authType = "popd-ldap"
    argStringFormat = "A TOML file that says where the directory is and how users are found in it."
    authHelp = """
An LDAP directory.  popd finds the user's entry, and then binds as that with the
password that was given.  The file:

    uri = "ldap://ldap.example.org"
    bind-dn = "cn=popd,ou=services,dc=example,dc=org"
    bind-password-file = "/etc/popd/ldap-password"
    base = "ou=people,dc=example,dc=org"
    filter = "(&(objectClass=inetOrgPerson)(mail={user}))"

TLS is begun (StartTLS) unless the file says start-tls = false, or is there from
the start with ldaps://.  Needs sansldap: pip install 'popd[ldap]'.
docs/authentication-ldap.rst describes all that the file may say.
"""
    credentialInterfaces = LdapChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> LdapChecker:
        """Return a checker for what the file *argstring* says; it connects when it is asked.

        :raises InvalidAuthArgumentString: the file is wrong, or a library is missing.
        """
        if not argstring:
            raise InvalidAuthArgumentString(f"{self.authType} needs a file: {self.authType}:FILE")
        try:
            from popd.auth.ldap_client import Dialer, trust  # noqa: PLC0415 - brings in sansldap
            from popd.auth.ldap_names import Names  # noqa: PLC0415
        except ImportError as error:
            raise InvalidAuthArgumentString(
                f"{self.authType} needs sansldap: pip install 'popd[ldap]'"
            ) from error
        try:
            settings = read_settings(argstring)
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {error}") from error
        try:
            names, authorities = Names(settings), trust(settings.ca)
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {argstring}: {error}") from error
        patience = settings.timeout / 2
        dialer = Dialer(settings.servers, authorities, patience, start_tls=settings.start_tls)
        kind = LdapChecker if settings.user_dn else LdapDirectory
        return kind(settings, names, dialer)
