"""Who is let in, once his credentials were found good, and as whom."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from popd.auth.account import Account
from popd.auth.credentials import ClientCertificate
from popd.auth.interfaces import AuthTemporaryError, LoginRefusedError, LoginTooSoonError
from popd.auth.person import bare_name
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from popd.auth.account import Client
    from popd.auth.credentials import Claim
    from popd.auth.link import Link
    from popd.auth.person import Person

    Record = Callable[[Account, Client], Awaitable[str]]

__all__ = ["Admission", "Record"]


class Admission:
    """Lets in whose account does not forbid it.

    A master is let in as another user: with his own credentials, but no app password, and if his
    account says that he may.  The other has to exist; of his account nothing but that it is
    disabled binds a master.

    :param links: the chain's, some of which may know accounts without passwords.
    :param default_domain: completes a bare user name.
    :param record: called before a user with an app password or an interval between log-ins is let
        in; returns ``""``, or why he is not.
    """

    def __init__(self, links: Sequence[Link], default_domain: str, record: Record | None) -> None:
        self._links = links
        self._default_domain = default_domain
        self._record = record

    async def admit(self, account: Account, claim: Claim, person: Person) -> Account:
        """Return the account as which a user is let in.

        :param account: whose credentials they are.
        :raises LoginRefusedError: he must not log in, or not as whom he wants to be.
        :raises LoginTooSoonError: he must not log in yet.
        :raises AuthTemporaryError: a link that may know an account cannot answer now.
        """
        account = self._completed(account)
        if isinstance(claim, ClientCertificate):
            account = await self._named(account.name)
        if reason := account.refusal(claim.client):
            raise LoginRefusedError(reason)
        target = account
        if person.wanted is not None and str(person.wanted) != account.name:
            target = await self._in_place_of(person.wanted, account)
            claim.master = account.name
        if self._record is not None and self.is_recorded(account):
            reason = await self._record(account, claim.client)
            if reason:
                raise LoginTooSoonError(reason)
        return target

    def is_recorded(self, account: Account) -> bool:
        """Tell whether it is written down when this user is let in."""
        return self._record is not None and bool(account.program or account.interval)

    async def _named(self, name: str) -> Account:
        """Return all that is known of whom a certificate names, which says no more than his name.

        :raises LoginRefusedError: nothing is, though there are links that know accounts.
        """
        user = UserName.parse(name)
        account = None if user is None else await self._known(user)
        if account is None:
            raise LoginRefusedError(f"{name}, whom the certificate names, does not exist")
        return account

    async def _in_place_of(self, wanted: UserName, master: Account) -> Account:
        """Return the account of *wanted*, as whom *master* is let in.

        :raises LoginRefusedError: he must not be, or there is no such user.
        """
        if not master.master or master.program:
            raise LoginRefusedError(f"{master.name} is no master")
        account = await self._known(wanted)
        if account is None or account.disabled:
            why = "does not exist" if account is None else "is disabled"
            raise LoginRefusedError(f"{wanted}, whom {master.name} wants to be, {why}")
        return replace(account, no_delete=master.no_delete)

    async def _known(self, user: UserName) -> Account | None:
        """Return the account of *user* from the first link that knows it; None if none does.

        Where there is no link that knows accounts without passwords, any name will do.
        """
        knowing = [link for link in self._links if link.knows_accounts]
        if not knowing:
            return Account(str(user))
        name, bare = str(user).encode(), bare_name(user, self._default_domain)
        in_doubt: AuthTemporaryError | None = None
        for link in knowing:
            try:
                account = await link.account(name, bare)
            except AuthTemporaryError as error:
                in_doubt = error
            else:
                if account is not None:
                    return self._completed(account)
        if in_doubt is not None:
            raise in_doubt
        return None

    def _completed(self, account: Account) -> Account:
        user = UserName.parse(account.name, self._default_domain)
        return account if user is None else replace(account, name=str(user))
