"""Tests of ``popctl mailbox``."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from popd.maildrop.lock import MaildropLock
from tests.ctl.test_main import CommandTestCase

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"Subject: x\n\nx\n"


class Mailboxes(CommandTestCase):
    """What is in a user's maildrop."""

    def setUp(self) -> None:
        """Have a user with mail."""
        super().setUp()
        self.mail = self.directory / "mail"
        self.config.write_text(
            f'auth = "popd-passwd:{self.passwords}"\ndefault-domain = "example.org"\n'
            f'maildrop = "maildir:{self.mail}/{{domain}}/{{local}}"\n'
            f'mail-root = "{self.directory}"\n'
        )
        self.passwords.write_text(
            f"ada:x\nbob@example.org:x::::::maildrop=maildir:{self.directory}/else/{{local}}\n"
        )
        self.ada = self.make(self.mail / "example.org" / "ada")

    def make(self, path: Path) -> Path:
        """Make a Maildir with two messages."""
        for name in ("new", "cur", "tmp"):
            (path / name).mkdir(parents=True)
        (path / "new" / "2.b.host").write_bytes(BODY)
        (path / "cur" / "1.a.host:2,S").write_bytes(BODY)
        return path

    def json(self, *arguments: str) -> Any:
        """Return the JSON that popctl writes."""
        return json.loads(self.popctl("mailbox", *arguments, "--json"))

    def test_status(self) -> None:
        """Where it is, what it holds, and whether it is locked; nothing is made there."""
        before = sorted(path.name for path in self.ada.iterdir())
        row = self.json("status", "ada")
        self.assertEqual(
            [row[key] for key in ("user", "path", "messages", "octets", "stored", "duplicates")],
            ["ada@example.org", str(self.ada), 2, 34, 28, 0],
        )
        self.assertIs(row["locked"], False)
        self.assertEqual(sorted(path.name for path in self.ada.iterdir()), before)
        lock = MaildropLock(os.fsencode(self.ada))
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertIs(self.json("status", "ada@example.org")["locked"], True)
        self.assertRegex(self.popctl("mailbox", "status", "ada"), "locked +by a session\n")

    def test_lists(self) -> None:
        """Numbers, sizes and unique-ids are those of POP3."""
        rows = self.json("list", "ada")
        self.assertEqual([(row["number"], row["octets"]) for row in rows], [(1, 17), (2, 17)])
        self.assertEqual(rows[0]["path"], str(self.ada / "cur" / "1.a.host:2,S"))
        self.assertEqual(self.popctl("mailbox", "uidl", "ada"), "1  1.a.host\n2  2.b.host\n")

    def test_elsewhere(self) -> None:
        """Whose mail is elsewhere, it is looked for there."""
        path = self.make(self.directory / "else" / "bob")
        for name in ("bob", "bob@example.org"):
            self.assertEqual(self.json("status", name)["path"], str(path))

    def test_no_accounts(self) -> None:
        """Where popctl cannot look into the accounts, the template counts."""
        text = self.config.read_text().replace(f"popd-passwd:{self.passwords}", "memory:ada:x")
        self.config.write_text(text)
        self.assertEqual(self.json("status", "ada")["path"], str(self.ada))

    def test_wrong(self) -> None:
        """What cannot be looked at is said in a line."""
        self.assertIn("No such file", self.popctl("mailbox", "status", "zed", status=5))
        (self.ada / "cur").rename(self.ada / "old")
        self.assertIn("No such file", self.popctl("mailbox", "list", "ada", status=5))
        self.passwords.unlink()
        self.assertIn("No such file", self.popctl("mailbox", "uidl", "ada", status=5))
        self.config.write_text("")
        self.assertIn("no maildrop in it", self.popctl("mailbox", "uidl", "ada", status=5))
        self.config.write_text('maildrop = "x"\nauth = "memory:a:b"\n')
        self.assertIn("does not begin", self.popctl("mailbox", "uidl", "ada", status=5))
