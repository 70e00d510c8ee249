"""Tests of ``popctl penalties``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Client
from popd.auth.guard import Guard
from popd.auth.tablefile import GuessTable, Shape
from popd.ctl.main import main

if TYPE_CHECKING:
    from click.testing import Result


class PenaltiesTests(SynchronousTestCase):
    """Administrators look at who is slowed down, and forgive."""

    def setUp(self) -> None:
        """Let somebody guess."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.table, passwords = directory / "guesses", directory / "passwd"
        passwords.write_text("joe:{PLAIN}secret\n", encoding="ascii")
        self.config = directory / "popd.toml"
        self.config.write_text(
            f'guess-table = "{self.table}"\nauth = "popd-passwd:{passwords}"\n'
            'default-domain = "example.org"\n',
            encoding="ascii",
        )
        table = GuessTable.open(self.table, Shape(64, 256, 256))
        self.addCleanup(table.close)
        guard = Guard(table)
        for number in range(12):
            guard.failed(Client("192.0.2.1"), b"joe@example.org", b"%d" % number)
        guard.failed(Client("2001:db8::1"), b"ann@example.org", None)

    def popctl(self, *arguments: str, good: int = 0) -> Result:
        """Run a command."""
        result = CliRunner().invoke(main, ["--config", str(self.config), "penalties", *arguments])
        self.assertEqual(result.exit_code, good, result.output)
        return result

    def listed(self, *arguments: str) -> list[tuple[str, str]]:
        """Return what is listed, kind and subject."""
        rows = json.loads(self.popctl("list", "--json", *arguments).stdout)
        return [(row["kind"], row["subject"]) for row in rows]

    def test_list(self) -> None:
        """Who is slowed down is listed, with what the figures are; others if that is wanted."""
        self.assertRegex(
            self.popctl("list").stdout, r"^network  192\.0\.2\.1  12  1 s  20\S+T\S+Z\n$"
        )
        (row,) = json.loads(self.popctl("list", "--json").stdout)
        self.assertEqual((row["guesses"], row["interval"]), (12, 1.0))
        self.assertGreater(row["ends"], time.time() + 3000)
        self.assertEqual(len(self.listed("--all")), 6)

    def test_names(self) -> None:
        """Users whom popctl knows are called by their names."""
        self.assertIn(("account", "joe@example.org"), self.listed("--all"))
        self.assertNotIn("ann", str(self.listed("--all")))

    def test_about(self) -> None:
        """One address or user can be asked about, by a short name, too."""
        self.assertEqual(self.listed("192.0.2.1"), [("network", "192.0.2.1")])
        self.assertEqual(
            self.listed("ann", "--all"),
            [("pair", "ann@example.org from 2001:db8::/64"), ("account", "ann@example.org")],
        )

    def test_clear(self) -> None:
        """A network is forgiven, a user, or all."""
        self.assertIn("1 count ", self.popctl("clear", "192.0.2.1").stderr)
        self.assertEqual(self.listed(), [])
        self.assertIn("2 counts ", self.popctl("clear", "ann").stderr)
        self.assertIn("3 counts ", self.popctl("clear").stderr)
        self.assertEqual(self.listed("--all"), [])

    def test_no_file(self) -> None:
        """If popd remembers in memory only, or there is no such file, popctl says so."""
        self.assertIn("No such file", self.popctl("clear", "--guess-table", "no", good=5).output)
        self.config.write_text("", encoding="ascii")
        said = self.popctl("list", "--guess-table", "", good=5).output
        self.assertIn("popd does not run, or listens on no control socket at /run/popd/con", said)
        self.popctl("list", "--guess-table", str(self.table))

    def test_nonsense(self) -> None:
        """What is neither an address nor a name is refused."""
        self.assertIn("no address", self.popctl("clear", "a//b", good=1).output)
