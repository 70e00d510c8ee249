"""Measures popd, and Dovecot 2.3 where it is installed, on the same Maildirs.

Run it with the Python that popd is installed for: ``python benchmarks/run.py``.  It prints the
table; ``--output docs`` writes it to ``docs/performance.rst`` as well, with a plot.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import growth
import maildrops
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from load import Load, LoadError
from measure import Bench, interleaved
from report import Results, as_text, page_body, plot, write_page
from rows import WARM, chosen
from servers import Dovecot, Popd, Server, Site

from popd import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS: Final = 5
_SECONDS: Final = 2.0
_SMOKE_SECONDS: Final = 0.1
_PAUSE: Final = 1.5


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    try:
        rows = chosen(arguments.rows, smoke=arguments.smoke)
    except ValueError as error:
        raise SystemExit(f"--rows: {error}") from error
    if unknown := set(arguments.growth).difference(growth.NAMES):
        raise SystemExit(f"--growth: {unknown} is none of {', '.join(growth.NAMES)}")
    if arguments.growth and not arguments.rows:
        rows = []
    with ExitStack() as stack:
        # On a disk, as mail is; /tmp is often memory.
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="popd-bench-", dir=arguments.directory)
            )
        )
        folder.chmod(0o755)
        users = [name for row in rows for name in row.mail.names()] + WARM.names()
        site = _site(folder, list(dict.fromkeys(users)))
        servers = _servers(folder, site, arguments)
        load = Load(folder)
        bench = Bench(load, arguments.seconds, arguments.pause)
        results = Results()
        for server in servers:
            stack.callback(server.stop)
            server.start()
        results.about = _about(servers, load, arguments)
        print(*results.about, sep="\n", flush=True)
        try:
            for row, server, sample in interleaved(bench, servers, rows, arguments.rounds):
                results.add(row, server.name, sample)
                if arguments.verbose:
                    print(row.name, server.name, sample, file=sys.stderr, flush=True)
            curves = growth.measure(arguments.growth, servers, bench, smoke=arguments.smoke)
        except LoadError as error:
            raise SystemExit(f"{error}") from error
    _report(results, curves, arguments.output)


def _report(
    results: Results, curves: list[tuple[str, list[list[str]]]], output: Path | None
) -> None:
    if results.rows:
        print(f"\n{as_text(results.lines())}")
    for title, table in curves:
        print(f"\n{title}\n{as_text(table)}")
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    image = "performance.svg" if plot(results, output / "performance.svg") else ""
    if not image:
        print("no plot: matplotlib is not installed", file=sys.stderr)
    write_page(output / "performance.rst", page_body(results, curves, image))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    curves = ",".join(growth.NAMES)
    add("--rounds", type=int, help=f"measurements of each row and server (default {_ROUNDS})")
    add("--seconds", type=float, help=f"how long each takes, about (default {_SECONDS:g})")
    add("--rows", type=_names, default=[], metavar="NAME,...", help="these only")
    add("--growth", type=_names, default=[], metavar="NAME,...", help=f"curves: {curves}")
    add("--smoke", action="store_true", help="seconds only: does the benchmark work?")
    add("--output", type=Path, metavar="DIR", help="write performance.rst and a plot there")
    add("--directory", default="/var/tmp", help="where the mail goes meanwhile; on a disk")  # noqa: S108 - tempfile makes a fresh one in it
    add("--pause", type=float, help=f"seconds from delivery to poll (default {_PAUSE:g})")
    add("--popd-option", action="append", default=[], metavar="OPTION", help="as --name=value")
    add("--dovecot-setting", action="append", default=[], metavar="SETTING", help="as name=value")
    add("--only", choices=["popd", "Dovecot"], help="leave the other one out")
    add("--no-cgroup", action="store_true", help="measure by /proc in any case")
    add("--verbose", action="store_true", help="tell each measurement")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    if arguments.rounds is None:
        arguments.rounds = 1 if smoke else _ROUNDS
    if arguments.seconds is None:
        arguments.seconds = _SMOKE_SECONDS if smoke else _SECONDS
    if arguments.pause is None:
        arguments.pause = 0.05 if smoke else _PAUSE
    return arguments


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _servers(folder: Path, site: Site, arguments: argparse.Namespace) -> list[Server]:
    allow = not arguments.no_cgroup
    servers: list[Server] = []
    if arguments.only != "popd" and Dovecot.version():
        home, settings = folder / "dovecot", arguments.dovecot_setting
        servers.append(Dovecot(home, site, settings, allow_cgroup=allow))
    if arguments.only != "Dovecot":
        servers.append(Popd(folder / "popd", site, arguments.popd_option, allow_cgroup=allow))
    if not servers:
        raise SystemExit("there is no Dovecot 2.3 to measure")
    return servers


def _about(servers: Sequence[Server], load: Load, arguments: argparse.Namespace) -> list[str]:
    """Return the circumstances of this run."""
    dovecot = Dovecot.version()
    measured = {"popd": f"popd {__version__}", "Dovecot": f"Dovecot {dovecot}"}
    options = " ".join(arguments.popd_option + arguments.dovecot_setting)
    names = " and ".join(measured[server.name] for server in servers)
    return [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {names}{f' ({options})' if options else ''}.",
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}.",
        f"{arguments.rounds} rounds; CPU from {servers[0].meter.method}; load from {load.method}.",
    ]


def _site(folder: Path, users: list[str]) -> Site:
    site = Site(folder / "mail", folder / "passwd", folder / "certificate.pem")
    site.mail.mkdir()
    maildrops.hand_over(site.mail)
    maildrops.write_passwords(site.passwords, users)
    _write_certificate(site.certificate)
    return site


def _write_certificate(path: Path) -> None:
    """Write a self-signed certificate with an RSA key of 2048 bits, and the key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.touch(mode=0o600)
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + encoded_key)


if __name__ == "__main__":
    main()
