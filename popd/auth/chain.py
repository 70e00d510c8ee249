"""Several checkers in a row, each asked until one knows the user and the password."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from popd.auth.cache import CredentialCache
from popd.auth.interfaces import AuthTemporaryError, IKnowsBareNames, IVersioned
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Attempt", "CheckerChain"]

_log = Logger()

_NOBODY: Final = b".nobody"
"""Looked up in place of a name that cannot exist.  Cannot exist either, but harms no backend."""


@implementer(ICredentialsChecker)
class CheckerChain:
    """Asks checkers in order; the first that accepts decides who the user is.

    The user name is brought into its canonical spelling first, and completed with the default
    domain.  A checker that does not know the complete name may know the bare one; the avatar id is
    complete in any case.  A name that no user can have, an empty password and one with NUL never
    get in, whatever the checkers say, but cost what a wrong password costs.

    Names and passwords must be given to the checkers as octets, as Twisted's own want them.

    :param checkers: what to ask.  Any failure of theirs but UnauthorizedLogin and LoginDenied
        means that they cannot answer now, and is logged when it begins and when it has ended.
    :param default_domain: completes a bare user name.
    :param cache: where credentials that were found good are remembered.
    :raises ValueError: a checker does not take user names and passwords.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        checkers: Iterable[ICredentialsChecker],
        default_domain: str = "",
        cache: CredentialCache | None = None,
    ) -> None:
        self._links = [_Link(checker) for checker in checkers]
        self._default_domain = default_domain
        self._cache = cache or CredentialCache(ttl=0)

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Return the avatar id from the first checker that accepts.

        Fails with UnauthorizedLogin, or with `AuthTemporaryError` if a checker that might have
        accepted cannot answer now.
        """
        username, password = credentials.username, credentials.password
        remembered = self.remembered(username, password)
        if remembered is not None:
            return succeed(remembered)
        return Deferred.fromCoroutine(self._ask(username, password))

    def remembered(self, username: bytes, password: bytes) -> bytes | None:
        """Return the avatar id that these credentials were good for a short while ago, if any."""
        return self._cache.get(username, password)

    async def _ask(self, username: bytes, password: bytes) -> bytes | tuple[()]:
        user = UserName.parse(username, self._default_domain)
        possible = user is not None and password and b"\0" not in password
        attempt = Attempt(_NOBODY, password)
        if user is not None and possible:
            attempt = Attempt(str(user).encode(), password)
            if user.domain and user.domain == self._default_domain.lower():
                attempt.bare = user.local.encode()
        in_doubt = False
        for link in self._links:
            version = link.version()
            try:
                avatar_id = await link.ask(attempt)
            except AuthTemporaryError:
                in_doubt = True
                continue
            if avatar_id and possible:
                avatar_id = self._completed(avatar_id)
                self._cache.put(username, password, avatar_id, link.checker, version)
                return avatar_id
        if in_doubt and possible:
            raise AuthTemporaryError
        raise UnauthorizedLogin

    def _completed(self, avatar_id: bytes) -> bytes:
        user = UserName.parse(avatar_id, self._default_domain)
        return avatar_id if user is None else str(user).encode()


class Attempt(UsernamePassword):
    """Credentials that give nothing away by the time it takes to compare them."""

    bare = b""
    """The name without the default domain, if it is in that."""

    def checkPassword(self, password: bytes) -> bool:
        """Tell whether *password* is the one that was given."""
        return compare_digest(self.password, _octets(password))


class _Link:
    """One checker of a chain, and whether it could answer when asked last."""

    def __init__(self, checker: ICredentialsChecker) -> None:
        name = type(checker).__qualname__
        if not any(map(IUsernamePassword.isOrExtends, checker.credentialInterfaces)):
            raise ValueError(f"{name} cannot check user names and passwords")
        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # Twisted's "memory" plugin fills it with str, which no client ever sends.
            checker.users = {_octets(u): _octets(p) for u, p in checker.users.items()}
        self.checker = checker
        self._name = name
        self._down = False

    def version(self) -> object:
        """Return the checker's version, if it has any."""
        return self.checker.version() if IVersioned.providedBy(self.checker) else None

    async def ask(self, attempt: Attempt) -> bytes:
        """Return the avatar id, or ``b""`` if the checker refuses or grants anonymous access.

        :raises AuthTemporaryError: the checker cannot answer now.
        """
        avatar_id = await self._ask(attempt)
        if attempt.bare and not avatar_id and not IKnowsBareNames.providedBy(self.checker):
            avatar_id = await self._ask(Attempt(attempt.bare, attempt.password))
        return avatar_id

    async def _ask(self, attempt: Attempt) -> bytes:
        try:
            answer = await maybeDeferred(self.checker.requestAvatarId, attempt)
        except (UnauthorizedLogin, LoginDenied):
            answer = b""
        except CancelledError:
            raise
        except Exception as error:
            if not self._down:
                _log.failure(
                    "{checker} cannot answer now", Failure(), LogLevel.error, checker=self._name
                )
            self._down = True
            raise AuthTemporaryError from error
        if self._down:
            _log.info("{checker} answers again", checker=self._name)
        self._down = False
        return _octets(answer or b"")


def _octets(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
