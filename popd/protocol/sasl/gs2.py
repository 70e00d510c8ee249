"""The header that SCRAM and OAUTHBEARER begin with (RFC 5801 section 4, RFC 5802 section 7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Header", "read_header", "read_name"]

_HEADER: Final = re.compile(
    rb"(?:p=(?P<binding>[A-Za-z0-9.-]{1,64})|(?P<flag>[ny])),(?:a=(?P<authzid>[^,]+))?,"
)

_STRAY: Final = re.compile(rb"=(?!2C|3D)|\0|,")


@dataclass(frozen=True, slots=True)
class Header:
    """What a client says about channel binding, and for whom it wants to act.

    :param octets: the whole header as it came, which SCRAM's client confirms later.
    :param flag: ``p``: it binds; ``y``: it would, but believes that the server does not;
        ``n``: it does not.
    :param binding: the name of the channel binding, with ``p`` only.
    :param authzid: in UTF-8; empty if there is none.
    """

    octets: bytes
    flag: str
    binding: str
    authzid: bytes


def read_header(message: bytes) -> tuple[Header, bytes]:
    """Return the header of a message, and what stands behind it.

    :raises ValueError: it has none, or a malformed one.
    """
    match = _HEADER.match(message)
    if match is None:
        raise ValueError("no GS2 header")
    header = Header(
        match[0],
        (match["flag"] or b"p").decode("ascii"),
        (match["binding"] or b"").decode("ascii"),
        read_name(match["authzid"]) if match["authzid"] else b"",
    )
    return header, message[match.end() :]


def read_name(text: bytes) -> bytes:
    """Return a name (``saslname``), in which ``=2C`` is a comma and ``=3D`` an equals sign.

    :raises ValueError: another equals sign is in it, or NUL, or what is not UTF-8.
    """
    if _STRAY.search(text):
        raise ValueError("not a name")
    text.decode()
    return text.replace(b"=2C", b",").replace(b"=3D", b"=")
