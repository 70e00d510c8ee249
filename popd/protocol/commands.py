"""What a command is, and how its arguments are read.

A phase of a session (AUTHORIZATION, TRANSACTION) has a table of its commands, and the table is the
only dispatch: a verb that is not in it does not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from popd.protocol.events import Event

__all__ = [
    "BadCommandError",
    "Command",
    "NoSuchMessageError",
    "UnknownCommandError",
    "execute",
    "line_count",
    "message_number",
    "no_arguments",
    "one_or_none",
    "table",
    "words",
]

Phase = TypeVar("Phase")

_MAX_DIGITS: Final = 10
"""How many digits a message number may have."""

_LINE_COUNT: Final = re.compile(rb"[0-9]{1,10}")


class BadCommandError(Exception):
    """The client sent what no client should.

    The text is the reply, without ``-ERR``; it holds nothing that the client sent.
    """


class UnknownCommandError(BadCommandError):
    """There is no such command, or not in this state."""


class NoSuchMessageError(Exception):
    """A message number stands for no message, or for a deleted one."""


@dataclass(frozen=True, slots=True)
class Command(Generic[Phase]):
    """One row of a command table.

    :param verb: the command's name.
    :param arguments: its arguments, as a manual writes them.
    :param handler: turns what stands behind the verb into an event.
    :param source: the document that defines it.
    :param summary: what it does, in a few words.
    """

    verb: str
    arguments: str
    handler: Callable[[Phase, bytes], Event]
    source: str
    summary: str


def table(*commands: Command[Phase]) -> Mapping[bytes, Command[Phase]]:
    """Return the commands by their verbs, in upper case."""
    return {command.verb.encode("ascii"): command for command in commands}


def execute(phase: Phase, commands: Mapping[bytes, Command[Phase]], line: bytes) -> Event:
    """Carry out one command line.

    :raises UnknownCommandError: there is no such command.
    :raises BadCommandError: its arguments are wrong.
    :raises NoSuchMessageError: it names a message that is not there.
    """
    verb, _, arguments = line.partition(b" ")
    command = commands.get(verb.upper())
    if command is None:
        raise UnknownCommandError("unknown command, or not in this state")
    return command.handler(phase, arguments)


def words(arguments: bytes) -> list[bytes]:
    """Split arguments at spaces; spaces too many are forgiven, since some clients send them."""
    return [word for word in arguments.split(b" ") if word]


def no_arguments(arguments: bytes) -> None:
    """Make sure that there is no argument.

    :raises BadCommandError: there is one.
    """
    if arguments and words(arguments):
        raise BadCommandError("this command takes no argument")


def one_or_none(arguments: bytes) -> bytes | None:
    """Return the only argument, or None if there is none.

    :raises BadCommandError: there are several.
    """
    if b" " not in arguments:
        return arguments or None
    match words(arguments):
        case []:
            return None
        case [word]:
            return word
    raise BadCommandError("this command takes one argument at most")


def message_number(word: bytes | None, count: int) -> int:
    """Return the 0-based index that a message number means in a maildrop of *count* messages.

    This is the only place that knows that clients count from 1.  A number is ASCII digits and
    nothing else: no sign, no leading zero, none of what ``int`` would take besides.

    :raises BadCommandError: *word* is no number.
    :raises NoSuchMessageError: there are not so many messages.
    """
    if word is None or not word.isdigit():
        raise BadCommandError("a message number is needed")
    if len(word) > _MAX_DIGITS or word.startswith(b"0") or int(word) > count:
        raise NoSuchMessageError
    return int(word) - 1


def line_count(word: bytes) -> int:
    """Return a number of lines, 0 or more.

    :raises BadCommandError: *word* is no such number.
    """
    if not _LINE_COUNT.fullmatch(word):
        raise BadCommandError("a number of lines is needed")
    return int(word)
