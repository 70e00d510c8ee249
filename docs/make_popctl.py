"""Write the manual page of popctl from its commands: ``python docs/make_popctl.py``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from popd.ctl.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET: Final = Path(__file__).parent / "man" / "popctl.rst"

TEXT: Final = """\
:orphan:

.. Written by docs/make_popctl.py from the code; change that, not this.

popctl
======

Synopsis
--------

**popctl** [*OPTIONS*] *COMMAND* [*ARGUMENTS*]

Description
-----------

{description}

Options
-------

{options}

Each can also be set in the environment: ``POPCTL_`` and its name, as in ``POPCTL_CONFIG``.

Commands
--------

{commands}

Exit status
-----------

{status}

Completion
----------

In bash::

    eval "$(_POPCTL_COMPLETE=bash_source popctl)"

and likewise with ``zsh_source`` and ``fish_source``.

See also
--------

:manpage:`popd(8)`, :manpage:`popd.toml(5)`
"""


def _commands(group: click.Group, path: str, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}", inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        title = f"{path} {name}"
        yield from (title, "~" * len(title), "", f"``{title} {usage}``", "")
        yield from (_text(command.help or ""), "", *_options(command, inner), "")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield f"``{record[0]}``"
            yield f"    {_escaped(record[1])}"
            yield ""


def _text(text: str) -> str:
    return _escaped(inspect.cleandoc(text).replace("\b\n", ""))


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("|", "\\|").replace("`", "\\`")


def _status() -> str:
    lines = inspect.cleandoc(main.epilog or "").splitlines()
    return "\n".join(f":{number}: {meaning}" for number, meaning in map(_cells, lines[2:]))


def _cells(line: str) -> tuple[str, str]:
    number, _, meaning = line.strip().partition("  ")
    return number, _escaped(meaning)


def render() -> str:
    """Return the page."""
    context = click.Context(main, info_name="popctl")
    return TEXT.format(
        description=_text(main.help or ""),
        options="\n".join(_options(main, context)).rstrip(),
        commands="\n".join(_commands(main, "popctl", context)).rstrip(),
        status=_status(),
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
