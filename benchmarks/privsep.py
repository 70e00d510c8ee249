"""What it would cost to part who talks to strangers from who has the mail, for each log-in.

A session is: connect with TLS, USER, PASS, QUIT.  Processor time of the server's processes a
session, as the kernel counts it (``/proc/PID/schedstat``), in three shapes:

``whole``
    popd as it is: one process has TLS, the password file and the mail.

``least``
    A front has TLS and nothing else, and popd, behind it, the rest.  OpenSSL's state cannot be
    handed to another process, so whoever made the handshake has to carry every octet to the end.
    The front is a loop around epoll and nothing else, less than any real one.

``parted``
    The same with popd's own reactor, ports and transports in the front.  A real one would have to
    understand commands besides, and keep time-outs and limits.

``asked``
    What comes on top if a third process checks the password: one question and one answer.

``--handshakes`` has clients resume no TLS sessions.  Needs nothing but popd.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trustme
from OpenSSL import SSL
from twisted.internet.protocol import Protocol

from popd.server.port import Lobby, make_prompt
from popd.server.reactor import LeanReactor
from popd.server.tls import load_context
from popd.server.transport import PromptServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST: Final = "127.0.0.1"
LISTEN: Final = f"tcp:0:interface={HOST}"
PASSWORD: Final = "a secret"  # noqa: S105 - of a user who is made here
COMMANDS: Final = (b"USER ada\r\n", f"PASS {PASSWORD}\r\n".encode(), b"QUIT\r\n")
LIMIT: Final = 30.0
_PIECE: Final = 1 << 16


def spent(*pids: int) -> float:
    """Return the microseconds of processor time that processes have had."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1000


class Front:
    """Has TLS with clients, and carries what they say to popd and back.

    :param certificate: a PEM file, with the key.
    :param port: popd's.
    """

    def __init__(self, certificate: str, port: int) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_chain_file(certificate)
        self._context.use_privatekey_file(certificate)
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._port = port
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}

    def run(self, listening: socket.socket) -> None:
        """Serve until the process is ended."""
        self._watch(listening, lambda: self._accept(listening))
        while True:
            for descriptor, _ in self._poll.poll():
                call = self._calls.get(descriptor)
                if call is not None:
                    call()

    def _watch(self, end: socket.socket, call: Callable[[], None]) -> None:
        self._calls[end.fileno()] = call
        self._poll.register(end.fileno(), select.EPOLLIN)

    def _accept(self, listening: socket.socket) -> None:
        client, _ = listening.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = SSL.Connection(self._context, client)
        tls.set_accept_state()
        self._watch(client, lambda: self._shake(client, tls))

    def _shake(self, client: socket.socket, tls: SSL.Connection) -> None:
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            return
        behind = socket.create_connection((HOST, self._port))
        behind.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        behind.setblocking(False)
        self._calls[client.fileno()] = lambda: self._inwards(client, tls, behind)
        self._watch(behind, lambda: self._outwards(client, tls, behind))

    def _inwards(self, client: socket.socket, tls: SSL.Connection, behind: socket.socket) -> None:
        try:
            behind.send(tls.recv(_PIECE))
        except SSL.WantReadError:
            return
        except (SSL.Error, OSError):
            self._end(client, behind)

    def _outwards(self, client: socket.socket, tls: SSL.Connection, behind: socket.socket) -> None:
        data = behind.recv(_PIECE)
        if data:
            tls.send(data)
        else:
            with suppress(SSL.Error):
                tls.shutdown()
            self._end(client, behind)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            self._poll.unregister(end.fileno())
            del self._calls[end.fileno()]
            end.close()


class Relay(Protocol):
    """Carries what it hears to its partner; behind it, if it is not given one, popd.

    :param reactor: the front's.
    :param port: popd's.
    :param partner: the other end.
    """

    introduction = None
    over = False
    transport: Any

    def __init__(self, reactor: Any, port: int, partner: Any = None) -> None:
        self._reactor = reactor
        self._port = port
        self.partner = partner

    def connectionMade(self) -> None:
        """Connect to popd."""
        if self.partner is None:
            end = socket.create_connection((HOST, self._port))
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
            self.partner = Relay(self._reactor, self._port, self)
            port: Any = self.transport.server
            transport = PromptServer(end, self.partner, end.getpeername(), port, 0, self._reactor)
            self.partner.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Carry."""
        self.partner.transport.write(data)

    def readConnectionLost(self) -> None:
        """One end says no more."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """One end is gone."""
        self.partner.transport.loseConnection()


class Gate:
    """Lets everybody in."""

    proxies = None


class Relays:
    """Makes relays.

    :param reactor: the front's.
    :param port: popd's.
    """

    gate = Gate

    def __init__(self, reactor: Any, port: int) -> None:
        self._reactor = reactor
        self._port = port

    def buildProtocol(self, _: object) -> Relay:
        """Return one."""
        return Relay(self._reactor, self._port)


def run_driver(certificate: str, behind: int, listening: socket.socket) -> None:
    """Serve as `Front` does, with popd's own driver."""
    reactor: Any = LeanReactor()
    lobby = Lobby(load_context((certificate,), ()))
    lobby.target = Relays(reactor, behind)  # type: ignore[assignment]
    listening.setblocking(False)
    make_prompt(reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, lobby))
    reactor.run(installSignalHandlers=False)


def answer(end: socket.socket) -> None:
    """Answer questions about passwords as somebody would who need not look for them."""
    poll = select.epoll()
    poll.register(end.fileno(), select.EPOLLIN)
    while True:
        poll.poll()
        question = end.recv(_PIECE)
        if not question:
            return
        asked = json.loads(question)
        end.send(
            json.dumps({"user": asked["user"], "right": asked["password"] == PASSWORD}).encode()
        )


def asking(count: int) -> float:
    """Return the microseconds that a question and its answer cost both processes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        answer(theirs)
        os._exit(0)
    theirs.close()
    poll = select.epoll()
    poll.register(ours.fileno(), select.EPOLLIN)
    before = spent(pid, os.getpid())
    for _ in range(count):
        ours.send(json.dumps({"user": "ada@example.org", "password": PASSWORD}).encode())
        poll.poll()
        json.loads(ours.recv(_PIECE))
    cost = (spent(pid, os.getpid()) - before) / count
    ours.close()
    os.waitpid(pid, 0)
    return cost


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"no {what} within {LIMIT:g} s")
        time.sleep(0.02)
    return found


class Site:
    """A user with a little mail, and popd for it.

    :param root: where.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        self.certificate = root / "cert.pem"
        self.certificate.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        maildir = root / "mail" / "ada"
        for name in ("new", "cur", "tmp"):
            (maildir / name).mkdir(parents=True)
        for number in range(10):
            (maildir / "new" / f"{number}.x").write_bytes(b"Subject: x\n\nx\n" * 50)
        (root / "passwd").write_text(f"ada:{{PLAIN}}{PASSWORD}\n", encoding="ascii")

    def popd(self) -> tuple[subprocess.Popen[bytes], int, int]:
        """Start popd in one process; return it, and its ports without TLS and with it."""
        log = self.root / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command(),
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.root,
            )
        until(lambda: b"implicit TLS" in log.read_bytes(), "popd")
        cleartext, tls = (
            int(port) for port in re.findall(r"Listening on \S+:(\d+),", log.read_text())
        )
        return process, cleartext, tls

    def _command(self) -> list[str]:
        return [
            str(Path(sys.executable).with_name("twistd")),
            *("-n", "--pidfile=", "popd", "--workers", "1", "--sandbox", "off"),
            *("--listen", LISTEN, "--listen-tls", LISTEN),
            *("--certificate", str(self.certificate), "--cleartext-login", "always"),
            *("--auth", f"popd-passwd:{self.root}/passwd", "--control", "none"),
            *("--maildrop", f"maildir:{self.root}/mail/{{local}}"),
            *("--state-directory", str(self.root)),
        ]


def sessions(context: ssl.SSLContext, port: int, count: int, *, resume: bool) -> None:
    """Have so many sessions, one after the other."""
    ticket = None
    for _ in range(count):
        with socket.create_connection((HOST, port)) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain, server_hostname="localhost", session=ticket) as end:
                end.recv(_PIECE)
                for command in COMMANDS:
                    end.send(command)
                    reply = end.recv(_PIECE)
                    if not reply.startswith(b"+OK"):
                        sys.exit(f"{command!r} is answered with {reply!r}")
                ticket = end.session if resume else None


def forked(work: Callable[[], None]) -> int:
    """Do something in another process, and return that."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def rounds(count: int, times: int, *, resume: bool) -> Iterator[list[float]]:
    """Yield the microseconds of a session: whole, with the least front, and with popd's driver."""
    with ExitStack() as stack:
        site = Site(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        popd, behind, port = site.popd()
        stack.callback(popd.wait)
        stack.callback(popd.terminate)
        shapes = [(port, (popd.pid,))]
        certificate = str(site.certificate)
        for run in (Front(certificate, behind).run, partial(run_driver, certificate, behind)):
            listening = socket.create_server((HOST, 0), backlog=128)
            front = forked(partial(run, listening))
            stack.callback(os.waitpid, front, 0)
            stack.callback(os.kill, front, signal.SIGKILL)
            shapes.append((listening.getsockname()[1], (popd.pid, front)))
        for one, _ in shapes:
            sessions(site.context, one, 50, resume=resume)
        for _ in range(times):
            found = []
            for one, pids in shapes:
                before = spent(*pids)
                sessions(site.context, one, count, resume=resume)
                found.append((spent(*pids) - before) / count)
            yield found


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description="What parting the processes would cost.")
    parser.add_argument("--sessions", type=int, default=300, help="in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--handshakes", action="store_true", help="resume no TLS sessions")
    given = parser.parse_args()
    found = list(rounds(given.sessions, given.rounds, resume=not given.handshakes))
    questions = [asking(given.sessions * 4) for _ in range(given.rounds)]
    asked = statistics.median(questions)
    print(f"processor time of a session, medians of {given.rounds} x {given.sessions}:")
    columns = dict(zip(("whole", "least", "parted"), zip(*found, strict=True), strict=True))
    whole = statistics.median(columns["whole"])
    for name, column in columns.items():
        middle = statistics.median(column)
        more = 100 * (middle / whole - 1)
        print(f"{name:8} {middle:6.0f} us {more:+4.0f} %  (from {min(column):.0f})")
    print(f"asked    {asked:6.0f} us {100 * asked / whole:+4.0f} %")


if __name__ == "__main__":
    main()
