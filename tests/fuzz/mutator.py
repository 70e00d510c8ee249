"""Inputs by chance, the same ones for the same seed."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.target import Target

__all__ = ["mutants"]

_MOST: Final = 6
"""How many changes are made to an input at most."""

_LONGEST: Final = 40_000
"""Octets that an input may have."""

_REPEATS: Final = (2, 3, 10, 100, 300, 5_000)

_BYTES: Final = tuple(bytes([number]) for number in range(256))


def mutants(target: Target, seed: int) -> Iterator[bytes]:
    """Yield inputs for *target* without end.

    :param seed: by what they are chosen.
    """
    chance = Random(seed)  # noqa: S311 - to be the same again is the point
    change = _Changes(chance, target)
    while True:
        data = chance.choice(target.seeds)
        for _ in range(chance.randrange(_MOST) + 1):
            data = chance.choice(change.all)(data)
        yield data[:_LONGEST]


class _Changes:
    def __init__(self, chance: Random, target: Target) -> None:
        self._chance = chance
        self._words = target.words
        self._seeds = target.seeds
        self.all = (
            *(self.flip, self.insert, self.remove, self.truncate, self.append, self.splice),
            *(self.word, self.word, self.word, self.repeat, self.copy),
        )

    def _cut(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        """Cut a short piece out of the middle."""
        start = self._chance.randrange(len(data) + 1)
        end = start + self._chance.randrange(20)
        return data[:start], data[start:end], data[end:]

    def flip(self, data: bytes) -> bytes:
        """Change one octet."""
        before, _, after = self._cut(data)
        return before + self._chance.choice(_BYTES) + after[1:]

    def insert(self, data: bytes) -> bytes:
        """Add one octet."""
        before, piece, after = self._cut(data)
        return before + self._chance.choice(_BYTES) + piece + after

    def remove(self, data: bytes) -> bytes:
        """Leave something out."""
        before, _, after = self._cut(data)
        return before + after

    def truncate(self, data: bytes) -> bytes:
        """Leave out all that follows."""
        return self._cut(data)[0]

    def word(self, data: bytes) -> bytes:
        """Put in a word."""
        before, piece, after = self._cut(data)
        return before + self._chance.choice(self._words) + (piece + after)

    def append(self, data: bytes) -> bytes:
        """Add a word behind."""
        return data + self._chance.choice(self._words)

    def repeat(self, data: bytes) -> bytes:
        """Say something many times."""
        before, piece, after = self._cut(data)
        # What is long takes long: seldom.
        times = self._chance.choice(_REPEATS[: 3 if self._chance.random() < 0.98 else None])
        return before + piece * times + after

    def copy(self, data: bytes) -> bytes:
        """Say again what stands elsewhere."""
        _, piece, _ = self._cut(data)
        before, _, after = self._cut(data)
        return before + piece + after

    def splice(self, data: bytes) -> bytes:
        """Go on with another input."""
        return self._cut(data)[0] + self._cut(self._chance.choice(self._seeds))[2]
