"""What popctl does counts for a popd that runs, at the next log-in; and for Dovecot as well."""

from __future__ import annotations

import json
import os
import poplib
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd.auth import schemes
from tests.e2e.server import LIMIT, RunningServer, ServerCase, until

POPCTL = str(Path(sys.executable).with_name("popctl"))
NEW = "new@example.org"


def popctl(*arguments: str, stdin: str = "") -> str:
    """Run popctl, and return what it writes to stdout."""
    ran = subprocess.run(
        [POPCTL, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if ran.returncode:
        raise AssertionError(f"popctl {arguments} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


class RunningPopd(ServerCase):
    """A popd that runs while popctl is used."""

    def start(self, *options: str) -> RunningServer:
        """Start it, with a directory for what has to outlast it."""
        self.state = self.site.root / "state"
        self.state.mkdir(exist_ok=True)
        return super().start("--state-directory", str(self.state), *options)

    def popctl(self, *arguments: str, stdin: str = "") -> str:
        """Run popctl for this site."""
        options = ("--auth", f"popd-passwd:{self.site.passwords}")
        return popctl(*options, "--state-directory", str(self.state), *arguments, stdin=stdin)

    def log_in(self, password: str, user: str = NEW) -> poplib.POP3:
        """Log in with poplib; raises poplib.error_proto if refused."""
        client = poplib.POP3_SSL(
            "localhost", self.server.tls_port, timeout=LIMIT, context=self.site.client_context()
        )
        self.addCleanup(client.close)
        client.user(user)
        client.pass_(password)
        return client

    def assertRefused(self, password: str, user: str = NEW) -> str:
        """Assert that a log-in is refused, and return what was said."""
        error = self.assertRaises(poplib.error_proto, self.log_in, password, user)
        return str(error)

    def test_users(self) -> None:
        """A user who is added, disabled, enabled, renewed or removed is so from then on."""
        before = self.site.passwords.read_bytes()
        self.assertRefused("one")
        self.popctl("user", "add", NEW, "--password-stdin", stdin="one\n")
        self.assertEqual(self.log_in("one").stat(), (0, 0))
        self.popctl("user", "disable", NEW)
        self.assertRefused("one")
        self.popctl("user", "enable", NEW)
        self.log_in("one").quit()
        self.popctl("user", "passwd", NEW, "--password-stdin", stdin="two\n")
        self.assertRefused("one")
        self.log_in("two").quit()
        self.popctl("user", "delete", NEW)
        self.assertRefused("two")
        self.assertEqual(self.site.passwords.read_bytes(), before)
        self.log_in("secret-of-alice", "alice").quit()

    def test_app_passwords(self) -> None:
        """An app password logs in, deletes nothing if it must not, shows its use, is revoked."""
        alice = "alice@example.org"
        password = self.popctl("apppass", "add", alice, "tv", "--no-delete").strip()
        self.site.deliver("alice", b"Subject: x\n\nx\n")
        client = self.log_in(password, "alice")
        self.assertEqual(client.stat()[0], 1)
        self.assertRaises(poplib.error_proto, client.dele, 1)
        client.quit()
        self.assertRefused(password, "bob")
        self.assertEqual(len(self.site.messages("alice")), 1)
        (app,) = json.loads(self.popctl("apppass", "list", alice, "--json"))
        self.assertEqual(app["last_client"], "127.0.0.1")
        self.popctl("apppass", "revoke", alice, "tv")
        self.assertRefused(password, "alice")
        self.log_in("secret-of-alice", "alice").quit()

    def test_limits_of_app_passwords(self) -> None:
        """One that has expired, comes from elsewhere or too soon is refused."""
        alice = "alice@example.org"
        limits = {
            "old": ("--expires", "2020-01-01"),
            "far": ("--allow-nets", "192.0.2.0/24,::1"),
            "slow": ("--interval", "3600"),
            "near": ("--allow-nets", "127.0.0.0/8", "--expires", "2999-12-31"),
        }
        made = {
            name: self.popctl("apppass", "add", alice, name, *options).strip()
            for name, options in limits.items()
        }
        for name in ("old", "far"):
            self.assertRefused(made[name], "alice")
        for _ in range(2):
            self.log_in(made["near"], "alice").quit()
        self.log_in(made["slow"], "alice").quit()
        self.assertRefused(made["slow"], "alice")
        self.server.stop()
        self.server = self.start()
        self.assertIn("LOGIN-DELAY", self.assertRefused(made["slow"], "alice"))

    def test_workers(self) -> None:
        """The interval of an app password holds for all workers together."""
        self.server.stop()
        self.server = self.start("--workers", "3")
        made = self.popctl("apppass", "add", "alice@example.org", "x", "--interval", "600").strip()
        self.log_in(made, "alice").quit()
        for _ in range(8):
            self.assertRefused(made, "alice")


DOVECOT = """
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/log
protocols =
ssl = no
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
auth_mechanisms = plain scram-sha-256
passdb {{
  driver = passwd-file
  args = {passwords}
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
"""


class Dovecot(SynchronousTestCase):
    """A password file that popctl wrote serves Dovecot, too."""

    def setUp(self) -> None:
        """Look for it, and make a place."""
        for program in ("doveadm", "dovecot"):
            if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
                raise SkipTest(f"there is no {program}: apt-get install dovecot-core")
        # Paths of sockets are short.
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        self.home.chmod(0o755)
        self.passwords = self.home / "passwd"

    def popctl(self, *arguments: str, stdin: str = "") -> str:
        """Run popctl for the password file."""
        options = ("--auth", f"popd-passwd:{self.passwords}", "--state-directory", str(self.home))
        return popctl(*options, *arguments, stdin=stdin)

    def doveadm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run doveadm."""
        command = ["doveadm", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_hashes(self) -> None:
        """Dovecot verifies what popctl stores, and popd what ``doveadm pw`` writes."""
        self.popctl("user", "add", "ada", "--password-stdin", stdin="pässword\n")
        line = self.passwords.read_text("utf-8").strip()
        for field in (line.split(":")[1], line.rpartition("scram_sha_256=")[2]):
            for password, status in (("pässword", 0), ("password", 1)):
                ran = self.doveadm("pw", "-t", field, "-p", password)
                self.assertEqual(bool(ran.returncode), bool(status), ran.stderr)
        for scheme in ("SCRAM-SHA-256", "SCRAM-SHA-1", "ARGON2ID"):
            field = self.doveadm("pw", "-s", scheme, "-p", "pässword").stdout.strip()
            stored = schemes.parse(field)
            self.assertTrue(stored.verify("pässword".encode()))
            self.assertFalse(stored.verify(b"password"))

    def test_file(self) -> None:
        """Dovecot reads the file, ignores the fields that are popd's, and heeds nologin."""
        fields = "quota=1G maildrop=maildir:/x require_tls expires=2999-12-31 no_delete interval=1"
        options = [option for field in fields.split() for option in ("--set", field)]
        for name in ("ada", "bob"):
            self.popctl("user", "add", name, "--password-stdin", *options, stdin="secret\n")
        self.popctl("user", "disable", "bob")
        config = self.start()
        for name, password, status in (("ada", "secret", 0), ("ada", "x", 1), ("bob", "secret", 0)):
            ran = self.doveadm("-c", config, "auth", "test", name, password)
            self.assertEqual(bool(ran.returncode), bool(status), ran.stdout + ran.stderr)
            self.assertEqual("nologin" in ran.stdout, name == "bob", ran.stdout)

    def start(self) -> str:
        """Start Dovecot's authentication, and return the path of its configuration."""
        root = os.geteuid() == 0
        user = pwd.getpwnam("dovecot" if root else pwd.getpwuid(os.geteuid()).pw_name)
        config = self.home / "dovecot.conf"
        settings = {"home": self.home, "passwords": self.passwords, "user": user.pw_name}
        config.write_text(DOVECOT.format(group="dovecot" if root else user.pw_gid, **settings))
        self.passwords.chmod(0o644)
        program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program is not None
        process = subprocess.Popen(
            [program, "-F", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=(self.home / "stderr").open("wb"),
        )
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(process.terminate)
        socket = self.home / "run" / "auth-client"
        until(lambda: socket.exists() or process.poll() is not None, "Dovecot does not start")
        if process.poll() is not None:
            raise SkipTest(f"Dovecot does not start: {(self.home / 'stderr').read_text()}")
        return str(config)
