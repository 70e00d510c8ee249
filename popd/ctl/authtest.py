"""``popctl auth test``: what each link of the chain says to a user's password."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from popd.ctl.arguments import ask_password, stdin_option, user_argument
from popd.ctl.output import json_option, say, show_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.ctl.site import Site

__all__ = ["auth"]

_REFUSED: Final = 1
_CANNOT_TELL: Final = 6


@click.group()
def auth() -> None:
    """How users log in."""


@auth.command()
@user_argument
@stdin_option
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, *, password_stdin: bool, as_json: bool) -> None:
    """Ask for a user's password, and say what each link of the chain makes of it.

    All are asked, also those behind the one that accepts, which popd would not ask.
    """
    site: Site = ctx.obj
    descriptions, domain = site.descriptions, site.default_domain
    password = ask_password(stdin=password_stdin)
    from popd.ctl import asking  # noqa: PLC0415 - only this command needs Twisted

    answers = asking.run(descriptions, name, password, domain)
    show_list([asdict(answer) for answer in answers], _cells, as_json=as_json)
    said = {answer.said for answer in answers}
    if asking.ACCEPTED in said:
        say(f"{name} can log in with this password")
    elif asking.CANNOT_ANSWER in said:
        say(f"whether {name} can log in with this password cannot be told now")
        ctx.exit(_CANNOT_TELL)
    else:
        say(f"{name} cannot log in with this password")
        ctx.exit(_REFUSED)


def _cells(row: Mapping[str, Any]) -> list[object]:
    return [row["link"], row["said"], f"{row['seconds']:.3f} s", row["why"]]
