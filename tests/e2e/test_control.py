"""popctl and a popd that runs, with one process and with several."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from popd.operate.controlsocket import CLIENTS
from tests.e2e.server import LIMIT, Client, RunningServer, ServerCase, until

POPCTL = str(Path(sys.executable).with_name("popctl"))


class OneProcess(ServerCase):
    """Operators ask a popd of one process."""

    workers = 1

    def start(self, *options: str) -> RunningServer:
        """Start a popd with a control socket."""
        self.control = self.site.root / "control"
        self.config = self.site.root / "popd.toml"
        self.config.write_text(
            f'control = "{self.control}"\nauth = "popd-passwd:{self.site.passwords}"\n'
            f'maildrop = "maildir:{self.site.mail}/{{domain}}/{{local}}/Maildir"\n'
            'default-domain = "example.org"\n'
        )
        server = super().start("--control", str(self.control), "--workers", str(self.workers))
        until(lambda: "popctl is answered" in server.log, "no control socket")
        if self.workers > 1:
            ready = re.compile("accepts connections")
            until(lambda: len(ready.findall(server.log)) >= self.workers, "no workers")
        return server

    def run_popctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run popctl."""
        command = [POPCTL, "--config", str(self.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)

    def popctl(self, *arguments: str, status: int = 0) -> str:
        """Run popctl, and return what it says; a failure says it in one line on stderr."""
        ran = self.run_popctl(*arguments)
        self.assertEqual(ran.returncode, status, ran.stdout + ran.stderr)
        if status:
            self.assertRegex(ran.stderr, r"\Apopctl: [^\n]*\n\Z")
            return ran.stderr
        return ran.stdout

    def json(self, *arguments: str) -> Any:
        """Run popctl, and return the JSON that it writes."""
        return json.loads(self.popctl(*arguments, "--json"))

    def test_who(self) -> None:
        """All sessions are listed, those of all processes, or those of one user."""
        self.assertEqual(self.json("who"), [])
        self.site.deliver("alice", b"Subject: x\n\nx\n")
        for user in ("alice", "bob"):
            self.logged_in(user)
        for _ in range(20):
            self.client()
        rows = self.json("who")
        self.assertEqual(len(rows), 22)
        self.assertEqual(len({row["ident"] for row in rows}), 22)
        self.assertEqual({row["peer"] for row in rows}, {"127.0.0.1"})
        (alice,) = self.json("who", "alice@example.org")
        self.assertEqual(alice["state"], "transaction")
        self.assertEqual(alice["user"], "alice@example.org")
        self.assertEqual(len(self.json("who", "127.0.0.1")), 22)
        self.assertEqual(self.json("who", "192.0.2.1"), [])
        head, line = self.popctl("who", alice["ident"]).splitlines()
        self.assertEqual(head.split()[:3], ["ID", "USER", "FROM"])
        self.assertRegex(
            line, rf"\A{alice['ident']}  alice@example\.org  127\.0\.0\.1  transaction  20"
        )

    def test_kick(self) -> None:
        """Who is kicked hears of it between two commands, and loses no mail."""
        self.site.deliver("alice", b"Subject: x\n\nx\n")
        alice, bob = self.logged_in("alice"), self.logged_in("bob")
        alice.expect(b"DELE 1")
        self.popctl("kick", "alice")
        self.assertRegex(
            alice.rest(), rb"\A-ERR \[SYS/TEMP\] the administrator ended .* \(session \S+\)\r\n\Z"
        )
        self.assertEqual(len(self.site.messages("alice")), 1)
        alice.close()
        bob.expect(b"NOOP")
        (row,) = until(lambda: len(rows := self.json("who")) == 1 and rows, "alice stays")
        self.popctl("kick", row["ident"])
        self.assertTrue(bob.rest().startswith(b"-ERR [SYS/TEMP]"))
        self.log_in_when_free("alice").expect(b"STAT", b"+OK 1 ")
        self.popctl("kick", "127.0.0.1")
        self.assertEqual({row["state"] for row in self.json("who")}, {"closing"})
        self.assertIn("no such session", self.popctl("kick", "alice", status=3))

    def test_kick_in_a_message(self) -> None:
        """A message under way is sent to its end first."""
        content = b"Subject: x\n\n" + b"x" * 70 + b"\n"
        self.site.deliver("alice", content * 100_000)
        client = self.tls_client(receive_buffer=4096)
        client.log_in("alice")
        client.expect(b"RETR 1")
        self.popctl("kick", "alice")
        self.assertEqual(len(self.json("who")), 1)
        self.assertEqual(len(client.body().replace(b"\r\n", b"\n")), len(content * 100_000))
        self.assertTrue(client.rest().startswith(b"-ERR [SYS/TEMP] the administrator"))

    def test_status(self) -> None:
        """One screen says how popd is."""
        self.logged_in()
        self.client()
        answer = self.json("status")
        self.assertEqual(len(answer["processes"]), self.workers)
        self.assertEqual(sum(one["sessions"] for one in answer["processes"]), 2)
        self.assertEqual(sum(one["logged_in"] for one in answer["processes"]), 1)
        self.assertEqual(answer["pid"], self.server.process.pid)
        (certificate,) = answer["certificates"]
        self.assertEqual(certificate["names"], ["localhost", "127.0.0.1"])
        self.assertGreater(certificate["days_left"], 1)
        screen = self.popctl("status")
        self.assertIn("2, 1 of them logged in", screen)
        self.assertIn("days left", screen)
        self.assertLess(len(screen.splitlines()), 24)

    def test_penalties(self) -> None:
        """Guesses that are remembered in memory only are shown and forgiven by popd itself."""
        client = self.tls_client()
        client.expect(b"USER alice")
        client.expect(b"PASS wrong", b"-ERR [AUTH]")
        found = {(row["kind"], row["subject"]) for row in self.json("penalties", "list", "--all")}
        self.assertIn(("account", "alice@example.org"), found)
        self.assertIn(("network", "127.0.0.1"), found)
        self.popctl("penalties", "clear", "127.0.0.1")
        kinds = {row["kind"] for row in self.json("penalties", "list", "--all")}
        self.assertEqual(kinds, {"account"})
        self.popctl("penalties", "clear")
        self.assertEqual(self.json("penalties", "list", "--all"), [])

    def test_explain(self) -> None:
        """A failed log-in is explained, by whichever process knows; so is what the log knows."""
        client = self.tls_client()
        client.expect(b"USER alice")
        client.expect(b"PASS wrong", b"-ERR [AUTH]")
        (row,) = self.json("who")
        said = self.json("explain", row["ident"])
        (failure,) = said["failures"]
        self.assertEqual((failure["user"], failure["peer"]), ("alice", "127.0.0.1"))
        self.assertEqual(len(said["sessions"]), 1)
        self.assertIn(
            "'alice' from 127.0.0.1: wrong user name or password\n",
            self.popctl("explain", row["ident"]),
        )
        self.assertIn("nothing is known", self.popctl("explain", "x-1", status=3))
        log = self.site.root / "some.log"
        log.write_text(f"one\ntwo [{row['ident']}]\nthree\n")
        self.assertEqual(
            self.json("explain", row["ident"], "--log", str(log))["log"], [f"two [{row['ident']}]"]
        )

    def test_trace(self) -> None:
        """What one user says is shown as it is said, without passwords and mail."""
        self.site.deliver("alice", b"Subject: secret subject\n\nx\n")
        first, bob = self.logged_in("alice"), self.logged_in("bob")
        command = [POPCTL, "--config", str(self.config), "trace", "alice", "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        self.assertIn("alice@example.org", process.stderr.readline())

        def traced() -> bool:
            first.expect(b"NOOP")
            bob.expect(b"NOOP")
            return bool(select_readable(process.stdout))

        until(traced, "nothing is traced")
        first.expect(b"QUIT")
        first.close()
        second = self.log_in_when_free("alice")
        second.fetch(1)
        second.expect(b"PASS something", b"-ERR")
        second.expect(b"QUIT")
        second.close()
        lines: list[dict[str, Any]] = []
        while sum(line["text"].startswith("the client is gone") for line in lines) < 2:
            lines.append(json.loads(process.stdout.readline()))
        said = [(line["way"], line["text"]) for line in lines]
        for line in (
            (">", "NOOP"),
            (">", "QUIT"),
            ("*", "logged in by USER"),
            ("<", "+OK maildrop locked and ready"),
            (">", "RETR 1"),
            (">", "PASS (10 octets are not shown)"),
            ("<", "+OK bye"),
        ):
            self.assertIn(line, said)
        text = json.dumps(lines)
        for secret in ("secret", "Subject", "something"):
            self.assertNotIn(secret, text)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), 0)

    def test_slow_trace(self) -> None:
        """Who does not read loses lines, hears how many, and holds up nobody."""
        client = self.logged_in("alice")
        with Client(str(self.control), greeted=False) as onlooker:
            onlooker.send(b'{"ask": "trace", "about": {"user": "alice@example.org"}}\n')
            until(lambda: len(client.ask(b"NOOP")) and select_readable(onlooker.socket), "no trace")
            for _ in range(20):
                client.send(b"NOOP\r\n" * 500)
                for _ in range(500):
                    self.assertEqual(client.line(), b"+OK")
            lost, seen = 0, 0
            while lost + seen < 2 * 20 * 500:
                while b"\n" not in onlooker._buffer:
                    self.assertTrue(onlooker.receive())
                line, _, rest = bytes(onlooker._buffer).partition(b"\n")
                onlooker._buffer[:] = rest
                answer = json.loads(line)["answer"]
                lost += answer["lost"]
                seen += len(answer["lines"])
            self.assertGreater(lost, 0)
            self.assertGreater(seen, 900)

    def test_drain(self) -> None:
        """Popd ends, and takes its socket along."""
        self.popctl("drain")
        self.assertEqual(self.server.process.wait(LIMIT), 0)
        self.assertFalse(self.control.exists())
        self.assertIn("there is no such socket", self.popctl("who", status=5))

    def test_socket(self) -> None:
        """The socket is its owner's; a second popd leaves it alone, and a third replaces it."""
        self.assertEqual(stat.S_IMODE(self.control.stat().st_mode), 0o600)
        second = subprocess.run(
            [*self.server.process.args],  # type: ignore[misc]
            cwd=self.site.root,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual(second.returncode, 1)
        self.assertIn("another popd listens there", second.stderr)
        self.popctl("who")
        self.server.kill()
        self.assertTrue(self.control.exists())
        self.assertIn("nobody listens", self.popctl("who", status=5))
        self.server = self.start()
        self.popctl("who")

    def test_strangers(self) -> None:
        """Other users are not heard, not even where the socket can be connected to."""
        if os.geteuid():
            self.skipTest("only root can become somebody else")
        self.control.chmod(0o666)
        script = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
            "s.connect(sys.argv[1]); print(s.makefile().read())"
        )
        command = ["/usr/bin/env", "python3", "-c", script, str(self.control)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
        self.assertIn("only root and the user", said.stdout)

    def test_doctor(self) -> None:
        """A real popd is examined: ports, log-in, certificate, limits."""
        self.site.deliver("alice", b"Subject: x\n\nx\n")
        password = self.site.root / "password"
        password.write_text("secret-of-alice\n")
        loopback = "interface=127.0.0.1"
        ran = self.run_popctl(
            *("doctor", "--json", "--host", "localhost", "--user", "alice"),
            *("--password-file", str(password), "--"),
            *("--listen", f"tcp:{self.server.port}:{loopback}"),
            *("--listen-tls", f"tcp:{self.server.tls_port}:{loopback}"),
            *("--certificate", str(self.site.certificate)),
            *("--private-key", str(self.site.private_key)),
        )
        found = {row["check"]: row for row in json.loads(ran.stdout)}
        for check in (
            *("configuration", "popd", "log-in", "certificate names", "maildrops"),
            *(f"port tcp:{port}:{loopback}" for port in (self.server.port, self.server.tls_port)),
            f"certificate at tcp:{self.server.tls_port}:{loopback}",
        ):
            self.assertEqual(found[check]["level"], "ok", found[check])
        self.assertIn("has 1 messages", found["log-in"]["text"])
        self.assertIn(f"in {self.workers} processes", found["popd"]["text"])
        self.assertIn(f"in each of {self.workers} processes", found["limits"]["text"])
        self.assertEqual(found[f"private key {self.site.private_key}"]["level"], "problem")
        self.assertEqual(ran.returncode, 1)

    def test_many_clients(self) -> None:
        """More clients than are let are refused; those that go make room."""
        clients = [Client(str(self.control), greeted=False) for _ in range(CLIENTS)]
        for client in clients:
            self.addCleanup(client.close)
        self.assertIn("too many ask", self.popctl("who", status=1))
        for client in clients:
            client.close()
        until(lambda: self.run_popctl("who").returncode == 0, "nobody is let in any more")

    def test_nonsense(self) -> None:
        """What is no question is answered in a line, and popd goes on."""
        for question in (b"hello", b"[]", b'{"ask": 1}', b'{"ask": "x", "about": 1}', b"[" * 9999):
            with Client(str(self.control), greeted=False) as client:
                client.send(question + b"\n")
                self.assertIn(b'{"error":"this is no question', client.rest())
        for ask, about in (("nothing", {}), ("kick", {}), ("who", {"after": 1})):
            with Client(str(self.control), greeted=False) as client:
                client.send(json.dumps({"ask": ask, "about": about}).encode() + b"\n")
                self.assertIn(b'{"error":"', client.rest())
        self.popctl("who")


class SeveralProcesses(OneProcess):
    """Operators ask a popd of two workers."""

    workers = 2

    def test_worker_dies(self) -> None:
        """One that dies takes its sessions along, and the next is asked in its place."""
        answer = self.json("status")
        os.kill(answer["processes"][0]["pid"], signal.SIGKILL)
        until(
            lambda: (
                len(self.json("status")["processes"]) == 2
                and self.json("status")["processes"] != answer["processes"]
            ),
            "no new worker",
        )


def select_readable(file: Any) -> bool:
    """Return whether there is something to read."""
    return bool(select.select([file], [], [], 0)[0])
