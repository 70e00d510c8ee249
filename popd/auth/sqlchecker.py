"""The checker that asks a database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from popd.auth import sqlrows
from popd.auth.interfaces import IAccounts, IClosable, IKnowsBareNames, INeeds, IScramKeyring, Needs
from popd.auth.sqlverify import parsed
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.account import Account
    from popd.auth.sqlpool import Database
    from popd.auth.sqlrows import User
    from popd.auth.sqlverify import Verifier
    from popd.protocol.credentials import ScramKeys

__all__ = ["SqlChecker"]

_NO_PASSWORD = b"\0"
"""What a digest is compared with where no password is: no client has that one."""


@implementer(ICredentialsChecker, IScramKeyring, IAccounts, IClosable, IKnowsBareNames, INeeds)
class SqlChecker:
    """Asks a database who a user is, and verifies passwords in a thread of their own.

    :param database: what to ask.
    :param verifier: verifies passwords.
    :param scram_mechanisms: see `IScramKeyring`.
    :param plain_passwords: whether to take the digests of CRAM-MD5 and APOP, for users whose
        passwords are stored as they are.
    :param defer: calls a function with arguments where it may take its time, as `deferToThread`
        does.  No connection to the database is held meanwhile.
    :param needs: what the database's driver needs.
    """

    def __init__(
        self,
        database: Database,
        verifier: Verifier,
        *,
        scram_mechanisms: frozenset[str] = frozenset(),
        plain_passwords: bool = False,
        defer: Callable[..., Deferred[Any]] = deferToThread,
        needs: Needs | None = None,
    ) -> None:
        self._needs = needs or Needs(anything=True)
        self.scram_mechanisms = scram_mechanisms
        self.credentialInterfaces = (
            (IUsernamePassword, IUsernameHashedPassword)
            if plain_passwords
            else (IUsernamePassword,)
        )
        self._database = database
        self._verifier = verifier
        self._defer = defer

    def requestAvatarId(
        self, credentials: IUsernamePassword | IUsernameHashedPassword
    ) -> Deferred[Any]:
        """Return the account; fails with UnauthorizedLogin, or if the database does not answer."""
        return Deferred.fromCoroutine(self._log_in(credentials))

    def scram_keys(
        self, username: bytes, bare: bytes, mechanism: str
    ) -> Deferred[ScramKeys | None]:
        """See `IScramKeyring`."""
        return Deferred.fromCoroutine(self._scram_keys(username, bare, mechanism))

    def close(self) -> None:
        """See `IClosable`."""
        self._database.close()

    def account(self, username: bytes, bare: bytes) -> Deferred[Account | None]:
        """See `IAccounts`."""
        return Deferred.fromCoroutine(self._account(username, bare))

    def needs(self) -> Needs:
        """See `INeeds`."""
        return self._needs

    async def _log_in(self, credentials: IUsernamePassword | IUsernameHashedPassword) -> Account:
        user = await self._user(credentials.username, getattr(credentials, "bare", b""))
        if IUsernamePassword.providedBy(credentials):
            account = await self._by_password(credentials.username, user, credentials.password)
        else:
            account = _by_digest(user, credentials)
        if account is None:
            raise UnauthorizedLogin
        return account

    async def _by_password(
        self, username: bytes, user: User | None, password: bytes
    ) -> Account | None:
        account = self._verifier.recall(user, password)
        if account is None:
            name = username.decode(errors="backslashreplace")
            account = await self._defer(self._verifier.verify, name, user, password)
            if account is not None and user is not None:
                self._verifier.remember(account, user, password)
        return account

    async def _scram_keys(self, username: bytes, bare: bytes, mechanism: str) -> ScramKeys | None:
        user = await self._user(username, bare)
        if user is None:
            return None
        field = user.own.scram.get(mechanism, "")
        stored = parsed(user.own, field) if field else None
        keys = stored.scram_keys if stored and stored.scheme == mechanism else None
        return keys and replace(keys, owner=user.own.account)

    async def _account(self, username: bytes, bare: bytes) -> Account | None:
        user = await self._user(username, bare)
        return user.own.account if user else None

    async def _user(self, username: bytes, bare: bytes) -> User | None:
        """Return the user whose complete name is *username*, or else whose bare name is *bare*."""
        parsed_names = [UserName.parse(name) for name in (username, bare) if name]
        names = [name for name in parsed_names if name is not None]
        if not names:
            return None
        # Both are asked for in any case, so that it takes equally long whoever there is.
        tables = await self._database.ask(
            [{"user": str(name), "local": name.local, "domain": name.domain} for name in names]
        )
        for name, table in zip(names, tables, strict=True):
            if table[1]:
                return sqlrows.read(table, str(name))
        return None


def _by_digest(user: User | None, credentials: IUsernameHashedPassword) -> Account | None:
    """Return who computed a digest of his password."""
    stored = parsed(user.own) if user else None
    plain = stored.plain if stored else None
    fits = credentials.checkPassword(_NO_PASSWORD if plain is None else plain)
    return user.own.account if user and plain is not None and fits else None
