"""Whether a bearer token is good, by asking the provider."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.error import UnauthorizedLogin

from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2.claims import account_of, expiry

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.account import Account
    from popd.auth.oauth2.https import HttpsClient
    from popd.auth.oauth2.settings import ClaimSettings, IntrospectionSettings

__all__ = ["MAX_ENTRIES", "Introspection"]

MAX_ENTRIES: Final = 20_000
"""How many answers of a provider are remembered, at some 500 octets each."""

_BAD_REQUEST: Final = 400


class Introspection:
    """Asks the provider about tokens (RFC 7662), and remembers for a short time what was good.

    A token that was revoked counts until that time is over, one that has expired never.

    :param http: makes requests.
    :param clock: tells the time in seconds; must never go back.
    :param now: tells the time in seconds since 1970.
    """

    def __init__(
        self,
        http: HttpsClient,
        settings: IntrospectionSettings,
        claims: ClaimSettings,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._settings = settings
        self._claims = claims
        self._clock = clock
        self._now = now
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, tuple[float, float, Account]] = OrderedDict()

    async def account(self, token: bytes) -> Account:
        """Return the account that *token* opens.

        :raises UnauthorizedLogin: it opens none.
        :raises AuthUncertainError: that cannot be told now.
        """
        digest = blake2b(token, digest_size=16, key=self._key).digest()
        account = self._remembered(digest)
        if account is None:
            claims = await self._ask(token)
            account = account_of(claims, self._claims, self._now(), signed=False)
            self._remember(digest, account, expiry(claims))
        return account

    async def _ask(self, token: bytes) -> dict[str, Any]:
        settings = self._settings
        form = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
        client = (settings.client_id, settings.client_secret)
        status, claims = await self._http.post(settings.url, form, client)
        if status == _BAD_REQUEST:
            # What some say of a token that is none of theirs.  It must not count as a failure of
            # the provider, which anybody could then bring about.
            raise UnauthorizedLogin("the provider does not accept the question")
        if not claims:
            raise AuthUncertainError(
                f"{settings.url}: the answer is {status}: are client-id and client-secret right?"
            )
        if claims.get("active") is not True:
            raise UnauthorizedLogin("the token is not active")
        return claims

    def _remembered(self, digest: bytes) -> Account | None:
        entry = self._good.get(digest)
        if entry is None:
            return None
        until, expires, account = entry
        if self._clock() >= until or self._now() >= expires:
            del self._good[digest]
            return None
        self._good.move_to_end(digest)
        return account

    def _remember(self, digest: bytes, account: Account, expires: float | None) -> None:
        until = self._clock() + self._settings.cache
        self._good[digest] = (until, inf if expires is None else expires, account)
        self._good.move_to_end(digest)
        if len(self._good) > MAX_ENTRIES:
            self._good.popitem(last=False)
