"""popd passes its own conformance suite, and the command does what its manual says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.server import LIMIT, PASSWORDS, ServerCase

PATIENCE = 6 * LIMIT
"""Seconds that all rules together may take."""


class PopcheckTests(ServerCase):
    """The command ``popcheck``, against popd."""

    options = ("--apop",)

    def popcheck(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run popcheck on both ports."""
        command = Path(sys.executable).with_name("popcheck")
        return subprocess.run(
            [
                *(str(command), f"127.0.0.1:{self.server.port}"),
                *("--tls-port", str(self.server.tls_port), "--cafile", str(self.site.ca)),
                *("--user", "alice", "--password", PASSWORDS["alice"], *arguments),
            ],
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE,
        )

    def test_all(self) -> None:
        """Every rule is kept; skipped are those about what popd does not have."""
        ran = self.popcheck("--json", "--maildir", str(self.site.maildir("alice")))
        self.assertEqual(ran.stderr, "")
        report: dict[str, Any] = json.loads(ran.stdout)
        failed = [one for one in report["results"] if one["outcome"] == "FAIL"]
        self.assertEqual(failed, [])
        self.assertEqual(ran.returncode, 0)
        passed = [one for one in report["results"] if one["outcome"] == "PASS"]
        self.assertGreater(len(passed), 340)
        skipped = {
            one["rule"]: one["detail"] for one in report["results"] if one["outcome"] == "SKIP"
        }
        del skipped["apop.unannounced"]  # since APOP is on
        for name, detail in skipped.items():
            self.assertIn("not announced", detail, name)
        self.assertEqual(self.site.messages("alice"), [])

    def test_without_maildir(self) -> None:
        """Without a Maildir much can be seen; a line each says what."""
        ran = self.popcheck("--only", "stat.*", "--only", "noop.*")
        lines = ran.stdout.splitlines()
        self.assertEqual(lines[-1], "2 passed, 0 failed, 4 skipped")
        self.assertEqual(len(lines), 7)
        self.assertRegex(lines[0], r"^PASS noop\.ok +RFC 1939 section 5 +MUST +NOOP is answered")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))

    def test_mail_in_the_way(self) -> None:
        """A Maildir that holds mail is left alone, until it is said that the mail may go."""
        file = self.site.deliver("alice", b"mine\n")
        maildir = ("--maildir", str(self.site.maildir("alice")), "--only", "stat.empty")
        ran = self.popcheck(*maildir)
        self.assertEqual(ran.returncode, 2)
        self.assertIn("holds 1 messages", ran.stderr)
        self.assertTrue(file.exists())
        ran = self.popcheck(*maildir, "--erase-maildir")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertFalse(file.exists())

    def test_another_maildir(self) -> None:
        """A Maildir that is not the user's is noticed before anything is put there."""
        self.site.deliver("alice", b"mine\n")
        ran = self.popcheck("--maildir", str(self.site.maildir("bob")))
        self.assertEqual(ran.returncode, 2)
        self.assertIn("not where the user's mail is", ran.stderr)

    def test_fails(self) -> None:
        """A server that breaks a rule makes for exit status 1; one that lets nobody in, for 2."""
        ran = self.popcheck("--only", "sasl.login", "--password", "wrong")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("alice cannot log in: log-in was refused: -ERR [AUTH]", ran.stderr)
