"""Stored passwords, as Dovecot writes them: ``{SCHEME}data``.

A stored password is checked in full when it is read, so that a damaged one is found when the
administrator looks and not when the user logs in.  All that is left to do then is to `verify`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

import argon2.exceptions
import argon2.low_level
import bcrypt

from popd.auth import crypt3, scramkeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.protocol.credentials import ScramKeys

    Check = Callable[[bytes], bool]

__all__ = ["MAX_PASSWORD_OCTETS", "StoredPassword", "parse", "scheme_of"]

MAX_PASSWORD_OCTETS: Final = 1024
"""The longest password, in octets, that anybody can log in with."""

# The dearest hash that is still accepted costs a few seconds or 1 GiB of memory.
_ARGON2_MAX_KIB: Final = 1024 * 1024
_ARGON2_MAX_KIB_PASSES: Final = 4 * _ARGON2_MAX_KIB
_ARGON2_MAX_LANES: Final = 64
_BCRYPT_COSTS: Final = range(4, 17)
_BCRYPT_MAX_OCTETS: Final = 72
_SHA_CRYPT_MAX_ROUNDS: Final = 10_000_000

_PLAIN: Final = ("PLAIN", "CLEARTEXT", "CLEAR")

_FIELD: Final = re.compile(
    r"\{([A-Z0-9-]+)(?:\.(B64|BASE64|HEX))?\}(.*)", re.ASCII | re.DOTALL | re.IGNORECASE
)
_ARGON2: Final = re.compile(
    rb"\$argon2(id?)(?:\$v=(?:16|19))?\$m=([1-9]\d{0,9}),t=([1-9]\d{0,9}),p=([1-9]\d{0,9})"
    rb"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_BCRYPT: Final = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_SHA_CRYPT: Final = re.compile(
    rb"(?:\$6\$(?:rounds=([1-9]\d{3,8})\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{86}"
    rb"|\$5\$(?:rounds=([1-9]\d{3,8})\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{43})"
)
# Of yescrypt's many parameters those that crypt_gensalt(3) chooses: cost 1 (1 MiB) to 11 (1 GiB).
_YESCRYPT: Final = re.compile(rb"\$y\$j(?:[789]5|[9A-F]T)\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}")


class StoredPassword:
    """What is kept of one user's password; shows nothing of it.

    :param scheme: its scheme, in upper case.
    :param check: tells whether a password is the one stored; it gets none that is impossible.
    :param data: what is stored.
    """

    __slots__ = ("_check", "_data", "scheme")

    def __init__(self, scheme: str, check: Check, data: bytes = b"") -> None:
        self.scheme = scheme
        self._check = check
        self._data = data

    def __repr__(self) -> str:
        """Return the scheme and nothing else."""
        return f"<StoredPassword {self.scheme}>"

    @property
    def plain(self) -> bytes | None:
        """The password itself, where that is stored: what CRAM-MD5 and APOP need."""
        return self._data if self.scheme in _PLAIN else None

    @property
    def scram_keys(self) -> ScramKeys | None:
        """The keys, where SCRAM's are stored; the scheme is then the name of the mechanism."""
        return scramkeys.parse(self.scheme, self._data) if self.scheme in scramkeys.HASHES else None

    def verify(self, password: bytes) -> bool:
        """Tell whether *password* is the one stored.

        This may take seconds, in which other threads run.  An empty password, one with NUL
        (RFC 4616 section 2) and one of more than `MAX_PASSWORD_OCTETS` octets never match, but
        cost what others cost.

        :raises Exception: it could not be found out, for want of memory for example.
        """
        possible = 0 < len(password) <= MAX_PASSWORD_OCTETS and b"\0" not in password
        return self._check(password if possible else b"impossible") and possible


def parse(field: str) -> StoredPassword:
    """Return the stored password that *field* of a passwd-file describes.

    Known are Dovecot's schemes ARGON2ID and ARGON2I, BLF-CRYPT (bcrypt), SHA512-CRYPT,
    SHA256-CRYPT, SSHA512, SSHA, SCRAM-SHA-256, SCRAM-SHA-1, PLAIN (CLEARTEXT, CLEAR), and CRYPT,
    which stands for any of the crypts, yescrypt among them (also called YESCRYPT) where the system
    has it.  Case does not matter, and ``.b64``, ``.base64`` or ``.hex`` after the name says how the
    data is encoded.  Data that begins with ``$`` needs no scheme, it is CRYPT.

    :raises ValueError: the scheme is unknown, the data is malformed, or to verify it would
        exhaust the server.  The text says which and repeats nothing of the data.
    """
    match = _FIELD.fullmatch("{CRYPT}" + field if field.startswith("$") else field)
    if match is None:
        raise ValueError("there is no {SCHEME} before the password")
    scheme, encoding, data = match[1].upper(), match[2], match[3]
    if scheme not in _SCHEMES:
        raise ValueError(f"the password scheme is none of {', '.join(_SCHEMES)}")
    make, usual_encoding = _SCHEMES[scheme]
    try:
        octets = _DECODERS[(encoding or usual_encoding).upper()](data)
    except ValueError:
        raise ValueError(f"the {scheme} data is not encoded as it says") from None
    try:
        return StoredPassword(scheme, make(octets), octets)
    except ValueError as reason:
        raise ValueError(f"the {scheme} data {reason}") from None


def scheme_of(field: str) -> str:
    """Return the scheme of a *field* that can be parsed, in upper case and without encoding."""
    if not field.startswith("{"):
        return "CRYPT"
    scheme = field[1:].partition("}")[0].partition(".")[0].upper()
    return "PLAIN" if scheme in _PLAIN else scheme


def _plain(stored: bytes) -> Check:
    """Compare with the password itself."""
    if not stored or b"\0" in stored:
        raise ValueError("is no password: it is empty or has a NUL in it")
    return lambda password: compare_digest(password, stored)


def _salted(algorithm: str) -> Callable[[bytes], Check]:
    """Compare with a digest that has its salt behind it, as LDAP directories keep them."""
    size = hashlib.new(algorithm).digest_size

    def make(stored: bytes) -> Check:
        digest, salt = stored[:size], stored[size:]
        if len(digest) < size or len(salt) > size:
            raise ValueError("is too short or too long")
        return lambda password: compare_digest(
            digest, hashlib.new(algorithm, password + salt).digest()
        )

    return make


def _scram(mechanism: str) -> Callable[[bytes], Check]:
    """Derive the keys of SCRAM from a password, and compare."""

    def make(stored: bytes) -> Check:
        scramkeys.check(mechanism, stored)
        return partial(scramkeys.verify, mechanism, stored)

    return make


def _argon2(stored: bytes) -> Check:
    """Verify with Argon2 (RFC 9106) in the PHC string format."""
    match = _ARGON2.fullmatch(stored)
    if match is None or not (_is_base64(match[5]) and _is_base64(match[6])):
        raise ValueError("is malformed")
    kib, passes, lanes = int(match[2]), int(match[3]), int(match[4])
    if (
        not 8 * lanes <= kib <= _ARGON2_MAX_KIB
        or kib * passes > _ARGON2_MAX_KIB_PASSES
        or lanes > _ARGON2_MAX_LANES
    ):
        raise ValueError("asks for more memory or time than popd allows")
    variant = argon2.low_level.Type.ID if match[1] == b"id" else argon2.low_level.Type.I

    def check(password: bytes) -> bool:
        try:
            return argon2.low_level.verify_secret(stored, password, variant)
        except argon2.exceptions.VerifyMismatchError:
            return False

    return check


def _is_base64(text: bytes) -> bool:
    """Tell whether *text* is what an encoder makes, less its padding."""
    padded = text + b"=" * (-len(text) % 4)
    try:
        return base64.b64encode(base64.b64decode(padded)) == padded
    except ValueError:
        return False


def _crypt(stored: bytes) -> Check:
    """Verify with whichever crypt(3) method the data names; bcrypt is one of them."""
    if match := _BCRYPT.fullmatch(stored):
        if int(match[1]) not in _BCRYPT_COSTS:
            raise ValueError("asks for more time than popd allows")
        return lambda password: bcrypt.checkpw(password[:_BCRYPT_MAX_OCTETS], stored)
    if match := _SHA_CRYPT.fullmatch(stored):
        if int(match[1] or match[2] or 0) > _SHA_CRYPT_MAX_ROUNDS:
            raise ValueError("asks for more time than popd allows")
        return _system_crypt(stored) if crypt3.knows(stored[:3]) else _sha_crypt(stored)
    if _YESCRYPT.fullmatch(stored):
        if not crypt3.knows(stored[:3]):
            raise ValueError("is yescrypt, which this system's crypt(3) does not know")
        return _system_crypt(stored)
    raise ValueError("is malformed, or of a method that popd does not know or allow")


def _system_crypt(stored: bytes) -> Check:
    """Verify with the system's crypt(3)."""

    def check(password: bytes) -> bool:
        possible = len(password) <= crypt3.MAX_PASSWORD_OCTETS
        hashed = crypt3.crypt(password if possible else b"impossible", stored)
        return compare_digest(hashed, stored) and possible

    return check


def _sha_crypt(stored: bytes) -> Check:
    """Verify with libpass: pure Python, which holds up every other thread."""
    from passlib.hash import sha256_crypt, sha512_crypt  # type: ignore[import-untyped]  # noqa: PLC0415

    method = sha512_crypt if stored.startswith(b"$6$") else sha256_crypt
    return lambda password: bool(method.verify(password, stored))


_SCHEMES: Final[dict[str, tuple[Callable[[bytes], Check], str]]] = {
    "ARGON2ID": (_argon2, ""),
    "ARGON2I": (_argon2, ""),
    "BLF-CRYPT": (_crypt, ""),
    "SHA512-CRYPT": (_crypt, ""),
    "SHA256-CRYPT": (_crypt, ""),
    "YESCRYPT": (_crypt, ""),
    "CRYPT": (_crypt, ""),
    "SSHA512": (_salted("sha512"), "B64"),
    "SSHA": (_salted("sha1"), "B64"),
    **{mechanism: (_scram(mechanism), "") for mechanism in scramkeys.HASHES},
    **dict.fromkeys(_PLAIN, (_plain, "")),
}
"""How each scheme is verified, and the encoding of its data if nothing says otherwise."""

_DECODERS: Final[dict[str, Callable[[str], bytes]]] = {
    "": str.encode,
    "B64": partial(base64.b64decode, validate=True),
    "BASE64": partial(base64.b64decode, validate=True),
    "HEX": binascii.unhexlify,
}
