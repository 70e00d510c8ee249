"""Starting the real ``twistd popd``: it serves, or says in one line why it does not."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd import demo
from tests.e2e.launch import TIME_LIMIT, Popd, free_port, start
from tests.e2e.server import until

GREETING = b"+OK "

HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="pop3")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does with a socket."""

LATE_ENDPOINT = """
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.task import deferLater
from twisted.plugin import IPlugin
from zope.interface import implementer

@implementer(IPlugin, IStreamServerEndpointStringParser, IStreamServerEndpoint)
class Late:
    prefix = "late"

    def parseStreamServer(self, reactor):
        self.reactor = reactor
        return self

    def listen(self, factory):
        return deferLater(self.reactor, 0.05, self.fail)

    def fail(self):
        raise OSError(98, "Address already in use")

late = Late()
"""
"""An endpoint that takes its time to find out that it cannot listen."""


class StartTestCase(SynchronousTestCase):
    """A test case with a directory that has all that popd needs."""

    def setUp(self) -> None:
        """Make a certificate, a password file and a Maildir."""
        directory = TemporaryDirectory(prefix="popd-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.demo = self.directory / "complete"
        self.password = demo.prepare(self.demo)
        self.arguments = [
            *("--certificate", str(self.demo / "server.pem")),
            *("--auth", f"popd-passwd:{self.demo / 'passwd'}"),
            *("--maildrop", f"maildir:{self.demo}/mail/{{local}}"),
        ]
        self.listen = ["--listen", "tcp:0:interface=127.0.0.1"]
        self.listen_tls = ["--listen-tls", "tcp:0:interface=127.0.0.1"]

    def greeting(self, address: tuple[str, int] | str) -> bytes:
        """Return what popd says at *address*, a TCP port or a path."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(TIME_LIMIT)
            client.connect(address)
            return client.recv(1024)

    def curl(self, port: int, *arguments: str, scheme: str = "pop3s") -> str:
        """Return what curl gets from popd at *port*."""
        if not shutil.which("curl"):
            raise SkipTest("there is no curl")
        return subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--max-time", str(TIME_LIMIT), *arguments),
                *("--cacert", str(self.demo / "server.pem"), "--user", f"demo:{self.password}"),
                f"{scheme}://127.0.0.1:{port}/",
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        ).stdout


class RefusedTests(StartTestCase):
    """What is wrong ends the start with one line, and nothing was bound."""

    def check_refused(self, cases: list[tuple[list[str], str]], *, logged: bool = False) -> None:
        """Start popd with each list of arguments, and look for each text on stderr.

        :param logged: the log had begun; no port was bound before it does.
        """
        processes = [
            start("-n", "--pidfile=", "popd", *arguments, cwd=self.directory)
            for arguments, _ in cases
        ]
        for process in processes:
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
        for process, (arguments, problem) in zip(processes, cases, strict=True):
            stdout, stderr = process.communicate(timeout=TIME_LIMIT)
            self.assertEqual(process.returncode, 1, arguments)
            self.assertRegex(stderr, r"\Atwistd popd: .*\n\Z", arguments)
            self.assertIn(problem, stderr)
            self.assertEqual(bool(stdout), logged, stdout)
            self.assertNotIn("Traceback", stdout)

    def written(self, name: str, content: str | bytes) -> str:
        """Return the path of a new file with *content*."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def test_options(self) -> None:
        """A wrong option is named."""
        good = self.arguments
        self.check_refused(
            [
                ([], "--certificate"),
                (["--frob"], "--frob"),
                ([*good, "now"], "now"),
                ([*good, "--cleartext-login", "maybe"], "never, local, always"),
                ([*good, "--missing-maildrop", "maybe"], "empty, error"),
                ([*good, "--default-domain", "../x"], "--default-domain"),
                ([*good, "--listen", "none", "--listen-tls", "none"], "--listen"),
                ([*good, "--listen", "tcp:pop3"], "--listen tcp:pop3"),
                ([*good, "--listen-tls", "tls"], "--listen-tls tls"),
                ([*good, "--listen", "tcp:123456"], "--listen tcp:123456"),
                ([*good, "--listen", "systemd:domain=INET:index=0"], "systemd"),
                ([*good, "--status", "tcp:9110"], "--status tcp:9110: whoever reaches this"),
                ([*good, "--status", "status"], "--status status"),
                ([*good, "--maildrop", "/srv"], "--maildrop"),
                ([*good, "--maildrop", "maildir:/srv/{home}"], "{home}"),
            ]
        )

    def test_files(self) -> None:
        """A wrong file is named."""
        good = self.arguments
        nowhere = str(self.directory / "nowhere")
        text = self.written("text", "Not what it should be.\n")
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.check_refused(
            [
                ([*good, "--certificate", nowhere], nowhere),
                ([*good, "--certificate", text], text),
                ([*good, "--private-key", nowhere], nowhere),
                ([*good, "--private-key", self.written("key", key)], "does not belong"),
                ([*good, "--auth", f"popd-passwd:{nowhere}"], nowhere),
                ([*good, "--auth", "popd-passwd"], "popd-passwd"),
                ([*good, "--auth", "nobody-knows"], "nobody-knows"),
                ([*good, "--auth", "anonymous"], "--auth"),
                (["--config", nowhere], nowhere),
                (["--config", text], "line 1"),
                (["--config", self.written("a", "maildorp = 'x'")], "did you mean 'maildrop'"),
                (["--config", self.written("b", "listen = 110")], "110"),
            ]
        )

    def test_no_place_for_the_demo(self) -> None:
        """A file in the place of the demo's directory is named."""
        self.written("popd-demo", "")
        self.check_refused([(["--demo"], "popd-demo")])

    def test_cannot_listen(self) -> None:
        """A port that cannot be had ends the start, even if others can."""
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
            good = [*self.arguments, *self.listen, *self.listen_tls]
            self.check_refused(
                [
                    ([*good, "--listen", port], f"--listen {port}: cannot listen: Address already"),
                    ([*good, "--listen-tls", port], f"--listen-tls {port}"),
                    ([*good, "--status", port], f"--status {port}: cannot listen: Address already"),
                    ([*good, "--listen", "tcp:0:interface=192.0.2.1"], "192.0.2.1"),
                    ([*good, "--listen", f"unix:{self.directory}/no/where"], "/no/where"),
                ],
                logged=True,
            )

    def test_daemon(self) -> None:
        """The parent of a daemon learns of a busy port; no PID file is left behind."""
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
            process = start(
                "popd", *self.arguments, "--listen", port, *self.listen_tls, cwd=self.directory
            )
            _, stderr = process.communicate(timeout=TIME_LIMIT)
        self.assertEqual(process.returncode, 1)
        self.assertIn(f"--listen {port}: cannot listen", stderr)
        log, pid = self.directory / "twistd.log", self.directory / "twistd.pid"
        # The daemon tells its parent first.
        until(lambda: "Address already in use" in log.read_text(), "the reason in the log")
        until(lambda: not pid.exists(), "no PID file")

    def test_later(self) -> None:
        """An endpoint that finds out later that it cannot listen ends popd with status 1."""
        plugins = self.directory / "late" / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "late_plugin.py").write_text(LATE_ENDPOINT)
        process = start(
            *("-n", "popd", *self.arguments, *self.listen, "--listen-tls", "late"),
            cwd=self.directory,
            environment={
                "PYTHONPATH": os.pathsep.join([str(plugins.parent.parent), *filter(None, sys.path)])
            },
        )
        stdout, stderr = process.communicate(timeout=TIME_LIMIT)
        self.assertEqual(
            stderr,
            "twistd popd: --listen-tls late: cannot listen: Address already in use"
            " (another program listens there)\n",
        )
        self.assertEqual(process.returncode, 1)
        self.assertIn("Server Shut Down", stdout)
        self.assertFalse((self.directory / "twistd.pid").exists())


class ServingTests(StartTestCase):
    """What is right is served."""

    def test_all_kinds_of_endpoints(self) -> None:
        """Every endpoint is listened on that popd is given, and the log says where."""
        path = str(self.directory / "socket")
        with socket.create_server(("127.0.0.1", 0)) as handed:
            popd = Popd(
                self,
                *("popd", *self.arguments),
                *(*self.listen, "--listen", f"unix:{path}"),
                *("--listen", "systemd:domain=INET:name=pop3", *self.listen_tls),
                cwd=self.directory,
                until="implicit TLS",
                wrapper=[sys.executable, "-c", HAND_OVER, str(handed.fileno())],
                pass_fds=[handed.fileno()],
            )
            tcp, systemd, tls = popd.ports
            self.assertEqual(systemd, handed.getsockname()[1])
        self.assertIn(f"Listening on {path}, cleartext with STLS", popd.log)
        for address in (("127.0.0.1", tcp), ("127.0.0.1", systemd), path):
            self.assertTrue(self.greeting(address).startswith(GREETING), address)
        self.assertIn("1 ", self.curl(tls))
        popd.stop()
        self.assertFalse(Path(path).exists())
        self.assertEqual(popd.stderr, "")

    def test_config(self) -> None:
        """A configuration file says all that the command line can."""
        config = self.directory / "popd.toml"
        certificate, key, end = (self.demo / "server.pem").read_text().partition("-----BEGIN PRIV")
        (self.directory / "certificate.pem").write_text(certificate)
        (self.directory / "private-key.pem").write_text(key + end)
        with (self.demo / "passwd").open("a") as file:
            file.write(f"demo@example.org:{{PLAIN}}{self.password}\n")
        config.write_text(
            f"""
            listen = ["tcp:0:interface=127.0.0.1"]
            listen-tls = "tcp:0:interface=127.0.0.1"
            certificate = "{self.directory}/certificate.pem"
            private-key = "{self.directory}/private-key.pem"
            auth = ["unix", "popd-passwd:{self.demo}/passwd"]
            maildrop = "maildir:{self.demo}/mail/{{local}}"
            default-domain = "example.org"
            cleartext-login = "always"
            missing-maildrop = "error"
            """
        )
        popd = Popd(self, "popd", "--config", str(config), cwd=self.directory, until="implicit TLS")
        cleartext, tls = popd.ports
        listing = self.curl(tls)
        self.assertEqual(len(listing.splitlines()), 4)
        self.assertEqual(self.curl(cleartext, scheme="pop3"), listing)
        self.assertEqual(self.curl(cleartext, "--ssl-reqd", scheme="pop3"), listing)

    def test_privileges(self) -> None:
        """Ports are bound before popd becomes somebody else."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        nobody = pwd.getpwnam("nobody").pw_uid
        popd = Popd(
            self,
            *("--uid=nobody", "popd", *self.arguments, *self.listen_tls),
            *("--listen", f"unix:{self.directory}/root-only"),
            cwd=self.directory,
            until="implicit TLS",
        )
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        self.assertEqual((self.directory / "root-only").stat().st_uid, 0)
        self.assertTrue(self.greeting(f"{self.directory}/root-only").startswith(GREETING))
        status = Path(f"/proc/{popd.process.pid}/status").read_text()
        self.assertRegex(status, rf"Uid:\t{nobody}\t{nobody}\t")


class DemoTests(StartTestCase):
    """``--demo`` needs nothing, and the command that it shows works."""

    def start_demo(self) -> tuple[Popd, str]:
        """Return a demo in a directory of its own, and the command it shows."""
        popd = Popd(
            self,
            *("popd", "--demo", *self.listen, *self.listen_tls),
            cwd=self.directory,
            until="Control-C",
        )
        (command,) = [line for line in popd.log.splitlines() if line.startswith("curl ")]
        return popd, command

    def shell(self, command: str) -> str:
        """Return what a shell command prints, when it is pasted somewhere else."""
        if not shutil.which("curl"):
            raise SkipTest("there is no curl")
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return subprocess.run(
            ["sh", "-c", command],
            check=True,
            capture_output=True,
            cwd=elsewhere,
            text=True,
            timeout=TIME_LIMIT,
        ).stdout

    def test_pasted(self) -> None:
        """The command lists the mail over TLS; with a number it shows a message; so does STLS."""
        popd, command = self.start_demo()
        cleartext, tls = popd.ports
        listing = self.shell(command)
        self.assertEqual([line.split()[0] for line in listing.splitlines()], ["1", "2", "3", "4"])
        self.assertIn("Subject: ", self.shell(f"{command}1"))
        stls = command.replace(
            f"pop3s://127.0.0.1:{tls}", f"--ssl-reqd pop3://127.0.0.1:{cleartext}"
        )
        self.assertEqual(self.shell(stls), listing)

    def test_next_start(self) -> None:
        """The next start finds the same user and the same mail."""
        popd, command = self.start_demo()
        listing = self.shell(command)
        popd.stop()
        popd, again = self.start_demo()
        self.assertEqual(command.rpartition(":")[0], again.rpartition(":")[0])
        self.assertEqual(self.shell(again), listing)
        self.assertEqual(popd.stop(), -15)
        self.assertEqual(popd.stderr, "")

    def test_ports(self) -> None:
        """Without other options it listens on ports 1110 and 1995 of this machine."""
        for port in (1110, 1995):
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError as error:
                raise SkipTest(f"port {port} is not free") from error
        popd = Popd(self, "popd", "--demo", cwd=self.directory, until="Control-C")
        self.assertIn("Listening on 127.0.0.1:1110, cleartext with STLS", popd.log)
        self.assertIn("Listening on 127.0.0.1:1995, implicit TLS", popd.log)

    def test_busy(self) -> None:
        """The demo's ports are only defaults, and a busy one is named."""
        with socket.create_server(("127.0.0.1", free_port())) as busy:
            port = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
            process = start("-n", "popd", "--demo", "--listen", port, cwd=self.directory)
            stdout, stderr = process.communicate(timeout=TIME_LIMIT)
        self.assertEqual(process.returncode, 1)
        self.assertIn(f"--listen {port}: cannot listen", stderr)
        self.assertNotIn("curl", stdout)
