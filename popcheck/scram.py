"""SCRAM-SHA-256 from a client's side (RFC 5802, RFC 7677), without channel binding."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

__all__ = ["Client"]

_MOST: Final = 1_000_000
"""Iterations that a client goes along with."""


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


class Client:
    """Who logs in.

    :param user: the user's name.
    :param password: the password.
    """

    def __init__(self, user: bytes, password: bytes) -> None:
        self._password = password
        self._nonce = secrets.token_urlsafe(18).encode()
        name = user.replace(b"=", b"=3D").replace(b",", b"=2C")
        self._bare = b"n=%s,r=%s" % (name, self._nonce)
        self.first = b"n,," + self._bare
        """What is sent first."""
        self.iterations = 0
        """How often the password is hashed, once the server has said it."""
        self.signature = b""
        """What the server has to say last, once it has spoken first."""

    def final(self, challenge: bytes) -> bytes:
        """Return the answer to the server's first word.

        :raises ValueError: it is no such word.
        """
        fields = dict(part.split(b"=", 1) for part in challenge.split(b",") if b"=" in part)
        nonce, salt = fields.get(b"r", b""), base64.b64decode(fields.get(b"s", b""))
        self.iterations = int(fields.get(b"i", b"0"))
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ValueError("the server's nonce does not begin with the client's, or is no longer")
        if not 0 < self.iterations <= _MOST:
            raise ValueError(f"the server wants {self.iterations} iterations")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, self.iterations)
        key = _mac(salted, b"Client Key")
        bare = b"c=biws,r=" + nonce
        signed = b",".join([self._bare, challenge, bare])
        mask = _mac(hashlib.sha256(key).digest(), signed)
        proof = bytes(one ^ two for one, two in zip(key, mask, strict=True))
        self.signature = b"v=" + base64.b64encode(_mac(_mac(salted, b"Server Key"), signed))
        return bare + b",p=" + base64.b64encode(proof)
