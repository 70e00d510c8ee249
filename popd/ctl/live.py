"""``popctl who``, ``kick``, ``reload``, ``drain`` and ``status``: a popd that runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import click

from popd.ctl.output import json_option, moment, say, show_list
from popd.ctl.store import NoSuchUserError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from popd.ctl.remote import Remote
    from popd.ctl.site import Site

__all__ = ["drain", "kick", "reload_", "status", "who"]

_DAY: Final = 86_400.0
_SOON: Final = 14
"""Days before a certificate's end from which on that is pointed out."""

_RELOAD: Final = 600.0
"""Seconds that a reload may take."""

_HEAD: Final = (
    *("ID", "USER", "FROM", "STATE", "SINCE", "IDLE", "MECHANISM", "TLS", "MESSAGES", "OCTETS"),
)

_subject: Callable[[Any], Any] = click.argument("subject", metavar="ID|USER|ADDRESS")


@click.command()
@click.argument("subject", metavar="[USER]", required=False, default="")
@json_option
@click.pass_obj
def who(site: Site, subject: str, *, as_json: bool) -> None:
    """List the sessions that there are, of all users or of one, the oldest first.

    An address or a session's id will do as well.
    """
    rows = list(_sessions(site.remote(), subject))
    show_list(rows, _cells, as_json=as_json, head=_HEAD)


def _sessions(remote: Remote, subject: str) -> Iterator[dict[str, Any]]:
    after = ""
    while page := remote.ask("who", subject=subject, after=after):
        yield from page
        after = page[-1]["ident"]


def _cells(row: Mapping[str, Any]) -> list[object]:
    return [
        *(row["ident"], row["user"], row["peer"], row["state"], moment(row["since"])),
        *(f"{row['idle']:.0f} s", row["mechanism"], row["tls"], row["messages"], row["octets"]),
    ]


@click.command()
@_subject
@click.pass_obj
def kick(site: Site, subject: str) -> None:
    """End a session, or all of a user or an address.

    Each ends when the command that is being carried out is; what was marked as deleted stays.
    """
    count = site.remote().ask("kick", subject=subject)
    if not count:
        raise NoSuchUserError(f"{subject}: there is no such session")
    say(f"{count} {'session is' if count == 1 else 'sessions are'} ended")


@click.command(name="reload")
@click.option("--code", is_flag=True, help="Change to the version of popd that is installed now.")
@click.pass_obj
def reload_(site: Site, *, code: bool) -> None:
    """Have the configuration, password files and certificates taken up anew.

    If anything is wrong with them popd says what, and goes on with the old ones.  With --code all
    of popd is started anew beside the old one, which ends with its last session; so nobody is cut
    off, and if the new one does not start, the old one goes on.
    """
    problem = site.remote().ask("reload", timeout=_RELOAD, code=code)
    if problem:
        raise RefusedError(problem)
    if code:
        say("the popd that is installed now serves from now on")
    else:
        say("popd goes by the new configuration from now on")


@click.command()
@click.pass_obj
def drain(site: Site) -> None:
    """Let popd accept no more sessions, finish those that there are, and end."""
    site.remote().ask("drain")
    say("popd accepts nobody any more, and ends when its sessions have")


@click.command()
@json_option
@click.pass_obj
def status(site: Site, *, as_json: bool) -> None:
    """Show how popd is: processes, sessions, certificates, the last reload."""
    answer = site.remote().ask("status")
    now = time.time()
    for process in answer["processes"]:
        process["connections_per_minute"] = _per_minute(process, now)
    for certificate in answer["certificates"]:
        certificate["days_left"] = int((certificate["not_after"] - now) // _DAY)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        show_list(list(_lines(answer, now)), _pair, as_json=False)


def _per_minute(process: Mapping[str, Any], now: float) -> float:
    minutes = max(now - process["since"], 1.0) / 60
    return float(round(process["connections"] / minutes, 1))


def _pair(row: Mapping[str, Any]) -> list[object]:
    return [row["name"], row["text"]]


def _lines(answer: Mapping[str, Any], now: float) -> Iterator[dict[str, str]]:
    """Yield the lines of the screen."""

    def line(name: str, text: str) -> dict[str, str]:
        return {"name": name, "text": text}

    processes = answer["processes"]
    sessions = sum(process["sessions"] for process in processes)
    inside = sum(process["logged_in"] for process in processes)
    rate = sum(process["connections_per_minute"] for process in processes)
    yield line("version", f"popd {answer['version']}")
    yield line("up", f"since {moment(answer['since'])} ({_span(now - answer['since'])})")
    yield line("sessions", f"{sessions}, {inside} of them logged in")
    yield line("rate", f"{rate:.1f} connections a minute since the processes began")
    for process in processes:
        text = f"since {moment(process['since'])}, {process['sessions']} sessions"
        yield line(f"process {process['pid']}", f"{text}, {process['connections']} so far")
    for certificate in answer["certificates"]:
        names = " ".join(certificate["names"][:5]) or "no name"
        left = certificate["days_left"]
        mark = "; it has EXPIRED" if left < 0 else "; RENEW IT" if left < _SOON else ""
        yield line("certificate", f"{names}: {left} days left{mark} ({certificate['path']})")
    yield line("reload", _reload(answer["reloaded"]))


def _reload(reloaded: tuple[float, str] | None) -> str:
    if reloaded is None:
        return "not since it was started"
    return f"{moment(reloaded[0])}: {reloaded[1] or 'done'}"


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), int(_DAY))
    hours, minutes = divmod(rest // 60, 60)
    return f"{days} d {hours} h {minutes} min" if days else f"{hours} h {minutes} min"
