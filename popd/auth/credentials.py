"""What checkers are given: the credentials of every mechanism in the shapes of `twisted.cred`."""

from __future__ import annotations

import hashlib
import hmac
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from twisted.cred.credentials import ICredentials, IUsernameHashedPassword, UsernamePassword
from zope.interface import implementer

from popd.auth.account import Client
from popd.auth.interfaces import IBearerToken, IClientCertificate
from popd.protocol.credentials import (
    CertificateCredentials,
    Credentials,
    DigestCredentials,
    PasswordCredentials,
    ScramCredentials,
    ScramKeys,
    TokenCredentials,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from popd.auth.account import Account

__all__ = [
    "NOWHERE",
    "Attempt",
    "BearerToken",
    "Claim",
    "ClientCertificate",
    "Digest",
    "IScramOutcome",
    "Question",
    "ScramOutcome",
    "adapt",
    "octets",
]

NOWHERE: Final = Client()
"""Where credentials come from that no client has shown."""


class IScramOutcome(ICredentials):
    """A SCRAM exchange that is over: a matter of the chain, which no checker is asked about."""


class _Claim:
    """What all credentials have besides, for checkers and for whoever asks the chain.

    The chain gives checkers a copy with the canonical name, see `renamed`.
    """

    bare = b""
    """The name without the default domain, if it is in that."""

    delay: float | None = None
    """Seconds that the guard wants to pass first, once it was asked."""

    account: Account | None = None
    """Who was let in."""

    master = ""
    """The canonical name of the master who was let in as *account*; empty if nobody was."""

    def __init__(self, username: bytes, mechanism: str, authzid: bytes, client: Client) -> None:
        self.username = username
        self.mechanism = mechanism
        self.authzid = authzid
        self.client = client


class Attempt(_Claim, UsernamePassword):
    """A password; gives nothing away by the time it takes to compare it.

    :param username: whose it is said to be.
    :param password: the password.
    :param client: where it comes from.
    :param authzid: for whom the user wants to act; empty for himself.
    :param mechanism: how it came.
    """

    def __init__(
        self,
        username: bytes,
        password: bytes,
        client: Client = NOWHERE,
        authzid: bytes = b"",
        mechanism: str = "USER",
    ) -> None:
        # Not by way of the other classes, which would take twice the time: most log-ins come here.
        self.username = username
        self.password = password
        self.client = client
        self.authzid = authzid
        self.mechanism = mechanism

    def renamed(self, username: bytes, bare: bytes = b"") -> Attempt:
        """Return the same for a user of another name."""
        attempt = Attempt(username, self.password, self.client, b"", self.mechanism)
        attempt.bare = bare
        return attempt

    def checkPassword(self, password: bytes) -> bool:
        """Tell whether *password* is the one that was given."""
        return compare_digest(self.password, octets(password))


@implementer(IUsernameHashedPassword)
class Digest(_Claim):
    """What a client computed of a challenge and its password, by CRAM-MD5 or APOP.

    :param shown: what it said.
    :param client: where it comes from.
    """

    def __init__(self, shown: DigestCredentials, client: Client = NOWHERE) -> None:
        super().__init__(shown.username, shown.mechanism, b"", client)
        self._shown = shown

    def renamed(self, username: bytes, bare: bytes = b"") -> Digest:
        """Return the same for a user of another name."""
        digest = Digest(self._shown, self.client)
        digest.username, digest.bare = username, bare
        return digest

    def checkPassword(self, password: bytes) -> bool:
        """Tell whether *password* is the one that the client knows."""
        secret, challenge = octets(password), self._shown.challenge
        if self.mechanism == "APOP":  # RFC 1939 section 7
            digest = hashlib.md5(challenge + secret, usedforsecurity=False).hexdigest()
        else:  # RFC 2195 section 2
            digest = hmac.new(secret, challenge, "md5").hexdigest()
        return compare_digest(digest.encode("ascii"), self._shown.response)


@implementer(IBearerToken)
class BearerToken(_Claim):
    """A token, see `IBearerToken`.

    :param username: whose it is said to be; empty if the token alone says it.
    :param token: the token.
    :param client: where it comes from.
    :param mechanism: how it came.
    """

    def __init__(
        self,
        username: bytes,
        token: bytes,
        client: Client = NOWHERE,
        mechanism: str = "OAUTHBEARER",
    ) -> None:
        super().__init__(username, mechanism, b"", client)
        self.token = token

    def renamed(self, username: bytes, bare: bytes = b"") -> BearerToken:
        """Return the same for a user of another name."""
        token = BearerToken(username, self.token, self.client, self.mechanism)
        token.bare = bare
        return token


@implementer(IClientCertificate)
class ClientCertificate(_Claim):
    """A certificate, see `IClientCertificate`.

    :param username: who the client wants to be; empty for whom the certificate names.
    :param certificate: what the client proved to be in the TLS handshake; None if it did not.
    :param client: where it comes from.
    """

    def __init__(
        self, username: bytes, certificate: Certificate | None, client: Client = NOWHERE
    ) -> None:
        super().__init__(username, "EXTERNAL", b"", client)
        self.certificate = certificate

    def renamed(self, username: bytes, bare: bytes = b"") -> ClientCertificate:
        """Return the same for a user of another name."""
        certificate = ClientCertificate(username, self.certificate, self.client)
        certificate.bare = bare
        return certificate


@implementer(IScramOutcome)
class ScramOutcome(_Claim):
    """A SCRAM exchange that is over, see `IScramOutcome`.

    :param shown: how it ended.
    :param client: where it comes from.
    """

    def __init__(self, shown: ScramCredentials, client: Client = NOWHERE) -> None:
        super().__init__(shown.username, shown.mechanism, shown.authzid, client)
        self.proven: bool = shown.proven
        self.keys: ScramKeys = shown.keys


Question: TypeAlias = Attempt | Digest | BearerToken | ClientCertificate
"""What checkers may be asked about."""

Claim: TypeAlias = Question | ScramOutcome
"""All of these."""


def adapt(shown: Credentials, client: Client, certificate: Certificate | None = None) -> Claim:
    """Return what a client showed as checkers want it.

    :param client: the client.
    :param certificate: its TLS certificate, whose chain was verified, if it has one.
    """
    match shown:
        case PasswordCredentials(username, password, authzid, mechanism):
            return Attempt(username, password, client, authzid, mechanism)
        case TokenCredentials(username, token, mechanism):
            return BearerToken(username, token, client, mechanism)
        case DigestCredentials():
            return Digest(shown, client)
        case CertificateCredentials(authzid):
            return ClientCertificate(authzid, certificate, client)
        case ScramCredentials():
            return ScramOutcome(shown, client)
        case _:
            assert_never(shown)


def octets(text: bytes | str) -> bytes:
    """Return *text* in octets: Twisted's checkers know both."""
    return text.encode() if isinstance(text, str) else text
