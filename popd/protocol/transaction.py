"""The TRANSACTION state: arithmetic on a snapshot and deletion marks (RFC 1939 section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from popd.protocol.commands import (
    BadCommandError,
    Command,
    NoSuchMessageError,
    execute,
    line_count,
    message_number,
    no_arguments,
    one_or_none,
    table,
    words,
)
from popd.protocol.events import Commit, Event, Reply, Send, Stream
from popd.protocol.snapshot import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from popd.protocol.channel import Channel
    from popd.protocol.snapshot import Snapshot

__all__ = ["PIECE", "Transaction"]

PIECE: Final = 65_536
"""Octets of a listing that are sent at once; a longer one is an event of its own."""

_OK: Final = Reply(b"+OK\r\n")
_NOT_DELETED: Final = Reply(b"-ERR this password may not delete messages\r\n")

_NONE: Final[set[int]] = set()
"""The marks of a session that has none, as most have; nothing is ever added to it."""


class Transaction:
    """A session after log-in.

    :param channel: the connection beneath it.
    :param snapshot: what the maildrop held at log-in.
    :param may_delete: whether the client may mark messages as deleted.
    """

    __slots__ = ("_channel", "_deleted", "_deleted_octets", "_may_delete", "_snapshot")

    max_errors: ClassVar = 50
    """How many bad commands end the session."""

    def __init__(self, channel: Channel, snapshot: Snapshot, *, may_delete: bool = True) -> None:
        self._channel = channel
        self._may_delete = may_delete
        self._snapshot = snapshot
        self._deleted: set[int] = _NONE
        self._deleted_octets = 0

    def execute(self, line: bytes) -> Event:
        """Carry out a command line."""
        return execute(self, self.commands, line)

    def _index(self, word: bytes | None) -> int:
        index = message_number(word, len(self._snapshot))
        if index in self._deleted:
            raise NoSuchMessageError
        return index

    def _capa(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        return Reply(self._channel.capabilities())

    def _stat(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        count = len(self._snapshot) - len(self._deleted)
        octets = self._snapshot.octets - self._deleted_octets
        return Reply(b"+OK %d %d\r\n" % (count, octets))

    def _list(self, arguments: bytes) -> Event:
        word = one_or_none(arguments)
        if word is None:
            if self._deleted:
                return self._marked(self._snapshot.scan_listing_without(self._deleted))
            return _whole(self._snapshot.scan_listing())
        index = self._index(word)
        return Reply(b"+OK %d %d\r\n" % (index + 1, self._snapshot.sizes[index]))

    def _uidl(self, arguments: bytes) -> Event:
        word = one_or_none(arguments)
        if word is None:
            if self._deleted:
                return self._marked(self._snapshot.unique_id_listing_without(self._deleted))
            return _whole(self._snapshot.unique_id_listing())
        index = self._index(word)
        return Reply(b"+OK %d %s\r\n" % (index + 1, self._snapshot.uids[index]))

    def _marked(self, pieces: Iterator[bytes]) -> Event:
        """Send a listing that leaves out what is marked: at once, if the maildrop is small."""
        return Reply(b"".join(pieces)) if len(self._snapshot) <= ROWS else Stream(pieces)

    def _retr(self, arguments: bytes) -> Event:
        index = self._index(one_or_none(arguments))
        return Send(index, None, b"+OK %d octets\r\n" % self._snapshot.sizes[index])

    def _top(self, arguments: bytes) -> Event:
        match words(arguments):
            case [message, lines]:
                return Send(self._index(message), line_count(lines), b"+OK\r\n")
        raise BadCommandError("a message number and a number of lines are needed")

    def _dele(self, arguments: bytes) -> Event:
        index = self._index(one_or_none(arguments))
        if not self._may_delete:
            return _NOT_DELETED
        if self._deleted is _NONE:
            self._deleted = set()
        self._deleted.add(index)
        self._deleted_octets += self._snapshot.sizes[index]
        return _OK

    def _noop(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        return _OK

    def _rset(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        self._deleted = _NONE
        self._deleted_octets = 0
        return _OK

    def _quit(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        return Commit(frozenset(self._deleted))

    commands: ClassVar[Mapping[bytes, Command[Transaction]]] = table(
        Command("CAPA", "", _capa, "RFC 2449 §5", "list what the server can do"),
        Command("STAT", "", _stat, "RFC 1939 §5", "count the messages and their octets"),
        Command("LIST", "[message]", _list, "RFC 1939 §5", "sizes in octets"),
        Command("UIDL", "[message]", _uidl, "RFC 1939 §7", "unique-ids"),
        Command("RETR", "message", _retr, "RFC 1939 §5", "send a message"),
        Command("TOP", "message n", _top, "RFC 1939 §7", "send a header and n lines"),
        Command("DELE", "message", _dele, "RFC 1939 §5", "mark a message as deleted"),
        Command("RSET", "", _rset, "RFC 1939 §5", "take all marks away"),
        Command("NOOP", "", _noop, "RFC 1939 §5", "do nothing"),
        Command("QUIT", "", _quit, "RFC 1939 §6", "remove marked messages, end the session"),
    )


def _whole(listing: bytes) -> Event:
    """Send a listing that other sessions share; of a long one copy a piece at a time."""
    if len(listing) <= PIECE:
        return Reply(listing)
    return Stream(listing[start : start + PIECE] for start in range(0, len(listing), PIECE))
