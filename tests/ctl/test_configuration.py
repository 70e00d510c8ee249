"""Tests of ``popctl config``."""

from __future__ import annotations

import json

import trustme

from popd.auth.tablefile import GuessTable, Shape
from popd.config import DEFAULTS
from tests.ctl.test_main import CommandTestCase


class ConfigurationCase(CommandTestCase):
    """A site that popd would start with."""

    def setUp(self) -> None:
        """Write the configuration."""
        super().setUp()
        self.certificate = self.directory / "chain.pem"
        leaf = trustme.CA().issue_cert("mail.example.org")
        leaf.private_key_and_cert_chain_pem.write_to_path(str(self.certificate))
        self.passwords.write_text("ada:{PLAIN}x\n")
        self.mail = self.directory / "mail"
        self.mail.mkdir()
        self.state = self.directory / "state"
        self.state.mkdir()
        self.lines = {
            "listen": '["tcp:0:interface=127.0.0.1"]',
            "listen-tls": '"tcp:0:interface=127.0.0.1"',
            "certificate": f'"{self.certificate}"',
            "auth": f'["popd-passwd:{self.passwords}"]',
            "maildrop": f'"maildir:{self.mail}/{{local}}"',
            "state-directory": f'"{self.state}"',
            "control": '"none"',
        }
        self.write()

    def write(self, **more: str) -> None:
        """Write the configuration, with *more* settings."""
        lines = {**self.lines, **{key.replace("_", "-"): value for key, value in more.items()}}
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))


class Checks(ConfigurationCase):
    """popctl config check."""

    def check(self, *options: str) -> str:
        """Return why a start would be refused."""
        said = self.popctl("config", "check", "--", *options, status=1)
        return said.removeprefix("popctl: ").removesuffix("\n")

    def test_good(self) -> None:
        """What popd would start with is good, and nothing is made."""
        before = sorted(self.directory.rglob("*"))
        self.write(guess_table=f'"{self.directory / "guesses"}"', workers="1")
        self.popctl("config", "check")
        self.write(listen='"systemd:domain=INET:name=pop3"')
        self.popctl("config", "check", "--", "--workers", "3")
        self.assertEqual(sorted(self.directory.rglob("*")), before)

    def test_refused(self) -> None:
        """What a start would refuse is refused, with the start's own words."""
        for setting, value, reason in (
            ("certificate", '"/nowhere.pem"', "--certificate: /nowhere.pem: cannot be read"),
            ("auth", '"nothing:x"', "--auth nothing: no such type"),
            ("auth", '"popd-passwd:/nowhere"', "--auth popd-passwd: /nowhere"),
            ("maildrop", '"mbox:/x"', "--maildrop: 'mbox:/x' does not begin"),
            ("listen", '"tcp:99999"', "--listen tcp:99999: ports go up to 65535"),
            ("workers", "0", "workers must be auto"),
            ("frobnicate", "1", "there is no 'frobnicate'"),
            ("client-ca", '"/nowhere.pem"', "--client-ca: /nowhere.pem"),
        ):
            self.write(**{setting: value})
            self.assertIn(reason, self.check())

    def test_options(self) -> None:
        """Options behind -- win, as they do at a start."""
        self.assertIn("--workers must be", self.check("--workers", "x"))
        self.assertIn("no option", self.check("x"))
        self.assertIn("cannot be checked", self.check("--demo"))
        self.write(workers="0")
        self.assertIn("workers", self.check("--workers", "1"))
        self.assertIn("No such file", self.popctl("--config", "/x", "config", "check", status=1))

    def test_guess_table(self) -> None:
        """A file for guesses that could not be had is refused; one that is there stays."""
        path = self.directory / "guesses"
        self.write(guess_table=f'"{path}/x"')
        self.assertIn("no such directory", self.check())
        self.write(guess_table=f'"{path}"')
        path.write_text("precious")
        self.assertIn("left alone", self.check())
        self.assertEqual(path.read_text(), "precious")
        path.unlink()
        GuessTable.open(path, Shape(64, 256, 256)).close()
        before = path.read_bytes()
        self.popctl("config", "check")
        self.assertEqual(path.read_bytes(), before)


class Shows(ConfigurationCase):
    """popctl config show."""

    def show(self, *options: str) -> dict[str, tuple[object, str]]:
        """Return value and source of each setting."""
        rows = json.loads(self.popctl("config", "show", "--json", "--", *options))
        self.assertTrue(all(row["help"] for row in rows))
        return {row["name"]: (row["value"], row["source"]) for row in rows}

    def test_sources(self) -> None:
        """Each setting has its value, and where that comes from."""
        self.write(workers="3")
        shown = self.show("--cache-size", "7", "--listen", "tcp:1", "--listen", "tcp:2")
        self.assertEqual(shown.keys(), DEFAULTS.keys())
        self.assertEqual(shown["workers"], ("3", f"{self.config}:{len(self.lines) + 1}"))
        self.assertEqual(shown["cache-size"], (7.0, "command line"))
        self.assertEqual(shown["listen"], (["tcp:1", "tcp:2"], "command line"))
        self.assertEqual(shown["listen-tls"][1], f"{self.config}:2")
        self.assertEqual(shown["apop"], (False, "default"))
        self.assertRegex(self.popctl("config", "show"), r"(?m)^apop +no +default +Offer APOP")

    def test_follows(self) -> None:
        """Without a certificate there is no TLS, whatever the default is."""
        self.config.write_text(
            'cleartext-login = "local"\nauth = "memory:a:b"\nmaildrop = "maildir:/x/{user}"\n'
        )
        self.assertEqual(self.show()["listen-tls"], ([], "follows from the others"))

    def test_secrets(self) -> None:
        """What may be secret in an auth is not shown."""
        self.write(
            auth='["[failure=stop] memory:ada:hunter2", "popd-sql:postgresql://u:hunter2@h/d",'
            ' "popd-sql:sqlite:/x.db", "unix"]'
        )
        self.assertEqual(
            self.show()["auth"][0],
            [
                *("memory:(not shown)", "popd-sql:(not shown)", "popd-sql:sqlite:/x.db", "unix"),
            ],
        )
        self.assertNotIn("hunter2", self.popctl("config", "show"))


class Completion(CommandTestCase):
    """The shell completes commands."""

    def test_commands(self) -> None:
        """All commands are offered."""
        from click.shell_completion import BashComplete  # noqa: PLC0415

        from popd.ctl.main import main  # noqa: PLC0415

        complete = BashComplete(main, {}, "popctl", "_POPCTL_COMPLETE")
        found = {item.value for item in complete.get_completions([], "")}
        self.assertLessEqual(
            {"who", "kick", "trace", "explain", "status", "reload", "drain", "mailbox", "config"}
            | {"doctor", "client-config", "user", "apppass", "auth", "penalties"},
            found,
        )
        formats = complete.get_completions(["client-config", "ada", "--format"], "t")
        self.assertEqual([item.value for item in formats], ["text", "thunderbird"])
