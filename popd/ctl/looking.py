"""``popctl trace`` and ``explain``: what goes on in sessions, and what went wrong in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from popd.ctl.arguments import user_argument
from popd.ctl.output import json_option, moment, printable, say
from popd.ctl.store import NoSuchUserError, StoreError, UnusableError
from popd.server.reasons import explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from popd.ctl.site import Site

__all__ = ["explain", "trace"]

_LINES: Final = 200
"""How many lines of the log are shown at most."""

_JOURNAL_TIME: Final = 20.0


@click.command()
@user_argument
@json_option
@click.pass_obj
def trace(site: Site, name: str, *, as_json: bool) -> None:
    """Show what is said in a user's sessions, as it is said, until Control-C.

    What the client says has > in front, what it is told <.  Passwords, SASL and messages are never
    shown, only how long they are.  Whoever reads too slowly loses lines, and is told how many.
    """
    name = _complete(site, name)
    answers = site.remote().listen("trace", user=name)
    try:
        say(f"{name} is looked on; Control-C ends that")
        for answer in answers:
            for line in answer["lines"]:
                click.echo(json.dumps(line) if as_json else _line(line))
            if answer["lost"]:
                say(f"{answer['lost']} lines were lost")
    except KeyboardInterrupt:
        return
    raise UnusableError("popd has ended, or was restarted")


def _complete(site: Site, name: str) -> str:
    domain = site.default_domain_if_known
    return f"{name}@{domain}" if domain and "@" not in name else name


def _line(line: Mapping[str, Any]) -> str:
    return printable(f"{moment(line['time'])} {line['ident']} {line['way']} {line['text']}")


@click.command()
@click.argument("ident", metavar="ID")
@click.option("--log", "log", metavar="FILE", default="", help="popd's log.  [default: journald's]")
@json_option
@click.pass_obj
def explain(site: Site, ident: str, log: str, *, as_json: bool) -> None:
    """Say why a session, or a log-in in it, failed; clients are told its ID in error texts.

    popd itself remembers the last thousand failures; what is older its log may know.
    """
    said: dict[str, Any] = {"failures": [], "sessions": []}
    silence: StoreError | None = None
    try:
        said = site.remote().ask("explain", ident=ident)
    except UnusableError as error:
        silence = error
    lines = list(_logged(ident, log))
    if not (said["failures"] or said["sessions"] or lines):
        raise silence or NoSuchUserError(f"{ident}: nothing is known of such a session")
    if as_json:
        click.echo(json.dumps({**said, "log": lines}, indent=2))
        return
    for one in said["failures"]:
        who = f"{one['user']!r} from {one['peer'] or 'this machine'}"
        reason = ": ".join(filter(None, explained(one["what"], one["why"])))
        click.echo(printable(f"{moment(one['time'])} {who}: {reason}"))
    for one in said["sessions"]:
        click.echo(printable(f"the session goes on: {one['user'] or 'not logged in'}"))
    for line in lines:
        click.echo(printable(line))


def _logged(ident: str, log: str) -> Iterator[str]:
    """Yield the lines of popd's log in which a session is named."""
    names = re.compile(rf"(?<![\w-]){re.escape(ident)}(?![\w-])")  # and no longer one
    source = _file(log) if log else _journal(ident)
    found = 0
    for line in source:
        if found < _LINES and names.search(line):
            found += 1
            yield line.rstrip("\n")


def _file(log: str) -> Iterator[str]:
    try:
        with Path(log).open(encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError as error:
        raise UnusableError(f"{log}: {error.strerror}") from error


def _journal(ident: str) -> list[str]:
    """Return what journald has, if it is there."""
    program = shutil.which("journalctl")
    if program is None:
        return []
    command = [program, "--no-pager", "--quiet", "--unit=popd", "--output=short-iso"]
    command += [f"--grep={''.join(c if c.isalnum() or c == '-' else '.' for c in ident)}"]
    try:
        ran = subprocess.run(  # noqa: S603 - what is in the command is harmless by now
            command, capture_output=True, text=True, timeout=_JOURNAL_TIME, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.splitlines()
