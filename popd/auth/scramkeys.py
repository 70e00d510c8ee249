"""SCRAM keys (RFC 5802 section 3), as Dovecot stores them: ``iterations,salt,StoredKey,ServerKey``.

The iterations are decimal, the rest is Base64.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from typing import Final

from popd.auth.saslprep import saslprep
from popd.protocol.credentials import ScramKeys

__all__ = ["HASHES", "ITERATIONS", "check", "derive", "parse", "verify", "written"]

HASHES: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
"""The mechanisms, which are Dovecot's names of the schemes too, and the hashes that they use."""

ITERATIONS: Final = range(4096, 1_000_001)
"""How often PBKDF2 iterates.  Less is weak (RFC 7677 section 4); more keeps every client, or the
server if it is given the password, busy for seconds."""

_SALT_OCTETS: Final = 16
_BASE64: Final = rb"(?:[A-Za-z0-9+/]{4})"
_SALT: Final = (
    rb"(?!,)(%b{0,32}(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?)" % _BASE64
)
_DATA: Final = {
    # Both 20 and 32 octets leave two over behind the last three.
    name: re.compile(
        rb"([1-9]\d{0,9}),%b,(%b{%d}[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)"
        rb",(%b{%d}[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)"
        % (_SALT, _BASE64, size // 3, _BASE64, size // 3)
    )
    for name, size in (("SCRAM-SHA-256", 32), ("SCRAM-SHA-1", 20))
}


def check(mechanism: str, data: bytes) -> re.Match[bytes]:
    """Match *data*, whose iterations, salt and two keys are groups of the match.

    :raises ValueError: it is malformed, or the iterations are too few or too many.
    """
    match = _DATA[mechanism].fullmatch(data)
    if match is None:
        raise ValueError("is malformed")
    if int(match[1]) not in ITERATIONS:
        raise ValueError(f"has not {ITERATIONS.start} to {ITERATIONS.stop - 1} iterations")
    return match


def parse(mechanism: str, data: bytes) -> ScramKeys:
    """Return the keys that *data* holds; see `check`."""
    iterations, salt, stored_key, server_key = check(mechanism, data).groups()
    return ScramKeys(b64decode(salt), int(iterations), b64decode(stored_key), b64decode(server_key))


def derive(mechanism: str, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Return the keys of *password*, at the price of PBKDF2, in which other threads run.

    It is prepared by SASLprep, as clients do, if it can be.
    """
    algorithm = HASHES[mechanism]
    salted = hashlib.pbkdf2_hmac(algorithm, _prepared(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return ScramKeys(salt, iterations, hashlib.new(algorithm, client_key).digest(), server_key)


def verify(mechanism: str, data: bytes, password: bytes) -> bool:
    """Tell whether the keys in *data* were made of *password*, at the price of `derive`."""
    keys = parse(mechanism, data)
    derived = derive(mechanism, password, keys.salt, keys.iterations)
    return hmac.compare_digest(derived.stored_key, keys.stored_key)


def written(mechanism: str, password: bytes, iterations: int = ITERATIONS.start) -> str:
    """Return new keys of *password* as they are stored, with their scheme before them."""
    keys = derive(mechanism, password, secrets.token_bytes(_SALT_OCTETS), iterations)
    parts = (keys.salt, keys.stored_key, keys.server_key)
    encoded = ",".join(b64encode(part).decode("ascii") for part in parts)
    return f"{{{mechanism}}}{iterations},{encoded}"


def _prepared(password: bytes) -> bytes:
    if password.isascii():
        return password
    try:
        return saslprep(password.decode()).encode()
    except ValueError:
        return password
