"""The load generator for machines without a C compiler: the options and output of ``load.c``.

It costs more than popd itself, so that only CPU figures count, not sessions a second.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

DEFAULTS: Final[dict[str, str]] = {
    "port": "0",
    "work": "login",
    "tls": "0",
    "user": "user",
    "users": "1",
    "password": "secret",
    "processes": "1",
    "seconds": "1",
    "limit": "1000000000",
    "messages": "0",
    "octets": "0",
    "wire": "0",
    "window": "32",
    "deliver": "",
    "template": "",
    "pause": "0",
    "every": "0",
    "times": "",
    "ask": "",
    "stop": "0",
    "patience": "120",
}


class Client:
    """One client process: its options, and the TLS session to resume.

    :param options: as on the command line.
    """

    def __init__(self, options: dict[str, str]) -> None:
        self.text = options
        self.number = {key: int(float(value)) for key, value in options.items() if _numeric(value)}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.ticket: ssl.SSLSession | None = None
        self.resumed = 0

    def connect(self, process: int) -> tuple[socket.socket, Any]:
        """Return a new connection, and a file to read it with."""
        plain = socket.socket()
        plain.settimeout(self.number["patience"])
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.text["ask"]:  # or the kernel takes megabytes in
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        plain.bind((f"127.0.0.{process + 2}", 0))
        plain.connect(("127.0.0.1", self.number["port"]))
        if not self.number["tls"]:
            return plain, plain.makefile("rb")
        ticket = self.ticket if self.number["tls"] > 1 else None
        secured = self.context.wrap_socket(plain, session=ticket)
        self.resumed += bool(secured.session_reused)
        return secured, secured.makefile("rb")

    def log_in(self, connection: socket.socket, replies: Any, user: int) -> None:
        """Log in as the user with this number."""
        _ok(replies)
        _ask(connection, replies, f"USER {self.text['user']}{user}")
        _ask(connection, replies, f"PASS {self.text['password']}")

    def quit(self, connection: socket.socket, replies: Any) -> None:
        """End a session."""
        _ask(connection, replies, "QUIT")
        if isinstance(connection, ssl.SSLSocket):
            self.ticket = connection.session
        else:
            replies.read()
        connection.close()

    def session(self, process: int, user: int, messages: int) -> None:
        """Run a session, and check every answer."""
        connection, replies = self.connect(process)
        self.log_in(connection, replies, user)
        if self.text["work"] != "login":
            each = self.number["octets"]
            stat = _ask(connection, replies, "STAT").split()
            _expect("STAT", [int(stat[1]), int(stat[2])], [messages, messages * each])
            for command in ("UIDL", "LIST"):
                _ask(connection, replies, command)
                lines = _many(replies).splitlines()
                wanted = range(1, messages + 1)
                _expect(command, [int(line.split()[0]) for line in lines], list(wanted))
            _expect("LIST", [int(line.split()[1]) for line in lines], [each] * messages)
            window = {"retr": 1, "pipe": self.number["window"]}.get(self.text["work"])
            if window:
                self.retrieve(connection, replies, messages, window)
        self.quit(connection, replies)

    def retrieve(self, connection: socket.socket, replies: Any, messages: int, window: int) -> None:
        """Get all messages, so many commands under way at most."""
        sent = 0
        for got in range(messages):
            if sent - got <= window // 2:
                more = range(sent + 1, min(messages, got + window) + 1)
                connection.sendall("".join(f"RETR {number}\r\n" for number in more).encode())
                sent += len(more)
            _ok(replies)
            _expect("RETR", len(_many(replies)), self.number["wire"])

    def run(self, process: int) -> tuple[int, int, float]:
        """Run sessions; return how many, how many resumed TLS, and the seconds they took."""
        own = self.number["users"] // self.number["processes"]
        sessions, paused, begun = 0, 0.0, time.monotonic()
        due, every = begun, float(self.text["every"])
        while True:
            user = process + self.number["processes"] * (sessions % own)
            messages = self.number["messages"]
            if self.text["deliver"]:
                messages += sessions // own + 1
                paused += self.deliver(user, sessions)
            self.session(process, user, messages)
            sessions += 1
            if self.text["times"]:
                with Path(self.text["times"]).open("a", encoding="ascii") as times:
                    times.write(f"{due:.6f} {time.monotonic() - due:.6f}\n")
            due = due + every if every else time.monotonic()
            time.sleep(max(0, due - time.monotonic()))
            passed = time.monotonic() - begun
            if sessions >= self.number["limit"] or passed >= float(self.text["seconds"]):
                return sessions, self.resumed, passed - paused

    def deliver(self, user: int, serial: int) -> float:
        """Deliver a message; return the seconds while which nobody waited for the server."""
        begun = time.monotonic()
        name = f"{int(time.time())}.P{os.getpid()}Q{serial}.bench-new"
        path = Path(self.text["deliver"], f"{self.text['user']}{user}", "new", name)
        path.hardlink_to(self.text["template"])
        time.sleep(float(self.text["pause"]))
        return time.monotonic() - begun


def _numeric(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _ok(replies: Any) -> str:
    line = replies.readline()
    if not line.startswith(b"+OK"):
        raise SystemExit(f"not +OK but {line!r}")
    return str(line, "ascii", "replace")


def _ask(connection: socket.socket, replies: Any, command: str) -> str:
    connection.sendall(f"{command}\r\n".encode())
    return _ok(replies)


def _many(replies: Any) -> bytes:
    lines: list[bytes] = []
    for line in replies:
        if line == b".\r\n":
            return b"".join(lines)
        lines.append(line)
    raise SystemExit("the server closed the connection")


def _expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise SystemExit(f"{what}: {str(got)[:200]}, not {str(wanted)[:200]}")


def _hold(client: Client) -> None:
    opened = []
    for user in range(client.number["limit"]):
        connection, replies = client.connect(user % 64)
        client.log_in(connection, replies, user)
        if client.text["work"] == "stall":
            _ask(connection, replies, client.text["ask"])
            replies.read(client.number["stop"])
        opened.append((connection, replies))
    sys.stdout.write(json.dumps({"sessions": len(opened)}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    for connection, replies in opened:
        if client.text["work"] != "stall":
            client.quit(connection, replies)


def _client(options: dict[str, str], process: int) -> tuple[int, int, float]:
    return Client(options).run(process)


def main() -> None:
    """Run what the command line says."""
    options = {**DEFAULTS, **dict(word.split("=", 1) for word in sys.argv[1:])}
    if options["work"] in {"hold", "stall"}:
        _hold(Client(options))
        return
    processes, before = int(options["processes"]), os.times()
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        results = list(pool.map(_client, [options] * processes, range(processes)))
    summary = {
        "sessions": sum(sessions for sessions, _, _ in results),
        "resumed": sum(resumed for _, resumed, _ in results),
        "rate": sum(sessions / seconds for sessions, _, seconds in results),
        "cpu": sum(os.times()[2:4]) - sum(before[2:4]),
    }
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
