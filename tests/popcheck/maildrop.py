"""The toy's maildrop, and the commands for it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.popcheck.toy import Toy

__all__ = ["OK", "Maildrop", "Quit", "Refused"]

OK = b"+OK\r\n"


class Refused(Exception):  # noqa: N818 - a reply
    """-ERR, with this text."""


class Quit(Exception):  # noqa: N818 - not an error
    """The connection is closed behind this reply."""


class Maildrop:
    """The part of a session that has to do with mail."""

    chunk = 1 << 30
    """Octets that a message is read in; of no matter to who does it right."""

    def __init__(self, server: Toy) -> None:
        self.server = server
        self.locked = self.utf8 = False
        self.files: list[Path] | None = None
        self.sizes: list[int] = []
        self.uids: list[bytes] = []
        self.deleted: set[int] = set()

    @staticmethod
    def none(argument: bytes) -> None:
        """Refuse an argument."""
        if argument.strip(b" "):
            raise Refused("no argument")

    @staticmethod
    def multi(lines: list[bytes]) -> bytes:
        """Return a multi-line reply."""
        return b"".join(line + b"\r\n" for line in [b"+OK", *lines, b"."])

    def take(self) -> bool:
        """Take the maildrop's lock; return whether it was free."""
        self.locked = self.server.lock.acquire(blocking=False)
        return self.locked

    def leave(self) -> None:
        """Let go of the maildrop."""
        if self.locked:
            self.locked = False
            self.server.lock.release()

    def open(self) -> None:
        """Make the list of messages."""
        found = [path for path in self.scan() if self.is_mail(path)]
        self.files = sorted(found, key=self.sort_key)
        self.sizes = [self.size(path.read_bytes()) for path in self.files]
        self.uids = self.unique([self.uid(path) for path in self.files])

    def scan(self) -> list[Path]:
        """Return the files that there are."""
        return [path for at in ("new", "cur") for path in (self.server.maildir / at).iterdir()]

    def is_mail(self, path: Path) -> bool:
        """Return whether a file is a message."""
        return not path.name.startswith(".") and stat.S_ISREG(path.lstat().st_mode)

    def sort_key(self, path: Path) -> Any:
        """Return what orders messages."""
        return path.name.split(":")[0]

    def uid(self, path: Path) -> bytes:
        """Return the unique-id of a message."""
        base = os.fsencode(path.name.split(":")[0])
        if re.fullmatch(rb"[!-~]{1,70}", base):
            return base
        return hashlib.sha256(base).hexdigest().encode()

    def unique(self, uids: list[bytes]) -> list[bytes]:
        """Give ids that are there twice to one message each."""
        return [
            hashlib.sha256(b"%d" % at + uid).hexdigest().encode() if uid in uids[:at] else uid
            for at, uid in enumerate(uids)
        ]

    def find(self, path: Path) -> Path | None:
        """Return where a message's file is now."""
        base = path.name.split(":")[0]
        return next((one for one in self.scan() if one.name.split(":")[0] == base), None)

    def read(self, at: int) -> bytes:
        """Return the octets of a message's file."""
        assert self.files is not None
        path = self.find(self.files[at])
        if path is None:
            raise Refused("gone")
        return path.read_bytes()

    def size(self, stored: bytes) -> int:
        """Return how many octets a message has."""
        return len(self.wire(stored))

    def wire(self, stored: bytes) -> bytes:
        """Return a message with CRLF, the last one included."""
        pieces = [stored[at : at + self.chunk] for at in range(0, len(stored), self.chunk)]
        text = b"".join(self.with_crlf(piece, at) for at, piece in enumerate(pieces))
        return self.ended(text)

    def with_crlf(self, piece: bytes, at: int) -> bytes:
        """Return a piece of a message with CRLF."""
        return re.sub(rb"\r?\n", b"\r\n", piece)

    def ended(self, text: bytes) -> bytes:
        """Return a message whose last line has an end."""
        return text + b"\r\n" if text and not text.endswith(b"\r\n") else text

    def stuff(self, text: bytes) -> bytes:
        """Return a multi-line reply's lines with dots before dots."""
        return re.sub(rb"(?:(?<=\r\n)|\A)\.", b"..", text)

    def whole(self, at: int) -> bytes:
        """Return a message as it is sent.

        :raises Quit: it is not what it was at log-in.
        """
        text = self.wire(self.read(at))
        if len(text) != self.sizes[at]:
            raise Quit(b"-ERR changed\r\n")
        return text

    def number(self, argument: bytes) -> int:
        """Return the index that a message number means."""
        word = argument.strip(b" ")
        at = self.parsed(word)
        if not 0 <= at < len(self.sizes) or at in self.deleted:
            raise Refused("no such message")
        return at

    def parsed(self, word: bytes) -> int:
        """Return the number that a word is, less one."""
        if re.fullmatch(rb"[1-9][0-9]{0,9}", word) is None:
            raise Refused("no number")
        return int(word) - 1

    def left(self) -> list[int]:
        """Return the indices that are not marked."""
        return [at for at in range(len(self.sizes)) if at not in self.deleted]

    def do_STAT(self, argument: bytes) -> bytes:
        """Count."""
        self.none(argument)
        return b"+OK %d %d\r\n" % (len(self.left()), sum(self.sizes[at] for at in self.left()))

    def do_LIST(self, argument: bytes) -> bytes:
        """List sizes."""
        if argument.strip(b" "):
            at = self.number(argument)
            return b"+OK %d %d\r\n" % (at + 1, self.sizes[at])
        return self.multi([b"%d %d" % (at + 1, self.sizes[at]) for at in self.left()])

    def do_UIDL(self, argument: bytes) -> bytes:
        """List unique-ids."""
        if argument.strip(b" "):
            at = self.number(argument)
            return b"+OK %d %s\r\n" % (at + 1, self.uids[at])
        return self.multi([b"%d %s" % (at + 1, self.uids[at]) for at in self.left()])

    def do_RETR(self, argument: bytes) -> bytes:
        """Send a message."""
        at = self.number(argument)
        text = self.whole(at)
        if not self.utf8 and not text.partition(b"\r\n\r\n")[0].isascii() and self.strict(text):
            raise Refused("[UTF8] not without UTF8")
        return b"+OK %d octets\r\n%s.\r\n" % (len(text), self.stuff(text))

    def strict(self, text: bytes) -> bool:
        """Return whether RFC 6856 is meant: a message with a header that says so."""
        return text.startswith(b"From:") and "\u00fc".encode() in text

    def do_TOP(self, argument: bytes) -> bytes:
        """Send a header and lines."""
        words = argument.split(b" ")
        if len(words) != 2:
            raise Refused("two numbers")
        text = self.whole(self.number(words[0]))
        return b"+OK\r\n" + self.stuff(self.head(text, self.count(words[1]))) + b".\r\n"

    def count(self, word: bytes) -> int:
        """Return a number of lines."""
        if re.fullmatch(rb"[0-9]{1,10}", word) is None:
            raise Refused("no number")
        return int(word)

    def head(self, text: bytes, count: int) -> bytes:
        """Return a header, the empty line and *count* lines."""
        if text.startswith(b"\r\n"):
            header, blank, body = b"", b"\r\n", text[2:]
        else:
            header, blank, body = text.partition(b"\r\n\r\n")
        return header + blank + b"".join(re.findall(rb"[^\n]*\n", body)[:count])

    def do_DELE(self, argument: bytes) -> bytes:
        """Mark a message."""
        self.deleted.add(self.number(argument))
        return OK

    def do_RSET(self, argument: bytes) -> bytes:
        """Take the marks away."""
        self.none(argument)
        self.deleted.clear()
        return OK

    def do_NOOP(self, argument: bytes) -> bytes:
        """Do nothing."""
        self.none(argument)
        return OK

    def do_QUIT(self, argument: bytes) -> bytes:
        """Remove what is marked, and leave."""
        self.none(argument)
        self.commit(sorted(self.deleted))
        self.leave()
        raise Quit(b"+OK bye\r\n")

    def commit(self, marked: list[int]) -> None:
        """Remove messages."""
        for at in marked:
            self.remove(at)

    def remove(self, at: int) -> None:
        """Remove a message."""
        assert self.files is not None
        path = self.find(self.files[at])
        if path is not None:
            path.unlink(missing_ok=True)
