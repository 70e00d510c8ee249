"""Networks that are trusted with something."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from popd.auth.account import Client

if TYPE_CHECKING:
    from collections.abc import Iterable

    from popd.auth.account import Network

__all__ = ["NOBODY", "Networks"]

_CACHED: Final = 1_024
"""Addresses of which the answer is remembered."""


class Networks:
    """A set of networks.

    :param networks: which.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._known = lru_cache(_CACHED)(self._look_up)

    @classmethod
    def parse(cls, text: str) -> Networks:
        """Return the networks that stand in *text* with commas between them.

        :raises ValueError: it is no such text.  The error's says why.
        """
        return cls(ip_network(part.strip()) for part in text.split(","))

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """Return whether an IP address, as text, is in one of them."""
        return bool(self._networks) and self._known(address)

    def _look_up(self, address: str) -> bool:
        ip = Client(address).ip
        return ip is not None and any(ip in network for network in self._networks)


NOBODY: Final = Networks()
"""No network at all."""
