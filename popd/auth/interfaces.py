"""What a checker is asked, and what it may answer: the contract between the chain and backends.

A backend is a checker in the sense of `twisted.cred`: ``requestAvatarId(credentials)`` returns an
`Account`, or octets that are a user's name if it knows no more, or a Deferred of either.  It fails
with UnauthorizedLogin if the credentials are wrong *or the user is unknown*, and with
`AuthTemporaryError` (any other exception is taken for it) if that cannot be told now.  Whether the
account is disabled, needs TLS or must not be used from there is the chain's to find out: checkers
return such accounts all the same, once the credentials were right.

``credentialInterfaces`` says which credentials a checker can verify, and so which mechanisms are
offered: IUsernamePassword for USER/PASS, PLAIN and LOGIN; Twisted's IUsernameHashedPassword for
CRAM-MD5 and APOP, where plain passwords are stored; `IBearerToken`; `IClientCertificate`; and
`IScramKeyring` for SCRAM, which is an interface of the checker itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from popd.auth.account import Account, Client
    from popd.protocol.credentials import ScramKeys

__all__ = [
    "AuthTemporaryError",
    "AuthUncertainError",
    "Guard",
    "IAccounts",
    "IBearerToken",
    "IClientCertificate",
    "IClosable",
    "IKnowsBareNames",
    "INeeds",
    "IScramKeyring",
    "IVersioned",
    "LoginRefusedError",
    "LoginTooSoonError",
    "Needs",
]


class AuthTemporaryError(Exception):
    """Whether the credentials are right cannot be told now: ``[SYS/TEMP]`` (RFC 3206 section 4)."""


class AuthUncertainError(AuthTemporaryError):
    """That is so for these credentials, while others may well be answered: the checker is not down.

    A checker that spares its directory itself fails with this one, and is asked again at once.
    """


class LoginRefusedError(UnauthorizedLogin):
    """The credentials are right, but do not let in; the text, which is for the log, says why."""


class LoginTooSoonError(Exception):
    """The log-in before was too short a time ago: ``[LOGIN-DELAY]`` (RFC 2449 section 8)."""


class Guard(Protocol):
    """Makes guessing slow.  It is asked at every log-in, and must answer at once.

    User names are canonical, or what was said if no user can be called so.  For each attempt
    `delay` is called first, and one of the others when it is over; but if it is known to be right
    already, only `passes` is, unless that says no.
    """

    def passes(self, client: Client, username: bytes) -> bool:
        """Tell whether an attempt would not have to wait.  It does not take it for made."""

    def delay(self, client: Client, username: bytes) -> float:
        """Return how many seconds an attempt has to wait before it is looked at.

        It takes the attempt for made.  Infinity is too long: then it is not looked at.
        """

    def failed(self, client: Client, username: bytes, secret: bytes | None) -> None:
        """Take note of a wrong *secret*; it is None where the mechanism shows none."""

    def succeeded(self, client: Client, username: bytes) -> None:
        """Take note that a user logged in."""

    def unanswered(self, client: Client) -> None:
        """Take note that nobody told whether a secret was right."""


class IKnowsBareNames(Interface):
    """Marks a checker that heeds the ``bare`` of what it is asked; others are asked anew for it."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a checker reaches for while users log in; UNIX sockets with names can always be had.

    :param files: paths of what it reads; it may be replaced by others of the same name.
    :param databases: paths of files that it writes to, and makes others beside.
    :param network: whether it connects to TCP ports.
    :param anything: whether it cannot say, as one that starts other people's programs.
    """

    files: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    network: bool = False
    anything: bool = False


class INeeds(Interface):
    """What a checker can do besides so that ``--sandbox`` need not let it reach everything."""

    def needs() -> Needs:
        """Return what it needs.  It is asked before processes part."""


class IVersioned(Interface):
    """What a checker can do besides if it knows whether its answers may have changed."""

    def version() -> object:
        """Return what equals its like for as long as the checker's answers cannot have changed.

        Cheap: it is asked at every log-in, in the reactor's thread.
        """


class IClosable(Interface):
    """What a checker can do besides if it has connections, threads, processes or timers."""

    def close() -> None:
        """Let go of them: nobody asks any more, and what is still asked need not be answered."""


class IBearerToken(ICredentials):
    """A bearer token (RFC 6750; OAUTHBEARER and XOAUTH2)."""

    username: bytes = Attribute("Whose it is said to be; empty if the token alone says it.")
    token: bytes = Attribute("The token: octets that were checked for nothing yet.")
    client: object = Attribute("From where it comes, a `popd.auth.account.Client`.")


class IClientCertificate(ICredentials):
    """A TLS client certificate whose chain was verified (EXTERNAL)."""

    username: bytes = Attribute("Who the client wants to be; empty for whom the certificate names.")
    certificate: object = Attribute("The certificate, a `cryptography.x509.Certificate`.")


class IScramKeyring(Interface):
    """What a checker can do besides if it stores SCRAM keys (RFC 5802)."""

    scram_mechanisms: frozenset[str] = Attribute(
        "The mechanisms that it may have keys for: SCRAM-SHA-256, SCRAM-SHA-1; never -PLUS."
    )

    def scram_keys(username: bytes, bare: bytes, mechanism: str) -> Deferred[ScramKeys | None]:
        """Return a user's keys, whose ``owner`` is his `Account`; None if there are none for him.

        Fails with `AuthTemporaryError`.

        :param username: the user's complete canonical name in UTF-8.
        :param bare: what he may be called here instead, without the default domain; or ``b""``.
        """


class IAccounts(Interface):
    """What a checker can do besides if it knows users without their passwords."""

    def account(username: bytes, bare: bytes) -> Deferred[Account | None]:
        """Return what is known of a user (as for `IScramKeyring.scram_keys`); None if nothing.

        It is asked about a user in whose place a master user wants to be.
        Fails with `AuthTemporaryError`.
        """
