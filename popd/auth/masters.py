"""Masters: users who may be let in as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from popd.auth.account import Account
from popd.auth.interfaces import AuthTemporaryError, LoginRefusedError
from popd.auth.person import bare_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from popd.auth.link import Link
    from popd.maildrop.user import UserName

__all__ = ["in_place_of"]


async def in_place_of(
    wanted: UserName, master: Account, links: Iterable[Link], default_domain: str
) -> Account:
    """Return the account of *wanted*, as whom *master* is let in.

    Of that account nothing but that it is disabled binds a master; where there is no link that
    knows accounts without passwords, any name will do.

    :raises LoginRefusedError: he must not be, or there is no such user.
    :raises AuthTemporaryError: a link that may know that user cannot answer now.
    """
    if not master.master or master.program:
        raise LoginRefusedError(f"{master.name} is no master")
    knowing = [link for link in links if link.knows_accounts]
    account = None if knowing else Account(str(wanted))
    name, bare = str(wanted).encode(), bare_name(wanted, default_domain)
    in_doubt: AuthTemporaryError | None = None
    for link in knowing:
        try:
            account = await link.account(name, bare)
        except AuthTemporaryError as error:
            in_doubt = error
        if account is not None:
            break
    if account is None and in_doubt is not None:
        raise in_doubt
    if account is None or account.disabled:
        why = "does not exist" if account is None else "is disabled"
        raise LoginRefusedError(f"{wanted}, whom {master.name} wants to be, {why}")
    return account
