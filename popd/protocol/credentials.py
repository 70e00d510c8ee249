"""What a client shows to be let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "CertificateCredentials",
    "Credentials",
    "DigestCredentials",
    "PasswordCredentials",
    "ScramCredentials",
    "ScramKeys",
    "TokenCredentials",
]


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """A user name and a password, as the client sent them; neither is empty.

    Secrets are left out of the ``repr`` of all credentials, so that none ends up in a log.

    :param authzid: for whom the user wants to act; empty for himself (RFC 4616 section 2).
    :param mechanism: how they came: ``USER`` for USER and PASS, or the name of a SASL mechanism.
    """

    username: bytes
    password: bytes = field(repr=False)
    authzid: bytes = b""
    mechanism: str = "USER"


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """A bearer token (RFC 6750), and whose it is said to be; the token may not be empty.

    :param username: empty if the token alone says who it is.
    :param mechanism: ``OAUTHBEARER`` (RFC 7628) or ``XOAUTH2``.
    """

    username: bytes
    token: bytes = field(repr=False)
    mechanism: str


@dataclass(frozen=True, slots=True)
class DigestCredentials:
    """What a client computed of the server's challenge and its password.

    :param challenge: what the server sent, with its angle brackets.
    :param response: the client's digest in lower-case hexadecimal.
    :param mechanism: ``CRAM-MD5`` (RFC 2195) or ``APOP`` (RFC 1939 section 7).
    """

    username: bytes
    challenge: bytes
    response: bytes = field(repr=False)
    mechanism: str


@dataclass(frozen=True, slots=True)
class CertificateCredentials:
    """EXTERNAL (RFC 4422 appendix A): let the client's TLS certificate speak.

    :param authzid: who the client wants to be; empty for whoever the certificate names.
    """

    authzid: bytes
    mechanism: str = "EXTERNAL"


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What is stored of a password for SCRAM (RFC 5802 section 3): it cannot be used to log in.

    :param iterations: of PBKDF2, which the client carries out.
    :param owner: whose keys these are, in the words of whoever looked them up; None if they are
        made up, for a user who does not exist.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    owner: object = None


@dataclass(frozen=True, slots=True)
class ScramCredentials:
    """The outcome of a SCRAM exchange.

    :param proven: whether the client knows the password.
    :param keys: what it was checked against.
    :param mechanism: ``SCRAM-SHA-256`` and the like.
    """

    username: bytes
    authzid: bytes
    proven: bool
    keys: ScramKeys
    mechanism: str


Credentials: TypeAlias = (
    PasswordCredentials
    | TokenCredentials
    | DigestCredentials
    | CertificateCredentials
    | ScramCredentials
)
"""All of these."""
