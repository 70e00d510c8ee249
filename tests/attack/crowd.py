"""Many attackers in a process of their own: ``-m tests.attack.crowd KIND COUNT PORT CA SECONDS``.

It says ``ready`` when each of them has sent what it could, and goes on until its input ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.attack.footprint import raise_limit

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["KINDS", "Crowd", "Kind", "user"]


@dataclass(frozen=True)
class Kind:
    """What one sort of attackers does.

    :param said: what they say again and again, as long as they can.
    :param log_in: whether they log in before.
    :param tls: whether they speak TLS.
    :param reads: octets that each of them reads in a second.
    :param opening: what they say once.
    """

    said: bytes
    log_in: bool = False
    tls: bool = False
    reads: int = 0
    opening: bytes = b""


KINDS: Final = {
    "line": Kind(b"x" * 65_536),
    "flood": Kind(b"CAPA\r\n" * 10_000),
    "sasl": Kind(b"A" * 65_536, opening=b"AUTH PLAIN "),
    "hello": Kind(b"", opening=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"h" * 100),
    "tls-flood": Kind(b"CAPA\r\n" * 2_500, tls=True),
    "pipeline": Kind(b"CAPA\r\nUIDL\r\nLIST 1\r\nLIST\r\n" * 4_000, log_in=True),
    "retr": Kind(b"RETR 1\r\n" * 1_000, log_in=True, reads=1),
    "tls-retr": Kind(b"RETR 1\r\n" * 1_000, log_in=True, tls=True, reads=1),
    "tls-pipeline": Kind(b"UIDL\r\nTOP 1 1\r\n" * 1_000, log_in=True, tls=True),
}
"""``hello`` is for the TLS port, and never goes on; ``retr`` reads an octet now and then."""

_SETTLED: Final = 1.0
"""Seconds in which nothing could be sent by anybody, until they are ready."""


def user(kind: str, number: int) -> str:
    """Return as whom an attacker logs in; the password is the same."""
    return f"{kind}{number}"


class _Attacker:
    def __init__(self, name: str, number: int, port: int, context: ssl.SSLContext) -> None:
        self._kind = KINDS[name]
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", port))
        self.socket: socket.socket = plain
        if self._kind.tls:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        if self._kind.log_in:
            name = user(name, number)
            self.socket.sendall(b"USER %b\r\nPASS %b\r\n" % (name.encode(), name.encode()))
            said = b""
            while said.count(b"\r\n") < 3:
                piece = self.socket.recv(1_000)
                if not piece or b"-ERR" in piece:
                    raise SystemExit(f"{name} is not let in: {said + piece!r}")
                said += piece
        self.socket.sendall(self._kind.opening)
        self.socket.setblocking(False)
        self._left = b""

    def attack(self) -> int:
        """Send what can be sent now; return how much that was."""
        total = 0
        try:
            while self._kind.said and total < 1_000_000:
                self._left = self._left or self._kind.said
                sent = self.socket.send(self._left)
                self._left = self._left[sent:]
                total += sent
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        return total

    def read(self) -> None:
        """Read as slowly as this kind does."""
        if self._kind.reads:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                self.socket.recv(self._kind.reads)


def _attack(name: str, count: int, port: int, ca: str, seconds: float) -> int:
    raise_limit(count + 100)
    os.nice(10)  # elsewhere they would not take the server's processor
    context = ssl.create_default_context(cafile=ca)
    attackers = [_Attacker(name, number, port, context) for number in range(count)]
    ready, begun = False, time.monotonic()
    moved = begun
    sent = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        now = time.monotonic()
        for attacker in list(attackers):
            try:
                amount = attacker.attack()
                attacker.read()
            except OSError:
                attackers.remove(attacker)
                amount = 0
            if amount:
                moved = now
                sent += amount
        if not ready and (now - moved > _SETTLED or now - begun > seconds or not attackers):
            ready = True
            print("ready", len(attackers), sent, flush=True)
        time.sleep(0.01 if moved == now else 0.3)
    print("done", len(attackers), sent, flush=True)
    return 0


class Crowd:
    """Attackers at work in another process.  A context manager.

    :param kind: one of `KINDS`.
    :param count: how many.
    :param port: where they connect.
    :param ca: path of the certificate that they trust.
    :param seconds: when they count as ready though they are still heard.
    """

    def __init__(self, kind: str, count: int, port: int, ca: str, seconds: float) -> None:
        self._command = [sys.executable, "-m", "tests.attack.crowd", kind, str(count)]
        self._command += [str(port), ca, str(seconds)]
        self._ready = False
        self.left = 0
        """How many were not thrown out when they were ready."""
        self.sent = 0
        """How many octets they could send."""

    def __enter__(self) -> Self:
        """Start them; they are not ready yet."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout
        return self

    def ready(self, seconds: float) -> bool:
        """Return whether they are ready, after so many seconds at most."""
        if not self._ready and select.select([self._out], [], [], seconds)[0]:
            self._take("ready")
            self._ready = True
        return self._ready

    def wait(self) -> None:
        """Wait until they are ready."""
        while not self.ready(60):
            pass

    def _take(self, word: str) -> None:
        said = self._out.readline().split()
        if said[:1] != [word]:
            raise AssertionError(f"the attackers gave up: {said}")
        self.left, self.sent = int(said[1]), int(said[2])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let them go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if error is None:
            self._take("done")
        else:
            self._process.kill()
        self._process.wait(30)
        self._out.close()


if __name__ == "__main__":
    _name, _count, _port, _ca, _seconds = sys.argv[1:]
    sys.exit(_attack(_name, int(_count), int(_port), _ca, float(_seconds)))
