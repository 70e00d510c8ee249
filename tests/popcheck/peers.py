"""Run popcheck against popd and its peers, and keep the results in ``docs/conformance.json``.

::

    python -m tests.popcheck.peers popd dovecot courier=/srv/courier

The servers are those that are installed.  Debian does not let Courier's be installed beside
Dovecot's, so it is in a tree of its own, which this makes::

    debootstrap --variant=minbase --include=nullmailer,courier-pop,courier-authlib-userdb \
        bookworm /srv/courier

Needs root, for Dovecot and Courier.  ``docs/make_conformance.py`` makes a page of the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popd import __version__
from tests.e2e.server import PASSWORDS, RunningServer, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["RESULTS"]

RESULTS = Path(__file__).parents[2] / "docs" / "conformance.json"
OWNER = 65_534
"""The user and group that own mail."""

DOVECOT = """\
protocols = pop3
listen = 127.0.0.1
base_dir = {home}/run
log_path = {home}/log
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
auth_mechanisms = plain login scram-sha-256
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%n {home}/passwd
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={home}/mail/%n
}}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
pop3_lock_session = yes
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
  }}
}}
"""

COURIER = {
    "pop3d": {
        "PORT": "{port}",
        "ADDRESS": "127.0.0.1",
        "MAXPERIP": "40",
        "POP3AUTH": '"LOGIN PLAIN"',
        "POP3AUTH_TLS": '"LOGIN PLAIN"',
    },
    "pop3d-ssl": {"SSLPORT": "{tls_port}", "SSLADDRESS": "127.0.0.1"},
    "authdaemonrc": {"authmodulelist": '"authuserdb"'},
}
"""Settings that are not Debian's."""


@dataclass(frozen=True)
class Peer:
    """A server that runs.

    :param name: what it is called.
    :param version: which one it is, and where it comes from.
    :param configuration: its settings, for people.
    """

    name: str
    version: str
    configuration: str
    port: int
    tls_port: int
    user: str
    password: str
    maildir: Path
    authorities: Path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def _debian(package: str, *chroot: str) -> str:
    return _said(*chroot, "dpkg-query", "-W", "-f", "${Version}", package)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _make_maildir(path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for one in (path.parent, path, *path.iterdir()):
        os.chown(one, OWNER, OWNER)
    return path


@contextlib.contextmanager
def _site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="popcheck-") as directory:
        Path(directory).chmod(0o755)
        yield Site(Path(directory))


@contextlib.contextmanager
def popd(_: str) -> Iterator[Peer]:
    """Run popd."""
    with _site() as site, RunningServer(site, "--apop") as server:
        yield Peer(
            "popd",
            f"popd {__version__}",
            "apop = true\n",
            *(server.port, server.tls_port, "alice", PASSWORDS["alice"]),
            site.maildir("alice"),
            site.ca,
        )


@contextlib.contextmanager
def dovecot(_: str) -> Iterator[Peer]:
    """Run Dovecot."""
    port, tls_port = _free_ports(2)
    with _site() as site:
        home = site.root
        (home / "passwd").write_text("ada:{PLAIN}Secret12\n", encoding="ascii")
        maildir = _make_maildir(home / "mail" / "ada" / "Maildir")
        settings = DOVECOT.format(
            home=home,
            certificate=site.certificate,
            key=site.private_key,
            owner=OWNER,
            port=port,
            tls_port=tls_port,
        )
        (home / "dovecot.conf").write_text(settings, encoding="ascii")
        running = subprocess.Popen(["/usr/sbin/dovecot", "-F", "-c", str(home / "dovecot.conf")])
        try:
            _wait_for(tls_port)
            yield Peer(
                "Dovecot",
                f"Dovecot {_said('/usr/sbin/dovecot', '--version').split()[0]} "
                f"(Debian {_debian('dovecot-pop3d')})",
                re.sub(
                    r"(?m)^.*(_path|_dir|_cert|_key|port) =.*\n",
                    "",
                    settings.replace(str(home), ""),
                )
                .replace("  inet_listener pop3 {\n  }\n", "")
                .replace("  inet_listener pop3s {\n  }\n", "")
                .replace("service pop3-login {\n}\n", ""),
                *(port, tls_port, "ada", "Secret12", maildir, site.ca),
            )
        finally:
            running.terminate()
            running.wait(20)


@contextlib.contextmanager
def courier(tree: str) -> Iterator[Peer]:
    """Run Courier, in the *tree*."""
    port, tls_port = _free_ports(2)
    root, chroot = Path(tree), ("chroot", tree)
    etc = root / "etc" / "courier"
    maildir = _make_maildir(root / "home" / "ada" / "Maildir")
    shown = []
    for file, settings in COURIER.items():
        text = (etc / file).read_text(encoding="ascii")
        for name, value in settings.items():
            text = re.sub(
                rf"(?m)^{name}=.*", f"{name}={value.format(port=port, tls_port=tls_port)}", text
            )
            if "{" not in value:
                shown.append(f"{name}={value}")
        (etc / file).write_text(text, encoding="ascii")
    (etc / "userdb").unlink(missing_ok=True)
    (etc / "userdb").touch(0o600)
    digest = _said("openssl", "passwd", "-6", "Secret12")
    account = (f"uid={OWNER}", f"gid={OWNER}", "home=/home/ada", "mail=/home/ada/Maildir")
    _said(*chroot, "userdb", "ada", "set", *account, f"pop3pw={digest}")
    _said(*chroot, "makeuserdb")
    (root / "run" / "courier" / "authdaemon").mkdir(parents=True, exist_ok=True)
    programs = ("/usr/sbin/authdaemond", "/usr/lib/courier/pop3d", "/usr/lib/courier/pop3d-ssl")
    with _site() as site:
        pem = site.private_key.read_bytes() + site.certificate.read_bytes()
        (etc / "pop3d.pem").write_bytes(pem)
        for program in programs:
            subprocess.run([*chroot, program, "start"], check=True)
        try:
            _wait_for(tls_port)
            yield Peer(
                "Courier",
                f"Courier (Debian {_debian('courier-pop', *chroot)})",
                "\n".join(shown) + "\n",
                *(port, tls_port, "ada", "Secret12", maildir, site.ca),
            )
        finally:
            for program in reversed(programs):
                subprocess.run([*chroot, program, "stop"], check=True)


PEERS: dict[str, Callable[[str], AbstractContextManager[Peer]]] = {
    "popd": popd,
    "dovecot": dovecot,
    "courier": courier,
}


def check(peer: Peer, *options: str) -> dict[str, Any]:
    """Run popcheck, with these options; return what is kept of its report."""
    command = shutil.which("popcheck", path=str(Path(sys.executable).parent)) or "popcheck"
    ran = subprocess.run(
        [
            *(
                command,
                f"127.0.0.1:{peer.port}",
                "--tls-port",
                str(peer.tls_port),
                "--json",
                "--slow",
            ),
            *("--user", peer.user, "--password", peer.password, "--cafile", str(peer.authorities)),
            *("--maildir", str(peer.maildir), "--erase-maildir", *options),
        ],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    report = json.loads(ran.stdout)
    return {
        "name": peer.name,
        "version": peer.version,
        "configuration": peer.configuration,
        "popcheck": report["popcheck"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "results": {one["rule"]: [one["outcome"], one["detail"]] for one in report["results"]},
    }


def main() -> None:
    """Check the servers that the command line names; with ``--only=RULE`` only some rules."""
    options = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    for argument in sys.argv[1:]:
        if argument in options:
            continue
        name, _, tree = argument.partition("=")
        with PEERS[name](tree) as peer:
            report = check(peer, *options)
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        if options:
            report["results"] = {**kept[name]["results"], **report["results"]}
        kept[name] = report
        text = json.dumps(kept, indent=0, sort_keys=True, ensure_ascii=False)
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
