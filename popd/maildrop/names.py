"""What the name of a file in a Maildir says: its base name, its delivery time, its sizes.

A name is ``time.unique.host``, then perhaps ``,S=octets`` (as stored) and ``,W=octets`` (every line
end counted as CRLF), then perhaps ``:2,flags``.  Whoever delivers and whoever reads may write any
name, so all of it is a claim: numbers are plain ASCII digits and few, and nothing else counts.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["FileName"]

_TIME = re.compile(rb"([0-9]{1,12})\.(?:[^.,]*?M([0-9]{1,6})(?![0-9]))?")
_STORED = re.compile(rb",S=([0-9]{1,15})(?:,|\Z)")
_WIRE = re.compile(rb",W=([0-9]{1,15})(?:,|\Z)")


class FileName(NamedTuple):
    """A Maildir file name, read."""

    base: bytes
    """What stands before the first colon: the message's own name, which stays when a flag changes
    or the file moves from ``new`` to ``cur``."""

    time: tuple[int, int] | None
    """When it was delivered: seconds since 1970 and microseconds.  None: the name does not say."""

    stored: int | None
    """``S=``: how many octets the file is said to have."""

    wire: int | None
    """``W=``: how many it is said to have with CRLF line ends."""

    @classmethod
    def parse(cls, name: bytes) -> FileName:
        """Read a file name; every name is one."""
        base = name.partition(b":")[0]
        time = _TIME.match(base)
        return cls(
            base,
            (int(time[1]), int(time[2] or 0)) if time else None,
            _number(_STORED, base),
            _number(_WIRE, base),
        )


def _number(pattern: re.Pattern[bytes], base: bytes) -> int | None:
    found = pattern.search(base)
    return int(found[1]) if found else None
