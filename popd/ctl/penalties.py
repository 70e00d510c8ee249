"""``popctl penalties``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from popd.auth.account import Client
from popd.auth.penalties import forgive
from popd.auth.penalties import penalties as remembered
from popd.auth.tablefile import GuessTable, GuessTableError
from popd.ctl.output import json_option, moment, say, show_list
from popd.ctl.store import RefusedError, StoreError, UnusableError
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from popd.ctl.site import Site

__all__ = ["penalties"]

_NAMES: Final = 10_000
"""How many users' names popd is told, so that it can call them by their names."""

_file_option: Callable[[Any], Any] = click.option(
    "--guess-table", "path", metavar="FILE", default="", help="Where popd remembers wrong guesses."
)
_subject: Callable[[Any], Any] = click.argument(
    "subject", metavar="[ADDRESS|USER]", required=False, default=""
)


@click.group()
def penalties() -> None:
    """Who is slowed down because of wrong passwords."""


@penalties.command(name="list")
@_subject
@_file_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Also who is not slowed down yet.")
@click.pass_obj
def list_(site: Site, subject: str, path: str, *, as_json: bool, everything: bool) -> None:
    """List networks and accounts with wrong guesses, the worst first.

    These are: what it is; wrong guesses that still count; seconds between two attempts; when all
    will be forgotten.  A name that no store of accounts knows is shown as a number.
    """
    about = _canonical(site, subject)
    users = {about, *_users(site)} - {""}
    table = _open(site, path)
    if table is None:
        some = sorted(users)[:_NAMES]
        found = site.remote().ask("penalties", subject=about, users=some)
    else:
        found = [asdict(penalty) for penalty in remembered(table, time.time(), users, about)]
    rows = [penalty for penalty in found if everything or penalty["interval"]]
    show_list(rows, _cells, as_json=as_json)


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    interval = f"{row['interval']:g} s"
    return row["kind"], row["subject"], row["guesses"], interval, moment(row["ends"])


@penalties.command()
@_subject
@_file_option
@click.pass_obj
def clear(site: Site, subject: str, path: str) -> None:
    """Forget the wrong guesses of a network or a user; of all, if none is given."""
    about = _canonical(site, subject)
    table = _open(site, path)
    count = forgive(table, about) if table else site.remote().ask("forgive", subject=about)
    say(f"{count} {'count' if count == 1 else 'counts'} of wrong guesses forgotten")


def _open(site: Site, path: str) -> GuessTable | None:
    """Return the table; None if popd remembers in memory only, and has to be asked itself."""
    path = path or ("" if site.control else site.guess_table)
    if not path:
        return None
    try:
        return GuessTable.existing(Path(path))
    except GuessTableError as error:
        raise UnusableError(str(error)) from error


def _canonical(site: Site, subject: str) -> str:
    """Return an address as it is, and a name as popd counts it."""
    if not subject or Client(subject).ip is not None:
        return subject
    user = UserName.parse(subject, "" if "@" in subject else site.default_domain)
    if user is None:
        raise RefusedError(f"{subject!a} is no address, nor can a user have this name")
    return str(user)


def _users(site: Site) -> Iterator[str]:
    """Yield the names of all users, as far as popctl can find them out."""
    try:
        for one in site.store().users():
            yield str(UserName.parse(one.name, site.default_domain) or one.name)
    except StoreError:
        return
