"""The checker of bearer tokens, and its factory for ``--auth``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.interfaces import IBearerToken, IClosable, IKnowsBareNames, INeeds, Needs
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from popd.auth.account import Account
    from popd.auth.oauth2.https import HttpsClient
    from popd.auth.oauth2.settings import ClaimSettings, JwtSettings, Settings
    from popd.auth.oauth2.signatures import Signatures

__all__ = ["MAX_TOKEN", "OAuth2Checker", "OAuth2CheckerFactory"]

_log = Logger()

MAX_TOKEN: Final = 16 << 10
"""Octets that a token may have.  Those in use have up to some 4 KiB."""

_TOKEN: Final = re.compile(rb"[\x21-\x7e]+")
"""What may be in a token.  RFC 6750 section 2.1 allows less, but not all who issue them heed it."""


class Verifier(Protocol):
    """What knows whether a token is good."""

    async def account(self, token: bytes) -> Account:
        """Return the account that *token* opens.

        :raises UnauthorizedLogin: it opens none.
        :raises AuthUncertainError: that cannot be told now.
        """


@implementer(ICredentialsChecker, IClosable, IKnowsBareNames, INeeds)
class OAuth2Checker:
    """Checks bearer tokens; who logs in is whom the token names.

    If the client names a user as well, it must be that one, unless the token's account has
    master rights: then that account is returned, and whether it may act for the user who was named
    is for others to say.

    :param signatures: for tokens that are signed; None if the provider is asked about all.
    :param introspection: for the others; None if there are none.
    :param http: what these ask with, if they ask anybody.
    :param files: paths of what they read.
    """

    credentialInterfaces = (IBearerToken,)

    def __init__(
        self,
        signatures: Verifier | None,
        introspection: Verifier | None,
        http: HttpsClient | None = None,
        files: tuple[str, ...] = (),
    ) -> None:
        self._files = files
        self._signatures = signatures
        self._introspection = introspection
        self._http = http

    def close(self) -> None:
        """See `IClosable`."""
        if self._http is not None:
            self._http.close()

    def requestAvatarId(  # type: ignore[override] # see `popd.auth.interfaces`
        self, credentials: IBearerToken
    ) -> Deferred[Account]:
        """Return the token's account; fails with UnauthorizedLogin or AuthUncertainError."""
        bare = getattr(credentials, "bare", b"")
        work = self._check(credentials.token, credentials.username, bare)
        return Deferred.fromCoroutine(work).addErrback(_tell, credentials.client)

    def needs(self) -> Needs:
        """See `INeeds`: the provider, and keys that are in a file."""
        return Needs(self._files, network=True)

    async def _check(self, token: bytes, username: bytes, bare: bytes) -> Account:
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise UnauthorizedLogin("this is no bearer token")
        signed = token.startswith(b"eyJ") and token.count(b".") == 2  # noqa: PLR2004 - three parts
        verifier = (self._signatures if signed else None) or self._introspection
        if verifier is None:
            raise UnauthorizedLogin("the token is no JWT")
        account = await verifier.account(token)
        if username and not account.master and not _is_called(account.name, username, bare):
            raise UnauthorizedLogin("the token is another user's")
        return account


def _tell(failure: Failure, client: object) -> Failure:
    """Say why a token is no good: the client is not told, and whoever runs the site must know."""
    if failure.check(UnauthorizedLogin):
        address = getattr(client, "address", "")
        _log.info(
            "A token from {address} is refused: {reason}",
            address=address,
            reason=failure.getErrorMessage(),
        )
    return failure


def _is_called(name: str, username: bytes, bare: bytes) -> bool:
    return any(str(UserName.parse(given)) == name for given in (username, bare) if given)


@implementer(ICheckerFactory, IPlugin)
class OAuth2CheckerFactory:
    """Makes an `OAuth2Checker` of ``--auth popd-oauth2:FILE``."""

    authType = "popd-oauth2"
    argStringFormat = "Location of a TOML file that says which provider's tokens count."
    authHelp = """
Bearer tokens (OAUTHBEARER, XOAUTH2) of an OAuth 2 or OpenID provider.  The file:

    username = "preferred_username"         # the claim with the user's name
    issuer = "https://login.example.org"    # what tokens have as iss
    audience = "popd"                       # what they have as aud
    scope = "mail"                          # what must have been granted, if any
    ca-file = "/etc/popd/ca.pem"            # if the provider has a private CA
    leeway = 30                             # seconds that clocks may differ

    [jwt]                   # signed tokens are verified by the provider's keys
    jwks = "https://..."    # or /a/file; by default the issuer says where
    algorithms = ["RS256", "ES256"]         # default: all that are safe
    types = ["at+jwt"]      # add "JWT" for providers that call them that
    refetch = 10            # seconds, at least, between looks for a new key

    [introspection]         # the provider is asked about all others (RFC 7662)
    url = "https://login.example.org/introspect"
    client-id = "popd"
    client-secret-file = "/etc/popd/oauth2-secret"
    cache = 60              # seconds that an answer counts

    [fields]                # claims with an account's fields
    disabled = "mail_disabled"

With [jwt] alone or [introspection] alone the other one is not done.
"""
    credentialInterfaces = OAuth2Checker.credentialInterfaces

    def generateChecker(self, argstring: str) -> OAuth2Checker:
        """Return a checker that does what the file *argstring* says.

        :raises InvalidAuthArgumentString: it is wrong, or PyJWT is not installed.
        """
        from popd.auth.oauth2.settings import read_settings  # noqa: PLC0415 - many never need it

        if not argstring:
            raise InvalidAuthArgumentString(f"{self.authType} needs a file: {self.authType}:FILE")
        try:
            return _checker(read_settings(argstring))
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] != "jwt":  # or it is another of that name
                raise
            reason = f"{self.authType} needs PyJWT: pip install 'popd[oauth2]'"
            raise InvalidAuthArgumentString(reason) from error
        except OSError as error:
            reason = f"{self.authType}: {error.filename}: {error.strerror}"
            raise InvalidAuthArgumentString(reason) from error
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {error}") from error


def _checker(settings: Settings) -> OAuth2Checker:
    """Return a checker, after having imported what it needs.

    :raises ModuleNotFoundError: PyJWT is not installed.
    :raises OSError: a file cannot be read.
    :raises ValueError: what is in it is wrong.
    """
    from popd.auth.oauth2.https import HttpsClient, trust_root  # noqa: PLC0415 - as above

    http = HttpsClient(trust_root(settings.ca_file) if settings.ca_file else None)
    signatures = introspection = None
    if settings.jwt is not None:
        signatures = _signatures(settings.jwt, settings.claims, http)
    if settings.introspection is not None:
        from popd.auth.oauth2.introspection import Introspection  # noqa: PLC0415

        introspection = Introspection(http, settings.introspection, settings.claims)
    jwks = settings.jwt.jwks if settings.jwt is not None else ""
    files = tuple(path for path in (jwks, settings.ca_file) if path.startswith("/"))
    return OAuth2Checker(signatures, introspection, http, files)


def _signatures(jwt: JwtSettings, claims: ClaimSettings, http: HttpsClient) -> Signatures:
    from popd.auth.oauth2.jwks import FileKeys, RemoteKeys  # noqa: PLC0415 - they need PyJWT
    from popd.auth.oauth2.signatures import Signatures  # noqa: PLC0415

    if jwt.jwks.startswith("/"):
        return Signatures(FileKeys(jwt.jwks), jwt, claims)
    keys = RemoteKeys(http, claims.issuer, jwt.jwks, jwt.refetch)
    return Signatures(keys, jwt, claims)
