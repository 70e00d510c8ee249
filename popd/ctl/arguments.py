"""What popctl's commands take: names of users, and passwords, which no command line has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from popd.auth.schemes import MAX_PASSWORD_OCTETS
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ask_password", "new_password", "stdin_option", "user_argument"]

stdin_option: Callable[[Any], Any] = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line."
)


class _Name(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A user's name; its value is the canonical one."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the canonical name."""
        user = UserName.parse(value)
        if user is None:
            self.fail("no user can have this name", param, ctx)
        return str(user)


user_argument: Callable[[Any], Any] = click.argument("name", metavar="USER", type=_Name())


def new_password(*, stdin: bool) -> bytes:
    """Return a new password, which is asked for twice.

    :param stdin: it is on standard input instead.
    """
    return _read() if stdin else _prompt(twice=True)


def ask_password(*, stdin: bool) -> bytes:
    """Return a password that there is already, which is asked for once."""
    return _read() if stdin else _prompt(twice=False)


_LINE: Final = MAX_PASSWORD_OCTETS + len("\r\n")


def _read() -> bytes:
    # One octet more than fits, so that a longer line is seen to be too long.
    line: bytes = sys.stdin.buffer.readline(_LINE + 1)
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _prompt(*, twice: bool) -> bytes:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to ask for the password: give --password-stdin"
        )
    answer: str = click.prompt(
        "Password",
        hide_input=True,
        confirmation_prompt=twice,
        err=True,
        default="",
        show_default=False,
    )
    return answer.encode(errors="surrogateescape")
