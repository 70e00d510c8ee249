"""The TOML file that says which provider's tokens count, and for whom."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from popd.auth.account import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "ALGORITHMS",
    "ClaimSettings",
    "IntrospectionSettings",
    "JwtSettings",
    "Settings",
    "read_settings",
]

ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""How a token may be signed, and the kind and the curve of the key for it (RFC 7518, RFC 8037).

Neither ``none`` nor a keyed hash is among them: with ``HS256`` whoever can read the provider's
public key could sign (RFC 8725 section 2.1).
"""


@dataclass(frozen=True)
class ClaimSettings:
    """What a token must say to count, and where it says who its user is.

    :param username: the claim with the user's name.
    :param issuer: the provider's name for itself; empty for any, if the provider is asked anyway.
    :param audience: one of these must be among those whom the token is for; empty for anybody.
    :param scope: all of these must have been granted.
    :param leeway: seconds that the provider's clock and this one may differ.
    :param fields: the claims with the fields of an account, by the fields' names.
    """

    username: str
    issuer: str = ""
    audience: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()
    leeway: float = 30.0
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JwtSettings:
    """How signed tokens are verified here.

    :param jwks: where the provider's keys are, a URL or a file's path; empty for where the
        provider's OpenID configuration says.
    :param refetch: seconds that pass at least before the keys are fetched anew because a token is
        signed by an unknown one.
    """

    jwks: str = ""
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    types: frozenset[str] = frozenset({"at+jwt"})
    refetch: float = 10.0


@dataclass(frozen=True)
class IntrospectionSettings:
    """How the provider is asked about a token.

    :param cache: seconds that an answer counts.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    cache: float = 60.0


@dataclass(frozen=True)
class Settings:
    """All of the file.

    :param ca_file: the authorities that may vouch for the provider, in PEM; empty for the system's.
    """

    claims: ClaimSettings
    jwt: JwtSettings | None
    introspection: IntrospectionSettings | None
    ca_file: str = ""


def read_settings(path: str) -> Settings:
    """Return what the file *path* says.

    :raises ValueError: it cannot be read, or is wrong; the text says where and why.
    """
    try:
        content = tomllib.loads(_read(path))
        return _settings(_Table(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8, as TOML has to be") from None
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from error


class _Table:
    """A table of the file, out of which keys are taken until none is left."""

    def __init__(self, content: Mapping[str, Any], name: str = "") -> None:
        self._rest = dict(content)
        self._known: list[str] = []
        self._prefix = f"{name}." if name else ""

    def error(self, key: str, reason: str) -> ValueError:
        return ValueError(f"{self._prefix}{key} {reason}")

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._rest.pop(key, None)

    def text(self, key: str, default: str = "") -> str:
        value = self._take(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.error(key, "must be a text in quotes, and not empty")
        return default if value is None else value

    def texts(self, key: str, default: Iterable[str] = ()) -> frozenset[str]:
        value = self._take(key)
        values = [value] if isinstance(value, str) else value
        if value is None:
            return frozenset(default)
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            raise self.error(key, "must be a text in quotes or a list of them")
        if not values:
            raise self.error(key, "is an empty list: give it a value or leave it out")
        return frozenset(values)

    def seconds(self, key: str, default: float, most: float) -> float:
        value = self._take(key)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or not 0 <= value <= most:
            raise self.error(key, f"must be a number of seconds from 0 to {most:g}")
        return float(value)

    def table(self, key: str) -> _Table | None:
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, f"must be a table: [{key}]")
        return None if value is None else _Table(value, key)

    def url(self, key: str) -> str:
        return self.checked_url(key, self.text(key))

    def checked_url(self, key: str, value: str) -> str:
        """Return *value*, if it is empty or may be asked.

        :raises ValueError: it is neither.
        """
        try:
            parts = urlsplit(value)
            fine = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
        except ValueError:
            fine = False
        if value and (not fine or "@" in parts.netloc or parts.fragment or not _is_plain(value)):
            raise self.error(key, "must be a URL like https://login.example.org/path")
        return value

    def strings(self) -> dict[str, str]:
        """Take all that is left."""
        return {key: self.text(key) for key in tuple(self._rest)}

    def end(self) -> None:
        """Make sure that nothing is left.

        :raises ValueError: something is.
        """
        for key in self._rest:
            near = get_close_matches(key, self._known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._known)}"
            raise ValueError(f"there is no {self._prefix}{key}; {hint}")


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _settings(table: _Table) -> Settings:
    jwt, introspection, fields = map(table.table, ("jwt", "introspection", "fields"))
    settings = Settings(
        claims=ClaimSettings(
            username=table.text("username"),
            issuer=table.url("issuer"),
            audience=table.texts("audience"),
            scope=frozenset(table.text("scope").split()),
            leeway=table.seconds("leeway", ClaimSettings.leeway, 300),
            fields={} if fields is None else _fields(fields),
        ),
        jwt=None if jwt is None else _jwt(jwt),
        introspection=None if introspection is None else _introspection(introspection),
        ca_file=table.text("ca-file"),
    )
    table.end()
    _check(settings)
    return settings


def _fields(table: _Table) -> dict[str, str]:
    fields = table.strings()
    for name in fields:
        if name not in FIELDS:
            raise table.error(name, f"is no field of an account; there are {', '.join(FIELDS)}")
    return fields


def _jwt(table: _Table) -> JwtSettings:
    jwks = table.text("jwks")
    if not jwks.startswith("/"):
        table.checked_url("jwks", jwks)
    settings = JwtSettings(
        jwks=jwks,
        algorithms=table.texts("algorithms", JwtSettings.algorithms),
        types=frozenset(name.lower() for name in table.texts("types", JwtSettings.types)),
        refetch=table.seconds("refetch", JwtSettings.refetch, 3600),
    )
    for name in sorted(settings.algorithms - ALGORITHMS.keys()):
        raise table.error("algorithms", f"cannot have {name}; there are {', '.join(ALGORITHMS)}")
    table.end()
    return settings


def _introspection(table: _Table) -> IntrospectionSettings:
    file = table.text("client-secret-file")
    settings = IntrospectionSettings(
        url=table.url("url"),
        client_id=table.text("client-id"),
        client_secret=_secret(file) if file else "",
        cache=table.seconds("cache", IntrospectionSettings.cache, 3600),
    )
    table.end()
    for key in ("url", "client-id", "client-secret"):
        if not getattr(settings, key.replace("-", "_")):
            shown = "client-secret-file" if key == "client-secret" else key
            raise table.error(shown, "is missing, or what it names is empty")
    return settings


def _secret(path: str) -> str:
    try:
        return _read(path).rstrip("\r\n")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check(settings: Settings) -> None:
    """Make sure that what is said lets in those only who should get in.

    :raises ValueError: it may not.
    """
    claims = settings.claims
    if not claims.username:
        raise ValueError(
            "username is missing: the claim with the name that users log in by, such as"
            " preferred_username, email, username or sub"
        )
    if settings.jwt is None and settings.introspection is None:
        raise ValueError("how are tokens checked? write a table [jwt] or [introspection], or both")
    if settings.jwt is not None and not (claims.issuer and claims.audience):
        raise ValueError(
            "[jwt] needs issuer and audience: what tokens for popd have as iss and aud"
        )
    if not claims.audience and not claims.scope:
        raise ValueError(
            "give audience or scope: without, a token that any application was given for whatever"
            " purpose would open its user's mail"
        )
