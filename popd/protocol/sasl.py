"""SASL mechanisms as steppers (RFC 4422), and the base64 that carries them (RFC 5034).

A mechanism knows no framing: `Mechanism.step` takes a decoded response and says what comes of it.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from popd.protocol.credentials import PasswordCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MECHANISMS",
    "Challenge",
    "Done",
    "Failed",
    "Login",
    "Mechanism",
    "Plain",
    "decode",
    "encode",
]


_BASE64: Final = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?",
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's next words, not yet in base64."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The exchange is over; whether the credentials are good is for others to say."""

    credentials: PasswordCredentials


@dataclass(frozen=True, slots=True)
class Failed:
    """The client broke the rules of the mechanism."""


class Mechanism(Protocol):
    """One exchange with one client."""

    def step(self, response: bytes | None) -> Challenge | Done | Failed:
        """Take the client's next response; None at the start if it sent no initial one."""


def decode(response: bytes) -> bytes:
    """Return what a base64 response says; ``=`` stands for an empty one (RFC 5034 section 4).

    :raises ValueError: it is not base64 to the letter.  Stray octets are an error, not skipped.
    """
    if response == b"=":
        return b""
    if not _BASE64.fullmatch(response):  # binascii's strict mode takes one "=" too many
        raise ValueError("not base64")
    return binascii.a2b_base64(response)


def encode(challenge: bytes) -> bytes:
    """Return *challenge* in base64, on one line."""
    return binascii.b2a_base64(challenge, newline=False)


def _credentials(username: bytes, password: bytes) -> Done | Failed:
    return Done(PasswordCredentials(username, password)) if username and password else Failed()


class Plain:
    """PLAIN (RFC 4616): one message, ``[authzid] NUL authcid NUL passwd``.

    Acting for somebody else is not possible: an authorization identity that differs from the
    authentication identity fails.
    """

    def step(self, response: bytes | None) -> Challenge | Done | Failed:
        """Take the message, or ask for it."""
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or parts[0] not in {b"", parts[1]}:  # noqa: PLR2004 - RFC 4616 section 2
            return Failed()
        return _credentials(parts[1], parts[2])


class Login:
    """LOGIN (draft-murchison-sasl-login): user name and password, one after the other.

    Obsolete, but older mail programs know no other.  Some send the user name at once.
    """

    def __init__(self) -> None:
        self._username: bytes | None = None

    def step(self, response: bytes | None) -> Challenge | Done | Failed:
        """Take the user name, then the password."""
        if response is None:
            return Challenge(b"Username:")
        if self._username is None:
            self._username = response
            return Challenge(b"Password:")
        return _credentials(self._username, response)


MECHANISMS: Mapping[bytes, Callable[[], Mechanism]] = {b"PLAIN": Plain, b"LOGIN": Login}
"""The mechanisms by their registered names, in the order in which they are offered."""
