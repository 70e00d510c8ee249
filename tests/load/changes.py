"""Restarts and reloads under load: ``python -m tests.load.changes [RESTARTS [RELOADS [OF_CODE]]]``.

The script is to popd what systemd is: it listens, and hands the sockets over, so that they stay
when popd ends.  Clients log in without a pause; some fetch, some mark a message and leave without
QUIT, some delete one and say QUIT.  What is counted: connections that were refused; sessions that
were cut off; messages that are gone and were not deleted, or the other way round.  At a restart who
is not logged in yet is told ``-ERR [SYS/TEMP]``, if TLS is there already, and counted, too.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.crowd import Crowd
from tests.e2e.server import Client, Site

CLIENTS = 8
PAUSE = 1.2
"""Seconds between two reloads."""
LONG_PAUSE = 3.0
"""Seconds between two restarts, of which each takes one or two in which nobody is served."""
USERS = 10
"""Whose mail a client fetches, by turns."""
MESSAGES = 500
"""Messages in each maildrop, at the beginning."""
WORKERS = 2
SERVES = "accepts connections"
SUCCESSOR = re.compile(r"process (\d+), serves from now on")


class Popd:
    """A popd that is started again and again on the same sockets."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
        self.port, self.tls_port = (one.getsockname()[1] for one in self.sockets)
        self.log = site.root / "log"
        self.process: subprocess.Popen[bytes]
        self.pid = 0
        """The process that is popd now; it is no child if another took its place."""

    def start(self) -> None:
        """Start it, as systemd does (sd_listen_fds(3)), and wait until it serves."""
        site = self.site
        before = self.text().count(SERVES) if self.log.exists() else 0
        command = [
            str(Path(sys.executable).with_name("twistd")),
            *("-n", "--pidfile=", "popd", "--workers", str(WORKERS), "--control", "none"),
            *("--certificate", str(site.certificate), "--private-key", str(site.private_key)),
            *("--auth", f"popd-passwd:{site.passwords}", "--default-domain", "example.org"),
            *("--maildrop", f"maildir:{site.mail}/{{domain}}/{{local}}/Maildir"),
            *("--cleartext-login", "always"),
        ]
        descriptors = [one.fileno() for one in self.sockets]
        script = 'export LISTEN_PID=$$; exec "$@" ' + " ".join(
            f"{3 + number}<&{descriptor}" for number, descriptor in enumerate(descriptors)
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, "popd", *command],
                pass_fds=descriptors,
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "pop3:pop3s"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=site.root,
            )
        self.pid = self.process.pid
        self._await(SERVES, before + WORKERS)

    def stop(self) -> None:
        """Have it end in good order, and with it the one whose place it took."""
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait(60)
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.05)

    def restart(self) -> None:
        """End it and start it anew."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Reload it, and wait until that is done."""
        before = self.text().count("Reloaded")
        os.kill(self.pid, signal.SIGHUP)
        self._await("Reloaded", before + 1)

    def reload_code(self) -> None:
        """Have another popd take its place, and wait until that is done."""
        before = len(SUCCESSOR.findall(self.text()))
        os.kill(self.pid, signal.SIGUSR2)
        self._await("serves from now on", before + 1)
        self.pid = int(SUCCESSOR.findall(self.text())[-1])

    def _await(self, what: str, times: int) -> None:
        end = time.monotonic() + 30
        while self.text().count(what) < times:
            if time.monotonic() > end:
                raise SystemExit(f"no {what!r} in time:\n{self.text()[-2000:]}")
            time.sleep(0.05)

    def text(self) -> str:
        """Return what it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class Load(Crowd):
    """Clients that come without a pause, each for some users of its own."""

    def __init__(self, popd: Popd) -> None:
        super().__init__()
        self._popd = popd
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.deleted: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()
        self.users = [f"user{number}" for number in range(CLIENTS * USERS)]
        self.threads = [
            threading.Thread(target=self._run, args=(self.users[client::CLIENTS], client % 4 == 0))
            for client in range(CLIENTS)
        ]

    def _run(self, users: list[str], tls: bool) -> None:
        context = self._popd.site.client_context() if tls else None
        port = self._popd.tls_port if tls else self._popd.port
        turn = 0
        while not self.stop.is_set():
            turn += 1
            user = users[turn % USERS]
            asked = let_in = False
            try:
                with Client(port, context) as client:
                    client.expect(b"USER " + user.encode())
                    client.expect(b"PASS " + user.encode())
                    let_in = True
                    if turn // USERS % 4 == 0:
                        client.expect(b"DELE 2")
                    elif turn // USERS % 4 == 1:
                        client.expect(b"DELE 1")
                        asked = True
                        client.expect(b"QUIT")
                        self.deleted[user] += 1
                    else:
                        client.fetch(1)
                        client.expect(b"QUIT")
                self.counts["sessions"] += 1
            except ConnectionRefusedError:
                self.counts["refused"] += 1
            except (OSError, AssertionError) as error:
                self.unsure[user] += asked
                text = str(error)
                if "[IN-USE]" in text:  # its own last session, which left without a word
                    continue
                if let_in:
                    self.counts["cut off"] += 1
                    self.problems.append(f"{user} {type(error).__name__}: {text[:200]}")
                else:
                    self.counts["told to come again" if "[SYS/TEMP]" in text else "sent away"] += 1


def main() -> int:
    """Do it; return the exit status."""
    words = [*sys.argv[1:], *("50", "200", "50")[len(sys.argv) - 1 :]]
    restarts, reloads, of_code = map(int, words)
    with tempfile.TemporaryDirectory(prefix="popd-load-") as root:
        Path(root).chmod(0o755)
        site = Site(Path(root))
        popd = Popd(site)
        load = Load(popd)
        for user in load.users:
            site.add_user(user)
            for _ in range(MESSAGES):
                site.deliver(user, b"Subject: x\n\nx\n")
        popd.start()
        with load:
            time.sleep(2)
            outcomes = [
                _measured(load, "reloads", reloads, popd.reload),
                _measured(load, "reloads of code", of_code, popd.reload_code),
                _measured(load, "restarts", restarts, popd.restart, LONG_PAUSE),
            ]
        popd.stop()
        lost = 0
        for user in load.users:
            gone = MESSAGES - len(site.messages(user))
            lost += not load.deleted[user] <= gone <= load.deleted[user] + load.unsure[user]
        print(f"maildrops with deletions that nobody asked for, or that were forgotten: {lost}")
        print("\n".join(load.problems[:5]))
        away = sum(one["told to come again"] + one["sent away"] for one in outcomes[:2])
        harm = any(one["refused"] or one["cut off"] for one in outcomes)
        return 1 if lost or away or harm else 0


def _measured(load: Load, what: str, times: int, change: Any, pause: float = PAUSE) -> Counter[str]:
    before, begun = load.counts.copy(), time.monotonic()
    for _ in range(times):
        change()
        time.sleep(pause)
    seconds = time.monotonic() - begun
    counts = load.counts - before
    print(
        f"{times} {what} in {seconds:.0f} s, {counts['sessions'] / seconds:.0f} sessions a second:"
        f" {counts['refused']} refused, {counts['cut off']} cut off after log-in; before it"
        f" {counts['told to come again']} told to come again, {counts['sent away']} just sent away",
        flush=True,
    )
    return counts


if __name__ == "__main__":
    sys.exit(main())
