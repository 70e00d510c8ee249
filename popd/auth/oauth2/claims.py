"""What is said about a bearer token: whether it counts here, and whose account it opens.

RFC 7519 section 4 and RFC 9068 section 4 for signed tokens, RFC 7662 section 2.2 for what a
provider answers; the claims have the same names in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger

from popd.auth.account import Account
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.auth.oauth2.settings import ClaimSettings

__all__ = ["account_of", "expiry"]

_log = Logger()


def account_of(
    claims: Mapping[str, Any], settings: ClaimSettings, now: float, *, signed: bool
) -> Account:
    """Return the account that a token with these *claims* opens at the time *now*.

    :param signed: whether they stood in the token itself, and nobody was asked: then they must
        say who made it, for whom, and until when.
    :raises UnauthorizedLogin: it opens none.
    """
    _check_origin(claims, settings, signed=signed)
    _check_time(claims, settings.leeway, now, signed=signed)
    if not settings.scope <= _words(claims, "scope") | _words(claims, "scp"):
        raise UnauthorizedLogin("the token lacks a scope")
    if claims.get("cnf") is not None or str(claims.get("token_type", "")).lower() == "dpop":
        # Such a token is worth nothing without a key that POP3 has no way to ask for (RFC 9449).
        raise UnauthorizedLogin("the token is bound to a key")
    return _account(claims, settings)


def expiry(claims: Mapping[str, Any]) -> float | None:
    """Return when a token expires, in seconds since 1970; None if it is not said.

    :raises UnauthorizedLogin: it is said, but makes no sense.
    """
    return _time(claims, "exp")


def _check_origin(claims: Mapping[str, Any], settings: ClaimSettings, *, signed: bool) -> None:
    issuer = claims.get("iss")
    if settings.issuer and issuer != settings.issuer and (signed or issuer is not None):
        raise UnauthorizedLogin("the token is another issuer's")
    if settings.audience and settings.audience.isdisjoint(_words(claims, "aud", split=False)):
        raise UnauthorizedLogin("the token is for another audience")


def _check_time(claims: Mapping[str, Any], leeway: float, now: float, *, signed: bool) -> None:
    end, begin = expiry(claims), _time(claims, "nbf")
    if end is None:
        if signed:
            raise UnauthorizedLogin("the token does not say when it expires")
    elif now >= end + leeway:
        raise UnauthorizedLogin("the token has expired")
    if begin is not None and now < begin - leeway:
        raise UnauthorizedLogin("the token does not count yet")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1e15:  # noqa: PLR2004 - nor is it NaN, or beyond a float
        raise UnauthorizedLogin(f"the token's {name} is not a time")
    return float(value)


def _words(claims: Mapping[str, Any], name: str, *, split: bool = True) -> frozenset[str]:
    """Return what a claim lists; some providers do so in a JSON array, others in one text."""
    value = claims.get(name)
    if isinstance(value, str):
        return frozenset(value.split() if split else [value])
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, list) else _NONE


_NONE: frozenset[str] = frozenset()


def _account(claims: Mapping[str, Any], settings: ClaimSettings) -> Account:
    name = claims.get(settings.username)
    user = UserName.parse(name) if isinstance(name, str) else None
    if user is None:
        raise UnauthorizedLogin(f"no user's name is in the token's {settings.username}")
    if settings.username == "email" and claims.get("email_verified", True) not in (True, "true"):
        raise UnauthorizedLogin("the token's email is not verified")
    try:
        return Account.read(str(user), dict(_fields(claims, settings.fields)))
    except ValueError as error:
        _log.error("{user}: {error}", user=str(user), error=error)
        raise UnauthorizedLogin(str(error)) from error


def _fields(claims: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str]]:
    found = ((field, claims.get(claim)) for field, claim in names.items())
    return [(field, _text(field, value)) for field, value in found if value is not None]


def _text(field: str, value: Any) -> str:
    """Return the text of a claim that is one, or a number, a truth, or a list of texts.

    :raises ValueError: it is something else.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    raise ValueError(f"the field {field} has a value that means nothing")
