"""Where each user's Maildir is: the template of ``--maildrop``."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, get_args

from zope.interface import implementer

from popd.maildrop.ground import Ground, Missing
from popd.maildrop.interfaces import IRelocatingStore, MaildropPermanentError
from popd.maildrop.maildir import Maildir
from popd.maildrop.snapshots import SnapshotCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from popd.maildrop.files import Durability
    from popd.maildrop.user import UserName

__all__ = ["MaildirStore"]

_PREFIX = "maildir:"
_EXAMPLE = "maildir:/srv/mail/{domain}/{local}/Maildir"
_PLACEHOLDERS = ("user", "local", "domain")

_REMEMBERED = 1024
"""How many templates are remembered: accounts may have one each."""


@implementer(IRelocatingStore)
class MaildirStore:
    """The Maildirs of a site, each where the template says.  Make it with `from_template`.

    :param parts: the path's text, and at every second place the name of a placeholder.
    :param missing: what a Maildir that does not exist is: ``empty``, or an ``error``.
    :param cache: the maildrops that were opened lately.
    :param durability: see `Maildir`.
    :param root: the directory beneath which every maildrop has to be, with no link in between;
        ``""`` for `fixed`.
    :raises ValueError: the template leads out of that.
    """

    def __init__(
        self,
        parts: Sequence[str],
        missing: Missing = "empty",
        cache: SnapshotCache | None = None,
        durability: Durability = "full",
        root: str = "",
    ) -> None:
        self._cache = cache or SnapshotCache()
        self._durability = durability
        head = parts[0] if len(parts) == 1 else parts[0].rpartition("/")[0]
        self.fixed = head.rstrip("/") or "/"
        """The directory that all the Maildirs are in: the template up to its first placeholder.
        Where it is missing, nobody's Maildir is taken for empty."""
        self._ground = Ground(_encoded(self.fixed), missing)
        self.root = root.rstrip("/") or "/" if root else self.fixed
        """The directory beneath which every maildrop is."""
        self._prefix = self.root.rstrip("/")
        # Links in this part are the site's own; from here on nobody follows any.
        self._resolved = os.path.realpath(self.root).rstrip("/")
        self.resolved = self._resolved or "/"
        """The same without links."""
        self._template = self._within(parts)
        self._inside = _encoded(self._resolved + self.fixed[len(self._prefix) :].rstrip("/") + "/")

    @classmethod
    def from_template(
        cls,
        template: str,
        missing: str = "empty",
        cache: SnapshotCache | None = None,
        durability: Durability = "full",
        root: str = "",
    ) -> MaildirStore:
        """Read a template such as ``maildir:/srv/mail/{domain}/{local}/Maildir``.

        ``{user}`` stands for the whole name, ``{local}`` and ``{domain}`` for its parts.

        :param root: see `MaildirStore`.
        :raises ValueError: it cannot be one; the text is for whoever wrote it.
        """
        if missing not in get_args(Missing):
            raise ValueError(f"a missing maildrop is either empty or error, not {missing!r}")
        parts = _parse(template)
        return cls(parts, "error" if missing == "error" else "empty", cache, durability, root)

    def survey(self) -> bool:
        """Look whether `fixed` is there, and remember which directory it is.

        Called once at the start, before processes part: each of them then notices if it becomes
        another one, as when a disk is unmounted.
        """
        return self._ground.survey()

    def follow(self, before: MaildirStore) -> bool:
        """Take over what another store knows of the ground, if it is the same.

        Unlike a `survey` this touches no disk, which may hang.
        """
        same = before.fixed == self.fixed
        if same:
            self._ground.follow(before._ground)
        return same

    def maildrop(self, user: UserName) -> Maildir:
        """See `IMaildropStore.maildrop`.

        A name that could lead out of the template's tree has no place, wherever it comes from.
        """
        return self._at(self._template.path(user), self._ground)

    def path(self, user: UserName, place: str = "") -> bytes:
        """Return where the Maildir of *user* is: in *place*, if that is given, a template as well.

        It has no links in it down to `root`, however that is written.

        :raises MaildropPermanentError: it cannot be there.
        """
        try:
            template = self._within(_parse(place)) if place else self._template
        except ValueError as error:
            raise MaildropPermanentError(f"{str(user)!a}: {error}") from None
        return template.path(user)

    def maildrop_at(self, place: str, user: UserName) -> Maildir:
        """See `IRelocatingStore.maildrop_at`: *place* is a template as well.

        Where a Maildir that is not in `fixed` does not exist, that is an error: it cannot be told
        from one whose disk is not mounted.
        """
        path = self.path(user, place)
        ground = self._ground if path.startswith(self._inside) else None
        return self._at(path, ground)

    def _at(self, path: bytes, ground: Ground | None) -> Maildir:
        return Maildir(path, ground, self._cache, self._durability)

    def _within(self, parts: Sequence[str]) -> _Template:
        """Return a template with the links of `root` resolved.

        :raises ValueError: it leads to somewhere else than beneath `root`.
        """
        head, *rest = parts
        written = "{...}".join(parts[::2])
        beneath = written.removeprefix(self._prefix).split("/")
        if not head.startswith(self._prefix) or beneath[0] or ".." in beneath:
            raise ValueError(f"{written} is not beneath --mail-root {self.root}")
        return _Template((self._resolved + head[len(self._prefix) :], *rest))


@lru_cache(_REMEMBERED)
def _parse(template: str) -> tuple[str, ...]:
    """Return the text of a template's path, and at every second place the name of a placeholder.

    :raises ValueError: it cannot be a template; the text is for whoever wrote it.
    """
    if not template.startswith(_PREFIX):
        raise ValueError(f"{template!r} does not begin with {_PREFIX!r}; write {_EXAMPLE}")
    path = template.removeprefix(_PREFIX)
    if not path.startswith("/"):
        raise ValueError(f"{template!r} has a relative path; write {_PREFIX}/ and what follows")
    if any(ord(character) < ord(" ") or character == "\x7f" for character in path):
        raise ValueError(f"{template!r} has a control character in its path; remove it")
    parts = re.split(r"\{([^{}]*)\}", path)
    for text in parts[::2]:
        if "{" in text or "}" in text:
            raise ValueError(f"{template!r} has a brace without its partner; write {_EXAMPLE}")
    for name in parts[1::2]:
        if name not in _PLACEHOLDERS:
            known = ", ".join(f"{{{placeholder}}}" for placeholder in _PLACEHOLDERS)
            raise ValueError(f"{template!r} has an unknown {{{name}}}; there are {known}")
    return tuple(parts)


class _Template:
    """Where Maildirs are.

    :param parts: the path's text, and at every second place the name of a placeholder.
    """

    __slots__ = ("_names", "_path")

    def __init__(self, parts: Sequence[str]) -> None:
        self._names = frozenset(parts[1::2])
        self._path = "".join(
            f"%({part})s" if place % 2 else part.replace("%", "%%")
            for place, part in enumerate(parts)
        )

    def path(self, user: UserName) -> bytes:
        """Return the path of *user*'s Maildir.

        :raises MaildropPermanentError: his name could lead somewhere else.
        """
        values = {"user": str(user), "local": user.local, "domain": user.domain}
        for name in self._names:
            value = values[name]
            if not value or value[0] == "." or "/" in value or "\0" in value:
                raise MaildropPermanentError(f"{str(user)!a}: no Maildir can have this name")
        return _encoded(self._path % values)


def _encoded(path: str) -> bytes:
    """Return the octets of a path: UTF-8 everywhere, whatever this process's locale is."""
    return path.encode("utf-8", "surrogateescape")
