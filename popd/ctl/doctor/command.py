"""The command ``popctl doctor``."""

from __future__ import annotations

import os
import pwd
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from popd.ctl.arguments import ask_password
from popd.ctl.configuration import check
from popd.ctl.doctor.certificates import check_certificates, check_shown
from popd.ctl.doctor.disks import check_mail, check_room
from popd.ctl.doctor.finding import Finding, Patient, fine, problem
from popd.ctl.doctor.network import check_login, check_ports
from popd.ctl.doctor.permissions import check_files, check_maildirs, check_state
from popd.ctl.doctor.system import (
    check_clock,
    check_fail2ban,
    check_limits,
    check_running,
    check_unit,
)
from popd.ctl.mailbox import maildir_of, where_is
from popd.ctl.output import json_option, show_list
from popd.ctl.store import RefusedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from popd.config import Settings
    from popd.ctl.doctor.finding import Check
    from popd.ctl.site import Site
    from popd.ctl.store import User

__all__ = ["CHECKS", "doctor", "examine"]

CHECKS: Final[tuple[Check, ...]] = (
    *(check_running, check_ports, check_login, check_certificates, check_shown),
    *(check_files, check_state, check_maildirs, check_room, check_mail),
    *(check_clock, check_unit, check_limits, check_fail2ban),
)

_MAIL_TIME: Final = 20.0
"""Seconds for looking through mail."""

_MAILDROPS: Final = 10_000
"""How many maildrops are looked at."""

_ASK: Final = 5.0


@click.command()
@click.option("--host", default="", help="The name that clients use.  [default: this machine's]")
@click.option("--user", default="", help="Log in as this user, too; asks for the password.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False),
    help="The first line of this file is that user's password.",
)
@click.option("--maildrop", "only", metavar="USER", default="", help="Look at this maildrop only.")
@click.option("--as", "owner", metavar="USER", default="", help="As whom popd is to run.")
@click.argument("options", metavar="[-- OPTION...]", nargs=-1)
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    host: str,
    user: str,
    password_file: str | None,
    only: str,
    owner: str,
    options: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Look at all that may be wrong with a site, and say what to do about it.

    Ports, a log-in, certificates, permissions, room, mail, clock, fail2ban, systemd, limits.  The
    exit status is 1 if there is a problem; warnings are none yet.  Behind -- may follow options
    with which popd is started.
    """
    site: Site = ctx.obj
    login = (user, _password(password_file)) if user else None
    try:
        settings = check(site.config, options)
    except RefusedError as error:
        found = [problem("configuration", str(error), "popd does not start with this: mend it")]
    else:
        found = [fine("configuration", f"popd would start with {site.config}")]
        patient = _patient(site, settings, host or socket.getfqdn(), owner, only)
        patient.login = login
        found += examine(patient)
    show_list([asdict(one) for one in found], _cells, as_json=as_json)
    if any(one.level == "problem" for one in found):
        ctx.exit(1)


def _cells(row: Mapping[str, Any]) -> list[object]:
    remedy = f": {row['remedy']}" if row["remedy"] else ""
    return [row["level"], row["check"], f"{row['text']}{remedy}"]


def _password(path: str | None) -> bytes:
    if path is None:
        return ask_password(stdin=False)
    try:
        return Path(path).read_bytes().split(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from error


def _patient(site: Site, settings: Settings, host: str, owner: str, only: str) -> Patient:
    running = None
    with suppress(StoreError):
        running = site.remote().ask("status", timeout=_ASK)
    uid = _uid(owner, running, settings)
    gids: set[int] = set()
    with suppress(KeyError):
        entry = pwd.getpwuid(uid)
        gids = set(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Patient(
        site.config,
        settings,
        host,
        uid,
        frozenset(gids),
        running,
        list(_maildirs(site, settings, only)),
        deadline=time.monotonic() + _MAIL_TIME,
    )


def _uid(owner: str, running: Mapping[str, Any] | None, settings: Settings) -> int:
    """Return as whom popd runs, as well as can be told."""
    if owner:
        try:
            return pwd.getpwnam(owner).pw_uid
        except KeyError:
            raise RefusedError(f"--as {owner}: there is no such user of this system") from None
    places = [settings.state_directory]
    if running is not None:
        places.insert(0, f"/proc/{running['pid']}")
    for place in places:
        with suppress(OSError):
            return Path(place).stat().st_uid
    return os.geteuid()


def _maildirs(site: Site, settings: Settings, only: str) -> Iterator[tuple[str, bytes]]:
    """Yield users and their Maildirs: one, or all that popctl knows of."""
    if only:
        yield where_is(site, only)
        return
    users: list[User] = []
    with suppress(StoreError):
        users = list(islice(site.store().users(), _MAILDROPS))
    for one in users:
        place = one.fields.get("maildrop", "")
        with suppress(StoreError):
            yield maildir_of(
                settings.maildrop, settings.mail_root, settings.default_domain, one.name, place
            )


def examine(patient: Patient) -> Iterator[Finding]:
    """Make all checks.  One that fails itself does not keep the others from being made."""
    for one in CHECKS:
        try:
            yield from one(patient)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is a finding, too
            name = one.__name__.removeprefix("check_")
            text = f"the check failed itself: {type(error).__name__}: {error}"
            yield problem(name, text, "report this bug")
