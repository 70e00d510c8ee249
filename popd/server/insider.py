"""Popd as its own client: one who looks whether a log-in works, and is known before it speaks.

Who it is, all processes of a popd know that were forked after the insider was made.  Before it
connects it writes down, in memory that they share, where it will come from; so it is recognised
when it is accepted, and may come in even if popd is full.  It can do nothing but log in, with a
secret, to a maildrop that is empty.
"""

from __future__ import annotations

import mmap
import secrets
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import UNIXAddress
from zope.interface import implementer

from popd.auth.credentials import Attempt
from popd.maildrop.interfaces import IPromptMaildrop
from popd.maildrop.memory import MemoryMaildrop

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from popd.auth.credentials import Claim
    from popd.protocol.snapshot import Snapshot

__all__ = ["NAME", "Insider"]

NAME: Final = b"popd/insider"
"""What the insider is called.  No user can be: see `UserName`."""

_ROOM: Final = 255
"""Octets that the description of a source may have."""


class Insider:
    """What its client and its servers know of the insider."""

    def __init__(self) -> None:
        self.password = secrets.token_hex(32).encode()
        # How long the description is, and the description: of where it comes from now.
        self._source = memoryview(mmap.mmap(-1, mmap.PAGESIZE))

    def announce(self, source: IAddress | None) -> None:
        """Say where it will come from; None if it is gone.  It comes from one place at a time."""
        text = b"" if source is None else _described(source)
        self._source[0] = 0
        self._source[1 : 1 + len(text)] = text
        self._source[0] = len(text)

    @property
    def expected(self) -> bool:
        """Whether it is about to connect, or has."""
        return self._source[0] > 0

    def is_at(self, peer: IAddress) -> bool:
        """Return whether *peer*, from where somebody connects, is where it comes from."""
        length = self._source[0]
        return length > 0 and self._source[1 : 1 + length] == _described(peer)

    def maildrop(self, claim: Claim) -> IPromptMaildrop:
        """Return the insider's maildrop, not yet opened.

        :raises UnauthorizedLogin: these are not its credentials.
        """
        if (
            isinstance(claim, Attempt)
            and claim.username == NAME
            and compare_digest(claim.password, self.password)
        ):
            return _Empty([])
        raise UnauthorizedLogin


@implementer(IPromptMaildrop)
class _Empty(MemoryMaildrop):
    """A maildrop with nothing in it, and so at hand."""

    def open_promptly(self) -> Snapshot:
        """See `IPromptMaildrop.open_promptly`."""
        return self.open()

    def read_promptly(self, index: int, limit: int) -> bytes | None:
        """See `IPromptMaildrop.read_promptly`."""
        del index, limit
        return None

    def release_promptly(self) -> bool:
        """See `IPromptMaildrop.release_promptly`."""
        self.release()
        return True


def _described(address: IAddress) -> bytes:
    """Return what no two clients of this machine have in common at the same time."""
    if isinstance(address, UNIXAddress):
        return b"unix:" + (address.name or b"")[: _ROOM - 5] if address.name else b""
    host = getattr(address, "host", "").partition("%")[0]
    return f"{host} {getattr(address, 'port', 0)}".encode()[:_ROOM]
