"""What a client shows to be let in."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PasswordCredentials"]


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """A user name and a password, as the client sent them; neither is empty.

    The password is left out of the ``repr``, so that none ends up in a log.
    """

    username: bytes
    password: bytes = field(repr=False)
