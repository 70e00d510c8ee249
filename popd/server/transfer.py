"""A message on its way from the maildrop to the wire, piece by piece, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from popd.protocol.message import MessageEncoder

if TYPE_CHECKING:
    from popd.maildrop.interfaces import IMaildrop
    from popd.protocol.events import Send

__all__ = ["CHUNK", "Transfer"]

CHUNK: Final = 14_336
"""How many stored octets are read at a time.  A piece on the wire can be up to twice as long; with
lines of seven octets or more it fits into one TLS record (16 KiB), CRs and all."""


class Transfer:
    """One RETR or TOP reply.  Everything here waits for the disk: call it off the reactor's thread.

    :param maildrop: where the message is.
    :param send: which message, and how much of it.
    :raises MaildropError: the message cannot be had; nothing may be sent but an error.
    """

    def __init__(self, maildrop: IMaildrop, send: Send) -> None:
        self._message = maildrop.message(send.index)
        self._left = self._message.octets
        self._encoder = MessageEncoder(send.body_lines)
        self._status = send.status
        self.done = False
        """Whether the last piece was handed out."""

    @classmethod
    def begin(cls, maildrop: IMaildrop, send: Send) -> tuple[Transfer, bytes]:
        """Open the message and read the first piece, in one go."""
        transfer = cls(maildrop, send)
        return transfer, transfer.next()

    @property
    def octets(self) -> int:
        """How many octets of the message were encoded so far, without the stuffed dots."""
        return self._encoder.octets

    def next(self) -> bytes:
        """Return the next piece of the reply; `done` tells whether it is the last.

        :raises MaildropTemporaryError: the message cannot be read to its end.  The reply must not
            be ended as if it had been.
        """
        try:
            chunk = self._message.read(CHUNK)
        except BaseException:
            self.close()
            raise
        piece = self._status + self._encoder.feed(chunk)
        self._status = b""
        self._left -= len(chunk)
        if self._left and not self._encoder.complete:
            return piece
        self.close()
        self.done = True
        return piece + self._encoder.finish()

    def close(self) -> None:
        """Close the message.  A second call does nothing."""
        self._message.close()
