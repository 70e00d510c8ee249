"""Doubles for what the credential chain works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from popd.auth.account import Account, Client
from popd.auth.interfaces import IAccounts, IScramKeyring
from popd.maildrop.interfaces import IMaildrop, IMaildropStore, Message

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from popd.maildrop.user import UserName
    from popd.protocol.credentials import ScramKeys
    from popd.protocol.snapshot import Snapshot

AvatarId = Account | bytes | tuple[()]
Answer = AvatarId | str | Exception | Deferred[AvatarId] | Callable[[], AvatarId]


@implementer(IMaildrop)
class FakeMaildrop:
    """A maildrop that may be released and nothing else."""

    def __init__(self, user: UserName) -> None:
        self.user = user
        self.calls: list[str] = []

    def open(self) -> Snapshot:
        """Is not what a realm does."""
        raise NotImplementedError

    def message(self, index: int) -> Message:
        """Is not what a realm does."""
        raise NotImplementedError

    def commit(self, deleted: Iterable[int]) -> Collection[int]:
        """Is not what a realm does."""
        raise NotImplementedError

    def release(self) -> None:
        """Note that it happened."""
        self.calls.append("release")


@implementer(IMaildropStore)
class FakeStore:
    """Has a maildrop for everyone; raises `error` instead if there is one."""

    def __init__(self) -> None:
        self.asked: list[UserName] = []
        self.error: Exception | None = None

    def maildrop(self, user: UserName) -> IMaildrop:
        """Return a new maildrop."""
        self.asked.append(user)
        if self.error is not None:
            raise self.error
        return FakeMaildrop(user)


@implementer(ICredentialsChecker)
class FakeChecker:
    """Gives always the same answer: an avatar id, a failure, a Deferred, or what a call returns."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, bytes]] = []

    def requestAvatarId(  # type: ignore[override]  # any object can be an avatar id
        self, credentials: IUsernamePassword
    ) -> Deferred[AvatarId]:
        """Note who asked, and answer."""
        self.asked.append((credentials.username, credentials.password))
        return self.answered()

    def answered(self) -> Deferred[AvatarId]:
        """Return the answer."""
        if isinstance(self.answer, Deferred):
            return self.answer
        if isinstance(self.answer, Exception):
            return fail(self.answer)
        if callable(self.answer):
            return succeed(self.answer())
        return succeed(self.answer)  # type: ignore[arg-type]


@implementer(IAccounts, IScramKeyring)
class Directory(FakeChecker):
    """Knows accounts by their names, and accepts any credentials that are called so.

    :param accounts: whom it knows.
    :param keys: users' SCRAM keys.
    """

    credentialInterfaces = (ICredentials,)  # type: ignore[assignment]
    scram_mechanisms = frozenset({"SCRAM-SHA-256"})

    def __init__(self, *accounts: Account, **keys: ScramKeys) -> None:
        super().__init__(b"")
        self.accounts = {account.name.encode(): account for account in accounts}
        self.keys = {name.encode(): replace_owner(keys[name], name) for name in keys}
        self.error: Exception | None = None
        self.claims: list[Any] = []
        self.looked_up: list[tuple[bytes, bytes]] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """Accept who is known."""
        self.claims.append(credentials)
        known = self.accounts.get(credentials.username)
        self.answer = self.error or known or UnauthorizedLogin()
        return self.answered()

    def account(self, username: bytes, bare: bytes) -> Deferred[Account | None]:
        """See `IAccounts`."""
        self.looked_up.append((username, bare))
        if self.error is not None:
            return fail(self.error)
        return succeed(self.accounts.get(username, self.accounts.get(bare)))

    def scram_keys(
        self, username: bytes, bare: bytes, mechanism: str
    ) -> Deferred[ScramKeys | None]:
        """See `IScramKeyring`."""
        self.looked_up.append((username, bare))
        if self.error is not None:
            return fail(self.error)
        return succeed(self.keys.get(username))


def replace_owner(keys: ScramKeys, name: str) -> ScramKeys:
    """Return the keys as *name*'s."""
    return replace(keys, owner=Account(name))


class FakeGuard:
    """Lets the test say how long to wait, and notes what it is told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[tuple[Any, ...]] = []

    def events(self) -> list[str]:
        """Return, and forget, what it was told, without about whom."""
        events = [event for event, *_ in self.told]
        self.told.clear()
        return events

    def passes(self, client: Client, username: bytes) -> bool:
        """See `Guard`."""
        return self.seconds <= 0

    def delay(self, client: Client, username: bytes) -> float:
        """See `Guard`."""
        self.told.append(("delay", client.address, username))
        return self.seconds

    def failed(self, client: Client, username: bytes, secret: bytes | None) -> None:
        """See `Guard`."""
        self.told.append(("failed", client.address, username, secret))

    def succeeded(self, client: Client, username: bytes) -> None:
        """See `Guard`."""
        self.told.append(("succeeded", client.address, username))

    def unanswered(self, client: Client) -> None:
        """See `Guard`."""
        self.told.append(("unanswered", client.address))
