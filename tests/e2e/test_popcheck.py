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
        del skipped["idle.ten-minutes"]
        for name, detail in skipped.items():
            self.assertIn("not announced", detail, name)
        self.assertEqual(self.site.messages("alice"), [])
