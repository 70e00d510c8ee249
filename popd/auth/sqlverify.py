"""Whether a password is one of a user's, at the same price whether there is such a user or not."""

from __future__ import annotations

import logging
import re
import secrets
import time
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from popd.auth import apppass, schemes
from popd.auth.cache import DEFAULT_TTL, CredentialCache
from popd.auth.interfaces import IVersioned

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.account import Account
    from popd.auth.schemes import StoredPassword
    from popd.auth.sqlrows import Login, User

__all__ = ["Verifier", "parsed"]

_log = logging.getLogger(__name__)

_DUMMY: Final = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4"
    "$EHlZnHrrSnKjKcr6zWxQ1w$i0kHP26zTr3bxoIolEDZtvsfJ02qEcGMZxeAdwbzUO0"
)
"""What an unknown user is checked against as long as no user is known.  Nobody's password."""

_MAX_SHAPES: Final = 16

_SHAPE: Final = re.compile(
    r"(?:\{[^}]*\})?(?:\$2[aby]\$\d+|\$argon2\w+\$(?:v=\d+\$)?[^$]*|\$y\$[^$]*|\$[56]\$(?:r[^$]*)?)?"
)
"""What the price of verifying a password depends on: the scheme and its parameters."""


def parsed(login: Login, field: str = "") -> StoredPassword | None:
    """Return a log-in's stored password, None if it has none that can be used; log that.

    :param field: how something else of the log-in is stored.
    """
    stored = field or login.password
    if not stored:
        return None
    try:
        return schemes.parse(stored)
    except ValueError as reason:
        program = f" with {login.account.program}" if login.account.program else ""
        _log.error("%s cannot log in%s: %s", login.account.name, program, reason)
        return None


@implementer(IVersioned)
class Verifier:
    """Verifies passwords, and remembers for a while which fitted to what was stored of them.

    What is remembered cannot become wrong when the database changes: it is asked each time, and
    another hash is another question.

    An unknown user costs what a known one costs: the password is then checked against what is
    stored of another one, of the same kind each time for the same name.

    :param ttl: seconds for which it is remembered.
    :param clock: tells the time in seconds; must never go back.
    :param key: secret; decides whom an unknown user resembles.
    """

    def __init__(
        self,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.monotonic,
        key: bytes | None = None,
    ) -> None:
        self._good = CredentialCache(ttl, clock)
        self._key = key or secrets.token_bytes(16)
        self._shapes: dict[str, str] = {}

    def version(self) -> object:
        """Return always the same: whether a password fits to a hash does not change."""

    def recall(self, user: User | None, password: bytes) -> Account | None:
        """Return who logs in with *password*, if that can be told without any work."""
        if user is None:
            return None
        digest = apppass.digest(password)
        for login in user.apps:
            if digest and compare_digest(digest, login.password):
                return login.account
        for login in (user.own, *user.apps):
            if self._good.get(login.password.encode(), password):
                return login.account
        return None

    def remember(self, account: Account, user: User, password: bytes) -> None:
        """Let `recall` know what `verify` found."""
        for login in (user.own, *user.apps):
            if login.account is account:
                self._good.put(login.password.encode(), password, account, self, None)

    def verify(self, name: str, user: User | None, password: bytes) -> Account | None:
        """Return who logs in with *password*; None if it is wrong, or the user unknown.

        This may take seconds.  It may be called from several threads.

        :raises Exception: it could not be found out, for want of memory for example.
        """
        own = None if user is None else parsed(user.own)
        if user is None or own is None:
            schemes.parse(self._likeness(name)).verify(password)
        else:
            self._learn(user.own.password)
            if own.verify(password):
                return user.own.account
        for app in user.apps if user else ():
            if not app.password.startswith("{SHA256}"):  # which `recall` has looked at
                stored = parsed(app)
                if stored is not None and stored.verify(password):
                    return app.account
        return None

    def _learn(self, field: str) -> None:
        match = _SHAPE.match(field)
        shape = match[0] if match else ""
        if shape not in self._shapes and len(self._shapes) < _MAX_SHAPES:
            self._shapes = {**self._shapes, shape: field}  # other threads look at the old one

    def _likeness(self, name: str) -> str:
        """Return what is stored of somebody else's password."""

        def rank(shape: str) -> bytes:
            return blake2b(f"{shape} {name}".encode(), digest_size=8, key=self._key).digest()

        shapes = self._shapes
        return shapes[max(shapes, key=rank)] if shapes else _DUMMY
