"""The contract between a maildrop and whoever serves it, and the errors that it may raise.

Everything here is ordinary, synchronous Python: a call may take as long as the disk takes.  Whoever
has other things to do calls it from another thread; calls on one maildrop never overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from popd.maildrop.user import UserName
    from popd.protocol.snapshot import Snapshot

__all__ = [
    "IMaildrop",
    "IMaildropStore",
    "IPlacedMaildrop",
    "IPromptMaildrop",
    "IRelocatingStore",
    "MaildropError",
    "MaildropInUseError",
    "MaildropPermanentError",
    "MaildropTemporaryError",
    "Message",
    "MessageGoneError",
    "Place",
]

Place: TypeAlias = "tuple[object, str]"
"""The disk that a maildrop is on, and where it is there, as it may stand in a log line."""


class MaildropError(Exception):
    """Something about a maildrop is not as it should be.

    The text is for the log: it names the path and what is wrong, and never goes to a client.
    """


class MaildropInUseError(MaildropError):
    """Another session holds the maildrop: ``[IN-USE]`` (RFC 2449 section 8.1.2)."""


class MaildropTemporaryError(MaildropError):
    """The maildrop cannot be had now, but may be later: ``[SYS/TEMP]`` (RFC 3206 section 4)."""


class MaildropPermanentError(MaildropError):
    """The maildrop cannot be had until a person mends it: ``[SYS/PERM]`` (RFC 3206 section 4)."""


class MessageGoneError(MaildropError):
    """One message is no longer there; the others are."""


class Message(Protocol):
    """A message opened for reading, as it is stored."""

    octets: int
    """How many octets are stored; `read` yields exactly as many before it yields ``b""``."""

    def read(self, limit: int) -> bytes:
        """Return the next octets, at most *limit* of them, ``b""`` after the last.

        :raises MaildropTemporaryError: the disk failed, or the message ended before its time.
            What was read so far is not the whole message and must never be passed off as such.
        """

    def close(self) -> None:
        """Give back what the open message holds.  A second call does nothing."""


class IMaildrop(Interface):
    """The mail of one user: the avatar that a POP3 session works with."""

    def open() -> Snapshot:
        """Lock the maildrop exclusively and return what it holds (RFC 1939 section 4).

        :raises MaildropInUseError: another session holds it.
        :raises MaildropTemporaryError: it cannot be read now.  A maildrop that looks wrong is an
            error, never an empty snapshot.
        :raises MaildropPermanentError: it cannot be read until a person mends it.

        Nothing stays locked after an error.
        """

    def message(index: int) -> Message:
        """Open the message at 0-based *index* of the snapshot, wherever its file is by now.

        :raises MessageGoneError: someone removed it since.
        :raises MaildropTemporaryError: it cannot be read now.
        """

    def commit(deleted: Iterable[int]) -> Collection[int]:
        """Remove the messages at these 0-based indices and no others (RFC 1939 section 6).

        Every one is tried, whatever happens to the rest; one that is gone already counts as
        removed.  Returns the indices of those that could not be removed.
        """

    def release() -> None:
        """Unlock the maildrop and let go of it.  A second call does nothing."""


class IPromptMaildrop(IMaildrop):
    """A maildrop that can tell when something would not have to wait for a disk.

    What these do is safe in a thread that must not wait.  Where they say that they cannot, nothing
    has happened, and the method of `IMaildrop` does it.
    """

    def open_promptly() -> Snapshot | None:
        """Do what ``open`` does, or return None if it might take time.

        :raises MaildropError: as ``open`` does.
        """

    def read_promptly(index: int, limit: int) -> bytes | None:
        """Return all stored octets of a message, or None if they are more than *limit* or far away.

        :raises MaildropError: as ``message`` does.
        """

    def release_promptly() -> bool:
        """Do what ``release`` does and return True, or return False if it might take time."""


class IPlacedMaildrop(IMaildrop):
    """A maildrop on one of several disks, which may hang while others do not."""

    place = Attribute("The `Place`.  To find it out touches no disk.")


class IMaildropStore(Interface):
    """All maildrops of a site."""

    def maildrop(user: UserName) -> IMaildrop:
        """Return *user*'s maildrop, not yet opened.  Touches no disk.

        :raises MaildropPermanentError: this store has no place for such a name.
        """


class IRelocatingStore(IMaildropStore):
    """A store whose users may have their maildrops elsewhere than it would look."""

    def maildrop_at(place: str, user: UserName) -> IMaildrop:
        """Return *user*'s maildrop at *place*, in the words that made the store.  Touches no disk.

        :raises MaildropPermanentError: it cannot be there.
        """
