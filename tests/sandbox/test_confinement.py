"""What a configuration makes of the rules for who serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.interfaces import Needs
from popd.config import Settings
from popd.sandbox import confinement, landlock
from popd.sandbox.confinement import Confinement, Launch
from popd.sandbox.landlock import Access, Rules


class ConfinementTestCase(SynchronousTestCase):
    """A test case with a site that nobody serves, and a kernel that takes everything."""

    version = 7

    def setUp(self) -> None:
        """Make the site."""
        self.root = Path(os.path.realpath(self.mktemp()))
        for name in ("mail", "etc", "tls", "state", "log", "run", "db"):
            (self.root / name).mkdir(parents=True)
        self.restricted: list[Rules] = []
        self.renounced: list[bool] = []
        self.patch(landlock, "abi", lambda: self.version)
        self.patch(landlock, "restrict", self.restrict)
        self.patch(confinement, "renounce", lambda: self.renounced.append(True))
        self.patch(os, "geteuid", lambda: 1000)

    def restrict(self, rules: Rules) -> None:
        """Take note."""
        self.restricted.append(rules)

    def make(
        self, *needs: Needs | None, alone: bool = False, launch: Launch | None = None, **more: Any
    ) -> Confinement:
        """Return what a configuration makes."""
        settings = Settings(
            certificate=(f"{self.root}/tls/cert.pem",) if "certificate_dir" not in more else (),
            state_directory=f"{self.root}/state",
            control=f"{self.root}/run/control",
            **more,
        )
        return Confinement(settings, needs, f"{self.root}/mail", launch or Launch(), alone=alone)

    def within(self, rules: Rules) -> dict[str, Access]:
        """Return what rules say about the site."""
        prefix = f"{self.root}/"
        return {
            path.removeprefix(prefix): access
            for path, access in rules.paths.items()
            if path.startswith(prefix)
        }


class RulesTests(ConfinementTestCase):
    """Places, by what needs them."""

    MAIL = Access.CHANGE
    STATE = Access.CHANGE | Access.MAKE_DIR

    def test_worker(self) -> None:
        """A worker has the mail, the state directory, and what its checkers name."""
        rules = self.make(
            Needs((f"{self.root}/etc/passwd",)), Needs(databases=(f"{self.root}/db/users.db",))
        ).rules()
        self.assertEqual(
            self.within(rules),
            {"mail": self.MAIL, "state": self.STATE, "etc": Access.READ, "db": Access.CHANGE},
        )
        self.assertEqual((rules.connect, rules.bind, rules.signals), (False, False, False))
        self.assertNotIn("/", rules.paths)
        for path, access in rules.paths.items():
            self.assertFalse(access & Access.EXECUTE, path)

    def test_network(self) -> None:
        """It may connect if one of them does, and no more."""
        rules = self.make(Needs(), Needs(network=True)).rules()
        self.assertEqual((rules.connect, rules.bind), (True, False))

    def test_anything(self) -> None:
        """One that cannot say what it needs may read and execute, but not write."""
        for needs in (None, Needs(anything=True)):
            rules = self.make(needs).rules()
            self.assertEqual(rules.paths["/"], Access.READ | Access.EXECUTE)
            self.assertEqual((rules.connect, rules.bind, rules.signals), (True, False, True))
            self.assertEqual(self.within(rules), {"mail": self.MAIL, "state": self.STATE})

    def test_alone(self) -> None:
        """One process has what it reads when it reloads, and its sockets, besides."""
        launch = Launch(f"{self.root}/etc/popd.toml", f"{self.root}/log/popd", f"{self.root}/pid")
        rules = self.make(
            alone=True, launch=launch, listen=(f"unix:{self.root}/run/pop3",), status="tcp:9110"
        ).rules()
        sockets = Access.MAKE_SOCK | Access.MAKE_SYM | Access.MAKE_DIR | Access.REMOVE_FILE
        found = self.within(rules)
        self.assertEqual(
            found,
            {
                "mail": self.MAIL,
                "state": self.STATE,
                "etc": Access.READ,
                "tls": Access.READ,
                "log": Access.CHANGE,
                "run": sockets,
            },
        )
        self.assertEqual(rules.paths[str(self.root)], Access.CHANGE)
        self.assertEqual((rules.connect, rules.bind, rules.signals), (False, True, True))

    def test_watched(self) -> None:
        """One process that systemd watches logs in to itself; workers are logged in to."""
        for alone in (True, False):
            rules = self.make(alone=alone, launch=Launch(watched=True)).rules()
            self.assertEqual(rules.connect, alone)

    def test_certificates(self) -> None:
        """Of links to certificates the place for the next name is open as well."""
        live, archive = self.root / "tls" / "live", self.root / "tls" / "archive"
        for directory in (live / "a", archive / "a"):
            directory.mkdir(parents=True)
        (live / "a" / "fullchain.pem").symlink_to("../../archive/a/fullchain1.pem")
        rules = self.make(alone=True, certificate_dir=str(live)).rules()
        for path in (live, live / "a", archive, archive / "a"):
            self.assertEqual(rules.paths[str(path)], Access.READ)

    def test_no_sockets(self) -> None:
        """Without a control socket its directory is nobody's."""
        settings = Settings(control="none", state_directory=str(self.root / "state"))
        rules = Confinement(settings, (), f"{self.root}/mail", Launch(), alone=True).rules()
        self.assertNotIn("run", self.within(rules))
        self.assertNotIn("/run/popd", rules.paths)


class LaunchTests(SynchronousTestCase):
    """How popd was started."""

    def test_of(self) -> None:
        """Twistd's options say so; there may be none."""
        self.patch(os, "environ", {})
        self.assertEqual(Launch.of(None, None), Launch())
        twistd = {"logfile": None, "pidfile": "twistd.pid", "nodaemon": 1}
        self.assertEqual(Launch.of("x", twistd), Launch("x", "", "twistd.pid"))  # type: ignore[arg-type]
        self.patch(os, "environ", {"NOTIFY_SOCKET": "/run/notify"})
        self.assertTrue(Launch.of(None, {}).watched)


class EnterTests(ConfinementTestCase):
    """When it is done."""

    def said(self, made: Confinement) -> list[str]:
        """Enter; return what the log says."""
        with capturedLogs() as events:
            made.report()
            made.enter()
        return [str(formatEvent(event)) for event in events]

    def test_auto(self) -> None:
        """It is done, and said, once."""
        self.assertEqual(self.said(self.make()), ["Workers: confined by Landlock, version 7"])
        self.assertEqual((len(self.restricted), len(self.renounced)), (1, 1))
        (line,) = self.said(self.make(None, alone=True))
        self.assertTrue(line.startswith("popd: confined by Landlock, version 7; but"))

    def test_off(self) -> None:
        """Privileges alone are given up, and nobody is told."""
        self.assertEqual(self.said(self.make(sandbox="off")), [])
        self.assertEqual((self.restricted, self.renounced), ([], [True]))

    def test_no_landlock(self) -> None:
        """Where there is none a line says so, or popd does not start."""
        self.version = 0
        (line,) = self.said(self.make())
        self.assertIn("no Landlock", line)
        self.assertEqual((self.restricted, self.renounced), ([], [True]))
        with self.assertRaises(ValueError) as caught:
            self.make(sandbox="required")
        self.assertIn("no Landlock", str(caught.exception))

    def test_root(self) -> None:
        """That popd runs as root is said loudly."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertIn("popd runs as root", self.said(self.make())[1])

    def test_fails(self) -> None:
        """If it cannot be done that is said, or ends the start."""

        def fail(_: Rules) -> None:
            raise OSError(7, "Argument list too long")

        self.patch(landlock, "restrict", fail)
        made = self.make()
        self.assertIn("Not confined by Landlock", self.said(made)[1])
        self.assertFalse(made.entered)
        self.assertRaises(OSError, self.make(sandbox="required").enter)


class ObstacleTests(ConfinementTestCase):
    """What one process can still take over."""

    def setUp(self) -> None:
        """Enter, with a password file."""
        super().setUp()
        self.passwords = Needs((f"{self.root}/etc/passwd",))
        self.now = self.make(self.passwords, alone=True)
        self.now.enter()

    def obstacle(self, *needs: Needs | None, **more: Any) -> str:
        """Return what is in the way."""
        return self.now.obstacle(self.make(*needs, alone=True, **more))

    def test_nothing(self) -> None:
        """The same, less, or what lies within is possible; and another after that."""
        (self.root / "etc" / "deeper").mkdir()
        deeper = Needs((f"{self.root}/etc/deeper/passwd",))
        for needs in ((self.passwords,), (), (deeper,), (self.passwords, deeper)):
            self.assertEqual(self.obstacle(*needs), "")

    def test_elsewhere(self) -> None:
        """What lies elsewhere is not, nor what is to be written now."""
        self.assertEqual(self.obstacle(Needs((f"{self.root}/log/passwd",))), str(self.root / "log"))
        self.assertEqual(
            self.obstacle(Needs(databases=(f"{self.root}/etc/db",))), str(self.root / "etc")
        )
        self.assertEqual(self.obstacle(Needs(anything=True), Needs()), "TCP connections")

    def test_network(self) -> None:
        """Connections are not, if there were none."""
        self.assertEqual(self.obstacle(Needs(network=True)), "TCP connections")

    def test_absent(self) -> None:
        """What is not there cannot be missed."""
        self.assertEqual(self.obstacle(Needs(("/no/such/place",))), "")

    def test_not_entered(self) -> None:
        """Who is not confined can take over everything."""
        other = self.make(alone=True)
        self.assertEqual(other.obstacle(self.make(Needs(network=True), alone=True)), "")
