"""One line of a password file, in Dovecot's passwd-file format.

(https://doc.dovecot.org, "Passwd-file")::

    user:{SCHEME}password:uid:gid:gecos:home:shell:extra fields

Only the first two fields have to be there.  The extra fields, ``name=value`` or just ``name``, are
separated by spaces.  Of those popd knows what `popd.auth.account.FIELDS` has, and `SCRAM_FIELDS`;
Dovecot ignores what it does not know itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from popd.auth import schemes
from popd.auth.account import FIELDS, Account
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from popd.protocol.credentials import ScramKeys

__all__ = ["SCRAM_FIELDS", "BarredError", "Entry"]

SCRAM_FIELDS: Final = {"scram_sha_256": "SCRAM-SHA-256", "scram_sha_1": "SCRAM-SHA-1"}
"""Extra fields with SCRAM keys beside another password, and the mechanisms that they are for."""

_RESTRICTIONS: Final = frozenset(
    {"allow_real_nets", "delay_until", "fail", "host", "login_user", "noauthenticate"}
    | {"proxy", "proxy_maybe", "user"}
)
"""Dovecot's extra fields that keep a user out, or let him into another's place."""


class BarredError(ValueError):
    """There is such a user, but he must not be let in."""


@dataclass(slots=True)  # frozen, it would take thrice as long to make
class Entry:
    """What a line says of a user.

    :param name: the canonical name.
    :param password: the stored password, ``""`` for who cannot log in.
    :param extras: the extra fields, as they stand there.
    """

    name: str
    password: str = field(default="", repr=False)
    extras: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Return what a line says, which is not empty; what it says is not checked yet.

        :raises ValueError: it is broken.  The text repeats nothing of it.
        """
        given, *rest = text.split(":", 7)
        if not rest:
            raise ValueError("there is no colon behind the user name")
        user = UserName.parse(given)
        if user is None:
            raise ValueError("no user can have this name")
        return cls(str(user), rest[0], "".join(rest[6:]))

    @property
    def fields(self) -> dict[str, str]:
        """The extra fields by name, in lower case."""
        found: dict[str, str] = {}
        for extra in self.extras.split():
            name, _, value = extra.partition("=")
            name = name.lower()
            # Dovecot heeds nologin whatever its value.
            found[name] = "" if name == "nologin" else value
        return found

    def check(self) -> tuple[schemes.StoredPassword, ...]:
        """Return all that is stored of the password, after a look at everything.

        The texts of errors repeat nothing of the line.

        :raises BarredError: something is wrong for which the user must not log in.
        :raises ValueError: the password is stored in a way that means nothing.
        """
        stored = (schemes.parse(self.password),) if self.password else ()
        if not self.extras:
            return stored
        fields = self.fields
        if not fields.keys().isdisjoint(_RESTRICTIONS):
            names = ", ".join(sorted(_RESTRICTIONS.intersection(fields)))
            raise BarredError(f"this user cannot log in: popd does not enforce {names}")
        try:
            _account(self.name, fields)
            return stored + _scram(fields)
        except ValueError as reason:
            raise BarredError(f"this user cannot log in: {reason}") from None

    def account(self, name: str) -> Account:
        """Return what is known of the user, who is called *name*."""
        return _account(name, self.fields) if self.extras else Account(name)

    @property
    def plain(self) -> bytes | None:
        """The password itself, if that is stored."""
        return schemes.parse(self.password).plain if self.password else None

    def scram_keys(self, mechanism: str) -> ScramKeys | None:
        """Return the keys for *mechanism*, if there are any and there is a password at all."""
        if self.password:
            for stored in self.check():
                if stored.scheme == mechanism:
                    return stored.scram_keys
        return None


def _account(name: str, fields: dict[str, str]) -> Account:
    known = {key: value for key, value in fields.items() if key in FIELDS}
    return Account.read(name, known) if known else Account(name)


def _scram(fields: dict[str, str]) -> tuple[schemes.StoredPassword, ...]:
    found = []
    for name, scheme in SCRAM_FIELDS.items():
        if name in fields:
            try:
                stored = schemes.parse(fields[name])
            except ValueError as reason:
                raise ValueError(f"in the field {name}, {reason}") from None
            if stored.scheme != scheme:
                raise ValueError(f"the field {name} has keys of another scheme")
            found.append(stored)
    return tuple(found)
