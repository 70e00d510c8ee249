"""Tests of `popd.config`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from popd.config import (
    DEFAULTS,
    REPEATABLE,
    ConfigError,
    Layer,
    Settings,
    checked,
    read_file,
    settle,
)

ETC = Path(__file__).parent.parent / "etc" / "popd.toml"

COMPLETE: Layer = {
    "certificate": ("c.pem",),
    "auth": ("memory",),
    "maildrop": "maildir:/srv/{user}",
}
"""The least that popd can do with."""


def without(*keys: str) -> Layer:
    """Return `COMPLETE` without *keys*."""
    return {key: value for key, value in COMPLETE.items() if key not in keys}


class FileTests(SynchronousTestCase):
    """What a configuration file says, and what is wrong with it."""

    def setUp(self) -> None:
        """Have a directory for the file."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "popd.toml"

    def read(self, content: str | bytes) -> Layer:
        """Return what a file with *content* says."""
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_file(str(self.path))

    def refused(self, content: str | bytes) -> str:
        """Return why a file with *content* is refused, behind the name of the file."""
        with self.assertRaises(ConfigError) as caught:
            self.read(content)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertTrue(text.startswith(f"{self.path}: "), text)
        return text.removeprefix(f"{self.path}: ")

    def test_every_key(self) -> None:
        """A file has the names of the options; the repeatable ones take lists."""
        self.assertEqual(
            self.read(
                """
                listen = ["tcp:110", "unix:/run/popd"]
                listen-tls = []
                certificate = ["/etc/ssl/rsa.pem", "/etc/ssl/ecdsa.pem"]
                private-key = "/etc/ssl/mail.key"
                auth = ["popd-passwd:/etc/popd/passwd", "unix"]
                maildrop = "maildir:/srv/{user}"
                default-domain = "Example.org"
                cleartext-login = "local"
                missing-maildrop = "error"
                workers = 4
                auth-cache-ttl = 60
                """
            ),
            {
                "listen": ("tcp:110", "unix:/run/popd"),
                "listen-tls": (),
                "certificate": ("/etc/ssl/rsa.pem", "/etc/ssl/ecdsa.pem"),
                "private-key": ("/etc/ssl/mail.key",),
                "auth": ("popd-passwd:/etc/popd/passwd", "unix"),
                "maildrop": "maildir:/srv/{user}",
                "default-domain": "Example.org",
                "cleartext-login": "local",
                "missing-maildrop": "error",
                "workers": "4",
                "auth-cache-ttl": 60.0,
            },
        )

    def test_numbers(self) -> None:
        """Numbers may be written as texts, as on the command line."""
        self.assertEqual(
            self.read("auth-cache-ttl = '2.5'\nworkers = 'auto'"),
            {"auth-cache-ttl": 2.5, "workers": "auto"},
        )

    def test_switches(self) -> None:
        """A switch is on or off, and nothing else."""
        self.assertIs(checked("apop", value=True, shown="apop"), True)
        for value in ("true", 1, ["x"]):
            with self.assertRaises(ConfigError) as caught:
                checked("apop", value, "popd.toml: apop")
            self.assertIn("popd.toml: apop must be true or false", str(caught.exception))

    def test_wrong_numbers(self) -> None:
        """What is no number, or an impossible one, is refused and shown."""
        for value in ("'x'", "-1", "nan", "inf", "true", "[1]"):
            problem = self.refused(f"auth-cache-ttl = {value}")
            self.assertIn("auth-cache-ttl must be a number, 0 or more, not ", problem)
        for value in ("0", "-1", "'x'", "1.5", "true", "1000000000000", "'\u0661'"):
            problem = self.refused(f"workers = {value}")
            self.assertIn("workers must be auto or a number from 1 on, not ", problem)

    def test_huge(self) -> None:
        """Numbers that Python cannot show, or turn into another kind, are refused as well."""
        for key in ("auth-cache-ttl", "max-sessions", "workers", "auth", "apop"):
            for value in ("9" * 400, "-" + "9" * 400, "0x" + "f" * 5_000):
                self.assertIn(f"{key} is too large", self.refused(f"{key} = {value}"))
        for broken in ("workers = " + "9" * 5_000, "auth = " + "[" * 5_000):
            self.refused(broken)

    def test_wrong_whole_numbers(self) -> None:
        """A number of sessions is whole."""
        self.assertEqual(self.read("max-sessions = '7'"), {"max-sessions": 7})
        for value in ("-1", "'x'", "1.5", "true", "10000000000", "'\u0661'", "''", "[1]"):
            problem = self.refused(f"max-sessions = {value}")
            self.assertIn("max-sessions must be a whole number, 0 or more, not ", problem)

    def test_networks(self) -> None:
        """Networks are told from what is none, and why."""
        for value in ("none", "10.0.0.1", "10.0.0.0/8, 2001:db8::/32"):
            self.assertEqual(self.read(f"xclient = '{value}'"), {"xclient": value})
        for value in ("10.0.0.1/8", "proxy.example.org", "10.0.0.1,", "none,10.0.0.1"):
            problem = self.refused(f"proxy-protocol = '{value}'")
            self.assertIn("proxy-protocol must be none, or networks like 192.0.2.0/24", problem)

    def test_empty(self) -> None:
        """A file need not say anything."""
        self.assertEqual(self.read(""), {})

    def test_single_text(self) -> None:
        """A single text is as good as a list of one."""
        self.assertEqual(self.read("auth = 'unix'"), {"auth": ("unix",)})

    def test_none(self) -> None:
        """``none`` is an empty list, as on the command line."""
        self.assertEqual(self.read("listen = 'none'"), {"listen": ()})

    def test_missing(self) -> None:
        """A file that is not there is named."""
        with self.assertRaises(ConfigError) as caught:
            read_file("/nowhere/popd.toml")
        self.assertEqual(str(caught.exception), "/nowhere/popd.toml: No such file or directory")

    def test_not_utf8(self) -> None:
        """A file in Latin-1 is no TOML."""
        self.assertEqual(
            self.refused(b"maildrop = 'caf\xe9'"), "not UTF-8 at octet 15, as TOML has to be"
        )

    def test_syntax(self) -> None:
        """A syntax error comes with its line."""
        self.assertIn("line 2", self.refused("listen = []\nmaildrop = maildir:/srv\n"))

    def test_misspelt(self) -> None:
        """A key that is none brings the one it resembles."""
        self.assertEqual(
            self.refused("listen_tls = 'tcp:995'"),
            "there is no 'listen_tls'; did you mean 'listen-tls'?",
        )

    def test_unknown(self) -> None:
        """A key that resembles none brings all there are."""
        self.assertEqual(
            self.refused("[popd-server-42]"),
            f"there is no 'popd-server-42'; there are {', '.join(DEFAULTS)}",
        )

    def test_wrong_types(self) -> None:
        """A number, a table or a list where a text belongs is refused and shown."""
        for content, problem in (
            ("listen = 110", "listen must be a text in quotes or a list of them, not 110"),
            ("auth = [1]", "auth must be a text in quotes or a list of them, not [1]"),
            ("maildrop = true", "maildrop must be a text in quotes, not True"),
            ("maildrop = ['x']", "maildrop must be a text in quotes, not ['x']"),
            ("certificate = ''", "certificate is empty: give it a value or leave it out"),
            ("listen = ['']", "listen is empty: give it a value or leave it out"),
            (
                "listen = ['none', 'tcp:110']",
                "listen is both none and something: leave one of them out",
            ),
        ):
            self.assertEqual(self.refused(content), problem)

    def test_choices(self) -> None:
        """A value that is none of the choices brings them."""
        for content, problem in (
            (
                "cleartext-login = 'sometimes'",
                "cleartext-login must be one of never, local, always, not 'sometimes'",
            ),
            (
                "missing-maildrop = 'create'",
                "missing-maildrop must be one of empty, error, not 'create'",
            ),
        ):
            self.assertEqual(self.refused(content), problem)

    def test_domains(self) -> None:
        """What no domain is cannot complete a name."""
        for domain in ("", "a@b", ".org", "../etc", "a b "):
            self.assertEqual(
                self.refused(f"default-domain = '{domain}'"),
                f"default-domain must be a domain like example.org, not {domain!r}",
            )


class SettleTests(SynchronousTestCase):
    """What settings amount to."""

    def refused(self, *layers: Layer) -> str:
        """Return why *layers* are refused."""
        with self.assertRaises(ConfigError) as caught:
            settle(*layers)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        return text

    def test_defaults(self) -> None:
        """What is not given has its default."""
        self.assertEqual(
            settle(COMPLETE),
            Settings(
                listen=("tcp:110",),
                listen_tls=("tcp:995",),
                certificate=("c.pem",),
                private_key=(),
                auth=("memory",),
                maildrop="maildir:/srv/{user}",
                default_domain="",
                cleartext_login="never",
                missing_maildrop="empty",
            ),
        )

    def test_later_wins(self) -> None:
        """A later layer replaces what an earlier one says, lists as a whole."""
        settings = settle(
            COMPLETE,
            {"listen": ("tcp:1", "tcp:2"), "maildrop": "maildir:/a", "default-domain": "a.org"},
            {"listen": ("tcp:3",), "maildrop": "maildir:/b"},
        )
        self.assertEqual(
            (settings.listen, settings.maildrop, settings.default_domain),
            (("tcp:3",), "maildir:/b", "a.org"),
        )

    def test_turned_off(self) -> None:
        """Either way of listening can be turned off."""
        self.assertEqual(settle(COMPLETE, {"listen": ()}).listen, ())
        self.assertEqual(settle(COMPLETE, {"listen-tls": ()}).listen_tls, ())

    def test_nowhere_to_listen(self) -> None:
        """Both ways cannot be turned off."""
        self.assertIn("--listen", self.refused(COMPLETE, {"listen": (), "listen-tls": ()}))

    def test_nothing_given(self) -> None:
        """What has to be given is asked for, one thing after the other."""
        self.assertIn("--certificate", self.refused())
        self.assertIn("--auth", self.refused(without("auth", "maildrop")))
        self.assertIn("--maildrop", self.refused(without("maildrop")))

    def test_no_tls(self) -> None:
        """Without a certificate there is no port for TLS, if someone may log in without."""
        for policy in ("local", "always"):
            settings = settle(without("certificate"), {"cleartext-login": policy})
            self.assertEqual((settings.listen, settings.listen_tls), (("tcp:110",), ()))

    def test_proxies(self) -> None:
        """Endpoints that hide whom they listen to do not go together with trusted proxies."""
        for endpoint in ("haproxy:tcp:110", "ssl:995"):
            layer = {"listen": ("tcp:110", endpoint)}
            problem = self.refused(COMPLETE, layer, {"proxy-protocol": "192.0.2.1"})
            self.assertIn(f"{endpoint}: --proxy-protocol goes with tcp: endpoints", problem)
            for value in ("none", ""):
                settle(COMPLETE, layer, {"proxy-protocol": value})
        settle(COMPLETE, {"proxy-protocol": "192.0.2.1"})

    def test_nobody_could_log_in(self) -> None:
        """Without a certificate someone must be allowed to log in without TLS."""
        self.assertEqual(
            self.refused(without("certificate")),
            "without TLS nobody may log in: give --certificate PEM, or --cleartext-login local",
        )

    def test_tls_without_certificate(self) -> None:
        """A port for TLS that somebody asked for is not left out silently."""
        self.assertEqual(
            self.refused(
                without("certificate"),
                {"cleartext-login": "always", "listen-tls": ("tcp:995",)},
            ),
            "--listen-tls needs a certificate: give --certificate PEM",
        )

    def test_key_without_certificate(self) -> None:
        """A private key alone is of no use."""
        self.assertEqual(
            self.refused(without("certificate"), {"private-key": ("k.pem",)}),
            "--private-key without its certificate: give --certificate as well",
        )

    def test_keys(self) -> None:
        """There is a private key for each certificate, or for none."""
        certificates: Layer = {"certificate": ("a.pem", "b.pem")}
        good: list[tuple[str, ...]] = [(), ("a.key", "b.key")]
        for keys in good:
            settings = settle(COMPLETE, certificates, {"private-key": keys})
            self.assertEqual(settings.private_key, keys)
        bad: list[tuple[str, ...]] = [("a.key",), ("a.key", "b.key", "c.key")]
        for keys in bad:
            self.assertEqual(
                self.refused(COMPLETE, certificates, {"private-key": keys}),
                "give --private-key for each --certificate, in the same order, or for none, where"
                " each is in its certificate's file",
            )


class ShippedTests(SynchronousTestCase):
    """``etc/popd.toml``, which is where the settings are described."""

    def test_parses(self) -> None:
        """It is a configuration that popd starts with."""
        settle(read_file(str(ETC)))

    def test_complete(self) -> None:
        """It has every setting, either in force or as a comment with the default."""
        lines = ETC.read_text().splitlines()
        for field in fields(Settings):
            key = field.name.replace("_", "-")
            self.assertTrue(
                any(line.removeprefix("# ").startswith(f"{key} = ") for line in lines), key
            )

    def test_defaults(self) -> None:
        """What stands in a comment is the default, where there is one."""
        commented = "\n".join(
            line.removeprefix("# ")
            for line in ETC.read_text().splitlines()
            if line.removeprefix("# ").partition(" = ")[0] in DEFAULTS and line.startswith("# ")
        )
        path = Path(self.mktemp())
        path.write_text(commented)
        for key, value in read_file(str(path)).items():
            if DEFAULTS[key]:
                self.assertEqual(value, DEFAULTS[key], key)
        self.assertLessEqual({"listen", "listen-tls"}, REPEATABLE)
