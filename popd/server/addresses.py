"""Where clients are."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["address_of", "is_local"]


def address_of(peer: IAddress) -> str | None:
    """Return the IP address of *peer*; empty if it is at a UNIX socket, None if it is elsewhere."""
    if isinstance(peer, IPv4Address | IPv6Address):
        return peer.host
    return "" if isinstance(peer, UNIXAddress) else None


@lru_cache(1_024)
def is_local(address: str | None) -> bool:
    """Return whether a client is on this machine, so that nobody can listen in.

    :param address: see `address_of`.
    """
    if not address:
        return address is not None
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback
