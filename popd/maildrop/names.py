"""What the base name of a file in a Maildir says: when it was delivered, and its sizes.

A name is ``time.unique.host``, then perhaps ``,S=octets`` (as stored) and ``,W=octets`` (every line
end counted as CRLF), then perhaps ``:2,flags``.  Whoever delivers and whoever reads may write any
name, so all of it is a claim: numbers are plain ASCII digits and few, and nothing else counts.
"""

from __future__ import annotations

import re

__all__ = ["claimed_sizes", "time_digits"]

_TIME = re.compile(rb"([0-9]{1,12})\.(?:[^.,]*?M([0-9]{1,6})(?![0-9]))?")
_STORED = re.compile(rb",S=([0-9]{1,15})(?:,|\Z)")
_WIRE = re.compile(rb",W=([0-9]{1,15})(?:,|\Z)")


def time_digits(base: bytes) -> tuple[bytes, bytes] | None:
    """Return when a message was delivered: the digits of seconds since 1970 and of microseconds.

    None: the name does not say.
    """
    time = _TIME.match(base)
    return (time[1], time[2] or b"0") if time else None


def claimed_sizes(base: bytes) -> tuple[int | None, int | None]:
    """Return the octets that a base name claims, as stored and on the wire; None if it does not."""
    return _number(_STORED, base), _number(_WIRE, base)


def _number(pattern: re.Pattern[bytes], base: bytes) -> int | None:
    found = pattern.search(base)
    return int(found[1]) if found else None
