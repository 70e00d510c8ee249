"""The realm: where someone who logged in gets his maildrop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from zope.interface import implementer

from popd.maildrop.interfaces import IMaildrop
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

    from zope.interface import Interface

    from popd.maildrop.interfaces import IMaildropStore

__all__ = ["MaildropRealm"]


@implementer(IRealm)
class MaildropRealm:
    """Gives every user the maildrop that a store has for him, not yet opened.

    :param store: where the maildrops are.
    """

    def __init__(self, store: IMaildropStore) -> None:
        self._store = store

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], IMaildrop, Callable[[], None]]:
        """Return `IMaildrop`, the maildrop of the user *avatarId*, and what releases it.

        :raises NotImplementedError: *interfaces* want something else.
        :raises UnauthorizedLogin: no user can have that name; anonymous users have no mail.
        :raises MaildropPermanentError: the store has no place for such a name.
        """
        del mind
        if IMaildrop not in interfaces:
            raise NotImplementedError("nothing but maildrops to be had here")
        user = UserName.parse(avatarId) if isinstance(avatarId, bytes | str) else None
        if user is None:
            raise UnauthorizedLogin
        maildrop = self._store.maildrop(user)
        return IMaildrop, maildrop, maildrop.release
