"""XCLIENT: who a client is, by the words of a proxy that has read its commands, as Dovecot's has.

There is no standard.  Dovecot looks for ``[XCLIENT]`` in the greeting and then sends, in front of
the log-in and without waiting for the reply, ``XCLIENT ADDR=192.0.2.1 PORT=1234 SESSION=x TTL=4``,
perhaps with more.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from popd.protocol.commands import BadCommandError, words
from popd.protocol.proxy import Introduction

__all__ = ["MARK", "parse"]

MARK: Final = b"[XCLIENT] "
"""Stands in front of the greeting's text where the command is offered."""

_MAX_PORT: Final = 65_535
_MAX_DIGITS: Final = 5


def parse(arguments: bytes) -> Introduction:
    """Return what the arguments of an XCLIENT command say.

    What is not known is ignored, since proxies say more than is of use here.

    :raises BadCommandError: they make no sense, or do not say the address.
    """
    address, port, tls = "", 0, None
    for word in words(arguments):
        name, _, value = word.partition(b"=")
        match name.upper():
            case b"ADDR":
                address = _address(value)
            case b"PORT":
                if not value.isdigit() or len(value) > _MAX_DIGITS or int(value) > _MAX_PORT:
                    raise BadCommandError("that is no port")
                port = int(value)
            case b"CLIENT-TRANSPORT":
                tls = value.upper().startswith(b"TLS")
    if not address:
        raise BadCommandError("the client's address is needed")
    return Introduction(address, port, tls)


def _address(value: bytes) -> str:
    try:
        address = ip_address(value.decode("ascii"))
    except ValueError:
        raise BadCommandError("that is no address") from None
    if b"%" in value:  # a network of the proxy's own, which means nothing here
        raise BadCommandError("that is no address")
    return str(address)
