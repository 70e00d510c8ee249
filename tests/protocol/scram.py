"""The client's side of SCRAM, with knobs to do it wrong."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass

from popd.protocol.credentials import ScramKeys

__all__ = ["ScramClient", "derive"]


def derive(
    password: bytes, salt: bytes, iterations: int, digest: str = "sha256", owner: object = "joe"
) -> ScramKeys:
    """Return what is stored of a password (RFC 5802 section 3)."""
    salted = hashlib.pbkdf2_hmac(digest, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", digest)
    stored_key = hashlib.new(digest, client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", digest)
    return ScramKeys(salt, iterations, stored_key, server_key, owner)


@dataclass
class ScramClient:
    """A client that may say something else than the server expects.

    :param header: the GS2 header.
    :param binding: the octets of the channel binding.
    :param confirmed: the GS2 header as it is repeated, if another.
    """

    password: bytes = b"pencil"
    digest: str = "sha256"
    name: bytes = b"user"
    nonce: bytes = b"rOprNGfwEbeRWgbNEkqO"
    header: bytes = b"n,,"
    binding: bytes = b""
    confirmed: bytes | None = None
    extension: bytes = b""

    @property
    def bare(self) -> bytes:
        """The first message without its header."""
        return b"n=" + self.name + b",r=" + self.nonce + self.extension

    @property
    def first(self) -> bytes:
        """The first message."""
        return self.header + self.bare

    def final(self, server_first: bytes) -> bytes:
        """Return the final message."""
        fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
        salted = hashlib.pbkdf2_hmac(
            self.digest, self.password, b64decode(fields[b"s"]), int(fields[b"i"])
        )
        header = self.header if self.confirmed is None else self.confirmed
        unproven = b"c=%b,r=%b" % (b64encode(header + self.binding), fields[b"r"])
        unproven += self.extension
        spoken = b",".join([self.bare, server_first, unproven])
        client_key = hmac.digest(salted, b"Client Key", self.digest)
        stored_key = hashlib.new(self.digest, client_key).digest()
        signature = hmac.digest(stored_key, spoken, self.digest)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", self.digest)
        self.expected = b"v=" + b64encode(hmac.digest(server_key, spoken, self.digest))
        return unproven + b",p=" + b64encode(proof)
