"""User names put into the names and filters of a directory, where they can do no harm."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from sansldap import LDAPFilter

from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.auth.ldap_settings import LdapSettings

__all__ = ["Names", "escaped", "filled_filter"]

_PLACEHOLDER: Final = re.compile(r"\{(user|local|domain)\}")

_BYTES: Final = re.compile(rb"\{(user|local|domain)\}")


class Names:
    """Where the settings look for users.

    A template that has neither ``{user}`` nor ``{domain}`` in it would take the ``alice`` of one
    domain for that of another: such a one knows only names without a domain, and those in the
    default domain.

    :raises ValueError: the filter is none (RFC 4515).
    """

    def __init__(self, settings: LdapSettings) -> None:
        templates = settings.base + settings.filter + settings.user_dn
        self._used = set(_PLACEHOLDER.findall(templates))
        self._base = settings.base
        self._user_dn = settings.user_dn
        self._filter: LDAPFilter | None = None
        if settings.filter:
            try:
                self._filter = LDAPFilter.from_string(settings.filter)
            except ValueError as error:
                raise ValueError(f"filter: {error}") from error

    def parts(self, username: bytes, bare: bytes) -> dict[str, str] | None:
        """Return what the placeholders stand for; None if no such user can be in the directory.

        :param username: a complete name.
        :param bare: what he may be called besides, without the default domain.
        """
        user = UserName.parse(username)
        if user is None:
            return None
        if "domain" in self._used and not user.domain:
            return None
        if self._used.isdisjoint(("user", "domain")) and user.domain and not bare:
            return None
        return {"user": str(user), "local": user.local, "domain": user.domain}

    def base(self, parts: Mapping[str, str]) -> str:
        """Return the name beneath which the user is searched."""
        return _filled(self._base, parts)

    def user_dn(self, parts: Mapping[str, str]) -> str:
        """Return the name of the user's entry."""
        return _filled(self._user_dn, parts)

    def filter(self, parts: Mapping[str, str]) -> LDAPFilter:
        """Return what finds the user."""
        filled: LDAPFilter = filled_filter(self._filter, {k: v.encode() for k, v in parts.items()})
        return filled


def _filled(template: str, parts: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: escaped(parts[match[1]]), template)


def escaped(text: str) -> str:
    r"""Return *text* as an attribute's value in a name (RFC 4514 section 2.4).

    All but letters, digits and what is harmless anywhere becomes ``\XX``.
    """
    return "".join(
        chr(octet) if chr(octet).isalnum() and octet < 0x80 else f"\\{octet:02x}"  # noqa: PLR2004
        for octet in text.encode()
    )


def filled_filter(template: Any, parts: Mapping[str, bytes]) -> Any:
    """Return a filter, or a part of one, with the names in it.

    They are put into what the filter's text was parsed to, not into the text, so that nothing has
    to be escaped (RFC 4515 section 3) and none can change what the filter is.
    """
    if isinstance(template, bytes):
        return _BYTES.sub(lambda match: parts[match[1].decode("ascii")], template)
    if isinstance(template, list):
        return [filled_filter(part, parts) for part in template]
    if isinstance(template, LDAPFilter):
        changes = {
            part.name: filled_filter(getattr(template, part.name), parts)
            for part in fields(template)
            if part.init
        }
        return replace(template, **changes)
    return template
