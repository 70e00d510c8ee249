"""Whether a bearer token is good, by its signature."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidTokenError
from twisted.cred.error import UnauthorizedLogin

from popd.auth.oauth2.claims import account_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from popd.auth.account import Account
    from popd.auth.oauth2.jwks import Key, KeySource
    from popd.auth.oauth2.settings import ClaimSettings, JwtSettings

__all__ = ["Signatures"]


class Signatures:
    """Verifies signed tokens (RFC 7519, RFC 9068) in under a millisecond each.

    :param keys: the provider's.
    :param now: tells the time in seconds since 1970.
    """

    def __init__(
        self,
        keys: KeySource,
        settings: JwtSettings,
        claims: ClaimSettings,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._types = settings.types
        self._algorithms = settings.algorithms
        self._claims = claims
        self._now = now
        self._jws = PyJWS(algorithms=sorted(settings.algorithms))

    async def account(self, token: bytes) -> Account:
        """Return the account that *token* opens.

        :raises UnauthorizedLogin: it opens none.
        :raises AuthUncertainError: that cannot be told now.
        """
        algorithm, kid = self._header(token)
        content = self._verified(token, algorithm, kid, await self._keys.current())
        if content is None:
            content = self._verified(token, algorithm, kid, await self._keys.renewed())
        if content is None:
            raise UnauthorizedLogin("the token is signed with a key that is not the issuer's")
        try:
            claims = json.loads(content)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            raise UnauthorizedLogin("the token's content is no JSON object")
        return account_of(claims, self._claims, self._now(), signed=True)

    def _header(self, token: bytes) -> tuple[str, str | None]:
        """Return how a token is signed and the name of the key, or None.

        :raises UnauthorizedLogin: that is not the way in which popd's tokens are.
        """
        try:
            header = self._jws.get_unverified_header(token)
        except InvalidTokenError as error:
            raise UnauthorizedLogin("the token is no JWT") from error
        algorithm, kind = header.get("alg"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise UnauthorizedLogin("the token is signed with an algorithm that is not allowed")
        if not isinstance(kind, str) or _short(kind) not in self._types:
            raise UnauthorizedLogin("the token is of a type that is not allowed")
        return algorithm, header.get("kid")

    def _verified(
        self, token: bytes, algorithm: str, kid: str | None, keys: Iterable[Key]
    ) -> bytes | None:
        """Return what a token says, if it is signed with one of *keys*.

        :return: None if there may be a better key elsewhere.
        :raises UnauthorizedLogin: there is not: the key is there that the token names.
        """
        for key in keys:
            if key.fits(algorithm, kid):
                content = self._signed(token, algorithm, key)
                if content is not None:
                    return content
                if kid is not None:
                    raise UnauthorizedLogin("the token's signature is wrong")
        return None

    def _signed(self, token: bytes, algorithm: str, key: Key) -> bytes | None:
        try:
            content: bytes = self._jws.decode(token, key.public, algorithms=[algorithm])
        except InvalidTokenError:
            return None
        return content


def _short(kind: str) -> str:
    """Return a media type as RFC 7515 section 4.1.9 has it: in whichever case, without prefix."""
    return kind.lower().removeprefix("application/")
