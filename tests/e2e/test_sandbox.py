"""What somebody could do who had taken over a process that serves: nothing but read mail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest

import popd
from popd.sandbox.landlock import abi
from tests.e2e.server import PASSWORDS, RunningServer, ServerCase, until
from tests.e2e.test_workers import children

DENIED = "Permission denied"


class SandboxCase(ServerCase):
    """A server with places of its own for everything, and an intruder in it."""

    sandbox: ClassVar = "required" if os.geteuid() else "auto"
    workers: ClassVar = "2"

    def setUp(self) -> None:
        """Start it."""
        if not abi():
            raise SkipTest("this kernel has no Landlock")
        self.make_site()
        self.etc, self.state = self.site.root / "etc", self.site.root / "state"
        self.tls = self.site.root / "tls"
        for directory in (self.etc, self.state, self.tls):
            directory.mkdir()
        for path in (self.site.certificate, self.site.private_key):
            shutil.copy(path, self.tls)
        self.key = self.tls / self.site.private_key.name
        self.config = self.etc / "popd.toml"
        self.passwords = self.etc / "users" / "passwd"
        self.passwords.parent.mkdir()
        self.secret = self.site.root / "secret"
        self.secret.mkdir()
        (self.secret / "file").write_bytes(b"secret")
        plugins = self.site.root / "plugins"
        (plugins / "twisted" / "plugins").mkdir(parents=True)
        (plugins / "twisted" / "plugins" / "intruder_plugin.py").write_text(
            "from tests.e2e.intruder import IntruderFactory\nintruder = IntruderFactory()\n"
        )
        self.path = os.pathsep.join([str(Path(popd.__file__).parents[1]), str(plugins)])
        self.write_passwords("alice")
        self.configure()
        self.server = self.start_intruder()

    def write_passwords(self, *users: str) -> None:
        """Replace the password file."""
        new = self.passwords.with_name("new")
        new.write_text(
            "".join(f"{user}@example.org:{{PLAIN}}{PASSWORDS[user]}\n" for user in users)
        )
        new.replace(self.passwords)

    def configure(self, *auth: str, **more: str) -> None:
        """Write the configuration."""
        chain = auth or (f"popd-passwd:{self.passwords}", f"intruder:{self.site.mail}")
        values: dict[str, Any] = {
            "certificate": str(self.tls / self.site.certificate.name),
            "private-key": str(self.key),
            "auth": list(chain),
            "maildrop": f"maildir:{self.site.mail}/{{domain}}/{{local}}/Maildir",
            "default-domain": "example.org",
            "state-directory": str(self.state),
            "listen": "tcp:0:interface=127.0.0.1",
            "listen-tls": "tcp:0:interface=127.0.0.1",
            "workers": self.workers,
            "sandbox": self.sandbox,
            **more,
        }
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.config.write_text(text, encoding="utf-8")

    def start_intruder(self) -> RunningServer:
        """Start it."""
        server = RunningServer(self.site, config=self.config, path=self.path)
        server.__enter__()
        self.addCleanup(self._finish, server)
        return server

    def processes(self) -> list[int]:
        """Return the processes that serve."""
        if self.workers == "1":
            return [self.server.process.pid]
        until(lambda: self.server.log.count("accepts connections") >= 2, "there are no two workers")
        return sorted(children(self.server.process.pid))

    def tried(self, *attempts: tuple[str, object]) -> list[str]:
        """Have the intruder try something; return what was in the way of each."""
        plain = [(way, str(what) if isinstance(what, Path) else what) for way, what in attempts]
        (self.site.mail / "attempts").write_text(json.dumps(plain))
        client = self.tls_client()
        client.expect(b"USER bob")
        client.expect(b"PASS anything")
        client.expect(b"QUIT")
        found: list[str] = json.loads((self.site.mail / "results").read_text())
        return found

    def shut(self, *attempts: tuple[str, object], why: str = DENIED) -> None:
        """Check that none of this is possible."""
        self.assertEqual(self.tried(*attempts), [why] * len(attempts), attempts)

    def open(self, *attempts: tuple[str, object]) -> None:
        """Check that all of this is possible."""
        self.assertEqual(self.tried(*attempts), [""] * len(attempts), attempts)

    def reload(self, outcome: str = "Reloaded") -> None:
        """Reload, and wait for what becomes of it."""
        before = self.server.log.count(outcome)
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: self.server.log.count(outcome) > before, f"{outcome!r} is not in the log")

    def outside(self) -> tuple[tuple[str, object], ...]:
        """Return what nobody who serves needs."""
        return (
            ("read", self.secret / "file"),
            ("list", self.secret),
            ("append", self.secret / "file"),
            ("make", self.secret / "new"),
            ("remove", self.secret / "file"),
            ("read", "/etc/shadow"),
            ("read", "/etc/hostname"),
            ("list", "/root"),
            ("list", "/"),
            ("make", f"/var/tmp/popd-{os.getpid()}"),  # noqa: S108 - it should not get there
            ("append", self.passwords),
            ("append", self.config),
            ("make", self.etc / "new"),
            ("append", popd.__file__),
            ("make", Path(popd.__file__).with_name("new.py")),
            ("directory", self.site.mail / "new"),
            ("link", self.site.mail / "new"),
            ("execute", "/bin/true"),
        )


class WorkerTests(SandboxCase):
    """Workers beside a supervisor."""

    def test_reach(self) -> None:
        """Who has taken over a process that serves reaches the mail, and next to nothing else."""
        self.outside_is_shut()
        self.others_are_shut()
        self.inside_is_open()
        self.network_is_shut()
        self.privileges_are_gone()
        self.password_file_is_reread()
        self.log_tells()

    def outside_is_shut(self) -> None:
        """Nothing outside can be read, written, made, removed or executed."""
        self.shut(*self.outside())

    def others_are_shut(self) -> None:
        """Configuration and key are out of reach, as is Python's interpreter."""
        self.shut(
            ("read", self.config),
            ("read", self.key),
            ("list", self.tls),
            ("execute", os.path.realpath(sys.executable)),
        )

    def inside_is_open(self) -> None:
        """What is needed to serve can be had."""
        self.open(
            ("make", self.site.mail / "new"),
            ("read", self.site.mail / "new"),
            ("append", self.site.mail / "new"),
            ("remove", self.site.mail / "new"),
            ("read", self.passwords),
            ("make", self.state / "new"),
            ("remove", self.state / "new"),
            ("read", "/dev/urandom"),
            ("import", "xml.dom.minidom"),
        )

    def network_is_shut(self) -> None:
        """Nobody is connected to, and nothing is listened on, over TCP."""
        if abi() < 4:
            return  # this kernel's Landlock knows no network
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.shut(("connect", server.getsockname()[1]), ("bind", 0))

    def privileges_are_gone(self) -> None:
        """No worker has capabilities, or can come by any; nor can it send signals to others."""
        for pid in self.processes():
            text = Path(f"/proc/{pid}/status").read_text()
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertRegex(text, rf"(?m)^{kind}:\t0+$")
            if os.geteuid() == 0:
                self.assertRegex(text, r"(?m)^CapBnd:\t0+$")
            self.assertRegex(text, r"(?m)^NoNewPrivs:\t1$")
        self.shut(("become", os.geteuid() + 1), why="Operation not permitted")
        if abi() >= 6:
            self.shut(("signal", os.getpid()), why="Operation not permitted")

    def password_file_is_reread(self) -> None:
        """A password file that is replaced counts at once."""
        self.write_passwords("alice", "carol")
        client = self.logged_in("carol")
        client.expect(b"QUIT")

    def test_reload(self) -> None:
        """Workers of another configuration reach what that names, and no more what it does not."""
        elsewhere = self.site.root / "elsewhere"
        elsewhere.mkdir()
        self.passwords.rename(elsewhere / "passwd")
        self.configure(f"popd-passwd:{elsewhere}/passwd", f"intruder:{self.site.mail}")
        before = self.processes()
        self.reload()
        until(lambda: not set(before) & children(self.server.process.pid), "the old ones stay")
        self.logged_in().expect(b"QUIT")
        self.open(("list", elsewhere))
        self.shut(("list", self.passwords.parent))

    def log_tells(self) -> None:
        """The log says that they are confined."""
        self.assertRegex(self.server.log, r"Workers: confined by Landlock, version \d")


class AloneTests(WorkerTests):
    """One process that does all."""

    workers = "1"

    def others_are_shut(self) -> None:
        """What it needs to reload can be read, but not written."""
        self.open(("read", self.config), ("read", self.key))
        self.shut(("append", self.config))

    def network_is_shut(self) -> None:
        """Nobody is connected to over TCP."""
        if abi() < 4:
            return  # this kernel's Landlock knows no network
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.shut(("connect", server.getsockname()[1]))

    def privileges_are_gone(self) -> None:
        """It has no capabilities, and can come by none."""
        self.processes()
        text = Path(f"/proc/{self.server.process.pid}/status").read_text()
        self.assertEqual(len(re.findall(r"(?m)^Cap(?:Inh|Prm|Eff|Amb):\t0+$", text)), 4)
        self.assertRegex(text, r"(?m)^NoNewPrivs:\t1$")

    def test_reload(self) -> None:
        """A configuration that names another place needs a restart, and says so in a line."""
        elsewhere = self.site.root / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "passwd").write_bytes(self.passwords.read_bytes())
        self.configure(f"popd-passwd:{elsewhere}/passwd")
        self.reload("Not reloaded: ")
        line = self.server.log.rpartition("Not reloaded: ")[2].splitlines()[0]
        self.assertIn(f"{elsewhere}", line)
        self.assertIn("restart", line)
        self.logged_in().expect(b"QUIT")
        self.configure(**{"idle-timeout": "700"})
        self.reload()
        self.logged_in().expect(b"QUIT")

    def log_tells(self) -> None:
        """The log says that it is confined."""
        self.assertRegex(self.server.log, r"popd: confined by Landlock, version \d")


class RootTests(SandboxCase):
    """Root, who may do everything to its own files even without privileges."""

    def test_required(self) -> None:
        """Nobody is served by root where the sandbox is required, but by another user."""
        if os.geteuid():
            raise SkipTest("only root is root")
        self.sandbox = "required"  # type: ignore[misc]
        self.configure()
        self.server.stop()
        with (
            contextlib.suppress(AssertionError),
            RunningServer(self.site, config=self.config, path=self.path) as server,
        ):
            until(lambda: server.process.poll() is not None, "root serves")
        log = max(self.site.root.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        self.assertIn("popd does not serve as root", log.read_text())
        for path in [self.site.root, *self.site.root.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        server = RunningServer(self.site, config=self.config, path=self.path)
        server.twistd = ("--uid", "65534", "--gid", "65534")
        server.__enter__()
        self.addCleanup(self._finish, server)
        self.server = server
        self.logged_in().expect(b"QUIT")
        for pid in [server.process.pid, *self.processes()]:
            text = Path(f"/proc/{pid}/status").read_text()
            self.assertRegex(text, r"(?m)^Uid:\t65534\t65534\t65534\t65534$")
            self.assertRegex(text, r"(?m)^CapEff:\t0+$")
            self.assertRegex(text, r"(?m)^CapPrm:\t0+$")


class MountTests(SandboxCase):
    """A disk that is mounted anew."""

    def mount(self, *arguments: str) -> None:
        """Mount or unmount something."""
        done = subprocess.run(arguments, check=False, capture_output=True)
        if done.returncode:
            raise SkipTest("needs the right to mount")

    def test_mounted(self) -> None:
        """Workers that cannot reach it are replaced."""
        before = set(self.processes())
        self.mount("mount", "--bind", str(self.site.mail), str(self.site.mail))
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.site.mail)], check=False)
        until(lambda: "something was mounted" in self.server.log, "the mount is not noticed")
        until(lambda: "Reloaded" in self.server.log, "it is not reloaded")
        pid = self.server.process.pid
        until(lambda: not before & children(pid), "the old workers stay")
        self.logged_in().expect(b"QUIT")


class OffTests(SandboxCase):
    """Without the sandbox all of that is possible, so the tests above can fail."""

    sandbox = "off"

    def test_outside(self) -> None:
        """Whoever may do it, does it; privileges are given up all the same."""
        self.open(
            ("read", self.secret / "file"),
            ("make", self.secret / "new"),
            ("read", "/etc/hostname"),
            ("list", "/"),
            ("make", self.etc / "new"),
            ("directory", self.site.mail / "new"),
            ("execute", "/bin/true"),
            ("bind", 0),
        )
        for pid in self.processes():
            text = Path(f"/proc/{pid}/status").read_text()
            self.assertRegex(text, r"(?m)^CapEff:\t0+$")
            self.assertRegex(text, r"(?m)^NoNewPrivs:\t1$")
