"""Whether a Maildir that is not there may be taken for an empty one.

A user who never got mail has no Maildir yet; to him an empty maildrop is the truth.  When the mail
disk is not mounted nobody has one, and to tell a client that its mail is gone makes it forget
what it has already downloaded.
"""

from __future__ import annotations

import os
from typing import Literal

from popd.maildrop.beneath import LINKED, is_linked
from popd.maildrop.files import shown, temporary
from popd.maildrop.interfaces import MaildropTemporaryError

__all__ = ["Ground", "Missing"]

Missing = Literal["empty", "error"]
"""What a Maildir that does not exist is: an empty maildrop, or an error."""


class Ground:
    """The directory that all Maildirs of a site stand on.

    :param path: the directory.
    :param missing: what a Maildir that does not exist is, where the ground is sound.
    """

    def __init__(self, path: bytes, missing: Missing) -> None:
        self.path = path
        self._missing = missing
        self._proven: tuple[int, int] | None = None

    def survey(self) -> bool:
        """Look at the ground before anybody stands on it; return whether it is there.

        If there is something on it, it is taken for the ground that Maildirs will be found on.
        """
        try:
            with os.scandir(self.path) as entries:
                if any(True for _ in entries):
                    self.prove()
        except (OSError, MaildropTemporaryError):
            return False
        return True

    def follow(self, before: Ground) -> None:
        """Remember which directory *before*, which was for the same path, was found to be."""
        self._proven = before._proven

    def prove(self) -> None:
        """Remember the ground as it is now: a Maildir was just found on it.

        :raises MaildropTemporaryError: it cannot be looked at.
        """
        self._proven = self._which()

    def allow_missing(self, root: bytes) -> None:
        """Return if *root*, which does not exist, may be taken for an empty Maildir.

        :raises MaildropTemporaryError: it may not: the policy forbids it; or the ground is missing
            or is another directory than the one that Maildirs were found on, as when a disk was
            unmounted and its mount point shows; or a link is on the way.
        """
        if self._missing == "error":
            raise MaildropTemporaryError(f"{shown(root)}: no such Maildir")
        if self._proven not in {None, self._which()}:
            where = shown(self.path)
            raise MaildropTemporaryError(f"{shown(root)}: {where} is not what it was; unmounted?")
        there = root
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if is_linked(there):
            raise MaildropTemporaryError(f"{shown(root)}: {LINKED}")

    def _which(self) -> tuple[int, int]:
        with temporary(self.path):
            status = os.stat(self.path)
        return status.st_dev, status.st_ino
