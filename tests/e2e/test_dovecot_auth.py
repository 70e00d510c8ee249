"""Log-ins that Dovecot decides about: the real one, through its auth socket."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.e2e.backends import DENIED, IN, TEMPORARY, BackendCase, end, freeze, reachable
from tests.e2e.launch import free_port
from tests.e2e.server import Client, until

_PATH = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_SETTINGS = """
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
protocols =
ssl = no
auth_mechanisms = plain
auth_failure_delay = 0
{users}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {home}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent allow_all_users=yes
}}
service auth {{
  unix_listener {home}/auth {{
    mode = 0666
  }}
  inet_listener auth {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
{chroot}
}}
service anvil {{
{chroot}
}}
"""

_USERS = """
zoe@example.org:zoe's secret:::::: popd_quota=10M
yan@example.org:secret:::::: allow_nets=192.0.2.0/24
xia@example.org:secret:::::: nologin=y
ute@example.org:secret:::::: proxy=y host=192.0.2.1
tom@example.org:secret:::::: user=bob@example.org
"""


class DovecotAuthTests(BackendCase):
    """Dovecot knows users whom nobody else knows."""

    def setUp(self) -> None:
        """Start Dovecot and popd."""
        super().setUp()
        version = subprocess.run([_PATH or "false", "--version"], capture_output=True, check=False)
        if not version.stdout.startswith(b"2.3."):
            raise SkipTest("needs Dovecot 2.3: apt-get install dovecot-core")
        (self.root / "users").write_text(_USERS, "ascii")
        self.port = free_port()
        self.start_dovecot()

    def start_dovecot(self) -> None:
        """Start it, and wait until it listens."""
        users = chroot = ""
        if os.geteuid() != 0:
            me = getpass.getuser()
            users = f"default_login_user = {me}\ndefault_internal_user = {me}"
            chroot = "  chroot ="
        configuration = self.root / "dovecot.conf"
        configuration.write_text(
            _SETTINGS.format(home=self.root, users=users, chroot=chroot, port=self.port), "ascii"
        )
        self.dovecot = subprocess.Popen([str(_PATH), "-F", "-c", str(configuration)])
        self.addCleanup(end, self.dovecot)
        until(lambda: reachable(self.port), "Dovecot does not listen")

    def auth_process(self) -> int:
        """Return the number of Dovecot's process that is asked."""
        task = Path(f"/proc/{self.dovecot.pid}/task/{self.dovecot.pid}/children")
        for pid in map(int, task.read_text("ascii").split()):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"dovecot/auth\0"):
                return pid
        raise AssertionError("Dovecot has no auth process")

    def stop_dovecot(self) -> None:
        """Stop it, and its process that would go on as long as it is asked."""
        process = self.auth_process()
        end(self.dovecot)
        os.kill(process, signal.SIGKILL)

    def test_decides(self) -> None:
        """Dovecot says who gets in, and as whom."""
        self.start(f"popd-dovecot:{self.root}/auth")
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        self.assertLogIn("zoe@example.org", "Zoe's secret", DENIED)
        self.assertLogIn("nobody@example.org", "secret", DENIED)
        self.assertLogIn("xia@example.org", "secret", DENIED)
        self.assertLogIn("ute@example.org", "secret", DENIED)
        self.assertIn("would send 'ute@example.org' on to another server", self.popd.log)
        self.assertLogIn("yan@example.org", "secret", DENIED)
        self.site.deliver("bob", b"Subject: to Bob\n\ntext\n")
        with Client(self.popd.ports[0]) as client:
            client.expect(b"USER tom@example.org")
            client.expect(b"PASS secret")
            client.expect(b"STAT", b"+OK 1 ")

    def test_workers(self) -> None:
        """Each of popd's processes has a connection of its own."""
        self.start(f"popd-dovecot:{self.root}/auth", "--workers", "2")
        for _ in range(6):
            self.assertLogIn("zoe@example.org", "zoe's secret", IN)

    def test_down(self) -> None:
        """Where Dovecot is down only its users are held up, and not once it is back."""
        self.start(f"popd-dovecot:tcp:127.0.0.1:{self.port}")
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        self.stop_dovecot()
        self.assertLogIn("zoe@example.org", "zoe's secret", TEMPORARY)
        self.assertOthersFast()
        self.start_dovecot()
        self.wait_for("zoe@example.org", "zoe's secret")
        self.assertLogIn("zoe@example.org", "wrong", DENIED)

    def test_hangs(self) -> None:
        """A Dovecot that says nothing costs one time-out, and is asked again when it speaks."""
        self.start(f"popd-dovecot:{self.root}/auth:timeout=1.5")
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        process = self.auth_process()
        freeze(process)
        self.addCleanup(os.kill, process, signal.SIGCONT)
        self.assertLogIn("zoe@example.org", "zoe's secret", TEMPORARY)
        self.assertOthersFast()
        os.kill(process, signal.SIGCONT)
        self.wait_for("zoe@example.org", "zoe's secret")
