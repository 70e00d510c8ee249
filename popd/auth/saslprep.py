"""SASLprep (RFC 4013): the one spelling of a password that SCRAM's keys are made of."""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

__all__ = ["saslprep"]

_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # a stored string has no unassigned code points (RFC 5802 section 2.2)
)


def saslprep(text: str) -> str:
    """Return *text* prepared, which for printable ASCII is *text* itself.

    :raises ValueError: it has characters that cannot be prepared.  The text repeats none of them.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibited(character) for character in prepared for prohibited in _PROHIBITED):
        raise ValueError("it has characters that SASLprep does not allow (RFC 4013)")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """Refuse a mixture of writing directions (RFC 3454 section 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    if any(map(stringprep.in_table_d2, text)) or not (
        stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    ):
        raise ValueError("it mixes writing directions, which SASLprep does not allow (RFC 4013)")
