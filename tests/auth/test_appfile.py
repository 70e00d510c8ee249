"""Tests of the file of app passwords."""

from __future__ import annotations

import logging
from pathlib import Path
from time import time_ns

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account
from popd.auth.appfile import App, AppPasswordFile
from popd.auth.apppass import digest

ONE, TWO = b"aaaa-bbbb-cccc-dddd-eeee-ffff-2222", b"aaaa-bbbb-cccc-dddd-eeee-ffff-3333"


class AppPasswords(SynchronousTestCase):
    """A file of app passwords."""

    def setUp(self) -> None:
        """Name the file."""
        self.path = Path(self.mktemp()).absolute()
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)

    def file(self, *lines: str) -> AppPasswordFile:
        """Write the lines, and read them as if they were old."""
        self.write(*lines)
        return AppPasswordFile(self.path, now=lambda: time_ns() + 10**10)

    def write(self, *lines: str) -> None:
        """Write the lines."""
        self.path.write_text("".join(line + "\n" for line in lines))

    def test_lines(self) -> None:
        """A user may have several, each with limits of its own."""
        file = self.file(
            "# for polling",
            f"Ada@example.org:{digest(ONE)}::::::app=phone",
            f"ada@example.org:{digest(TWO)}::::::app=tv expires=2027-01-01 no_delete interval=60",
        )
        ada = "ada@example.org"
        limits = Account(ada, program="tv", no_delete=True, interval=60.0, expires=1798761600.0)
        self.assertEqual(file.find(ONE), App(ada, Account(ada, program="phone")))
        self.assertEqual(file.find(TWO.upper()), App(ada, limits))
        self.assertIsNone(file.find(TWO[:-1] + b"4"))
        self.assertIsNone(file.find(b"secret"))
        self.assertEqual(file.problems, ())

    def test_changes(self) -> None:
        """A file that is not there has none; what comes and goes counts at once."""
        file = AppPasswordFile(self.path, now=lambda: time_ns() + 10**10)
        version = file.version()
        self.assertIsNone(file.find(ONE))
        self.assertEqual(file.version(), version)
        self.write(f"ada:{digest(ONE)}::::::app=phone")
        self.assertNotEqual(file.version(), version)
        self.assertIsNotNone(file.find(ONE))
        self.path.unlink()
        self.assertNotEqual(file.version(), version)
        self.assertIsNone(file.find(ONE))
        self.assertEqual(file.version(), version)

    def test_broken_lines(self) -> None:
        """What means nothing lets nobody in, and is reported without its content."""
        good = digest(ONE)
        lines = {
            f"ada:{good[:-2]}SECRET::::::app=phone": "{SHA256}",
            "ada:{PLAIN}SECRET::::::app=phone": "{SHA256}",
            f"ada:{good}": "must name",
            f"ada:{good}::::::app=a/SECRET": "must name",
            f"ada:{good}::::::app=phone master": "beside app",
            f"ada:{good}::::::app=phone interval=SECRET": "interval",
            f"../SECRET:{good}::::::app=phone": "no user",
        }
        file = self.file(*lines)
        self.assertIsNone(file.find(ONE))
        self.assertEqual(len(file.problems), len(lines))
        for problem, reason in zip(file.problems, lines.values(), strict=True):
            self.assertIn(reason, problem)
            self.assertNotIn("SECRET", problem)

    def test_twice(self) -> None:
        """A digest that stands there twice is that of whose line comes first."""
        file = self.file(f"ada:{digest(ONE)}::::::app=a", f"eve:{digest(ONE)}::::::app=e")
        found = file.find(ONE)
        self.assertEqual(found and found.user, "ada")
        self.assertEqual(len(file.problems), 1)
