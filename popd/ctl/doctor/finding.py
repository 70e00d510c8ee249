"""What the checks are given, and what they find."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from popd.config import Settings

    Check: TypeAlias = "Callable[[Patient], Iterator[Finding]]"

__all__ = ["Finding", "Patient", "fine", "output_of", "problem", "warning"]

Level: TypeAlias = Literal["ok", "warning", "problem"]

_COMMAND_TIME: Final = 10.0


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    :param check: what was looked at.
    :param level: whether something is wrong with it by now, or may be soon.
    :param text: what was found.
    :param remedy: what to do about it.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""


def fine(check: str, text: str) -> Finding:
    """Return a finding that is none."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return a finding that may become a problem."""
    return Finding(check, "warning", text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Return a finding that needs somebody."""
    return Finding(check, "problem", text, remedy)


@dataclass
class Patient:
    """A site that is looked at.

    :param config: the path of its configuration.
    :param settings: what popd is told.
    :param host: under which name clients reach it.
    :param uid: the user that popd runs as.
    :param gids: the groups of that user.
    :param running: what a popd that runs says of itself (``popctl status``); None if none does.
    :param maildirs: users and their Maildirs, as far as they are looked at.
    :param login: a user's name and password, to log in with.
    :param deadline: when looking through mail ends, by the monotonic clock.
    """

    config: str
    settings: Settings
    host: str
    uid: int
    gids: frozenset[int] = frozenset()
    running: dict[str, Any] | None = None
    maildirs: list[tuple[str, bytes]] = field(default_factory=list)
    login: tuple[str, bytes] | None = None
    deadline: float = 0.0

    @property
    def in_time(self) -> bool:
        """Whether there is time left to look through mail."""
        return time.monotonic() < self.deadline


def output_of(program: str, *arguments: str) -> str | None:
    """Return what a program writes to stdout; None if there is no such program, or it fails."""
    found = shutil.which(program)
    if found is None:
        return None
    try:
        ran = subprocess.run(  # noqa: S603 - the checks say what is run
            [found, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_TIME,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
