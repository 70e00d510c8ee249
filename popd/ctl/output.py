"""How popctl says things: for people, or for programs with ``--json``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["json_option", "moment", "printable", "say", "show_fields", "show_list"]

Row: TypeAlias = "Mapping[str, Any]"

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON, for programs."
)


def moment(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_fields(fields: Mapping[str, str]) -> str:
    """Return fields as they stand in a password file."""
    return " ".join(f"{key}={value}" if value else key for key, value in sorted(fields.items()))


def show_list(
    rows: Sequence[Row],
    cells: Callable[[Row], Sequence[object]],
    *,
    as_json: bool,
    head: Sequence[str] = (),
) -> None:
    """Write a list: all of each row as JSON, or the *cells* of each as a table.

    :param head: what stands above the columns, if there is any row.
    """
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    table = [[printable(cell) for cell in cells(row)] for row in rows]
    if head and table:
        table.insert(0, list(head))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def say(text: str) -> None:
    """Tell what was done, on stderr: what is on stdout is for programs to take."""
    click.echo(printable(text), err=True)


def printable(value: object) -> str:
    """Return *value* with nothing in it that could play tricks on a terminal."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if value is None or value == "":
        value = "-"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
