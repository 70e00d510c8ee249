"""SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, and the server too.

The keys come from outside in the middle of the exchange: nothing here knows a user, and nothing
derives a key from a password, which takes long.
"""

from __future__ import annotations

import hashlib
import re
from hmac import compare_digest, digest
from typing import TYPE_CHECKING, Final

from popd.protocol.credentials import ScramCredentials, ScramKeys
from popd.protocol.sasl.exchange import Ask, Challenge, Done, Failed, Outcome
from popd.protocol.sasl.framing import decode, encode
from popd.protocol.sasl.gs2 import Header, read_header, read_name

if TYPE_CHECKING:
    from popd.protocol.channel import Channel

__all__ = ["BINDINGS", "Scram"]

BINDINGS: Final = frozenset({"tls-exporter", "tls-server-end-point"})
"""The channel bindings that clients may use (RFC 9266, RFC 5929 section 4).  ``tls-unique`` is not
among them: it does not exist in TLS 1.3, and is not safe before that without more."""

_DIGESTS: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}

_MAX_MESSAGE: Final = 4_096
"""The longest message that is taken, in octets; with a channel binding most have less than 300."""

_NONCE: Final = rb"[\x21-\x2b\x2d-\x7e]"

# Unknown attributes are ignored, but for "m", and where they have to stand (RFC 5802 section 5.1);
# none may be named like one that is known.
_EXTENSIONS: Final = rb"(?:,[A-Zbdfghjkloqtuwxyz]=[^,\0]+)*"

_FIRST: Final = re.compile(
    rb"n=(?P<name>[^,]+),r=(?P<nonce>%b{1,256})%b" % (_NONCE, _EXTENSIONS),
)

_FINAL: Final = re.compile(
    rb"(?P<unproven>c=(?P<bound>[^,]+),r=(?P<nonce>%b+)%b),p=(?P<proof>[^,]+)"
    % (_NONCE, _EXTENSIONS),
)

_BAD_BINDING: Final = Failed("[AUTH] the channel binding is missing or wrong")


class Scram:
    """One SCRAM exchange.

    :param name: the name of the mechanism, with ``-PLUS`` if the client must bind the exchange to
        the TLS connection.
    :param channel: the connection beneath.
    """

    __slots__ = (
        "_authzid",
        "_bare",
        "_bound",
        "_channel",
        "_digest",
        "_family",
        "_keys",
        "_name",
        "_nonce",
        "_proven",
        "_server_first",
        "_username",
    )

    def __init__(self, name: str, channel: Channel) -> None:
        self._name = name
        self._family = name.removesuffix("-PLUS")
        self._digest = _DIGESTS[self._family]
        self._channel = channel
        self._keys: ScramKeys | None = None
        self._proven: ScramCredentials | None = None

    def step(self, response: bytes | None) -> Outcome:
        """Take the client's first message, its final one, and nothing after that."""
        if response is None:
            return Challenge(b"")
        if self._proven is not None:
            return Failed() if response else Done(self._proven)
        try:
            if len(response) > _MAX_MESSAGE:
                return Failed()
            response.decode()
            if self._keys is None:
                return self._take_first(response)
            return self._take_final(response, self._keys)
        except ValueError:
            return Failed()

    def _take_first(self, message: bytes) -> Outcome:
        header, self._bare = read_header(message)
        first = _FIRST.fullmatch(self._bare)
        if first is None:
            return Failed()
        binding = self._binding(header)
        if binding is None:
            return _BAD_BINDING
        self._bound = encode(header.octets + binding)
        self._username = read_name(first["name"])
        self._authzid = b"" if header.authzid == self._username else header.authzid
        self._nonce = first["nonce"] + self._channel.offer.unique()
        return Ask(self._username, self._family)

    def _binding(self, header: Header) -> bytes | None:
        """Return the octets that the client must have bound to; None if what it says is wrong."""
        plus = self._name != self._family
        if header.flag == "p":
            bindings = self._channel.bindings
            if plus and bindings is not None and header.binding in BINDINGS:
                return bindings(header.binding)
            return None
        if plus or (header.flag == "y" and self._channel.binding_offered):
            # It believes that no -PLUS is offered: somebody took that out of our list.
            return None
        return b""

    def found(self, keys: ScramKeys) -> Challenge:
        """Take the keys that were asked for, and return the server's first message."""
        self._keys = keys
        salt = encode(keys.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, keys.iterations)
        return Challenge(self._server_first)

    def _take_final(self, message: bytes, keys: ScramKeys) -> Outcome:
        final = _FINAL.fullmatch(message)
        if final is None or final["nonce"] != self._nonce:
            return Failed()
        if final["bound"] != self._bound:
            return _BAD_BINDING
        proof = decode(final["proof"])
        spoken = b",".join((self._bare, self._server_first, final["unproven"]))
        signature = digest(keys.stored_key, spoken, self._digest)
        if len(proof) != len(signature):
            return Failed()
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        matches = compare_digest(hashlib.new(self._digest, client_key).digest(), keys.stored_key)
        proven = matches and keys.owner is not None
        credentials = ScramCredentials(self._username, self._authzid, proven, keys, self._name)
        if not proven:
            return Done(credentials)
        self._proven = credentials
        return Challenge(b"v=" + encode(digest(keys.server_key, spoken, self._digest)))
