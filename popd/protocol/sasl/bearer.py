"""The mechanisms that send a bearer token: OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's draft).

Both send key-value pairs, each of which ends in ^A, and are told why a token is refused by a
challenge in JSON, to which they answer something that says nothing.
"""

from __future__ import annotations

import re
from typing import Final

from popd.protocol.credentials import TokenCredentials
from popd.protocol.sasl.exchange import Challenge, Done, Failed, Outcome
from popd.protocol.sasl.gs2 import read_header

__all__ = ["OAuthBearer", "XOAuth2"]

_PAIRS: Final = re.compile(rb"(?:[A-Za-z]+=[\t\n\r\x20-\x7e\x80-\xff]*\x01)+\x01")

_VALUES: Final = {
    # "Bearer" in any case (RFC 7235 section 2.1); RFC 6750 section 2.1 allows less in a token than
    # some who issue them do.
    b"auth": re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE),
    b"user": re.compile(rb"([^\x00-\x1f\x7f]*)"),
    b"host": re.compile(rb"([\x21-\x7e]*)"),
    b"port": re.compile(rb"([0-9]{1,5})"),
}
"""What the keys that are known may say; others are ignored (RFC 7628 section 3.1)."""


class OAuthBearer:
    """OAUTHBEARER: a header that may name a user, then the pairs."""

    __slots__ = ()

    regret = b'{"status":"invalid_token"}'  # RFC 7628 section 3.2.2

    def step(self, response: bytes | None) -> Outcome:
        """Take the message, or ask for it."""
        if response is None:
            return Challenge(b"")
        try:
            header, pairs = read_header(response)
            if header.flag == "p" or not pairs.startswith(b"\x01"):
                return Failed()
            values = _read_pairs(pairs[1:])
        except ValueError:
            return Failed()
        return _done(header.authzid, values, "OAUTHBEARER", self.regret)


class XOAuth2:
    """XOAUTH2: the pairs alone, of which one names the user."""

    __slots__ = ()

    regret = b'{"status":"400","schemes":"Bearer"}'

    def step(self, response: bytes | None) -> Outcome:
        """Take the message, or ask for it."""
        if response is None:
            return Challenge(b"")
        try:
            values = _read_pairs(response)
        except ValueError:
            return Failed()
        if b"user" not in values:
            return Failed()
        return _done(values[b"user"], values, "XOAUTH2", self.regret)


def _done(username: bytes, values: dict[bytes, bytes], mechanism: str, regret: bytes) -> Outcome:
    token = values.get(b"auth")
    return Done(TokenCredentials(username, token, mechanism), regret) if token else Failed()


def _read_pairs(text: bytes) -> dict[bytes, bytes]:
    """Return what the pairs say whose keys are known: of ``auth``, the token.

    :raises ValueError: they are not well formed, or one of them is there twice.
    """
    if not _PAIRS.fullmatch(text):
        raise ValueError("no pairs")
    text.decode()
    values: dict[bytes, bytes] = {}
    for pair in text[:-2].split(b"\x01"):
        key, _, value = pair.partition(b"=")
        syntax = _VALUES.get(key)
        if syntax is None:
            continue
        match = syntax.fullmatch(value)
        if match is None or key in values:
            raise ValueError("a bad pair")
        values[key] = match[1]
    return values
