"""MD5 of a challenge and the password: CRAM-MD5 (RFC 2195), and APOP (RFC 1939 section 7).

They are for old clients: whoever hears an exchange can guess passwords at leisure, and the server
has to have the passwords themselves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popd.protocol.credentials import DigestCredentials
from popd.protocol.sasl.exchange import Challenge, Done, Failed, Outcome

if TYPE_CHECKING:
    from popd.protocol.offer import Offer

__all__ = ["CramMD5", "new_challenge", "read_digest"]

_DIGEST: Final = re.compile(rb"[0-9a-f]{32}")


def new_challenge(offer: Offer) -> bytes:
    """Return what no client was asked before, in the form of a Message-ID."""
    return b"<%b>" % offer.unique()


def read_digest(text: bytes, challenge: bytes, mechanism: str) -> DigestCredentials | None:
    """Return the credentials in a user name, a space, and an MD5 digest in hexadecimal.

    None if that is not what *text* is.  The name may have spaces, and is what it is.
    """
    name, _, digest = text.rpartition(b" ")
    if not name or not _DIGEST.fullmatch(digest):
        return None
    return DigestCredentials(name, challenge, digest, mechanism)


class CramMD5:
    """CRAM-MD5: the server speaks first, so that there can be no initial response."""

    __slots__ = ("_challenge", "_offer")

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._challenge = b""

    def step(self, response: bytes | None) -> Outcome:
        """Ask, then take the user name and the digest."""
        if response is None:
            self._challenge = new_challenge(self._offer)
            return Challenge(self._challenge)
        if not self._challenge:
            return Failed()  # an initial response (RFC 5034 section 4)
        credentials = read_digest(response, self._challenge, "CRAM-MD5")
        return Failed() if credentials is None else Done(credentials)
