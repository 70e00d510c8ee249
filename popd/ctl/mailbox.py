"""``popctl mailbox``: what is in a user's maildrop.  Nothing in it is changed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from popd.ctl.arguments import user_argument
from popd.ctl.output import json_option, moment, show_list
from popd.ctl.store import RefusedError, UnusableError
from popd.maildrop.interfaces import MaildropError, MaildropPermanentError
from popd.maildrop.look import is_locked, look
from popd.maildrop.template import MaildirStore
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.ctl.site import Site
    from popd.maildrop.stock import Stock

__all__ = ["mailbox", "maildir_of", "where_is"]

_NANO = 1e-9


@click.group()
def mailbox() -> None:
    """What is in a user's maildrop, as a session would see it; nothing is changed.

    popd need not run.
    """


@mailbox.command()
@user_argument
@json_option
@click.pass_obj
def status(site: Site, name: str, *, as_json: bool) -> None:
    """Show where a maildrop is, what it holds, and whether a session has it."""
    name, root = where_is(site, name)
    try:
        stock = look(root)
        locked = is_locked(root)
    except MaildropError as error:
        raise UnusableError(str(error)) from error
    facts = [stock.facts(index) for index in range(len(stock))]
    times = [fact.modified * _NANO for fact in facts]
    row: dict[str, Any] = {
        "user": name,
        "path": os.fsdecode(root),
        "messages": len(stock),
        "octets": stock.snapshot.octets,
        "stored": sum(fact.size for fact in facts),
        "oldest": moment(min(times)) if times else None,
        "newest": moment(max(times)) if times else None,
        "duplicates": len(stock.twins),
        "locked": locked,
    }
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    shown = {**row, "locked": "by a session" if locked else "no"}
    rows = [{"name": key, "value": value} for key, value in shown.items()]
    show_list(rows, lambda one: [one["name"], one["value"]], as_json=False)


@mailbox.command(name="list")
@user_argument
@json_option
@click.pass_obj
def list_(site: Site, name: str, *, as_json: bool) -> None:
    """List messages: number, octets as RETR sends them, when they came, file."""
    root, stock = _opened(site, name)
    rows = [
        {
            "number": index + 1,
            "octets": stock.facts(index).octets,
            "time": moment(stock.facts(index).modified * _NANO),
            "path": os.fsdecode(root + stock.locate(index)[0]),
        }
        for index in range(len(stock))
    ]
    show_list(rows, lambda row: list(row.values()), as_json=as_json)


@mailbox.command()
@user_argument
@json_option
@click.pass_obj
def uidl(site: Site, name: str, *, as_json: bool) -> None:
    """List messages: number and unique-id, as UIDL does."""
    _, stock = _opened(site, name)
    uids = enumerate(stock.snapshot.uids, 1)
    rows = [{"number": number, "uid": uid.decode("ascii")} for number, uid in uids]
    show_list(rows, _uid, as_json=as_json)


def _uid(row: Mapping[str, Any]) -> list[object]:
    return [row["number"], row["uid"]]


def _opened(site: Site, name: str) -> tuple[bytes, Stock]:
    _, root = where_is(site, name)
    try:
        return root, look(root)
    except MaildropError as error:
        raise UnusableError(str(error)) from error


def where_is(site: Site, name: str) -> tuple[str, bytes]:
    """Return a user's complete name, and the path of his Maildir.

    :raises StoreError: it cannot be told.
    """
    domain = site.default_domain_if_known
    names = {name, str(UserName.parse(name, domain))}
    root = str(site.setting("mail-root"))
    return maildir_of(site.maildrop, root, domain, name, _elsewhere(site, names))


def maildir_of(
    template: str, mail_root: str, domain: str, name: str, place: str
) -> tuple[str, bytes]:
    """Return a user's complete name, and the path of his Maildir.

    :param mail_root: what it is beneath; empty for the template's part before its placeholders.
    :param domain: what completes a bare name.
    :param place: where his mail is instead of where the template says; or empty.
    :raises StoreError: it can be nowhere.
    """
    user = UserName.parse(name, domain)
    if user is None:
        raise RefusedError(f"{name!a}: no user can have this name")
    try:
        store = MaildirStore.from_template(template, root=mail_root)
        return str(user), store.path(user, place)
    except (ValueError, MaildropPermanentError) as error:
        raise UnusableError(str(error)) from error


def _elsewhere(site: Site, names: set[str]) -> str:
    """Return where the account of a user says that his mail is; empty if it does not."""
    try:
        for one in site.store().users():
            if one.name in names:
                return one.fields.get("maildrop", "")
    except RefusedError:  # popctl cannot look into all kinds of stores
        pass
    return ""
