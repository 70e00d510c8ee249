"""``popctl user``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from popd.auth.account import FIELDS, Account, Client
from popd.ctl.arguments import new_password, stdin_option, user_argument
from popd.ctl.output import json_option, say, show_fields, show_list
from popd.ctl.passwords import hashed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.ctl.site import Site
    from popd.ctl.store import User

__all__ = ["user"]

_SETTABLE = sorted(FIELDS.keys() - {"app", "nologin"})


@click.group()
def user() -> None:
    """Who may log in."""


@user.command()
@user_argument
@stdin_option
@click.option(
    "--set",
    "settings",
    metavar="FIELD[=VALUE]",
    multiple=True,
    help=f"Set a field of the account; there are {', '.join(_SETTABLE)}.",
)
@click.pass_obj
def add(site: Site, name: str, settings: tuple[str, ...], *, password_stdin: bool) -> None:
    """Add a user."""
    fields = _fields(name, settings)
    store = site.store()
    store.add(name, hashed(new_password(stdin=password_stdin)), fields)
    refusal = Account.read(name, fields).refusal(Client())
    say(f"{name} is added, but {refusal}" if refusal else f"{name} can log in from now on")


def _fields(name: str, settings: tuple[str, ...]) -> dict[str, str]:
    split = [setting.partition("=") for setting in settings]
    fields = {field: value for field, _, value in split}
    for field in sorted(fields.keys() - set(_SETTABLE)):
        raise click.UsageError(f"there is no field {field}; there are {', '.join(_SETTABLE)}")
    try:
        Account.read(name, fields)
    except ValueError as reason:
        raise click.UsageError(str(reason)) from None
    return fields


@user.command()
@user_argument
@stdin_option
@click.pass_obj
def passwd(site: Site, name: str, *, password_stdin: bool) -> None:
    """Give a user a new password.  App passwords stay as they are."""
    store = site.store()
    store.set_password(name, hashed(new_password(stdin=password_stdin)))
    say(f"{name} has a new password")


@user.command(name="list")
@json_option
@click.pass_obj
def list_(site: Site, *, as_json: bool) -> None:
    """List all users: name, state, how the password is stored, fields."""
    rows = [_row(one) for one in site.store().users()]
    show_list(rows, _cells, as_json=as_json)


def _row(one: User) -> dict[str, object]:
    state = "disabled" if one.disabled else "barred" if one.problem else "active"
    fields = {key: value for key, value in one.fields.items() if key not in {"disabled", "nologin"}}
    return {
        "name": one.name,
        "state": state,
        "disabled": one.disabled,
        "schemes": list(one.schemes),
        "fields": fields,
        "problem": one.problem,
    }


def _cells(row: Mapping[str, Any]) -> list[object]:
    notes = row["problem"] or show_fields(row["fields"])
    return [row["name"], row["state"], row["schemes"], notes]


@user.command()
@user_argument
@click.pass_obj
def disable(site: Site, name: str) -> None:
    """Keep a user out from the next log-in on, with any password."""
    site.store().set_disabled(name, disabled=True)
    say(f"{name} cannot log in any more; sessions that there are go on")


@user.command()
@user_argument
@click.pass_obj
def enable(site: Site, name: str) -> None:
    """Let a disabled user in again."""
    site.store().set_disabled(name, disabled=False)
    say(f"{name} can log in again")


@user.command()
@user_argument
@click.pass_obj
def delete(site: Site, name: str) -> None:
    """Remove a user and all his app passwords.  His mail stays."""
    store = site.store()
    apps = store.app_passwords(name)
    store.delete(name)
    for app in apps:
        site.forget(name, app.name)
    say(f"{name} is removed; his mail is not")
