"""The realm: where someone who logged in gets his maildrop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from zope.interface import implementer

from popd.auth.account import Account
from popd.maildrop.interfaces import IMaildrop, IRelocatingStore, MaildropPermanentError
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

    from zope.interface import Interface

    from popd.maildrop.interfaces import IMaildropStore

__all__ = ["MaildropRealm"]


@implementer(IRealm)
class MaildropRealm:
    """Gives every user the maildrop that a store has for him, not yet opened.

    An avatar id is an `Account`, or the name of one about whom no more is known.

    :param store: where the maildrops are, unless an account says otherwise.
    """

    def __init__(self, store: IMaildropStore) -> None:
        self._store = store

    def requestAvatar(
        self,
        avatarId: Account | bytes | str | tuple[()],
        mind: object,
        *interfaces: type[Interface],
    ) -> tuple[type[Interface], IMaildrop, Callable[[], None]]:
        """Return `IMaildrop`, the maildrop of the user *avatarId*, and what releases it.

        :raises NotImplementedError: *interfaces* want something else.
        :raises UnauthorizedLogin: no user can have that name; anonymous users have no mail.
        :raises MaildropPermanentError: the store has no place for such a name, or no such place.
        """
        del mind
        if IMaildrop not in interfaces:
            raise NotImplementedError("nothing but maildrops to be had here")
        account = avatarId if isinstance(avatarId, Account) else None
        name = avatarId if account is None else account.name
        user = UserName.parse(name) if isinstance(name, bytes | str) else None
        if user is None:
            raise UnauthorizedLogin
        maildrop = self._maildrop(user, "" if account is None else account.maildrop)
        return IMaildrop, maildrop, maildrop.release

    def _maildrop(self, user: UserName, place: str) -> IMaildrop:
        if not place:
            return self._store.maildrop(user)
        store = IRelocatingStore(self._store, None)
        if store is None:
            raise MaildropPermanentError(f"{str(user)!a}: no maildrop can be at {place!a}")
        return store.maildrop_at(place, user)
