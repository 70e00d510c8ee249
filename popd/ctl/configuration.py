"""``popctl config``: whether popd would start with its configuration, and what that amounts to."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from popd.ctl.output import json_option, say, show_list
from popd.ctl.store import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from popd.config import Settings
    from popd.ctl.site import Site
    from popd.tap import Options

__all__ = ["check", "config", "settings_of"]

_LINE: Final = re.compile(r"""\s*(["']?)([a-z-]+)\1\s*=""")
_PATH: Final = re.compile(r"(?:\[[^\]]*\]\s*)?[a-z0-9-]+:(?:sqlite:)?/")
"""An ``--auth`` that says no more than where a file is."""

_options = click.argument("options", metavar="[-- OPTION...]", nargs=-1)


@click.group()
def config() -> None:
    """Popd's configuration.

    Behind -- may follow options with which popd is started: they win over the configuration file.
    """


@config.command(name="check")
@_options
@click.pass_obj
def check_(site: Site, options: tuple[str, ...]) -> None:
    """Refuse what a start would refuse, for the same reason; no port is bound."""
    check(site.config, options)
    say(f"{site.config}: popd would start with this, if it can have its ports")


@config.command()
@_options
@json_option
@click.pass_obj
def show(site: Site, options: tuple[str, ...], *, as_json: bool) -> None:
    """Show each setting: its name, value, where that comes from, and what it is for.

    What follows the type of an auth may be secret, and is shown only if it is a path.
    """
    show_list(list(_rows(site.config, options)), _cells, as_json=as_json)


def _cells(row: Mapping[str, Any]) -> list[object]:
    value = row["value"]
    value = ("yes" if value else "no") if isinstance(value, bool) else value
    return [row["name"], value, row["source"], row["help"]]


def settings_of(path: str, options: tuple[str, ...] = ()) -> Settings:
    """Return what popd is told by a configuration file and options.

    :raises RefusedError: it would not take that.
    """
    return _parsed(path, options).settings


def check(path: str, options: tuple[str, ...] = ()) -> Settings:
    """Build all of popd, and forget it; return what it was told.

    Nothing is written: what is remembered of guesses would be in memory, whatever the settings say.

    :raises RefusedError: it would not start.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - only the checks need it

    from popd.listen import StartError  # noqa: PLC0415 - brings in all of Twisted
    from popd.tap import build  # noqa: PLC0415 - likewise

    parsed = _parsed(path, options)
    if parsed["demo"]:
        raise RefusedError("--demo cannot be checked: it makes what it needs when it starts")
    settings = parsed.settings
    _check_guess_table(settings.guess_table)
    # A supervisor, as that leaves this process alone; who listens on systemd's sockets it knows.
    with tempfile.TemporaryDirectory() as elsewhere:
        parsed.settings = replace(
            settings,
            workers="2",
            guess_table="",
            state_directory=elsewhere,
            listen=_without_systemd(settings.listen),
            listen_tls=_without_systemd(settings.listen_tls),
        )
        try:
            build(parsed, reactor)
        except StartError as error:
            raise RefusedError(_reason(error)) from error
    return settings


def _without_systemd(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one for one in endpoints if not one.startswith("systemd:"))


def _check_guess_table(path: str) -> None:
    """Refuse a file that is something else; one that is not there, or damaged, would be made."""
    from popd.auth.tablefile import GuessTable, GuessTableError  # noqa: PLC0415 - see above

    if not path:
        return
    if not Path(path).parent.is_dir():
        raise RefusedError(f"--guess-table: {path}: there is no such directory")
    if Path(path).exists():
        try:
            GuessTable.existing(Path(path)).close()
        except GuessTableError as error:
            if "left alone" in str(error):
                raise RefusedError(f"--guess-table: {error}") from error


def _parsed(path: str, options: tuple[str, ...]) -> Options:
    """Return the options of ``twistd popd``, parsed."""
    from popd.listen import StartError  # noqa: PLC0415 - see above
    from popd.tap import Options as Parser  # noqa: PLC0415 - likewise

    parsed = Parser()
    try:
        parsed.parseOptions(["--config", path, *options])
    except StartError as error:
        raise RefusedError(_reason(error)) from error
    return parsed


def _reason(error: SystemExit) -> str:
    return str(error.code).removeprefix("twistd popd: ")


def _rows(path: str, options: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    from popd import config as settings  # noqa: PLC0415 - see above

    parsed = _parsed(path, options)
    effective = parsed.settings
    file = settings.read_file(parsed["config"])
    lines = _lines(parsed["config"])
    for key in settings.DEFAULTS:
        value = getattr(effective, key.replace("-", "_"))
        if parsed.get(key) is not None:
            source = "command line"
        elif key in file:
            source = f"{parsed['config']}:{lines.get(key, 0)}"
        elif value != settings.DEFAULTS[key]:
            source = "follows from the others"
        else:
            source = "default"
        yield {
            "name": key,
            "value": _shown(key, value),
            "source": source,
            "help": " ".join(str(parsed.docs.get(key, "")).split()),
        }


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_public(one) if key == "auth" else one for one in value]
    return value


def _public(description: str) -> str:
    if _PATH.match(description) or ":" not in description:
        return description
    return f"{description.rpartition(']')[2].partition(':')[0].strip()}:(not shown)"


def _lines(path: str) -> dict[str, int]:
    """Return in which line each setting stands in a file."""
    found: dict[str, int] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        match = _LINE.match(line)
        if match:
            found.setdefault(match[2], number)
    return found
