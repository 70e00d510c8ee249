"""SCRAM keys: where they are looked up, and made up for users who have none."""

from __future__ import annotations

import mmap
import secrets
import struct
from hashlib import blake2b, new
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults

from popd.auth.interfaces import AuthTemporaryError
from popd.auth.link import Action
from popd.auth.person import NOBODY, bare_name
from popd.protocol.credentials import ScramKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from popd.auth.link import Link
    from popd.maildrop.user import UserName

__all__ = ["FakeKeys", "look_up"]

DEFAULT_SHAPE: Final = (65_536, 16)
"""The iteration count and the octets of salt that popctl chooses: until real keys were seen."""

_DIGESTS: Final[Mapping[str, str]] = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}

_SHAPE: Final = struct.Struct("<IHH")  # iterations, octets of salt, votes

_MAX_VOTES: Final = 1000

_SALT_OCTETS: Final = range(1, 65)


class FakeKeys:
    """Makes up keys: for one name always the same, which no password fits.

    Their iteration count and length of salt are those that most of the real keys have which were
    looked up so far.  Made before processes part, it is common to all of them, so that they agree.

    :param key: secret; what is made up follows from it.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._shapes = mmap.mmap(-1, _SHAPE.size * len(_DIGESTS))
        self._places = {name: _SHAPE.size * place for place, name in enumerate(_DIGESTS)}
        for place in self._places.values():
            _SHAPE.pack_into(self._shapes, place, *DEFAULT_SHAPE, 1)

    def seen(self, mechanism: str, keys: ScramKeys) -> None:
        """Take note of a user's real keys.

        What most users have is found by Boyer and Moore's vote, which takes a few octets of memory
        however many users there are.
        """
        place = self._places.get(mechanism)
        if place is None or len(keys.salt) not in _SALT_OCTETS:
            return
        iterations, salt, votes = _SHAPE.unpack_from(self._shapes, place)
        shape = (keys.iterations, len(keys.salt))
        if shape == (iterations, salt):
            votes += votes < _MAX_VOTES
        elif votes > 1:
            votes -= 1
        else:
            iterations, salt = shape
        _SHAPE.pack_into(self._shapes, place, iterations, salt, votes)

    def make(self, name: bytes, mechanism: str) -> ScramKeys:
        """Return keys for *name*, who has none."""
        place = self._places.get(mechanism, 0)
        iterations, octets, _ = _SHAPE.unpack_from(self._shapes, place)
        size = new(_DIGESTS.get(mechanism, "sha256")).digest_size
        salt, stored, server = (
            blake2b(b"%b %b" % (use, name), key=self._key, person=mechanism.encode()[:16]).digest()
            for use in (b"salt", b"stored", b"server")
        )
        return ScramKeys(salt[:octets], iterations, stored[:size], server[:size])


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
