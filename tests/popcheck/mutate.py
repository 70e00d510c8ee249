"""How mutants are made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.popcheck.maildrop import OK, Quit, Refused
from tests.popcheck.toy import Session

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fallen", "mutant", "parsing", "said", "taken"]


def mutant(**overrides: Any) -> type[Session]:
    """Return a session with other methods or values."""
    return type("Mutant", (Session,), overrides)


def said(verb: str, pattern: bytes, replacement: bytes, **overrides: Any) -> type[Session]:
    """Return a session in which something else is said to a verb."""

    def answer(self: Session, line: bytes) -> bytes:
        reply = Session.answer(self, line)
        if line.split(b" ")[0].upper() != verb.encode():
            return reply
        return re.sub(pattern, replacement, reply, flags=re.MULTILINE)

    return mutant(answer=answer, **overrides)


def taken(
    pattern: bytes, reply: bytes = OK, *, before: bool = True, after: bool = True
) -> type[Session]:
    """Return a session in which lines that match have this reply, before or after log-in."""

    def answer(self: Session, line: bytes) -> bytes:
        here = before if self.files is None else after
        if here and re.fullmatch(pattern, line, re.DOTALL):
            return reply
        return Session.answer(self, line)

    return mutant(answer=answer)


def fallen(pattern: bytes, *, before: bool = True, after: bool = True) -> type[Session]:
    """Return a session that is over when a line matches, before or after log-in."""

    def answer(self: Session, line: bytes) -> bytes:
        here = before if self.files is None else after
        if here and re.fullmatch(pattern, line, re.DOTALL):
            raise Quit(b"")
        return Session.answer(self, line)

    return mutant(answer=answer)


def parsing(read: Callable[[bytes], int], *, wrap: bool = False) -> type[Session]:
    """Return a session that reads message numbers otherwise.

    :param wrap: whether numbers below 1 count from the end, as Python's indices do.
    """

    def number(self: Session, argument: bytes) -> int:
        try:
            at = read(argument) - 1
        except (ValueError, KeyError, ArithmeticError):
            raise Refused("no number") from None
        if not at < len(self.sizes) or (at < 0 and not wrap):
            raise Refused("no such message")
        return at % len(self.sizes)

    return mutant(number=number)
