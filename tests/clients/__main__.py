"""Lets the clients of others fetch, keep and delete mail: ``python -m tests.clients [NAME...]``.

Installs what they need, from Debian if this is root, from PyPI and npm; skips what cannot be had.
A line says what came of each; if none is named, ``docs/clients.rst`` is written anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import popd
from popd.auth import scramkeys
from tests.clients.contract import PopClient, Scenario
from tests.clients.libraries import LIBRARIES, NODE_MODULES
from tests.clients.programs import PROGRAMS
from tests.clients.terminals import TERMINALS
from tests.clients.thunderbird import Thunderbird
from tests.e2e.server import PASSWORDS, RunningServer, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAGE: Final = Path(popd.__file__).parent.parent / "docs" / "clients.rst"

KINDS: Final[tuple[type[PopClient], ...]] = (*PROGRAMS, *TERMINALS, Thunderbird, *LIBRARIES)

EVERY: Final = "SCRAM-SHA-256,SCRAM-SHA-1,CRAM-MD5,PLAIN,LOGIN,USER,APOP"

SCRAM: Final = {"SCRAM-SHA-256": "sam", "SCRAM-SHA-1": "sal"}
"""Who has keys for what; all others log in as alice, whose password is stored in plain text."""


class Row(NamedTuple):
    """What came of a client.

    :param ways: for STLS and TLS: ``yes``, ``no`` if popd or the client failed, empty if the client
        does not know it.
    :param failures: what went wrong.
    """

    kind: type[PopClient]
    version: str
    ways: tuple[str, str]
    mechanisms: list[str]
    failures: list[str]


def main() -> int:
    """Do it for those that are named, or for all; return the exit status."""
    names = sys.argv[1:]
    kinds = [kind for kind in KINDS if not names or kind.name in names or kind.program in names]
    with tempfile.TemporaryDirectory(prefix="popd-tools-") as tools:
        install(kinds, Path(tools))
        rows = []
        for number, kind in enumerate(kinds):
            if missing := kind.missing():
                print(f"skipped  {kind.name}: there is no {missing} to be had", flush=True)
                continue
            row = examine(kind, sorted(PASSWORDS)[number % len(PASSWORDS)])
            rows.append(row)
            for failure in row.failures:
                print(f"FAILED   {kind.name}: {failure}", flush=True)
            if not row.failures:
                print(
                    f"ok       {kind.name} {row.version}: {', '.join(row.mechanisms)}", flush=True
                )
    if not names:
        PAGE.write_text(page(rows), encoding="utf-8")
    return 1 if any(row.failures for row in rows) else 0


def install(kinds: Iterable[type[PopClient]], tools: Path) -> None:
    """Install what is missing, as far as it can be had.

    :param tools: a directory for what does not come from Debian.
    """
    absent = [kind for kind in kinds if kind.missing()]
    packages = sorted({package for kind in absent for package in kind.packages})
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        for package in packages:
            if shutil.which(package):  # nodejs and npm may be there from elsewhere
                continue
            _quietly("apt-get", "install", "-qq", "-y", "--no-install-recommends", package)
    wanted = sorted({module for kind in absent for module in kind.modules})
    if wanted and shutil.which("npm"):
        _quietly("npm", "install", "--silent", "--ignore-scripts", "--prefix", str(tools), *wanted)
        os.environ[NODE_MODULES] = str(tools / "node_modules")
    wheels = sorted({wheel for kind in absent for wheel in kind.wheels})
    if wheels:
        _quietly(sys.executable, "-m", "venv", str(tools / "venv"))
        _quietly(str(tools / "venv" / "bin" / "pip"), "install", "--quiet", *wheels)
        os.environ["PATH"] += f"{os.pathsep}{tools / 'venv' / 'bin'}"


def _quietly(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"{' '.join(command)}: {done.stdout.strip()[-300:]}", flush=True)


def examine(kind: type[PopClient], user: str) -> Row:
    """Put a client through everything."""
    failures: list[str] = []
    ways, mechanisms = ["", ""], []

    def good(what: str, attempt: Callable[[], None]) -> bool:
        try:
            attempt()
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            failures.append(f"{what}: {error}")
            return False
        return True

    with tempfile.TemporaryDirectory(prefix="popd-clients-") as root:
        Path(root).chmod(0o755)
        site = Site(Path(root))
        with RunningServer(site) as server:
            for implicit in kind.ways:
                scenario = Scenario(kind, site, server, user)
                what = "TLS" if implicit else "STLS"
                passed = good(what, lambda: scenario.fetch_keep_delete(implicit=implicit))  # noqa: B023
                ways[implicit] = "yes" if passed else "no"
                _empty(site, user)
            if kind.mistypes:
                good("a wrong password first", scenario.mistype)
                _empty(site, user)
        for mechanism, name in SCRAM.items():
            site.add_user(name, scramkeys.written(mechanism, name.encode()))
        with RunningServer(site, "--sasl", EVERY) as server:
            for mechanism in kind.mechanisms:
                name = SCRAM.get(mechanism, "alice")
                scenario = Scenario(kind, site, server, name)
                if good(mechanism, lambda: scenario.log_in(mechanism)):  # noqa: B023
                    mechanisms.append(mechanism)
                _empty(site, name)
        version = scenario.client().version()
    return Row(kind, version, (ways[0], ways[1]), mechanisms, failures)


def _empty(site: Site, user: str) -> None:
    """Remove what is left where something failed."""
    for path in site.messages(user):
        path.unlink()


HEADER: Final = """\
.. Written by ``python -m tests.clients``; do not edit.

Mail programs
=============

These programs and libraries, none of them popd's own, fetched mail from popd {version} on {day}.
Each, over STLS and over TLS, and with the server's certificate checked:

- fetched four messages, which came out whole: lines of dots, a file with CRLF, octets that are no
  text, no line end at the end;
- left them on the server, and fetched none of them again after their files had been moved from
  ``new`` to ``cur`` and got other flags, as IMAP servers do;
- fetched the one message that had come meanwhile;
- fetched and deleted all.  After that the Maildir was empty.

A client that remembers nothing fetches all of them each time, and that was looked at instead.  An
empty field means that the client does not know this.  Where mechanisms are named, it was told
to use each of them, and popd's log said that it did.

``python -m tests.clients`` does it again, and installs what it needs.
"""


def page(rows: list[Row]) -> str:
    """Return the page with the results."""
    header = HEADER.format(version=popd.__version__, day=time.strftime("%Y-%m-%d"))
    lines = [header, ".. list-table::", "    :header-rows: 1", ""]
    titles = ("Client", "Language", "Version", "STLS", "TLS", "Log-in by", "Remark")
    for cells in (titles, *map(_cells, sorted(rows, key=lambda row: row.kind.name.lower()))):
        marks = ("*", *(" " for _ in cells[1:]))
        for mark, cell in zip(marks, cells, strict=True):
            lines.append(f"    {mark} - {cell}".rstrip())
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    forgets = "" if row.kind.remembers else "remembers nothing"
    remark = "; ".join(filter(None, (row.kind.remark, forgets)))
    mechanisms = ", ".join(row.mechanisms)
    return (row.kind.name, row.kind.language, row.version, *row.ways, mechanisms, remark)


if __name__ == "__main__":
    sys.exit(main())
