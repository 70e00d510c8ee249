"""Write what ``etc/popd.toml`` says as pages: ``python docs/make_configuration.py``.

The commented configuration is the one place where each setting is explained.  In it a setting is a
comment, then ``name = value``, in a comment itself if it shows the default or an example; two empty
lines stand between settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from popd.config import DEFAULTS, REPEATABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DOCS: Final = Path(__file__).parent
SOURCE: Final = DOCS.parent / "etc" / "popd.toml"

_INTRODUCTION: Final = """\
popd reads one file, in `TOML <https://toml.io/>`_, that ``--config`` names; usually it is
``/etc/popd/popd.toml``.  Each setting can be given on the command line too, as ``--NAME VALUE``,
and wins there over the file.  ``popctl config check`` says whether popd would start with it, and
``popctl config show`` what each setting is and where that was said.

Give absolute paths: a relative one starts at the directory in which twistd was started.

A setting that takes a list may be a single text instead; its option may be repeated.
"""

TEXTS: Final = {
    "configuration.rst": """\
.. Written by docs/make_configuration.py from etc/popd.toml; change that, not this.

Configuration
=============

{introduction}
{settings}
""",
    "man/popd.toml.rst": """\
:orphan:

.. Written by docs/make_configuration.py from etc/popd.toml; change that, not this.

popd.toml
=========

Description
-----------

{introduction}
A minimal configuration::

    certificate = "/etc/popd/certificate.pem"
    private-key = "/etc/popd/private-key.pem"
    auth = "popd-passwd:/etc/popd/passwd"
    maildrop = "maildir:/srv/mail/{{domain}}/{{local}}/Maildir"

Settings
--------

{settings}

See also
--------

:manpage:`popd(8)`, :manpage:`popctl(1)`
""",
}
"""The pages, by their places."""

_SETTING: Final = re.compile(r"(?:# )?([a-z][a-z-]*) = (.*)")

_QUOTED: Final = re.compile(r'"((?:popctl|twistd) [^"]+|[^" ]+)"')


@dataclass(frozen=True)
class Setting:
    """One setting: its name, what is said about it, and the value that is shown."""

    name: str
    comment: tuple[str, ...]
    shown: str


def settings(source: str) -> Iterator[Setting]:
    """Yield the settings that the text of a commented configuration explains."""
    for block in re.split(r"\n\n\n+", source):
        lines = block.strip("\n").splitlines()
        match = _SETTING.fullmatch(lines[-1]) if lines else None
        if match is None:
            continue
        comment = [line.removeprefix("#").removeprefix(" ") for line in lines[:-1]]
        while comment and not comment[-1]:
            comment.pop()
        yield Setting(match[1], tuple(comment), match[2])


def _restructured(comment: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a comment as reStructuredText: what is indented is meant literally."""
    literal = False
    for line in comment:
        inside = line.startswith("    ") or (literal and not line)
        if inside and not literal:
            yield "::"
            yield ""
        literal = inside
        yield line if inside else _QUOTED.sub(r"``\1``", line)


def _one(setting: Setting) -> Iterator[str]:
    yield setting.name
    yield "~" * len(setting.name)
    yield ""
    yield from _restructured(setting.comment)
    yield ""
    default = DEFAULTS[setting.name]
    yield f":Default: {_default(default)}"
    if not default and isinstance(default, str | tuple):
        yield f":Example: ``{setting.name} = {setting.shown}``"
    option = f"--{setting.name}" + ("" if isinstance(default, bool) else " VALUE")
    more = ", may be repeated" if setting.name in REPEATABLE else ""
    yield f":Command line: ``{option}``{more}"
    yield ""
    yield ""


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, tuple):
        return f"``[{', '.join(map(_quoted, value))}]``" if value else "none"
    if isinstance(value, str):
        return f"``{_quoted(value)}``" if value else "none"
    return f"``{value:g}``"


def _quoted(value: str) -> str:
    return f'"{value}"'


def body() -> str:
    """Return what there is to say about all settings."""
    source = SOURCE.read_text(encoding="utf-8")
    return "\n".join(line for one in settings(source) for line in _one(one)).rstrip("\n")


def render(page: str) -> str:
    """Return a page of `TEXTS`."""
    return TEXTS[page].format(introduction=_INTRODUCTION, settings=body())


if __name__ == "__main__":
    for page in TEXTS:
        (DOCS / page).write_text(render(page), encoding="utf-8")
