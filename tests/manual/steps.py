r"""Turns a page of the manual into a shell script that does what the page says.

Commands stand in ``.. code-block:: console``, after ``# `` (as root), and go on in the next line
behind a ``\``; what stands there without that is what they print.  A file is a ``.. code-block::``
whose ``:caption:`` is its absolute path, and is put there.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PASSWORD", "plain_script", "script", "sections"]

PASSWORD = "correct horse battery"
"""What is typed in where a command asks for a new password."""

_BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n((?:    :\w+:.*\n)*)\n((?:(?:    .*)?\n)+)", re.MULTILINE
)
_PLAIN = re.compile(r"^(.*)::\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)
_TITLE = re.compile(r"^(\S.*)\n(=+|-+|~+)$", re.MULTILINE)


def sections(page: str) -> dict[str, str]:
    """Return the parts of a page by their titles."""
    marks = [*_TITLE.finditer(page)]
    ends = [mark.start() for mark in marks[1:]] + [len(page)]
    return {mark[1]: page[mark.end() : end] + "\n" for mark, end in zip(marks, ends, strict=True)}


def script(text: str) -> str:
    """Return a script for bash that carries out a page or a part of it, and stops at an error."""
    return "\n".join(["set -euxo pipefail", *_steps(text)]) + "\n"


def plain_script(text: str) -> str:
    """Return such a script for a text whose blocks do not say what they are.

    They are commands, unless the line before names a file that they go into.
    """
    return "\n".join(["set -euxo pipefail", *_plain_steps(text)]) + "\n"


def _plain_steps(text: str) -> Iterator[str]:
    for before, body in _PLAIN.findall(text):
        content = re.sub(r"^    ", "", body, flags=re.MULTILINE).strip("\n") + "\n"
        path = re.search(r"into ``(/\S+)``$", before)
        if path:
            yield f"cat > {path[1]} <<'END OF FILE'\n{content}END OF FILE"
        else:
            yield from map(_command, content.splitlines())


def _steps(text: str) -> Iterator[str]:
    for kind, options, body in _BLOCK.findall(text):
        content = re.sub(r"^    ", "", body, flags=re.MULTILINE).strip("\n") + "\n"
        path = re.search(r":caption: (/\S+)", options)
        if path:
            yield f"mkdir -p $(dirname {path[1]})"
            yield f"cat > {path[1]} <<'END OF FILE'\n{content}END OF FILE"
        elif kind == "console":
            yield from map(_command, _commands(content))


def _commands(content: str) -> Iterator[str]:
    """Yield the commands in a block, each as one text."""
    for line in re.sub(r"\\\n\s*", "", content).splitlines():
        if line.startswith("# "):
            yield line.removeprefix("# ")


def _command(command: str) -> str:
    """Return a command with what its user types in, at a terminal and not before being asked.

    A server goes on while the next commands are given.
    """
    if re.search(r"twistd -n ", command):
        ready = "until grep 'Listening on .*:995' /root/log; do sleep 0.1; done"
        return f"{command} >/root/log 2>&1 &\ntimeout 30 sh -c {shlex.quote(ready)}"
    asked = re.search(r"popctl .*user (?:add|passwd) |(curl) .*--user [^: ]+ ", command)
    if asked:
        times = "1" if asked[1] else "1 2"  # a new password is to be repeated
        typed = f"for once in {times}; do sleep 1.5; echo {shlex.quote(PASSWORD)}; done; sleep 1"
        return f"({typed}) | script --quiet --return --command {shlex.quote(command)} /dev/null"
    return command
