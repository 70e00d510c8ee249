"""The base64 that carries SASL messages (RFC 5034 section 4), and salts and proofs in some."""

from __future__ import annotations

import binascii
import re
from typing import Final

__all__ = ["decode", "encode"]

_BASE64: Final = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?",
)


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
