"""The real server for end-to-end tests: a site with mail, twistd, and a scripted client."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import argon2
import bcrypt
import trustme
from twisted.trial.itrial import IReporter
from twisted.trial.reporter import TestResultDecorator
from twisted.trial.unittest import SynchronousTestCase

import popd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["LIMIT", "PASSWORDS", "Client", "RunningServer", "ServerCase", "Site", "stored", "until"]

LIMIT: Final = 20.0
"""Seconds that anything may take.  All of it takes far less unless something is broken."""

PASSWORDS: Final[Mapping[str, str]] = {
    name: f"secret-of-{name}" for name in ("alice", "bob", "carol", "dave", "erin")
}
"""The users and their passwords; each is stored by another scheme."""

_LOOPBACK: Final = "tcp:0:interface=127.0.0.1"
_LISTENING: Final = re.compile(
    r"Listening on 127\.0\.0\.1:(\d+), ([A-Za-z ]+)(?:\"\})?$", re.MULTILINE
)


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait until *condition* returns something true, and return it.

    :param what: what does not happen if it never does.
    """
    end = time.monotonic() + limit
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit} seconds in vain: {what}")
        time.sleep(0.01)
    return result


def stored(wire: bytes) -> bytes:
    """Return a message with LF line ends, the last one included: what clients mostly keep."""
    text = wire.replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"


@functools.cache
def _authority() -> tuple[trustme.CA, trustme.LeafCert]:
    authority = trustme.CA()
    # fetchmail looks for a common name.
    names = ("localhost", "127.0.0.1")
    return authority, authority.create_child_ca().issue_cert(*names, common_name="localhost")


@functools.cache
def _password_file() -> str:
    salt = b"12345678"
    digest = hashlib.sha512(PASSWORDS["bob"].encode() + salt).digest()
    fields = {
        "alice": "{PLAIN}" + PASSWORDS["alice"],
        "bob": "{SSHA512}" + base64.b64encode(digest + salt).decode("ascii"),
        "carol": "{ARGON2ID}"
        + argon2.PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORDS["carol"]),
        "dave": "{BLF-CRYPT}"
        + bcrypt.hashpw(PASSWORDS["dave"].encode(), bcrypt.gensalt(4)).decode("ascii"),
        "erin": "{SHA512-CRYPT}$6$saltsalt$"
        "oUmtolOFa2Ej1Fj0wbMBFOXTnYUPeOSvZVkjVMuuku2.sY2OGm0Q/uG7Ytvi8mzn0Sv6NmCSdJOqhuGrLhASU.",
    }
    # Dovecot's other fields stand there to be ignored.
    return "".join(
        f"{name}@example.org:{field}:1000:1000::/x::\n" for name, field in fields.items()
    )


class Site:
    """Certificate, password file and Maildirs beneath a directory.

    :param root: the directory.
    """

    _serial = itertools.count(1)

    def __init__(self, root: Path) -> None:
        self.root = root
        authority, leaf = _authority()
        self.ca = root / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.certificate = root / "chain.pem"
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(str(self.certificate), append=True)
        self.private_key = root / "key.pem"
        leaf.private_key_pem.write_to_path(str(self.private_key))
        self.passwords = root / "passwd"
        self.passwords.write_text(_password_file(), encoding="ascii")
        self.mail = root / "mail"
        for user in PASSWORDS:
            for directory in ("tmp", "new", "cur"):
                (self.maildir(user) / directory).mkdir(parents=True)

    def add_user(self, user: str, field: str = "") -> None:
        """Add a user; the password is *user* too.

        :param field: the password as it is stored.
        """
        with self.passwords.open("a", encoding="ascii") as file:
            file.write(f"{user}@example.org:{field or f'{{PLAIN}}{user}'}\n")
        for directory in ("tmp", "new", "cur"):
            (self.maildir(user) / directory).mkdir(parents=True)

    def maildir(self, user: str) -> Path:
        """Return where the Maildir of *user* is."""
        return self.mail / "example.org" / user / "Maildir"

    def deliver(self, user: str, content: bytes) -> Path:
        """Deliver a message as the Maildir specification says; return the path of its file."""
        serial = next(self._serial)
        name = f"{1_700_000_000 + serial}.M{serial}P{os.getpid()}.mx.example.org"
        new = self.maildir(user) / "new" / name
        temporary = self.maildir(user) / "tmp" / name
        temporary.write_bytes(content)
        return temporary.rename(new)

    def messages(self, user: str) -> list[Path]:
        """Return the message files of *user*."""
        maildir = self.maildir(user)
        return sorted(path for at in ("new", "cur") for path in (maildir / at).iterdir())

    def client_context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the site's authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca))


class RunningServer:
    """The real server, from the real twistd, in a process of its own.  A context manager.

    :param site: what it serves.
    :param options: more command line options.
    :param workers: how many; empty if the configuration says it.
    :param listen: whether to listen in cleartext, if the configuration does not say where.
    :param pidfile: where twistd writes down its process id.
    :param config: a configuration file that says everything, in place of the site's options.
    :param path: where Python looks for modules, after the site's directory.
    """

    program: tuple[str, ...] = (str(Path(sys.executable).with_name("twistd")),)
    """What is run."""

    twistd: tuple[str, ...] = ()
    """Options of twistd."""

    def __init__(
        self,
        site: Site,
        *options: str,
        workers: str = "1",
        listen: bool = True,
        pidfile: str = "",
        config: Path | None = None,
        path: str = str(Path(popd.__file__).parents[1]),
    ) -> None:
        self._config = config
        self._path = path
        self.site = site
        self._options = options
        self._workers = workers
        self._listen = listen
        self._pidfile = pidfile
        self._log = Path(tempfile.mkstemp(dir=site.root, suffix=".log")[1])
        self.port = 0
        """The port for cleartext with STLS."""
        self.tls_port = 0
        """The port for implicit TLS."""

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        site = self.site
        command = [
            *self.program,
            *("-n", f"--pidfile={self._pidfile}", *self.twistd, "popd"),
            *(self._arguments() if self._config is None else ("--config", str(self._config))),
            *self._options,
        ]
        # A test may put another popd into the site's directory.
        environment = dict(os.environ, PYTHONPATH=f"{site.root}{os.pathsep}{self._path}")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=site.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until(self._listens, "the server does not listen")
        except BaseException:
            self.kill()
            sys.stderr.write(self.log)
            raise
        return self

    def _arguments(self) -> tuple[str, ...]:
        """Return the options that make the site."""
        site = self.site
        return (
            *(("--listen", _LOOPBACK) if self._listen else ()),
            *("--listen-tls", _LOOPBACK),
            *("--certificate", str(site.certificate), "--private-key", str(site.private_key)),
            *("--auth", f"popd-passwd:{site.passwords}"),
            *("--maildrop", f"maildir:{site.mail}/{{domain}}/{{local}}/Maildir"),
            *("--default-domain", "example.org"),
            *("--state-directory", str(site.root)),
            *(("--workers", self._workers) if self._workers else ()),
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server has ended with {self.process.returncode}")
        ports = {purpose: int(port) for port, purpose in _LISTENING.findall(self.log)}
        self.port = ports.get("cleartext with STLS", 0)
        self.tls_port = ports.get("implicit TLS", 0)
        return bool((self.port or not self._listen) and self.tls_port)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def memory(self) -> int:
        """How many octets of memory it has in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def stop(self) -> None:
        """Ask it to end, and make it if it does not.  A second call does nothing."""
        self.process.terminate()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(LIMIT)


class Client:
    """A client that says what the test says.  A context manager.

    :param port: where on this machine the server listens; or the path of a UNIX socket.
    :param tls: how to speak TLS from the first octet, or None for cleartext.
    :param greeted: whether to read the greeting.
    :param receive_buffer: how many octets the kernel keeps unread, or 0 for its default.
    :param source: the IPv4 address to come from; empty for the one that the kernel chooses.
    """

    def __init__(
        self,
        port: int | str,
        tls: ssl.SSLContext | None = None,
        *,
        greeted: bool = True,
        receive_buffer: int = 0,
        source: str = "",
    ) -> None:
        self.socket: socket.socket
        if isinstance(port, str):
            self.socket = socket.socket(socket.AF_UNIX)
            address: Any = port
        else:
            self.socket = socket.socket()
            address = ("127.0.0.1", port)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._buffer = bytearray()
        try:
            self.socket.settimeout(LIMIT)
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(address)
            if self.socket.family == socket.AF_INET:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.secure(tls)
            self.greeting = self.line() if greeted else b""
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def secure(self, context: ssl.SSLContext) -> None:
        """Start TLS.  Nothing that the server sent may be left unread."""
        assert not self._buffer, bytes(self._buffer)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def stls(self, context: ssl.SSLContext) -> None:
        """Ask for TLS and start it."""
        self.expect(b"STLS")
        self.secure(context)

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.socket.sendall(data)

    def receive(self) -> bool:
        """Read what there is; return whether there may be more."""
        data = self.socket.recv(1 << 18)
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        """Return what comes up to *mark*, and drop that."""
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            if not self.receive():
                raise AssertionError(f"connection closed after {bytes(self._buffer[-80:])!r}")
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def line(self) -> bytes:
        """Return the next line, without its end."""
        line = self._until(b"\r\n")
        assert b"\n" not in line, line
        return line

    def body(self) -> bytes:
        """Return the lines of a multi-line reply as they are meant."""
        self._buffer[:0] = b"\r\n"  # the end of the status line
        body = self._until(b"\r\n.\r\n").replace(b"\r\n..", b"\r\n.")
        return body[2:] + b"\r\n" if body else b""

    def rest(self) -> bytes:
        """Return all that comes until the connection ends, be it with a FIN or an RST."""
        with contextlib.suppress(ConnectionResetError):
            while self.receive():
                pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def ask(self, command: bytes) -> bytes:
        """Send a command and return the first line of the reply."""
        self.send(command + b"\r\n")
        return self.line()

    def expect(self, command: bytes, status: bytes = b"+OK") -> bytes:
        """Send a command, check how the reply begins, and return its first line."""
        reply = self.ask(command)
        if not reply.startswith(status):
            raise AssertionError(f"{command!r} was answered with {reply!r}, not {status!r}")
        return reply

    def fetch(self, number: int) -> bytes:
        """Return a message."""
        self.expect(b"RETR %d" % number)
        return self.body()

    def log_in(self, user: str = "alice") -> None:
        """Log in with USER and PASS."""
        self.expect(b"USER " + user.encode())
        self.expect(b"PASS " + PASSWORDS.get(user, user).encode())

    def close(self) -> None:
        """Close the connection, without TLS's good-bye."""
        self.socket.close()

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Watched(TestResultDecorator):
    """A test result that knows whether the test failed."""

    failed = False

    def addError(self, test: Any, error: Any) -> None:
        """Pass on an error."""
        self.failed = True
        super().addError(test, error)

    def addFailure(self, test: Any, failure: Any) -> None:
        """Pass on a failure."""
        self.failed = True
        super().addFailure(test, failure)


class ServerCase(SynchronousTestCase):
    """A test case with a site and a running server, whose log is shown when a test fails."""

    options: tuple[str, ...] = ()
    """More command line options for the server."""

    def setUp(self) -> None:
        """Make the site and start the server."""
        self.make_site()
        self.server = self.start(*self.options)

    def make_site(self) -> None:
        """Make the site."""
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        Path(directory.name).chmod(0o755)
        self.site = Site(Path(directory.name))

    def run(self, result: Any = None) -> None:
        """Run the test, and show what the server logged if it fails."""
        self._logs = ""
        if not IReporter.providedBy(result):
            super().run(result)
            return
        watched = Watched(result)
        super().run(watched)
        if watched.failed:
            sys.stderr.write(f"\n{self.id()}: the server's log:\n{self._logs}\n")

    def start(self, *options: str) -> RunningServer:
        """Start a server that is stopped, and its log looked through, when the test is over."""
        server = RunningServer(self.site, *options)
        server.__enter__()
        self.addCleanup(self._finish, server)
        return server

    def _finish(self, server: RunningServer) -> None:
        server.stop()
        self._logs += server.log
        if self.getTodo() is None:  # else it is expected to fail, and this is no part of the test
            for word in ("Traceback", "Unhandled"):
                self.assertFalse(word in server.log, f"{word} in the log, see above")

    def client(self, port: int | str | None = None, *, greeted: bool = True) -> Client:
        """Connect, by default in cleartext."""
        client = Client(self.server.port if port is None else port, greeted=greeted)
        self.addCleanup(client.close)
        return client

    def raw_client(self) -> Client:
        """Connect to the port for implicit TLS, and say nothing yet."""
        client = Client(self.server.tls_port, greeted=False)
        self.addCleanup(client.close)
        return client

    def tls_client(self, *, receive_buffer: int = 0) -> Client:
        """Connect with implicit TLS."""
        context = self.site.client_context()
        client = Client(self.server.tls_port, context, receive_buffer=receive_buffer)
        self.addCleanup(client.close)
        return client

    def logged_in(self, user: str = "alice") -> Client:
        """Connect with implicit TLS, and log in."""
        client = self.tls_client()
        client.log_in(user)
        return client

    def log_in_when_free(self, user: str = "alice") -> Client:
        """Log in as soon as nobody else holds the maildrop."""

        def attempt() -> Client | None:
            client = self.tls_client()
            client.expect(b"USER " + user.encode())
            reply = client.ask(b"PASS " + PASSWORDS[user].encode())
            if reply.startswith(b"+OK"):
                return client
            client.close()
            self.assertTrue(reply.startswith(b"-ERR [IN-USE]"), reply)
            return None

        client: Client = until(attempt, "the maildrop stays in use")
        return client
