"""New passwords: what is no password, and what is stored of one."""

from __future__ import annotations

from typing import Final

from popd.auth.saslprep import saslprep
from popd.auth.schemes import MAX_PASSWORD_OCTETS
from popd.auth.scramkeys import written
from popd.ctl.store import Hashes, RefusedError

__all__ = ["hashed"]

_ITERATIONS: Final = 65_536
"""Of PBKDF2, which each log-in by SCRAM costs the client: some 20 ms.  Whoever steals the file has
to spend it on each guess, and as the keys stand beside the argon2id hash, no more than that."""


def hashed(password: bytes) -> Hashes:
    """Return what is stored of a new password: argon2id (RFC 9106) and the keys of SCRAM.

    The hash is of the octets as they are, which PLAIN and PASS send, too; the keys are of what
    SASLprep makes of them, as SCRAM's clients do (RFC 5802 section 2.2).

    :raises RefusedError: it can be nobody's password.
    """
    import argon2  # noqa: PLC0415 - not for whoever only looks

    if not password:
        raise RefusedError("the password is empty")
    if len(password) > MAX_PASSWORD_OCTETS:
        raise RefusedError(f"the password has more than {MAX_PASSWORD_OCTETS} octets")
    try:
        prepared = saslprep(password.decode())
    except UnicodeDecodeError:
        raise RefusedError("the password is not UTF-8") from None
    except ValueError as reason:
        raise RefusedError(f"the password cannot be used: {reason}") from None
    if not prepared:
        raise RefusedError("the password has nothing in it that SASLprep leaves (RFC 4013)")
    hash_ = argon2.PasswordHasher().hash(password)
    return Hashes(f"{{ARGON2ID}}{hash_}", written("SCRAM-SHA-256", password, _ITERATIONS))
