"""``popctl client-config``: what a user, his mail program, or the DNS has to be told."""

from __future__ import annotations

import plistlib
import re
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

import click

from popd.ctl.arguments import user_argument
from popd.ctl.store import RefusedError
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from popd.ctl.site import Site

__all__ = ["Access", "access_of", "client_config", "port_of"]

_POP3: Final = 110
_POP3S: Final = 995
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*")
_SPACE: Final = uuid.UUID("6d1e9e0f-7d0c-5f0b-9d3a-0d2f0a8a7c11")
"""Names in profiles are made in this space, so that a new profile replaces the old one."""


@dataclass(frozen=True)
class Access:
    """How to reach the mail.

    :param user: the complete user name.
    :param host: where.
    :param tls: the port for TLS from the start; 0 if there is none.
    :param stls: the port for STLS; 0 if there is none.
    """

    user: str
    host: str
    tls: int
    stls: int

    @property
    def port(self) -> int:
        """The port to use: that for TLS from the start, if there is one (RFC 8314)."""
        return self.tls or self.stls

    @property
    def domain(self) -> str:
        """Whose mail it is."""
        return self.user.rpartition("@")[2] if "@" in self.user else self.host


@click.command(name="client-config")
@user_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "thunderbird", "apple", "srv"]),
    default="text",
    show_default=True,
    help="For people; Thunderbird's autoconfig; Apple's profile; DNS records (RFC 6186).",
)
@click.option("--host", default="", help="The server's name.  [default: this machine's]")
@click.pass_obj
def client_config(site: Site, name: str, kind: str, host: str) -> None:
    """Write what a user's mail program has to be told; no password is in it.

    popd keeps mail and does not send any: how to send is for others to say.
    """
    access = access_of(site, name, host or socket.getfqdn())
    if not access.port:
        raise RefusedError(f"{site.config}: popd listens on no TCP port with TLS")
    click.echo(_FORMATS[kind](access), nl=False)


def access_of(site: Site, name: str, host: str) -> Access:
    """Return how a user reaches the popd that is configured so.

    :raises RefusedError: there is no such host name.
    """
    host = host.rstrip(".").lower()
    if not _HOST.fullmatch(host):
        raise RefusedError(f"{host!a} is no name of a host; give --host NAME")
    user = UserName.parse(name, site.default_domain_if_known)
    tls = stls = 0
    if site.setting("certificate"):
        tls, stls = port_of(site.setting("listen-tls")), port_of(site.setting("listen"))
    return Access(str(user or name), host, tls, stls)


def port_of(endpoints: Sequence[str]) -> int:
    """Return the first TCP port that endpoints listen on beyond this machine; 0 if none does."""
    for endpoint in endpoints:
        kind, *rest = re.split(r"(?<!\\):", endpoint.removeprefix("haproxy:"))
        local = any(part in {"interface=127.0.0.1", r"interface=\:\:1"} for part in rest)
        if kind in {"tcp", "tcp6", "ssl"} and rest and not local:
            digits = rest[0].removeprefix("port=")
            if digits.isdecimal():
                return int(digits)
    return 0


def _text(access: Access) -> str:
    security = "SSL/TLS" if access.tls else "STARTTLS"
    rows = {
        "Kind of account": "POP3",
        "Server": access.host,
        "Port": access.port,
        "Security": security,
        "User name": access.user,
        "Authentication": "password (normal password)",
    }
    return "".join(f"{name + ':':17}{value}\n" for name, value in rows.items())


def _thunderbird(access: Access) -> str:
    """Return the file that Thunderbird looks for at ``autoconfig.DOMAIN/mail/config-v1.1.xml``."""
    domain, host = escape(access.domain), escape(access.host)
    servers = [(access.tls, "SSL"), (access.stls, "STARTTLS")]
    incoming = "".join(
        f'    <incomingServer type="pop3">\n      <hostname>{host}</hostname>\n'
        f"      <port>{port}</port>\n      <socketType>{security}</socketType>\n"
        f"      <username>{_placeholder(access)}</username>\n"
        "      <authentication>password-cleartext</authentication>\n    </incomingServer>\n"
        for port, security in servers
        if port
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<clientConfig version="1.1">\n'
        f'  <emailProvider id="{domain}">\n    <domain>{domain}</domain>\n'
        f"    <displayName>{domain}</displayName>\n{incoming}"
        "  </emailProvider>\n</clientConfig>\n"
    )


def _placeholder(access: Access) -> str:
    return "%EMAILADDRESS%" if "@" in access.user else escape(access.user)


def _apple(access: Access) -> str:
    """Return a configuration profile; the device asks for the password."""

    def identifier(part: str) -> str:
        return str(uuid.uuid5(_SPACE, f"{access.host}/{access.user}/{part}")).upper()

    name = ".".join(reversed(access.host.split(".")))
    account: dict[str, Any] = {
        "EmailAccountType": "EmailTypePOP",
        "EmailAccountDescription": access.user,
        "EmailAddress": access.user,
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": access.host,
        "IncomingMailServerPortNumber": access.port,
        "IncomingMailServerUseSSL": True,
        "IncomingMailServerUsername": access.user,
        "OutgoingMailServerAuthentication": "EmailAuthNone",
        "OutgoingMailServerHostName": access.host,
        "PayloadDisplayName": f"Mail of {access.user}",
        "PayloadIdentifier": f"{name}.popd.mail",
        "PayloadType": "com.apple.mail.managed",
        "PayloadUUID": identifier("mail"),
        "PayloadVersion": 1,
    }
    profile = {
        "PayloadContent": [account],
        "PayloadDisplayName": f"Mail of {access.user}",
        "PayloadIdentifier": f"{name}.popd",
        "PayloadType": "Configuration",
        "PayloadUUID": identifier("profile"),
        "PayloadVersion": 1,
    }
    return plistlib.dumps(profile).decode("utf-8")


def _srv(access: Access) -> str:
    """Return lines for the zone of the domain: the target ``.`` says that there is no such thing.

    (RFC 6186 sections 3.3 and 3.4.)
    """
    domain = _zone_name(access.domain)
    services = [("_pop3s", access.tls, 0), ("_pop3", access.stls, 10)]
    return "".join(
        f"{service}._tcp.{domain}. 3600 IN SRV {priority} 1 {port} {access.host}.\n"
        if port
        else f"{service}._tcp.{domain}. 3600 IN SRV 0 0 0 .\n"
        for service, port, priority in services
    )


def _zone_name(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise RefusedError(f"{domain!a} is no domain of the DNS") from error


_FORMATS: Final = {"text": _text, "thunderbird": _thunderbird, "apple": _apple, "srv": _srv}
