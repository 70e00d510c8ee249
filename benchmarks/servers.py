"""The servers that are measured: popd, and Dovecot 2.3 tuned for many short sessions."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from maildrops import NOBODY
from meter import Meter

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST: Final = "127.0.0.1"
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Site:
    """What all servers serve.

    :param mail: the directory with the users' Maildirs.
    :param passwords: the password file.
    :param certificate: a PEM file with the key in it.
    """

    mail: Path
    passwords: Path
    certificate: Path


class Server:
    """A server on free ports of 127.0.0.1.

    :param home: a directory for files of its own.
    :param site: what it serves.
    :param extra: more options for popd, or more settings (``name=value``) for Dovecot.
    :param allow_cgroup: see `Meter`.
    """

    name: ClassVar[str]

    def __init__(
        self, home: Path, site: Site, extra: Sequence[str] = (), *, allow_cgroup: bool = True
    ) -> None:
        self.home, self.site = home, site
        self.extra, self.allow_cgroup = extra, allow_cgroup
        self.meter = Meter(allow_cgroup=False)
        self.port = self.tls_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Write what configuration it takes, and return the command that runs the server."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server, and wait until it answers.

        :raises RuntimeError: it does not.
        """
        self.port, self.tls_port = _free_ports(2)
        self.home.mkdir(exist_ok=True)
        self.meter = Meter(allow_cgroup=self.allow_cgroup)
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.meter.wrapped(self.command()),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.meter.pid = self._process.pid
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, and wait until all its processes are gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end = time.monotonic() + _PATIENCE
        while running := [
            pid for pid in self.meter.processes() if Path("/proc", str(pid)).exists()
        ]:
            if time.monotonic() > end:
                for pid in running:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.02)
        self.meter.close()
        self._process = None

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with socket.create_connection((HOST, self.port), 5) as connection:
                    if connection.recv(512).startswith(b"+OK"):
                        return
            except OSError:
                time.sleep(0.01)
        log = (self.home / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} did not start:\n{log}")


class Popd(Server):
    """The popd of the Python that runs the benchmark."""

    name = "popd"

    def command(self) -> list[str]:
        """See `Server.command`."""
        return [
            *(str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "popd"),
            *("--listen", f"tcp:{self.port}:interface={HOST}"),
            *("--listen-tls", f"tcp:{self.tls_port}:interface={HOST}"),
            *("--certificate", str(self.site.certificate)),
            *("--auth", f"popd-passwd:{self.site.passwords}"),
            *("--maildrop", f"maildir:{self.site.mail}/{{local}}"),
            *("--cleartext-login", "local"),
            # As many as there are, from as few addresses.
            *("--max-sessions", "60000", "--max-sessions-per-ip", "60000"),
            *self.extra,
        ]


class Dovecot(Server):
    """Dovecot, with what its documentation says about speed, and else as it comes.

    Its logs and its fsync policy are the default, as popd's are.
    """

    name = "Dovecot"

    _SETTINGS: Final = """
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
listen = {host}
protocols = pop3

# As many users as there are, from as few addresses.
mail_max_userip_connections = 0
default_client_limit = 16000
default_process_limit = {limit}
default_vsz_limit = 4G

# Processes are there beforehand, and serve one session after the other: the "high-performance
# mode" of the manual for the login processes, and the same for those that serve the mail.
service pop3-login {{
  service_count = 0
  process_min_avail = {cores}
  client_limit = 10000
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
{unchrooted}
}}
service pop3 {{
  service_count = 0
  process_min_avail = {cores}
  process_limit = {limit}
}}
service anvil {{
  client_limit = 16000
{unchrooted}
}}
service auth {{
  client_limit = 16000
}}
service stats {{
  client_limit = 16000
}}

# Passwords without a hash, remembered besides; no question to ask about a user.
auth_mechanisms = plain login
auth_cache_size = 64M
auth_cache_ttl = 1 hour
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = {passwords}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%n allow_all_users=yes
}}
first_valid_uid = {uid}
first_valid_gid = {gid}

# TLS with session tickets, as it comes, and no question for a client's certificate.
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
ssl_min_protocol = TLSv1.2
ssl_verify_client_cert = no

# Two flags that save writing: RETR does not mark as seen, and only new/ is expected to change by
# other hands.  (pop3_fast_size_lookups would be wrong: it gives sizes with bare LF.)
mail_location = maildir:{mail}/%n
pop3_no_flag_updates = yes
maildir_very_dirty_syncs = yes
{extra}
"""

    @staticmethod
    def path() -> str | None:
        """Return where Dovecot is, if it is installed."""
        return shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    @classmethod
    def version(cls) -> str:
        """Return its version, or nothing; only 2.3 can be measured, 2.4's settings differ."""
        path = cls.path()
        if path is None:
            return ""
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        return ran.stdout.split()[0] if ran.stdout.startswith("2.3.") else ""

    def command(self) -> list[str]:
        """See `Server.command`."""
        site = self.site
        path = self.home / "dovecot.conf"
        places = (self.home, site.mail, site.passwords, site.certificate)
        path.write_text(self.settings(*places, self.port, self.tls_port), encoding="utf-8")
        return [self.path() or "dovecot", "-F", "-c", str(path)]

    def settings(
        self, home: object, mail: object, passwords: object, certificate: object, *ports: object
    ) -> str:
        """Return the configuration file, for these places and ports."""
        root = os.geteuid() == 0
        own = f"default_login_user = {_user()}\ndefault_internal_user = {_user()}\n"
        return self._SETTINGS.format(
            home=home,
            host=HOST,
            port=ports[0],
            tls_port=ports[1],
            cores=os.cpu_count() or 1,
            limit=4000,
            passwords=passwords,
            mail=mail,
            certificate=certificate,
            uid=NOBODY if root else os.geteuid(),
            gid=NOBODY if root else os.getegid(),
            unchrooted="" if root else "  chroot =",
            extra="\n".join(self.extra) + ("" if root else f"\n{own}"),
        )


def _user() -> str:
    ran = subprocess.run(["id", "-un"], capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [a_socket.getsockname()[1] for a_socket in sockets]
    for a_socket in sockets:
        a_socket.close()
    return ports
