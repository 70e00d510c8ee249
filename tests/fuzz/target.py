"""What is fuzzed, and how one knows that it went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CANARY", "Target", "no_echo"]

CANARY: Final = b"cAnArY"
"""What clients say all the time, and popd never."""


@dataclass(frozen=True)
class Target:
    """Something that takes octets from whoever sends them.

    :param check: takes an input; raises anything at all if there is something wrong.
    :param seeds: inputs that make sense, to begin with.
    :param words: what such inputs are made of.
    """

    check: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]


def no_echo(error: Exception) -> None:
    """Make sure that what is said of an error is one line, and repeats nothing."""
    text = str(error)
    assert CANARY.decode() not in text, text
    assert "\n" not in text, text
    assert text, repr(error)
