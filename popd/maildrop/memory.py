"""A maildrop in memory: what `IMaildrop` means in the fewest words, and a double for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zope.interface import implementer

from popd.maildrop.interfaces import (
    IMaildrop,
    IMaildropStore,
    MaildropError,
    MaildropInUseError,
    MaildropPermanentError,
    MaildropTemporaryError,
    MessageGoneError,
)
from popd.protocol.message import OctetCounter
from popd.protocol.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from popd.maildrop.user import UserName

__all__ = ["MemoryBox", "MemoryMaildrop", "MemoryMessage", "MemoryStore"]


@dataclass
class MemoryBox:
    """What would be on disk: the mail of one user, and how that disk behaves."""

    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Unique-id and stored octets of each message, in their order.  Change it at will: it is what
    other programs deliver to and remove from."""

    locked: bool = False
    """Whether a session holds the maildrop."""

    trouble: MaildropError | None = None
    """What opening the maildrop or a message raises, and makes every removal fail."""

    stuck: set[bytes] = field(default_factory=set)
    """The unique-ids of the messages that cannot be removed."""

    torn: set[bytes] = field(default_factory=set)
    """The unique-ids of the messages that end half-way, though opened whole."""


@implementer(IMaildrop)
class MemoryMaildrop:
    """One session's maildrop.

    :param box: the mail, shared by the sessions that work on it; or a list of pairs, unique-id and
        stored octets, to have a box of its own.
    """

    def __init__(self, box: MemoryBox | list[tuple[bytes, bytes]]) -> None:
        self.box = MemoryBox(box) if isinstance(box, list) else box
        self._uids: list[bytes] = []
        self._holds = False

    def open(self) -> Snapshot:
        """See `IMaildrop.open`."""
        if self.box.trouble:
            raise self.box.trouble
        if self.box.locked:
            raise MaildropInUseError("locked")
        self.box.locked = self._holds = True
        self._uids = [uid for uid, _ in self.box.messages]
        return Snapshot([_octets(content) for _, content in self.box.messages], self._uids)

    def message(self, index: int) -> MemoryMessage:
        """See `IMaildrop.message`."""
        uid = self._uid(index)
        if self.box.trouble:
            raise self.box.trouble
        content = dict(self.box.messages).get(uid)
        if content is None:
            raise MessageGoneError(repr(uid))
        return MemoryMessage(content, len(content) // 2 if uid in self.box.torn else None)

    def commit(self, deleted: Iterable[int]) -> Collection[int]:
        """See `IMaildrop.commit`."""
        indices = {self._uid(index): index for index in deleted}
        marked = set(indices)
        there = {uid for uid, _ in self.box.messages}
        stuck = marked & there & (there if self.box.trouble else self.box.stuck)
        self.box.messages[:] = [
            (uid, content) for uid, content in self.box.messages if uid not in marked - stuck
        ]
        return [indices[uid] for uid in stuck]

    def release(self) -> None:
        """See `IMaildrop.release`."""
        if self._holds:
            self.box.locked = self._holds = False

    def _uid(self, index: int) -> bytes:
        if index < 0:
            raise IndexError(index)
        return self._uids[index]


class MemoryMessage:
    """A `Message` in memory.

    :param content: the stored octets.
    :param torn: how many of them can be read; all, if None.
    """

    def __init__(self, content: bytes, torn: int | None = None) -> None:
        self.octets = len(content)
        self._left = content[:torn]
        self._torn = torn is not None
        self.closed = False

    def read(self, limit: int) -> bytes:
        """See `Message.read`."""
        if self._torn and not self._left:
            raise MaildropTemporaryError("the message ended early")
        chunk, self._left = self._left[:limit], self._left[limit:]
        return chunk

    def close(self) -> None:
        """See `Message.close`."""
        self.closed = True


@implementer(IMaildropStore)
class MemoryStore:
    """The maildrops of a site, in memory.

    :param boxes: the mail of each user, by ``str(user)``.
    """

    def __init__(self, boxes: Mapping[str, MemoryBox]) -> None:
        self.boxes = boxes

    def maildrop(self, user: UserName) -> MemoryMaildrop:
        """See `IMaildropStore.maildrop`."""
        box = self.boxes.get(str(user))
        if box is None:
            raise MaildropPermanentError(f"{str(user)!a}: no maildrop")
        return MemoryMaildrop(box)


def _octets(content: bytes) -> int:
    counter = OctetCounter()
    counter.feed(content)
    return counter.octets()
