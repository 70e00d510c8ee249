"""The log of a real server: what is in it, what is not, and whom fail2ban finds in it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.e2e.server import PASSWORDS, Client, ServerCase, until

FILTER = Path(__file__).parent.parent.parent / "etc" / "fail2ban" / "filter.d" / "popd.conf"

SECRET = "hunter2!secret"

NAMES = (
    b"mallory",
    b"a, from 198.51.100.66, mechanism PLAIN",
    b'x","address":"198.51.100.66","y":"',
    b"x\nSession a-1: log-in refused: user x, from 198.51.100.66, mechanism USER",
    b"\x1b[2J\xff",
    "\u2028\u0085".encode(),
    b"x" * 9_000,
)
"""Names that would like to have somebody else banned."""


class LogCase(ServerCase):
    """A server that is treated badly."""

    def misbehave(self) -> None:
        """Try to log in with all names, from an address for each, and misplace a password."""
        for number, name in enumerate(NAMES, 2):
            with Client(
                self.server.tls_port, self.site.client_context(), source=f"127.0.0.{number}"
            ) as client:
                response = base64.b64encode(b"\0" + name + b"\0" + SECRET.encode())
                client.ask(b"AUTH PLAIN " + response)
        client = self.tls_client()
        for line in (f"USER alice {SECRET}", "PASS x", f"PASS {SECRET}", SECRET, f"USER {SECRET}"):
            client.ask(line.encode())
        client.ask(b"PASS " + PASSWORDS["alice"].encode())
        encoded = base64.b64encode(f"\0alice\0{SECRET}".encode())
        client.ask(b"AUTH PLAIN")
        client.ask(b"!" + encoded)
        client.ask(encoded)
        client.close()
        self.site.deliver("alice", b"Subject: x\n\nx\n")
        with self.logged_in() as honest:
            honest.fetch(1)
            honest.expect(b"DELE 1")
            honest.expect(b"QUIT")
        until(lambda: "quit" in self.server.log, "the session does not end in the log")

    def check(self) -> None:
        """Look for what must not be there, and ask fail2ban."""
        log = self.server.log
        self.assertNotIn(SECRET, log)
        self.assertNotIn(PASSWORDS["alice"], log)
        self.assertNotIn(base64.b64encode(f"\0alice\0{SECRET}".encode()).decode(), log)
        self.assertTrue(all(line.isprintable() for line in log.split("\n")), log)
        if shutil.which("fail2ban-regex") is None:
            raise SkipTest("fail2ban is not installed: apt-get install fail2ban")
        path = self.site.root / "log"
        path.write_text(log, encoding="utf-8")
        found = subprocess.run(
            ["fail2ban-regex", "--out=ip", str(path), str(FILTER)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        expected = {f"127.0.0.{number}" for number in range(1, len(NAMES) + 2)}
        self.assertEqual(set(found), expected, log)


class TextTests(LogCase):
    """Lines for people."""

    def test_log(self) -> None:
        """One line an event, and no secret in it."""
        self.misbehave()
        self.check()
        log = self.server.log
        self.assertEqual(log.count("log-in refused: "), len(NAMES) + 2)
        self.assertRegex(
            log,
            r"Session \w+-\d+: user alice@example\.org, from 127\.0\.0\.1, TLSv1\.3 TLS_\w+,"
            r" mechanism USER, retrieved 1, top 0, octets 17, deleted 1, left 0, [\d.]+ s, quit\n",
        )
        self.assertRegex(
            log, r"Session \w+-\d+: deleted \S+ of 17 octets, user alice@example\.org\n"
        )


class JsonTests(LogCase):
    """Lines for programs."""

    options = ("--log-format", "json", "--workers", "2")

    def records(self) -> list[dict[str, Any]]:
        """Return the records, of which twistd's own first lines are none."""
        lines = self.server.log.splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("{"))
        return [json.loads(line) for line in lines[first:]]

    def test_log(self) -> None:
        """One record an event, and no secret in it."""
        self.misbehave()
        self.check()
        records = self.records()
        sessions = [one for one in records if one["event"] == "session" and one["logged_in"]]
        self.assertEqual(len(sessions), 1)
        self.assertEqual(sessions[0]["retrieved"], 1)
        (deleted,) = (one for one in records if one["event"] == "deleted")
        self.assertEqual(deleted["session"], sessions[0]["session"])

    def test_tls_error(self) -> None:
        """A handshake that fails is explained."""
        client = self.raw_client()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.close()
        until(lambda: "tls-error" in self.server.log, "the error is not in the log")
        (record,) = (one for one in self.records() if one["event"] == "session")
        self.assertEqual((record["reason"], record["detail"]), ("tls-error", "http request"))


class SessionTextTests(ServerCase):
    """What a client is told leads to the log."""

    def test_session(self) -> None:
        """The name of the session is in the reply, and in the log with the reason."""
        (self.site.maildir("alice") / "cur").rmdir()
        client = self.tls_client()
        client.ask(b"USER alice")
        reply = client.ask(b"PASS " + PASSWORDS["alice"].encode()).decode()
        self.assertRegex(reply, r"^-ERR \[SYS/(TEMP|PERM)\] .* \(session \w+-\d+\)")
        ident = reply.rpartition("session ")[2].strip(")\r\n")
        self.assertRegex(self.server.log, rf"Session {ident}: log-in failed: user alice, .*Maildir")
