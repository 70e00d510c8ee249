"""Unique-ids that never change and are never used again (RFC 1939 section 7, UIDL).

A message's id is its Maildir base name: that is unique, stays when flags change or the file moves,
and is the same on every machine.  A name that is no valid id gives way to its SHA-256 in hex; so
does a name that looks like such a digest, so that nobody can choose a name to be another's id.

Sometimes two files have one base name: a copy, or a hard link that a crash left.  Then the
one that was there first, by its mtime, keeps the id, and each other gets the digest of (base name,
SHA-256 of its content, copy number), which is its own wherever it is renamed to.  Who got which is
written down in `Ledger`; otherwise, when the first is removed, the next would inherit its id,
and a client would take it for the message that it already has.
"""

from __future__ import annotations

import errno
import os
import re
from collections import defaultdict
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from popd.maildrop.files import open_regular, replace_file, shown, temporary
from popd.maildrop.interfaces import MaildropTemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LEDGER_FILE", "Ledger", "unique_id"]

LEDGER_FILE = b"popd-uidl"
"""The name of the ledger in the Maildir."""

_MAX_OCTETS = 64 * 1024 * 1024
_MAX_ABSENT = 1000

_PLAIN = re.compile(rb"[!-~]{1,70}")
_DIGEST_OCTETS = 64
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_HEAD = re.compile(rb"popd-uidl 1 ([0-9a-f]{64})\n")
_LINE = re.compile(rb"([!-~]*)((?: [0-9a-f]{64}:[0-9]{1,9}-?)+)\n")
_CLAIM = re.compile(rb"([0-9a-f]{64}):([0-9]+)(-?)")


def unique_id(base: bytes, identity: bytes = b"", number: int = 0) -> bytes:
    """Return the unique-id of a message: 1 to 70 octets of 0x21 to 0x7E.

    :param base: its base name.
    :param identity: the SHA-256 of its content in hex, if others have had the same base name.
    :param number: 0 for the one that keeps the plain id, else the number that `Ledger` gave.
    """
    if number:
        return _digest(b"%b\0%b\0%d" % (base, identity, number))
    if _PLAIN.fullmatch(base) and not (len(base) == _DIGEST_OCTETS and _DIGEST.fullmatch(base)):
        return base  # the very same, which costs no memory
    return _digest(base)


def _digest(data: bytes) -> bytes:
    return sha256(data).hexdigest().encode("ascii")


class Ledger:
    """Who got which unique-id, for the base names that more than one file has had.

    It is the file `LEDGER_FILE`: a line with the format's version and the SHA-256 of all that
    follows, then a line for each base name with the claims on it, ``identity:number``, and ``-``
    behind those that are spent.  A message is told by its content, so its claim outlives every
    change of its file's name.  Claims on base names that are no longer there are kept, in case
    they come back from a backup; of those, beyond a thousand the oldest are dropped.

    The file exists only where duplicates were seen.  It is replaced as a whole and durably, so a
    damaged one was damaged by the disk or by hand.  Then it is unknown which ids were given, and
    new ones might make a client skip mail that it never had: `load` fails until someone puts
    the file right, or removes it to have the ids given anew.
    """

    def __init__(self, root: bytes, claims: dict[bytes, dict[tuple[bytes, int], bool]]) -> None:
        self._root = root
        self._claims = claims
        self._present: set[bytes] = set()
        self._unwritten = False

    @classmethod
    def load(cls, root: bytes) -> Ledger:
        """Read the ledger of the Maildir at *root*; where there is none it is empty.

        :raises MaildropTemporaryError: it cannot be read, or is damaged.
        """
        path = os.path.join(root, LEDGER_FILE)
        with temporary(path):
            try:
                file = open_regular(path)
            except FileNotFoundError:
                return cls(root, {})
            with file:
                small = os.fstat(file.fileno()).st_size <= _MAX_OCTETS
                claims = _parse(file.readall()) if small else None
        if claims is None:
            raise MaildropTemporaryError(
                f"{shown(path)}: damaged, or from a newer popd. Restore it; or remove it, and"
                " messages whose base names are alike may get new unique-ids"
            )
        return cls(root, claims)

    def __len__(self) -> int:
        """Return of how many base names it knows."""
        return len(self._claims)

    def __contains__(self, base: bytes) -> bool:
        """Tell whether more than one file has had this base name."""
        return base in self._claims

    def numbers(self, base: bytes, identities: Iterable[bytes]) -> list[int]:
        """Return the number of each file of a base name, for `unique_id`.

        :param identities: the SHA-256 of each file's content, in hex; the oldest file first.
        """
        first = base not in self._claims
        claims = self._claims.setdefault(base, {})
        self._present.add(base)
        free: dict[bytes, list[int]] = defaultdict(list)
        following: dict[bytes, int] = defaultdict(lambda: 1)
        for (identity, number), spent in sorted(claims.items(), reverse=True):
            following[identity] = max(following[identity], number + 1)
            if not spent:
                free[identity].append(number)
        numbers = []
        for identity in identities:
            if free[identity]:
                number = free[identity].pop()
            else:
                number = 0 if first else following[identity]
                following[identity] = number + 1
                claims[identity, number] = False
                self._unwritten = True
            first = False
            numbers.append(number)
        return numbers

    def spend(self, base: bytes, identity: bytes, number: int) -> None:
        """Note that a message was removed, so that a twin of the same content keeps its own id."""
        self._claims[base][identity, number] = True
        self._unwritten = True

    def secure(self) -> None:
        """Have everything on disk, durably.

        :raises MaildropTemporaryError: that was not possible; it can be tried again.
        """
        if not self._unwritten:
            return
        absent = [base for base in self._claims if base not in self._present]
        for base in absent[: max(0, len(absent) - _MAX_ABSENT)]:
            del self._claims[base]
        content = _format(self._claims)
        with temporary(os.path.join(self._root, LEDGER_FILE)):
            if len(content) > _MAX_OCTETS:
                raise OSError(errno.EFBIG, "More duplicates than a ledger can hold")
            replace_file(self._root, LEDGER_FILE, content, durably=True)
        self._unwritten = False


def _format(claims: dict[bytes, dict[tuple[bytes, int], bool]]) -> bytes:
    body = b"".join(
        b"%b %b\n"
        % (
            quote_from_bytes(base, safe=",=").encode("ascii"),
            b" ".join(
                b"%b:%d%b" % (identity, number, b"-" if spent else b"")
                for (identity, number), spent in of_base.items()
            ),
        )
        for base, of_base in claims.items()
    )
    return b"popd-uidl 1 %b\n%b" % (_digest(body), body)


def _parse(content: bytes) -> dict[bytes, dict[tuple[bytes, int], bool]] | None:
    """Return the claims on each base name, or None if *content* is not a whole ledger."""
    head = _HEAD.match(content)
    if not head or head[1] != _digest(content[head.end() :]):
        return None
    claims = {}
    for line in content[head.end() :].splitlines(keepends=True):
        match = _LINE.fullmatch(line)
        if not match:
            return None
        claims[unquote_to_bytes(match[1])] = {
            (identity, int(number)): bool(spent)
            for identity, number, spent in _CLAIM.findall(match[2])
        }
    return claims
