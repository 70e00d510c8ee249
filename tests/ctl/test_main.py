"""Tests of popctl's commands."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account, Client
from popd.auth.apppass import LastUse
from popd.auth.passwd import PasswordFile
from popd.ctl.main import main

if TYPE_CHECKING:
    from click.testing import Result

ADA = "ada@example.org"


class CommandTestCase(SynchronousTestCase):
    """A site's configuration, and popctl in this process."""

    def setUp(self) -> None:
        """Write the configuration."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.passwords = self.directory / "passwd"
        self.config = self.directory / "popd.toml"
        self.config.write_text(
            f'auth = ["popd-passwd:{self.passwords}"]\nmaildrop = "maildir:/x"\n'
        )
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)

    def run_popctl(self, *arguments: str, stdin: bytes = b"") -> Result:
        """Run popctl with *arguments*."""
        options = ("--config", str(self.config), "--state-directory", str(self.directory))
        return CliRunner().invoke(main, [*options, *arguments], input=stdin)

    def popctl(self, *arguments: str, stdin: bytes = b"", status: int = 0) -> str:
        """Run popctl, and return what it says; a failure says it in one line on stderr."""
        result = self.run_popctl(*arguments, stdin=stdin)
        self.assertEqual(result.exit_code, status, result.output)
        if status:
            self.assertEqual(result.stdout, "")
            self.assertRegex(result.stderr, r"\Apopctl: [^\n]*\n\Z")
            return result.stderr
        return result.stdout

    def add(self, name: str = ADA, password: bytes = b"secret") -> None:
        """Add a user."""
        self.popctl("user", "add", name, "--password-stdin", stdin=password + b"\n")

    def verify(self, name: str, password: bytes) -> Account | None:
        """Return whom popd would let in."""
        return PasswordFile(self.passwords).verify(name, password)


class Users(CommandTestCase):
    """popctl user."""

    def test_life(self) -> None:
        """A user comes, changes his password, goes out, comes in, and is gone."""
        self.popctl(
            "user",
            "add",
            "Ada@EXAMPLE.org",
            "--password-stdin",
            "--set",
            "quota=1G",
            stdin=b"one\n",
        )
        self.assertEqual(self.verify(ADA, b"one"), Account(ADA, quota=1 << 30))
        self.popctl("user", "passwd", ADA, "--password-stdin", stdin=b"two\r\nthree\n")
        self.assertIsNone(self.verify(ADA, b"one"))
        self.assertEqual(self.verify(ADA, b"two"), Account(ADA, quota=1 << 30))
        self.popctl("user", "disable", ADA)
        self.assertEqual(self.verify(ADA, b"two"), Account(ADA, disabled=True, quota=1 << 30))
        self.popctl("user", "enable", ADA)
        self.assertEqual(self.verify(ADA, b"two"), Account(ADA, quota=1 << 30))
        self.popctl("user", "delete", ADA)
        self.assertEqual(self.passwords.read_text(), "")

    def test_exit_statuses(self) -> None:
        """What fails says why in a line, and how in its exit status."""
        self.add()
        one = b"x\n"
        for arguments, status, reason in (
            (("user", "add", ADA, "--password-stdin"), 4, f"{ADA}: there is such a user already"),
            (("user", "passwd", "b", "--password-stdin"), 3, "b: there is no such user"),
            (("user", "disable", "b"), 3, "b: there is no such user"),
            (("user", "add", "../b", "--password-stdin"), 2, "no user can have this name"),
            (("user", "add", "b"), 2, "give --password-stdin"),
            (("user", "add", "b", "secret"), 2, "unexpected extra argument"),
            (("user", "frobnicate"), 2, "No such command"),
            (("user", "add", "b", "--password-stdin", "--set", "uid=1"), 2, "no field uid"),
            (("user", "add", "b", "--password-stdin", "--set", "quota=x"), 2, "field quota"),
            (("apppass", "revoke", ADA, "phone"), 3, f"{ADA} has no app password phone"),
            (("apppass", "list", "b"), 3, "b: there is no such user"),
            (("apppass", "add", ADA, "x", "--expires", "soon"), 2, "field expires"),
            (("apppass", "add", ADA, "a/b"), 1, "must name the program"),
        ):
            self.assertIn(reason, self.popctl(*arguments, stdin=one, status=status))
        self.assertIn("is empty", self.popctl("user", "add", "b", "--password-stdin", status=1))
        self.assertEqual(len(self.passwords.read_text().splitlines()), 1)

    def test_disabled(self) -> None:
        """Whoever is added and cannot log in is not said to."""
        added = self.run_popctl(
            "user", "add", ADA, "--password-stdin", "--set", "disabled", stdin=b"x\n"
        )
        self.assertEqual(added.stderr, f"{ADA} is added, but the account is disabled\n")

    def test_long_password(self) -> None:
        """A password that is too long is refused, not cut."""
        for length in (1025, 1026, 1027, 1028, 5000):
            said = self.popctl(
                "user", "add", "b", "--password-stdin", stdin=b"x" * length, status=1
            )
            self.assertIn("more than 1024 octets", said)

    def test_list(self) -> None:
        """Users are listed for people, and all about them for programs."""
        self.assertIn(
            "No such file",
            self.popctl("user", "list", status=5),
        )
        self.add()
        with self.passwords.open("a") as file:
            file.write("bob:{PLAIN}x::::::nologin quota=1k\ncyd:{PLAIN}x::::::proxy\n")
        lines = self.popctl("user", "list").splitlines()
        self.assertEqual(
            [line.split() for line in lines[:2]],
            [
                [ADA, "active", "ARGON2ID", "SCRAM-SHA-256", "-"],
                ["bob", "disabled", "PLAIN", "quota=1k"],
            ],
        )
        self.assertIn("barred", lines[2])
        ada, bob, cyd = json.loads(self.popctl("user", "list", "--json"))
        self.assertEqual(
            ada,
            {
                "name": ADA,
                "state": "active",
                "disabled": False,
                "schemes": ["ARGON2ID", "SCRAM-SHA-256"],
                "fields": {},
                "problem": "",
            },
        )
        self.assertEqual((bob["state"], bob["fields"]), ("disabled", {"quota": "1k"}))
        self.assertIn("does not enforce proxy", cyd["problem"])
        self.passwords.write_text("")
        self.assertEqual(self.popctl("user", "list"), "")
        self.assertEqual(json.loads(self.popctl("user", "list", "--json")), [])

    def test_terminal(self) -> None:
        """What a file says plays no tricks on a terminal."""
        self.passwords.write_text("ada:{PLAIN}x::::::maildrop=maildir:/\x1b[2J\n")
        self.assertIn("maildir:/\N{REPLACEMENT CHARACTER}[2J", self.popctl("user", "list"))


class AppPasswords(CommandTestCase):
    """popctl apppass."""

    def setUp(self) -> None:
        """Add a user."""
        super().setUp()
        self.add()
        self.uses = LastUse(self.directory / "apppass", lambda: 1_800_000_000.0)

    def test_life(self) -> None:
        """One is shown once, listed with its last use, and revoked."""
        password = self.popctl(
            *("apppass", "add", ADA, "phone", "--expires", "2030-01-01", "--no-delete"),
            *("--allow-nets", "192.0.2.0/24,2001:db8::/32", "--interval", "60"),
        )
        self.assertRegex(password, r"\A([a-z2-7]{4}-){6}[a-z2-7]{4}\n\Z")
        limits = {
            "expires": "2030-01-01",
            "allow_nets": "192.0.2.0/24,2001:db8::/32",
            "no_delete": "",
            "interval": "60",
        }
        row = {
            "user": ADA,
            "name": "phone",
            "fields": limits,
            "last_use": None,
            "last_client": None,
        }
        self.assertEqual(json.loads(self.popctl("apppass", "list", ADA, "--json")), [row])
        self.uses.admit(Account(ADA, program="phone"), Client("192.0.2.7"))
        row.update(last_use="2027-01-15T08:00:00Z", last_client="192.0.2.7")
        self.assertEqual(json.loads(self.popctl("apppass", "list", ADA, "--json")), [row])
        cells = self.popctl("apppass", "list", ADA).split()
        self.assertEqual(cells[:3], ["phone", "2027-01-15T08:00:00Z", "192.0.2.7"])
        said = self.popctl("apppass", "add", ADA, "phone", status=4)
        self.assertIn("has an app password phone already", said)
        self.popctl("apppass", "revoke", ADA, "phone")
        self.assertEqual(self.popctl("apppass", "list", ADA), "")
        self.assertIsNone(self.uses.read(ADA, "phone"))

    def test_json(self) -> None:
        """A program gets a new one as JSON."""
        made = json.loads(self.popctl("apppass", "add", ADA, "tv", "--json"))
        self.assertEqual((made["user"], made["name"]), (ADA, "tv"))
        self.assertNotIn(made["password"], (self.directory / "passwd.apppass").read_text())

    def test_go_with_the_user(self) -> None:
        """With a user goes what is known of his app passwords' use."""
        self.popctl("apppass", "add", ADA, "phone")
        self.uses.admit(Account(ADA, program="phone"), Client("192.0.2.7"))
        self.popctl("user", "delete", ADA)
        self.assertIsNone(self.uses.read(ADA, "phone"))
        self.add()
        self.assertEqual(self.popctl("apppass", "list", ADA), "")


class Sites(CommandTestCase):
    """Which accounts a command is about."""

    def test_first_that_can_be_changed(self) -> None:
        """It is the first that popctl can change, whatever stands before it, a policy too."""
        other = self.directory / "other"
        self.config.write_text(
            f'auth = ["popd-ldap:x", "[failure=stop] popd-passwd:{other}", "popd-passwd:/x"]\n'
        )
        self.add("bob")
        self.assertTrue(other.read_text().startswith("bob:"))

    def test_option(self) -> None:
        """What --auth says counts, and then there need not be a configuration."""
        self.config.unlink()
        other = self.directory / "other"
        self.popctl(
            *("--auth", f"popd-passwd:{other}", "user", "add", "bob", "--password-stdin"),
            stdin=b"x\n",
        )
        self.assertTrue(other.read_text().startswith("bob:"))

    def test_unusable(self) -> None:
        """A configuration that is missing, wrong, or says nothing of accounts is named."""
        for content, status, reason in (
            ('auth = "popd-ldap:x"\n', 1, "popctl cannot change accounts of popd-ldap"),
            ("auth = []\n", 5, "there is no auth in it"),
            ("auth = x\n", 5, str(self.config)),
            (None, 5, f"{self.config}: No such file or directory; give --config FILE or --auth"),
        ):
            self.config.write_text(content) if content is not None else self.config.unlink()
            self.assertIn(reason, self.popctl("user", "list", status=status))


class Programs(CommandTestCase):
    """popctl as a program of its own."""

    popctl_path = str(Path(sys.executable).with_name("popctl"))

    def start(self, *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        command = [self.popctl_path, "--config", str(self.config), *arguments]
        how = {"capture_output": True, "text": True, "timeout": 60, "check": False, **how}
        return subprocess.run(command, **how)  # type: ignore[call-overload,no-any-return]  # noqa: PLW1510

    def test_auth_test(self) -> None:
        """Each link of the chain is asked, and the exit status says what came of it."""
        self.add()
        ask = ("auth", "test", ADA, "--password-stdin")
        ran = self.start(*ask, input="secret\n")
        self.assertRegex(ran.stdout, rf"\Apopd-passwd +accepted +\d+\.\d{{3}} s +as {ADA}\n\Z")
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (0, 1))
        ran = self.start(*ask, "--json", input="wrong\n")
        (said,) = json.loads(ran.stdout)
        self.assertEqual((said["link"], said["said"]), ("popd-passwd", "wrong password"))
        self.assertEqual(ran.returncode, 1)
        missing = self.directory / "missing"
        self.config.write_text(
            f'auth = ["popd-passwd:{missing}", "popd-none:x", "popd-passwd:{self.passwords}"]\n'
            'default-domain = "example.org"\n'
        )
        ran = self.start(*ask, input="wrong\n")
        links = [line.split("  ")[0:2] for line in ran.stdout.splitlines()]
        self.assertEqual([link[0] for link in links], ["popd-passwd", "popd-none", "popd-passwd"])
        self.assertIn(f"{missing}: No such file or directory", ran.stdout)
        self.assertIn("no such type", ran.stdout)
        self.assertEqual(ran.returncode, 6)
        ran = self.start("auth", "test", "ada", "--password-stdin", "--json", input="secret\n")
        self.assertEqual([said["said"] for said in json.loads(ran.stdout)][2], "accepted")
        self.assertEqual(ran.returncode, 0)

    def test_prompt(self) -> None:
        """On a terminal a new password is asked for twice and not shown."""
        for answers, status in ((b"secret\nsecret\n", 0), (b"secret\nother\n\x03", 1)):
            ours, theirs = pty.openpty()
            process = subprocess.Popen(
                [self.popctl_path, "--config", str(self.config), "user", "add", f"ada{status}"],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
            os.close(theirs)
            shown = b""
            for answer in answers.splitlines(keepends=True):
                while not shown.endswith(b": "):
                    shown += os.read(ours, 1000)
                os.write(ours, answer)
                shown += b"\n"
            if status:
                process.terminate()
            self.assertEqual(process.wait(60) == 0, status == 0)
            os.close(ours)
            self.assertNotIn(b"secret", shown)
        self.assertTrue(self.verify("ada0", b"secret"))
        self.assertIsNone(self.verify("ada1", b"secret"))

    def test_completion(self) -> None:
        """The shell can complete commands."""
        environment = {**os.environ, "COMP_WORDS": "popctl user ", "COMP_CWORD": "2"}
        ran = self.start(env={**environment, "_POPCTL_COMPLETE": "bash_complete"})
        self.assertIn("plain,disable", ran.stdout)
