"""Whether log-ins of users who exist and of users who do not can be told apart by time.

``python benchmarks/enumeration.py [SAMPLES]`` starts popd with users whose passwords are stored in
several ways, sends wrong passwords for a user who exists, for one who is disabled and, with the
right password, for that one again, and for names that nobody has, in random order over a UNIX
socket, where nobody is made to wait, and prints how long the replies took.

The last column is the probability that a log-in of this kind takes longer than one of an unknown
user: 50 % means that nobody can tell, and of 1,000 samples up to 2.6 % more or less is chance
(two standard deviations).
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import argon2

from popd.auth import scramkeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES: Final = 1000
ATTEMPTS: Final = 8
"""Log-ins on one connection, of the ten mistakes that popd forgives."""

PASSWORD: Final = b"correct horse"
KINDS: Final = (
    "known",
    "disabled",
    "disabled, right password",
    "unknown",
    "unknown, ever new",
    "impossible",
)


class Connection:
    """A connection to popd that is made anew in time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._left = 0

    def ready(self) -> None:
        """Be good for another log-in."""
        if self._left == 0:
            with contextlib.suppress(AttributeError):
                self._socket.close()
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(self._path)
            self._file = self._socket.makefile("rb")
            self._file.readline()
            self._left = ATTEMPTS
        self._left -= 1

    def ask(self, line: bytes) -> bytes:
        """Send a command or a response, and return the reply."""
        self._socket.sendall(line + b"\r\n")
        return self._file.readline().rstrip(b"\r\n")


def by_pass(connection: Connection, name: bytes, password: bytes) -> Iterator[float]:
    """Log in by USER and PASS."""
    connection.ask(b"USER " + name)
    yield timed(lambda: connection.ask(b"PASS " + password))


def by_plain(connection: Connection, name: bytes, password: bytes) -> Iterator[float]:
    """Log in by AUTH PLAIN."""
    response = base64.b64encode(b"\0" + name + b"\0" + password)
    yield timed(lambda: connection.ask(b"AUTH PLAIN " + response))


def by_digest(connection: Connection, name: bytes, password: bytes) -> Iterator[float]:
    """Log in by CRAM-MD5, with a digest that is not right."""
    del password
    connection.ask(b"AUTH CRAM-MD5")
    response = base64.b64encode(name + b" " + b"0" * 32)
    yield timed(lambda: connection.ask(response))


def by_scram(connection: Connection, name: bytes, password: bytes) -> Iterator[float]:
    """Log in by SCRAM-SHA-256: how long the keys take, and the proof that is not right."""
    del password
    first = base64.b64encode(b"n,,n=" + name + b",r=0123456789")
    challenge: list[bytes] = []
    yield timed(lambda: challenge.append(connection.ask(b"AUTH SCRAM-SHA-256 " + first)))
    nonce = base64.b64decode(challenge[0][2:]).partition(b",")[0]
    final = base64.b64encode(b"c=biws," + nonce + b",p=" + base64.b64encode(bytes(32)))
    yield timed(lambda: connection.ask(final))


def timed(action: Callable[[], object]) -> float:
    """Return how many microseconds *action* takes."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1e6


MECHANISMS: Final = {
    "PASS": (by_pass, ("",)),
    "PLAIN": (by_plain, ("",)),
    "CRAM-MD5": (by_digest, ("",)),
    "SCRAM-SHA-256": (by_scram, (", keys", ", proof")),
}


def users(stored: str, mechanism: str) -> str:
    """Return a password file with two users whose passwords are stored like this."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
    keys = scramkeys.written("SCRAM-SHA-256", PASSWORD, 65_536)
    field = {
        "argon2id": lambda: "{ARGON2ID}" + hasher.hash(PASSWORD),
        "plain": lambda: "{PLAIN}" + PASSWORD.decode(),
    }[stored]
    extra = f"scram_sha_256={keys.partition('}')[2]}" if mechanism.startswith("SCRAM") else ""
    return f"known:{field()}::::::{extra}\ndisabled:{field()}::::::{extra} nologin\n"


@contextlib.contextmanager
def server(directory: Path, passwords: str) -> Iterator[str]:
    """Run popd, and give the path of its socket."""
    (directory / "mail").mkdir(exist_ok=True)
    (directory / "passwd").write_text(passwords)
    path = directory / "socket"
    path.unlink(missing_ok=True)
    twistd = Path(sys.executable).with_name("twistd")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(twistd, "-n", "--pidfile=", "popd", "--listen", f"unix:{path}"),
                *("--cleartext-login", "local", "--workers", "1", "--auth-cache-ttl", "0"),
                *("--auth", f"popd-passwd:{directory / 'passwd'}", "--listen-tls", "none"),
                *("--maildrop", f"maildir:{directory}/mail/{{user}}"),
                *("--state-directory", directory),
                *("--sasl", "USER,PLAIN" + passwords_offer(passwords)),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        while not path.exists():
            if process.poll() is not None:
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.05)
        yield str(path)
    finally:
        process.terminate()
        process.wait()


def passwords_offer(passwords: str) -> str:
    """Return which more mechanisms there can be."""
    return (",CRAM-MD5" if "{PLAIN}" in passwords else "") + (
        ",SCRAM-SHA-256" if "scram_sha_256" in passwords else ""
    )


def attempt(kind: str, number: int) -> tuple[bytes, bytes]:
    """Return the name and the password of an attempt."""
    name = {"unknown, ever new": f"nobody{number}", "impossible": "../x"}.get(kind)
    right = kind.endswith("right password")
    return (name or kind.partition(",")[0]).encode(), PASSWORD if right else b"wrong horse"


def sample(mechanism: str, path: str, count: int) -> dict[str, list[list[float]]]:
    """Return how long each step took, for each kind of user."""
    log_in, steps = MECHANISMS[mechanism]
    connection = Connection(path)
    found: dict[str, list[list[float]]] = {kind: [[] for _ in steps] for kind in KINDS}
    order = [kind for kind in KINDS for _ in range(count + 20)]
    random.shuffle(order)
    for number, kind in enumerate(order):
        connection.ready()
        for step, duration in zip(
            found[kind], log_in(connection, *attempt(kind, number)), strict=True
        ):
            step.append(duration)
    return {kind: [step[-count:] for step in found[kind]] for kind in KINDS}


def longer(some: list[float], others: list[float]) -> float:
    """Return the probability that one of *some* is longer than one of *others*."""
    ranked = sorted(others)
    pairs = sum(bisect.bisect_left(ranked, one) + bisect.bisect_right(ranked, one) for one in some)
    return pairs / 2 / len(some) / len(others)


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    print(f"{count} samples each, in microseconds")
    print(f"{'':34}{'user':26}{'median':>9}{'quartiles':>18}{'longer':>9}")
    for stored, mechanism in (
        ("argon2id", "PASS"),
        ("argon2id", "PLAIN"),
        ("plain", "PASS"),
        ("plain", "CRAM-MD5"),
        ("argon2id", "SCRAM-SHA-256"),
    ):
        with tempfile.TemporaryDirectory() as directory:
            passwords = users(stored, mechanism)
            with server(Path(directory), passwords) as path:
                found = sample(mechanism, path, count)
        for place, step in enumerate(MECHANISMS[mechanism][1]):
            for kind in KINDS:
                times = found[kind][place]
                low, median, high = statistics.quantiles(times, n=4)
                part = longer(times, found["unknown"][place])
                print(
                    f"{mechanism + step + ', ' + stored:34}{kind:26}{median:9.0f}"
                    f"{low:9.0f}{high:9.0f}{part:9.1%}"
                )


if __name__ == "__main__":
    main()
