"""What ``--auth popd-ldap:FILE`` is told about a directory: a TOML file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from popd.auth.account import FIELDS
from popd.auth.health import MAX_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCOPES", "LdapServer", "LdapSettings", "read_settings"]

SCOPES: Final = ("base", "one", "subtree")
"""How far beneath the base it is searched, by LDAP's numbers (RFC 4511 section 4.5.1.2)."""

_PORTS: Final = {"ldap": 389, "ldaps": 636, "ldapi": 0}

_MAX_CONNECTIONS: Final = 100

_BRACES: Final = re.compile(r"\{[^{}]*\}")

_PLACEHOLDERS: Final = frozenset(("{user}", "{local}", "{domain}"))


class LdapServer(NamedTuple):
    """Where a directory server is.

    :param scheme: ``ldap``, ``ldaps`` or ``ldapi``.
    :param host: its name or address, which its certificate has to bear.
    :param path: its UNIX socket, for ``ldapi``.
    """

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """All that popd is told.  A key of the file has ``-`` for ``_``.

    Either *filter* finds the user's entry beneath *base*, or *user_dn* is its name.  In those three
    ``{user}``, ``{local}`` and ``{domain}`` stand for parts of the name.

    :param servers: asked in this order, the next where one cannot be reached; the file's ``uri``.
    :param start_tls: whether ``ldap`` servers are spoken to with TLS (RFC 4511 section 4.14).
    :param ca: a PEM file with the authorities that are trusted; empty for the system's.
    :param bind_dn: who searches; empty for anybody.
    :param bind_password: the content of ``bind-password-file``.
    :param scope: one of `SCOPES`.
    :param name: the attribute that has the user's name; empty if it is what he logs in with.
    :param fields: attributes, by the names in `popd.auth.account.FIELDS`.
    :param timeout: seconds that a log-in may take.
    :param connections: how many passwords each process has checked at the same time.
    """

    servers: tuple[LdapServer, ...]
    start_tls: bool = True
    ca: str = ""
    bind_dn: str = ""
    bind_password: str = field(default="", repr=False)
    base: str = ""
    scope: str = "subtree"
    filter: str = ""
    user_dn: str = ""
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    timeout: float = MAX_TIMEOUT
    connections: int = 8


_TYPES: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "uri": ((str, list), "a text in quotes or a list of them"),
    "start-tls": (bool, "true or false"),
    "bind-password-file": (str, "a text in quotes"),
    "fields": (dict, "a table"),
    "timeout": ((int, float), "a number of seconds"),
    "connections": (int, "a number"),
    **dict.fromkeys(
        ("ca", "bind-dn", "base", "scope", "filter", "user-dn", "name"), (str, "a text in quotes")
    ),
}


def read_settings(path: str) -> LdapSettings:
    """Return what the file *path* says.

    :raises ValueError: it cannot be read, or is wrong; the text is one line that names the file.
    """
    content: dict[str, Any]
    try:
        content = tomllib.loads(_read(path))
        for key, value in content.items():
            _check_type(key, value)
        settings = _settings(content)
        _check(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return settings


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(str(error.strerror)) from error


def _check_type(key: str, value: object) -> None:
    if key not in _TYPES:
        near = get_close_matches(key.replace("_", "-"), _TYPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_TYPES)}"
        raise ValueError(f"there is no {key!r}; {hint}")
    kind, shown = _TYPES[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{key} must be {shown}")
    if not value and value is not False and key != "fields":
        raise ValueError(f"{key} is empty: give it a value or leave it out")


def _settings(content: dict[str, Any]) -> LdapSettings:
    uris = content.pop("uri", ())
    servers = tuple(map(_server, (uris,) if isinstance(uris, str) else uris))
    password_file = content.pop("bind-password-file", "")
    if bool(password_file) != ("bind-dn" in content):
        raise ValueError("bind-dn and bind-password-file need each other")
    values = {key.replace("-", "_"): value for key, value in content.items()}
    if password_file:
        values["bind_password"] = _password(password_file)
    return LdapSettings(servers=servers, **values)


def _password(path: str) -> str:
    try:
        password = _read(path).removesuffix("\n")
    except ValueError as error:
        raise ValueError(f"bind-password-file {path}: {error}") from error
    if not password:
        # Such a bind would go well with any server, and mean nothing (RFC 4513 section 5.1.2).
        raise ValueError(f"bind-password-file {path} is empty")
    return password


def _server(uri: object) -> LdapServer:
    wrong = ValueError(
        f"uri must be like ldap://host, ldaps://host:port or ldapi://%2Fsocket: {uri}"
    )
    if not isinstance(uri, str):
        raise wrong
    parts = urlsplit(uri)
    if parts.scheme not in _PORTS or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise wrong
    if parts.scheme == "ldapi":
        path = unquote(parts.netloc)
        if not path.startswith("/"):
            raise wrong
        return LdapServer("ldapi", "", 0, path)
    if not parts.hostname or parts.username is not None:
        raise wrong
    return LdapServer(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], "")


def _check(settings: LdapSettings) -> None:
    if not settings.servers:
        raise ValueError("no uri: where is the directory?")
    if settings.scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}")
    if not 0 < settings.timeout <= MAX_TIMEOUT:
        raise ValueError(f"timeout must be more than 0 and not more than {MAX_TIMEOUT:g} seconds")
    if not 0 < settings.connections <= _MAX_CONNECTIONS:
        raise ValueError(f"connections must be from 1 to {_MAX_CONNECTIONS}")
    _check_way(settings)
    _check_templates(settings)
    for name, attribute in settings.fields.items():
        if name not in FIELDS:
            raise ValueError(f"fields: there is no {name!r}; there are {', '.join(FIELDS)}")
        if not isinstance(attribute, str) or not attribute:
            raise ValueError(f"fields: {name} must be the name of an attribute, in quotes")


def _check_way(settings: LdapSettings) -> None:
    if settings.user_dn:
        if settings.filter or settings.base or settings.bind_dn:
            raise ValueError("give either user-dn, or base and filter and perhaps bind-dn")
        if settings.fields or settings.name:
            raise ValueError("fields and name need a search: give base and filter, not user-dn")
    elif not (settings.filter and settings.base):
        raise ValueError("how is a user found? give base and filter, or user-dn")


def _check_templates(settings: LdapSettings) -> None:
    used = set()
    for key, template in (
        ("base", settings.base),
        ("filter", settings.filter),
        ("user-dn", settings.user_dn),
    ):
        found = set(_BRACES.findall(template))
        if wrong := found - _PLACEHOLDERS:
            raise ValueError(f"{key}: {min(wrong)} is none of {', '.join(sorted(_PLACEHOLDERS))}")
        if key != "base":
            used |= found
    if used.isdisjoint(("{user}", "{local}")):
        raise ValueError("filter or user-dn must say where the user's name belongs: {user}")
