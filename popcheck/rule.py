"""What a rule is."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from popcheck.check import Check

__all__ = [
    "MUST",
    "ROBUST",
    "RULES",
    "SHOULD",
    "Failed",
    "Level",
    "Rule",
    "Silent",
    "Skipped",
    "rule",
    "rules",
]


class Level(enum.Enum):
    """How much weighs that a server does not keep to a rule."""

    MUST = "MUST"
    """The RFC demands it, or there is but one way to read it."""
    SHOULD = "SHOULD"
    """The RFC recommends it, or clients have come to count on it."""
    ROBUST = "robust"
    """No RFC says it, and people lose mail, time or secrets all the same where it does not hold."""


MUST, SHOULD, ROBUST = Level


class Failed(Exception):  # noqa: N818 - what became of a rule
    """The server does not keep to the rule.  The text says what it did, in a line."""


class Silent(Failed):
    """The server neither replies nor closes the connection."""


class Skipped(Exception):  # noqa: N818 - likewise
    """The rule says nothing about this server.  The text says why, in a line."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    :param name: what it is called, for ever; *topic.what*.
    :param source: the RFC and its section.
    :param level: how much weighs to break it.
    :param needs_mail: whether it puts mail into the Maildir.
    :param summary: the rule in a line.
    :param explanation: what is looked at, and what becomes of the users of a server that fails.
    :param check: looks whether a server keeps to it: raises `Failed` or `Skipped`, or nothing.
    """

    name: str
    source: str
    level: Level
    needs_mail: bool
    summary: str
    explanation: str
    check: Callable[[Check], None]


RULES: dict[str, Rule] = {}
"""The rules that the modules imported so far have."""


def rule(
    name: str, source: str, level: Level = MUST, *, mail: bool = False
) -> Callable[[Callable[[Check], None]], Callable[[Check], None]]:
    """Make a rule of a function; the first line of its docstring is the summary.

    :param source: RFC and section, as in ``1939 5``.
    :param mail: whether the function puts mail into the Maildir.
    """

    def register(check: Callable[[Check], None]) -> Callable[[Check], None]:
        text = inspect.cleandoc(check.__doc__ or "")
        summary, _, explanation = text.partition("\n\n")
        number, _, section = source.partition(" ")
        where = f"RFC {number} section {section}" if section else f"RFC {number}"
        if name in RULES:
            raise ValueError(f"there are two rules {name}")
        RULES[name] = Rule(
            name, where, level, mail, " ".join(summary.split()).rstrip("."), explanation, check
        )
        return check

    return register


def rules(
    family: str,
    members: dict[str, str],
    source: str,
    level: Level = MUST,
    *,
    mail: bool = False,
    summary: str,
) -> Callable[[Callable[[Check, str], None]], Callable[[Check, str], None]]:
    """Make a rule for each of *members* of a function that is told which it is about.

    :param family: what their names begin with.
    :param members: how their names go on, and what becomes of each *summary* with it.
    :param summary: the rule in a line; ``{}`` stands for the member's text.
    """

    def register(check: Callable[[Check, str], None]) -> Callable[[Check, str], None]:
        explanation = inspect.cleandoc(check.__doc__ or "")
        for member, text in members.items():

            def one(context: Check, member: str = member) -> None:
                check(context, member)

            one.__doc__ = f"{summary.format(text)}.\n\n{explanation}"
            rule(f"{family}.{member}", source, level, mail=mail)(one)
        return check

    return register
