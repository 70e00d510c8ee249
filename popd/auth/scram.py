"""SCRAM keys: where they are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, gatherResults

from popd.auth.interfaces import AuthTemporaryError
from popd.auth.link import Action
from popd.auth.person import NOBODY, bare_name
from popd.protocol.credentials import ScramKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from popd.auth.link import Link
    from popd.maildrop.user import UserName

__all__ = ["look_up"]


async def look_up(
    links: Iterable[Link], user: UserName | None, default_domain: str, mechanism: str
) -> ScramKeys | None:
    """Return a user's keys, None if he has none.

    All links that keep keys are asked at the same time, so that it takes as long whoever has them.

    :param user: who; None for a name that no user can have, which costs what others cost.
    :param mechanism: never -PLUS.
    :raises AuthTemporaryError: a link that may have them cannot answer now.
    """
    name = NOBODY if user is None else str(user).encode()
    bare = bare_name(user, default_domain)
    keyrings = list(_keyrings(links, mechanism))
    answers = await gatherResults(
        [Deferred.fromCoroutine(_ask(link, name, bare, mechanism)) for link in keyrings]
    )
    if user is None:
        return None
    in_doubt = False
    for link, answer in zip(keyrings, answers, strict=True):
        if isinstance(answer, ScramKeys):
            return answer
        in_doubt = in_doubt or answer is not None
        if (link.policy.failure if answer is None else link.policy.temporary) is Action.STOP:
            break
    if in_doubt:
        raise AuthTemporaryError("not all could be asked")
    return None


def _keyrings(links: Iterable[Link], mechanism: str) -> Iterator[Link]:
    """Yield the links that may have keys, as far as one that bars the way."""
    for link in links:
        if mechanism in link.scram_mechanisms and link.policy.success is Action.ACCEPT:
            yield link
        elif link.policy.bars:
            return


async def _ask(
    link: Link, name: bytes, bare: bytes, mechanism: str
) -> ScramKeys | AuthTemporaryError | None:
    try:
        return await link.scram_keys(name, bare, mechanism)
    except AuthTemporaryError as error:
        return error
