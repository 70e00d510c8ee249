"""Who is meant by what a client shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from popd.auth.credentials import Attempt, BearerToken, Claim, ClientCertificate
from popd.maildrop.user import UserName

__all__ = ["MASTER_SEPARATOR", "NOBODY", "Person", "bare_name", "shown_name"]

MASTER_SEPARATOR: Final = b"*"
"""Between a user's name and that of the master who wants to be let in as that user."""

NOBODY: Final = b".nobody"
"""Looked up in place of a name that cannot exist.  Cannot exist either, but harms no backend."""

_SHOWN: Final = 255
"""Octets of a name that no user can have that are looked at."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is to be authenticated.

    :param name: his canonical name, complete, or `NOBODY`; empty if the credentials alone say who
        he is.
    :param bare: his name without the default domain, if it is in that.
    :param wanted: in whose place he wants to be; None for his own.
    :param possible: whether there can be such a user, with such credentials.
    :param shown: what he is known by whether he can exist or not.
    """

    name: bytes
    bare: bytes = b""
    wanted: UserName | None = None
    possible: bool = True
    shown: bytes = b""

    @classmethod
    def of(cls, claim: Claim, default_domain: str) -> Person:
        """Return who *claim* is about.  Bare names are completed with *default_domain*."""
        username, wanted, possible = claim.username, claim.authzid, True
        if isinstance(claim, BearerToken | ClientCertificate):
            # Whom they name and who the client wants to be are compared when the former is known.
            wanted = username
            possible = isinstance(claim, BearerToken) or claim.certificate is not None
            if not username:
                return cls(b"", possible=possible)
        elif isinstance(claim, Attempt):
            possible = bool(claim.password) and b"\0" not in claim.password
            target, separator, master = username.rpartition(MASTER_SEPARATOR)
            if separator:
                possible = possible and bool(target) and wanted in {b"", target}
                username, wanted = master, target
        user = UserName.parse(username, default_domain)
        target_user = UserName.parse(wanted, default_domain) if wanted else None
        shown = shown_name(username, user)
        if user is None or not possible or (wanted and target_user is None):
            return cls(NOBODY, possible=False, shown=shown)
        if target_user == user and username is not wanted:
            target_user = None
        return cls(shown, bare_name(user, default_domain), target_user, shown=shown)


def shown_name(username: bytes, user: UserName | None) -> bytes:
    """Return what a user is known by, of whom *username* was said: even if nobody is called so."""
    return username[:_SHOWN] if user is None else str(user).encode()


def bare_name(user: UserName | None, default_domain: str) -> bytes:
    """Return the name of *user* without the default domain, if it is in that; or ``b""``."""
    if user is None or not user.domain or user.domain != default_domain.lower():
        return b""
    return user.local.encode()
