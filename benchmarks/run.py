"""Measures popd, and Dovecot 2.3 where it is installed, on the same Maildirs.

Run it with the Python that popd is installed for: ``python benchmarks/run.py``.  It prints the
table; ``--output docs`` writes it to ``docs/performance.rst`` as well, with a plot.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fairness
import growth
import maildrops
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from load import Load
from measure import Bench, interleaved, recover
from plots import draw
from report import Results, as_text, page_body, write_page
from rows import HUGE, POLLED, WARM, WARM_BIG, chosen
from rows import NAMES as ROWS
from servers import Dovecot, Popd, Server, Site

from popd import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS: Final = 5
_SECONDS: Final = 2.0
_SMOKE_SECONDS: Final = 0.1
_PAUSE: Final = 1.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FAIRNESS: Final = "fairness"


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it
    rows = chosen(arguments.rows, smoke=arguments.smoke)
    with ExitStack() as stack:
        # On a disk, as mail is; /tmp is often memory.
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="popd-bench-", dir=arguments.directory)
            )
        )
        folder.chmod(0o755)
        mails = [row.mail for row in rows] + [WARM, WARM_BIG, HUGE, POLLED]
        users = [name for mail in mails for name in mail.names()]
        site = _site(folder, list(dict.fromkeys(users)))
        servers = _servers(folder, site, arguments)
        load = Load(folder)
        tell = _tell if arguments.verbose else _say_nothing
        bench = Bench(load, arguments.seconds, arguments.pause, tell)
        results = Results()
        for server in servers:
            stack.callback(server.stop)
            server.start()
        results.about = _about(servers, load, arguments)
        print(*results.about, sep="\n", flush=True)
        for row, server, sample in interleaved(bench, servers, rows, arguments.rounds):
            results.add(row, server.name, sample)
        if _FAIRNESS in arguments.rows:
            results.fairness = _fairness(folder, site, servers, bench, arguments)
        results.curves = growth.measure(arguments.growth, servers, bench, smoke=arguments.smoke)
        results.settings = _settings(servers)
    _report(results, arguments.output)


def _tell(*what: object) -> None:
    print(*what, file=sys.stderr, flush=True)


def _say_nothing(*_: object) -> None:
    pass


def _interrupt(*_: object) -> None:
    for number in _SIGNALS:  # once is enough: what follows removes everything, which takes seconds
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _report(results: Results, output: Path | None) -> None:
    """Print everything, write it to *output* if that is given, and exit with 1 if a row failed."""
    for title, table in results.tables():
        print(f"\n{title}\n{as_text(table)}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        images = draw(results, output)
        if images is None:
            print("no plots: matplotlib is not installed", file=sys.stderr)
        write_page(output / "performance.rst", page_body(results, images or []))
    if failures := results.failures():
        raise SystemExit("\nFailed:\n" + "\n".join(failures))


def _fairness(
    folder: Path, site: Site, servers: list[Server], bench: Bench, arguments: argparse.Namespace
) -> fairness.Fairness:
    """Measure fairness with one worker, for which it is hardest; the other servers rest."""
    for server in servers:
        server.stop()
    allow = not arguments.no_cgroup
    alone = [server for server in servers if server.name != "popd"]
    if len(alone) < len(servers):
        options = [*arguments.popd_option, "--workers=1"]
        alone.append(Popd(folder / "popd", site, options, allow_cgroup=allow))
    result = fairness.measure(alone, bench, arguments.rounds, smoke=arguments.smoke)
    for server in servers:
        recover(server)
    return result


def _settings(servers: Sequence[Server]) -> str:
    """Return Dovecot's configuration file, as it is for the page."""
    for server in servers:
        if isinstance(server, Dovecot):
            return server.settings("HOME", "MAIL", "PASSWORDS", "CERTIFICATE", 110, 995)
    return ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    curves = ",".join(growth.NAMES)
    add("--rounds", type=int, help=f"measurements of each row and server (default {_ROUNDS})")
    add("--seconds", type=float, help=f"how long each takes, about (default {_SECONDS:g})")
    rows = ",".join((*ROWS, _FAIRNESS))
    add("--rows", type=_names, metavar="NAME,...", help=f"these only: {rows}, all, none")
    add("--growth", type=_names, default=[], metavar="NAME,...", help=f"curves: {curves}, all")
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
    if arguments.smoke and arguments.rows is None and not arguments.growth:
        arguments.rows = arguments.growth = ["all"]
    if arguments.rows is None:
        arguments.rows = [] if arguments.growth else ["all"]
    arguments.rows = _chosen(parser, "--rows", arguments.rows, (*ROWS, _FAIRNESS))
    arguments.growth = _chosen(parser, "--growth", arguments.growth, growth.NAMES)
    if arguments.rounds is None:
        arguments.rounds = 1 if smoke else _ROUNDS
    if arguments.seconds is None:
        arguments.seconds = _SMOKE_SECONDS if smoke else _SECONDS
    if arguments.pause is None:
        arguments.pause = 0.05 if smoke else _PAUSE
    return arguments


def _chosen(
    parser: argparse.ArgumentParser, option: str, names: list[str], known: Sequence[str]
) -> list[str]:
    if unknown := set(names).difference(known, ["all", "none"]):
        parser.error(f"{option}: {', '.join(unknown)}: none of {', '.join(known)}")
    return [name for name in known if name in names or "all" in names]


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
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
