"""``popctl apppass``: passwords for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from popd.auth.account import Account
from popd.auth.apppass import digest, make
from popd.ctl.arguments import user_argument
from popd.ctl.output import json_option, moment, say, show_fields, show_list
from popd.ctl.store import AppPassword

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.ctl.site import Site

__all__ = ["apppass"]

_program = click.argument("program", metavar="NAME")


@click.group()
def apppass() -> None:
    """Passwords for programs, which can be revoked one by one.

    A program logs in with the user's name and such a password, by USER and PASS or by PLAIN.
    """


@apppass.command()
@user_argument
@_program
@click.option("--expires", metavar="DATE", help="No longer from then on, as 2027-01-01 (UTC).")
@click.option("--allow-nets", metavar="NET,...", help="Only from there, as 192.0.2.0/24.")
@click.option("--no-delete", is_flag=True, help="It may read, and not delete.")
@click.option("--interval", metavar="SECONDS", help="So long between two log-ins.")
@json_option
@click.pass_obj
def add(
    site: Site,
    name: str,
    program: str,
    expires: str | None,
    allow_nets: str | None,
    interval: str | None,
    *,
    no_delete: bool,
    as_json: bool,
) -> None:
    """Make an app password and show it, this once."""
    given = {
        "expires": expires,
        "allow_nets": allow_nets,
        "no_delete": "" if no_delete else None,
        "interval": interval,
    }
    fields = {key: value for key, value in given.items() if value is not None}
    try:
        Account.read(name, fields)
    except ValueError as reason:
        raise click.UsageError(str(reason)) from None
    password = make()
    site.store().add_app_password(name, AppPassword(program, digest(password.encode()), fields))
    site.forget(name, program)
    if as_json:
        click.echo(json.dumps({"user": name, "name": program, "password": password}))
    else:
        click.echo(password)
        say(f"This is the password of {name} for {program}; it will not be shown again")


@apppass.command(name="list")
@user_argument
@json_option
@click.pass_obj
def list_(site: Site, name: str, *, as_json: bool) -> None:
    """List a user's app passwords: name, last use and from where, limits."""
    rows = [_row(site, name, app) for app in site.store().app_passwords(name)]
    show_list(rows, _cells, as_json=as_json)


def _row(site: Site, name: str, app: AppPassword) -> dict[str, object]:
    use = site.last_use_of(name, app.name)
    return {
        "user": name,
        "name": app.name,
        "fields": dict(app.fields),
        "last_use": moment(use.time) if use else None,
        "last_client": use.address if use else None,
    }


def _cells(row: Mapping[str, Any]) -> list[object]:
    return [row["name"], row["last_use"], row["last_client"], show_fields(row["fields"])]


@apppass.command()
@user_argument
@_program
@click.pass_obj
def revoke(site: Site, name: str, program: str) -> None:
    """Remove an app password: from the next log-in on it is none."""
    site.store().revoke_app_password(name, program)
    site.forget(name, program)
    say(f"the app password of {name} for {program} is revoked")
