"""Doubles for what the credential chain works with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from popd.maildrop.interfaces import IMaildrop, IMaildropStore, Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from popd.maildrop.user import UserName
    from popd.protocol.snapshot import Snapshot

AvatarId = bytes | tuple[()]
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

    def commit(self, deleted: Iterable[int]) -> int:
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

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[AvatarId]:
        """Note who asked, and answer."""
        self.asked.append((credentials.username, credentials.password))
        if isinstance(self.answer, Deferred):
            return self.answer
        if isinstance(self.answer, Exception):
            return fail(self.answer)
        if callable(self.answer):
            return succeed(self.answer())
        return succeed(self.answer)  # type: ignore[arg-type]
