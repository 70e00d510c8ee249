"""Tests of `popd.tap`."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.application.service import Service
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd import __version__, demo
from popd.config import DEFAULTS
from popd.door import Door
from popd.listen import Purpose, StartError
from popd.maildrop.interfaces import MaildropTemporaryError
from popd.maildrop.user import UserName
from popd.reload import _limits
from popd.tap import Options, Server, build
from popd.workers import Supervisor

MINIMUM = [
    *("--cleartext-login", "local"),
    *("--auth", "memory:ada:secret"),
    *("--maildrop", "maildir:/{local}"),
    *("--state-directory", "/nowhere"),
    *("--workers", "1"),
]


class FakeReactor(MemoryReactorClock):
    """A reactor with threads to be had."""

    threads = 0

    def suggestThreadPoolSize(self, size: int) -> None:
        """Remember the suggestion."""
        self.threads = size


def parsed(*arguments: str) -> Options:
    """Return the options after parsing *arguments*."""
    options = Options()
    options.parseOptions(arguments)
    return options


class TapTestCase(SynchronousTestCase):
    """A test case about starts that fail."""

    def refused(self, *arguments: str) -> str:
        """Return the one line with which a start with *arguments* ends."""
        reactor = FakeReactor()
        with self.assertRaises(StartError) as caught:
            build(parsed(*arguments), reactor)
        self.assertEqual((reactor.tcpServers, reactor.threads), ([], 0))
        code = caught.exception.code
        assert isinstance(code, str)
        self.assertNotIn("\n", code)
        return code.removeprefix("twistd popd: ")


class OptionsTests(TapTestCase):
    """The command line."""

    def test_every_setting(self) -> None:
        """Every setting of the configuration file has an option, and every option is documented."""
        options = Options()
        text = str(options)
        for key in [*DEFAULTS, "config"]:
            value = "" if isinstance(DEFAULTS.get(key), bool) else "="
            self.assertIn(f"--{key}{value}", text)
            self.assertTrue(options.docs[key], key)
        self.assertIn("--demo ", text)

    def test_repeated(self) -> None:
        """The repeatable options keep their order."""
        settings = parsed(
            *MINIMUM, "--auth", "unix", "--listen", "tcp:1", "--listen", "tcp:2"
        ).settings
        self.assertEqual(settings.auth, ("memory:ada:secret", "unix"))
        self.assertEqual(settings.listen, ("tcp:1", "tcp:2"))

    def test_none(self) -> None:
        """Listening can be turned off."""
        settings = parsed(*MINIMUM, "--certificate", "x", "--listen", "none").settings
        self.assertEqual((settings.listen, settings.listen_tls), ((), ("tcp:995",)))

    def test_file(self) -> None:
        """The command line wins over the file."""
        path = self.mktemp()
        Path(path).write_text("default-domain = 'a.org'\nmissing-maildrop = 'error'\n")
        settings = parsed(*MINIMUM, "--config", path, "--default-domain", "b.org").settings
        self.assertEqual((settings.default_domain, settings.missing_maildrop), ("b.org", "error"))

    def test_demo(self) -> None:
        """The demo is something to build on: a file and the command line win over it."""
        path = self.mktemp()
        Path(path).write_text("listen = 'tcp:1'\nlisten-tls = 'tcp:2'\n")
        settings = parsed("--demo", "--config", path, "--listen-tls", "tcp:3").settings
        self.assertEqual((settings.listen, settings.listen_tls), (("tcp:1",), ("tcp:3",)))
        self.assertTrue(settings.auth[0].startswith("popd-passwd:"))

    def test_version(self) -> None:
        """It is popd's version that is shown."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        with self.assertRaises(SystemExit) as caught:
            parsed("--version")
        self.assertEqual(
            (output.getvalue(), caught.exception.code), (f"popd {__version__}\n", None)
        )

    def test_wrong(self) -> None:
        """What is wrong with the command line is one line, not the whole help."""
        for arguments, problem in (
            (["--frob"], "option --frob not recognized; see twistd popd --help"),
            (["now"], "'now' is no option; see twistd popd --help"),
            (["--listen"], "option --listen requires argument; see twistd popd --help"),
            (["--demo=1"], "option --demo must not have an argument; see twistd popd --help"),
            (
                [*MINIMUM, "--missing-maildrop", "x"],
                "--missing-maildrop must be one of empty, error, not 'x'",
            ),
            ([*MINIMUM, "--maildrop", ""], "--maildrop is empty: give it a value or leave it out"),
            ([*MINIMUM, "--config", "/nowhere"], "/nowhere: No such file or directory"),
        ):
            self.assertEqual(self.refused(*arguments), problem)


class BuildTests(TapTestCase):
    """From options to services."""

    def test_listeners(self) -> None:
        """There is a listener for each endpoint, and it speaks what it is for."""
        demo.prepare(demo.DIRECTORY)
        server = build(
            parsed("--demo", "--listen", "tcp:1", "--listen", "unix:/x", "--listen-tls", "tcp:2"),
            FakeReactor(),
        )
        self.assertEqual(
            [listener.purpose for listener in server.listeners],
            [Purpose.STLS, Purpose.STLS, Purpose.IMPLICIT_TLS],
        )

    def test_binds_with_privileges(self) -> None:
        """Building binds nothing; ports are bound before privileges are dropped."""
        reactor = FakeReactor()
        server = build(parsed(*MINIMUM), reactor)
        self.assertEqual(reactor.tcpServers, [])
        server.privilegedStartService()
        self.assertEqual([port for port, *_ in reactor.tcpServers], [110])
        self.assertEqual(server.listeners[0].purpose, Purpose.CLEARTEXT)

    def test_threads(self) -> None:
        """Each processor may hash a password, and two at least may at the same time."""
        reactor = FakeReactor()
        build(parsed(*MINIMUM), reactor)
        self.assertEqual(reactor.threads, max(2, os.cpu_count() or 1))

    def test_workers(self) -> None:
        """With several workers a supervisor forks them, and itself accepts no connection."""
        server = build(parsed(*MINIMUM, "--workers", "3"), FakeReactor())
        self.assertIsInstance(server.reloader.service, Supervisor)
        self.assertFalse(server.listeners[0]._accepting)

    def test_one_worker(self) -> None:
        """One worker is the process itself."""
        server = build(parsed(*MINIMUM), FakeReactor())
        self.assertFalse([s for s in server.services if isinstance(s, Supervisor)])
        self.assertTrue(server.listeners[0]._accepting)

    def test_cache(self) -> None:
        """How much is remembered of maildrops, and how far clocks may differ, are options."""
        for options, octets, margin in (
            ((), 128e6, 10**9),
            (("--cache-size", "0.5", "--clock-skew", "7"), 5e5, 7 * 10**9),
        ):
            door: Any = Door(parsed(*MINIMUM, *options).settings)
            cache = door._realm._store._cache
            self.assertEqual((cache._octets, cache.margin), (octets, margin))

    def test_durability(self) -> None:
        """Deletions survive a power cut unless that is not wanted."""
        for options, durability in ((), "full"), (("--durability", "fast"), "fast"):
            store: Any = Door(parsed(*MINIMUM, *options).settings)._realm._store
            self.assertEqual(store.maildrop(UserName("joe"))._durability, durability)
        with self.assertRaises(StartError):
            parsed(*MINIMUM, "--durability", "slow")

    def test_reload_without_a_disk(self) -> None:
        """A reload does not take an empty mount point for a site without mail."""
        ground = Path(self.mktemp()).absolute()
        (ground / "joe" / "new").mkdir(parents=True)
        settings = parsed(*MINIMUM, "--maildrop", f"maildir:{ground}/{{local}}").settings
        before = Door(settings)
        ground.rename(ground.with_name("unmounted"))
        ground.mkdir()
        with mock.patch.object(os, "scandir", side_effect=AssertionError("it may hang")):
            store: Any = Door(settings, Door(settings, before))._realm._store
        self.assertRaises(MaildropTemporaryError, store.maildrop(UserName("joe")).open)

    def offered(self, *arguments: str) -> set[str]:
        """Return which ways to log in are offered."""
        offer = Door(parsed(*MINIMUM, *arguments).settings).offer
        return {*offer.sasl, *(["USER"] if offer.user else []), *(["APOP"] if offer.apop else [])}

    def test_mechanisms(self) -> None:
        """What can be verified is offered, but for what is weak and was not asked for."""
        usual = {"USER", "PLAIN", "LOGIN"}
        self.assertEqual(self.offered(), usual)
        self.assertEqual(self.offered("--apop"), {*usual, "APOP"})
        self.assertEqual(self.offered("--sasl", "cram-md5, PLAIN"), {"CRAM-MD5", "PLAIN"})
        self.assertEqual(self.offered("--sasl", "user", "--apop"), {"USER", "APOP"})

    def test_no_such_mechanism(self) -> None:
        """What cannot be offered is an error that names the option."""
        for arguments, problem in (
            (["--sasl", "PLAIN,DIGEST-MD5"], "--sasl: there is no 'DIGEST-MD5'; there are APOP, "),
            (["--sasl", "XOAUTH2"], "--sasl XOAUTH2: no --auth can verify it"),
            (["--sasl", "EXTERNAL"], "--sasl EXTERNAL: no --auth can verify it; it takes"),
            (["--sasl", ","], "--auth: nobody can log in; name what may be offered with --sasl"),
        ):
            text = self.refused(*MINIMUM, *arguments)
            self.assertTrue(text.startswith(problem), text)

    def test_policies(self) -> None:
        """What stands in front of a checker's type says what its answers lead to."""
        self.assertEqual(
            self.offered("--auth", "[failure=stop] memory:a:b", "--auth", "[] memory:a:b"),
            {"USER", "PLAIN", "LOGIN"},
        )
        for arguments, problem in (
            ("[failure=retry] memory:ada:secret", "--auth: [failure=retry]: failure can be"),
            ("[failure=stop] shadow", "--auth shadow: no such type"),
        ):
            text = self.refused(*MINIMUM, "--auth", arguments)
            self.assertTrue(text.startswith(problem), text)
            self.assertNotIn("secret", text)

    def warnings(self, *arguments: str) -> list[str]:
        """Return what a start with *arguments*, and a thousand files, logs."""
        with (
            mock.patch("popd.reload.raise_file_limit", return_value=1_000),
            capturedLogs() as events,
        ):
            build(parsed(*MINIMUM, "--max-sessions", "9", *arguments), FakeReactor())
        return [formatEvent(event) for event in events]

    def test_not_mounted(self) -> None:
        """A mail disk that is not there is worth a warning; it may come."""
        self.assertEqual(
            self.warnings("--maildrop", "maildir:/nowhere/{local}"),
            ["/nowhere is no directory; is it not mounted? Nobody gets mail"],
        )

    def test_limits(self) -> None:
        """So are limits that cannot be, or should not."""
        self.assertEqual(self.warnings("--idle-timeout", "600"), [])
        self.assertEqual(self.warnings("--idle-timeout", "0"), [])
        (warning,) = self.warnings("--idle-timeout", "599")
        self.assertIn("--idle-timeout 599: RFC 1939 wants 600 or more", warning)
        (warning,) = self.warnings("--max-sessions", "1000")
        self.assertIn("--max-sessions 1000 is more than there can be", warning)

    def test_all_limits(self) -> None:
        """Each option sets what it is called."""
        limits = _limits(
            parsed(
                *MINIMUM,
                *("--max-sessions", "1", "--max-sessions-per-ip", "2"),
                *("--max-sessions-per-user", "3", "--login-timeout", "4", "--idle-timeout", "5"),
                *("--max-download-per-day", "0.5"),
                *("--proxy-protocol", "192.0.2.1, 2001:db8::/32", "--xclient", "192.0.2.2"),
            ).settings
        )
        self.assertEqual(
            (limits.sessions, limits.per_address, limits.per_user, limits.login_timeout),
            (1, 2, 3, 4),
        )
        self.assertEqual((limits.idle_timeout, limits.per_day), (5, 500_000))
        self.assertIn("2001:db8::7", limits.proxies)
        self.assertIn("192.0.2.2", limits.relays)
        self.assertNotIn("192.0.2.1", limits.relays)
        self.assertFalse(limits.watch_crowds)
        for value, watched in (((), True), (("--proxy-protocol", "none"), False)):
            limits = _limits(parsed(*MINIMUM, *value).settings)
            self.assertEqual((bool(limits.proxies), limits.watch_crowds), (False, watched))

    def test_unusable(self) -> None:
        """What cannot be used is named, along with its option."""
        for arguments, problem in (
            (["--listen", "tcp:x"], "--listen tcp:x: this is no endpoint"),
            (["--maildrop", "/srv"], "--maildrop: '/srv' does not begin with 'maildir:'"),
            (
                ["--auth", "popd-passwd:/x"],
                "--auth popd-passwd: /x: No such file or directory; popctl",
            ),
            (["--auth", "popd-certificate:cn"], "--auth popd-certificate: needs --client-ca"),
            (["--auth", "popd-passwd"], "--auth popd-passwd: needs a file"),
            (["--auth", "shadow"], "--auth shadow: no such type; see twistd popd --help-auth"),
            (["--auth", "anonymous"], "--auth: anonymous can check nothing"),
            (["--certificate", "/x"], "--certificate: /x: cannot be read"),
        ):
            text = self.refused(*MINIMUM, *arguments)
            self.assertTrue(text.startswith(problem), text)

    def test_secrets(self) -> None:
        """What follows a checker's type may be a password, and is not shown."""
        self.assertNotIn("secret", self.refused(*MINIMUM, "--auth", "memory:ada:secret:eve"))


class ServerTests(SynchronousTestCase):
    """popd starts whole or not at all."""

    def setUp(self) -> None:
        """Have a server with nothing in it, and see what the terminal shows."""
        self.stderr = StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.reactor = MemoryReactorClock()
        self.exits: list[Any] = []
        self.server = Server(self.reactor, lambda *call: self.exits.append(call))

    def test_refused(self) -> None:
        """A port that cannot be had ends the start, and the terminal shows why."""

        class Refused(Service):
            def privilegedStartService(self) -> None:
                raise StartError("no port")

        Refused().setServiceParent(self.server)
        with self.assertRaises(StartError):
            self.server.privilegedStartService()
        self.assertEqual(self.stderr.getvalue(), "twistd popd: no port\n")

    def test_refused_later(self) -> None:
        """A port that turns out not to be had ends the process in an orderly way, with status 1."""
        with capturedLogs() as events:
            self.server._give_up(StartError("no port"))
        self.reactor.run()
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.exits, [(os._exit, 1)])
        self.assertEqual(self.stderr.getvalue(), "twistd popd: no port\n")
        self.assertEqual([formatEvent(event) for event in events], ["twistd popd: no port"])

    def test_no_terminal(self) -> None:
        """A process may have no stderr at all."""
        self.patch(sys, "__stderr__", None)
        self.server._give_up(StartError("no port"))
        self.assertEqual(len(self.exits), 1)
