"""Notices that many users come from one private address: a proxy that popd does not know of.

Then all of them share one address's limits and penalties, and the log does not say who it was.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from popd.server.networks import Networks

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Crowd"]

_USERS: Final = 20
"""How many different users are a crowd."""

_WINDOW: Final = 600.0
"""Seconds in which they come."""

_PAUSE: Final = 3_600.0
"""Seconds between two warnings."""

_ADDRESSES: Final = 64
"""How many addresses are looked at in a window."""

_PRIVATE: Final = Networks(
    # Those of private networks (RFC 1918, RFC 4193), not this machine's: that a webmail program
    # next to popd logs in for everybody is nothing to worry about.
    ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)

_log: Final = Logger()


class Crowd:
    """Looks at who logs in from where, in one process.

    :param clock: tells the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since = self._quiet_until = 0.0
        self._users: dict[str, set[bytes]] = {}

    def see(self, address: str, user: bytes) -> None:
        """Note that a user logs in from an address."""
        if address not in _PRIVATE:
            return
        now = self._clock.seconds()
        if now - self._since >= _WINDOW:
            self._since = now
            self._users.clear()
        if now < self._quiet_until:
            return
        users = self._users.get(address)
        if users is None:
            if len(self._users) >= _ADDRESSES:
                return
            users = self._users[address] = set()
        users.add(user)
        if len(users) >= _USERS:
            self._quiet_until = now + _PAUSE
            self._users.clear()
            _log.warn(
                "{count} users come from {address}, a private address: if that is a proxy, let it"
                " say who they are (--proxy-protocol {address}, or --xclient {address}), or all of"
                " them share one client's limits and penalties; if not, say --proxy-protocol none",
                count=_USERS,
                address=address,
            )
