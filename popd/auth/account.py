"""What a site's directory says about one of its users, besides whether a password is right."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FIELDS", "Account", "Client", "Network"]

Network: TypeAlias = IPv4Network | IPv6Network


class Client(NamedTuple):
    """Where a log-in comes from.

    :param address: an IP address as text, ``""`` on a UNIX socket.
    :param tls: whether TLS runs.
    """

    address: str = ""
    tls: bool = False

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The IP address, an IPv4 one as such even if it came by IPv6; None if there is none."""
        try:
            address = ip_address(self.address.partition("%")[0])
        except ValueError:
            return None
        return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True, slots=True)
class Account:
    """One user.

    :param name: the user's canonical name, with its domain if it has one.
    :param disabled: whether he may not log in, though the password be right.
    :param require_tls: whether he may log in by TLS alone.
    :param networks: from where he may log in; empty for everywhere.
    :param maildrop: where his mail is, in the words of ``--maildrop``; empty for where all is.
    :param quota: octets that his maildrop may hold; None for no limit.
    :param master: whether he may log in as anybody else.
    :param program: the name of the app password that was used, if it was one.
    :param no_delete: whether this log-in may not delete messages.
    :param interval: seconds that must pass between two log-ins with this app password.
    :param expires: from when on it lets nobody in, in seconds since the epoch.
    """

    name: str
    disabled: bool = False
    require_tls: bool = False
    networks: tuple[Network, ...] = ()
    maildrop: str = ""
    quota: int | None = None
    master: bool = False
    program: str = ""
    no_delete: bool = False
    interval: float = 0.0
    expires: float = inf

    def refusal(self, client: Client) -> str:
        """Return why this user may not log in from *client*, for the log, or ``""`` if he may."""
        if self.disabled:
            return "the account is disabled"
        if self.expires <= time.time():
            return "it has expired"
        if self.require_tls and not client.tls and client.address:
            return "the account requires TLS"
        if self.networks and not self._may_come_from(client):
            return "the account's networks do not include the client"
        return ""

    def _may_come_from(self, client: Client) -> bool:
        ip = client.ip
        return ip is None or any(ip in network for network in self.networks)

    @classmethod
    def read(cls, name: str, fields: Mapping[str, str]) -> Account:
        """Return the account that a directory describes in *fields*, by the names in `FIELDS`.

        A field that a directory has no value for (a database's NULL) is left out; an empty text
        says of a switch that it is on, as its bare name does in a password file.

        :raises KeyError: there is no such field.
        :raises ValueError: a value cannot be understood.  The text names the field and repeats no
            value.  A user about whom that is so must not be let in.
        """
        values: dict[str, Any] = {}
        for field, text in fields.items():
            attribute, parse = FIELDS[field]
            try:
                value = parse(text)
            except ValueError:
                raise ValueError(f"the field {field} has a value that means nothing") from None
            # Where two fields are one attribute, ``nologin disabled=no``, what keeps out counts.
            values[attribute] = value or values.get(attribute, value)
        return cls(name, **values)


_SWITCH: Final = {
    "": True,
    **dict.fromkeys(("1", "y", "yes", "t", "true", "on"), True),
    **dict.fromkeys(("0", "n", "no", "f", "false", "off"), False),
}

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

_QUOTA: Final = re.compile(r"(\d{1,15})([kmgt]?)b?", re.ASCII)


def _switch(text: str) -> bool:
    value = _SWITCH.get(text.strip().lower())
    if value is None:
        raise ValueError
    return value


def _networks(text: str) -> tuple[Network, ...]:
    # An empty text is no network: `ip_network` refuses it.
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))


def _maildrop(text: str) -> str:
    if not text.startswith("maildir:/"):
        raise ValueError
    return text


def _quota(text: str) -> int:
    match = _QUOTA.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[match[2]]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < inf:
        raise ValueError
    return seconds


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


FIELDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "disabled": ("disabled", _switch),
    "nologin": ("disabled", _switch),
    "require_tls": ("require_tls", _switch),
    "allow_nets": ("networks", _networks),
    "maildrop": ("maildrop", _maildrop),
    "quota": ("quota", _quota),
    "master": ("master", _switch),
    "app": ("program", str),
    "no_delete": ("no_delete", _switch),
    "interval": ("interval", _seconds),
    "expires": ("expires", _moment),
}
"""What every directory may say about a user: a field's name, what it becomes, how it is read.

``nologin`` and ``allow_nets`` are Dovecot's names.  Networks are separated by commas; a quota is
in octets, or has one of the letters K, M, G, T; an interval is in seconds; what expires does so at
the beginning of a day or at a time as ISO 8601 has them, in UTC unless it says otherwise.
"""
