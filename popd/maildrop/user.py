"""User names: one spelling for each user, and none that could lead a path astray."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["MAX_NAME_OCTETS", "UserName"]

MAX_NAME_OCTETS = 255
"""The longest user name, in octets of UTF-8: a name may become a file name, and this is
the longest that file systems take (NAME_MAX)."""

_MAX_GIVEN = 4 * MAX_NAME_OCTETS
"""The longest spelling of one: some characters become shorter when they are normalised."""


@dataclass(frozen=True, slots=True)
class UserName:
    """A user's name in its one canonical spelling.

    :param local: what stands before the last ``@``, never empty.
    :param domain: what stands behind it, or ``""``.
    """

    local: str
    domain: str = ""

    def __str__(self) -> str:
        """Return ``local@domain``, or ``local`` where there is no domain."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @classmethod
    def parse(cls, given: bytes | str, default_domain: str = "") -> UserName | None:
        """Return the user that *given* means, or None if no user can have that name.

        Spellings that people and programs take for the same become the same: compatibility forms
        (NFKC) and letter case are folded.  A bare name is completed with *default_domain*.  No
        name comes through that could leave a directory or forge a log line: none with ``/``, a
        control or invisible character, a part that begins with a dot, or more than
        `MAX_NAME_OCTETS` octets.
        """
        # The cache is fed by strangers, so what it holds is short.
        return None if len(given) > _MAX_GIVEN else _parse(given, default_domain)


@lru_cache(maxsize=512)
def _parse(given: bytes | str, default_domain: str) -> UserName | None:
    try:
        text = given.decode("utf-8") if isinstance(given, bytes) else given
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
        local, at, domain = name.rpartition("@")
        if not at:
            local, domain = domain, default_domain.lower()
        user = UserName(local, domain)
        octets = len(str(user).encode("utf-8"))
    except UnicodeError:
        return None
    if octets > MAX_NAME_OCTETS or not local or (at and not domain):
        return None
    if local.startswith(".") or domain.startswith(".") or name != name.strip():
        return None
    return user if name.isprintable() and "/" not in name else None
