"""The files in ``etc/`` that other programs read: those programs find nothing wrong with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import popd

ETC = Path(popd.__file__).parent.parent / "etc"

EXPOSURE = 1.0
"""How exposed popd may be, by systemd's reckoning from 0 to 10."""


def run(program: str, *arguments: object, package: str) -> str:
    """Run a program; return what it says."""
    path = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
    if path is None:
        raise SkipTest(f"apt install {package}")
    done = subprocess.run(
        [path, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def section(unit: str, name: str) -> dict[str, str]:
    """Return a section of a unit; of a setting that is there several times, the last."""
    parser = RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ETC / "systemd" / unit)
    return dict(parser[name])


class SystemdTests(SynchronousTestCase):
    """Units, users and directories."""

    def test_exposure(self) -> None:
        """Popd's service is safe, as systemd sees it."""
        said = run(
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE * 10:.0f}", ETC / "systemd/popd.service"),
            package="systemd",
        )
        match = re.search(r"Overall exposure level for popd.service: ([\d.]+)", said)
        assert match is not None
        self.assertLessEqual(float(match[1]), EXPOSURE)

    def test_service(self) -> None:
        """It is an ordinary user without capabilities that watches itself."""
        service = section("popd.service", "Service")
        self.assertEqual((service["Type"], service["User"]), ("notify", "popd"))
        self.assertEqual(
            (service["CapabilityBoundingSet"], service["AmbientCapabilities"]), ("",) * 2
        )
        self.assertIn("WatchdogSec", service)
        self.assertNotIn("MemoryDenyWriteExecute", service)  # TLS would not work

    def test_socket(self) -> None:
        """The socket is for both ports."""
        text = (ETC / "systemd/popd.socket").read_text()
        self.assertEqual(re.findall(r"^ListenStream=(.*)$", text, re.MULTILINE), ["110", "995"])
        self.assertEqual(section("popd.service", "Unit")["Requires"], "popd.socket")

    def test_drop_in(self) -> None:
        """The example of a drop-in changes settings that are there, or are to be added."""
        service = section("popd.service", "Service")
        site = section("popd.service.d/site.conf", "Service")
        self.assertEqual(site.keys() - service.keys(), {"ReadWritePaths"})

    def test_user(self) -> None:
        """The user can be made."""
        run("systemd-sysusers", "--dry-run", ETC / "sysusers.d/popd.conf", package="systemd")

    def test_directories(self) -> None:
        """The files in /etc/popd get their owners, where the user is there."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        root = Path(self.mktemp()).absolute()
        secret = root / "etc/popd/passwd"
        secret.parent.mkdir(parents=True)
        secret.touch(mode=0o644)
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\npopd:x:123:\n")
        shutil.copy(ETC / "tmpfiles.d/popd.conf", root / "etc")
        run(
            "systemd-tmpfiles",
            "--create",
            f"--root={root}",
            root / "etc/popd.conf",
            package="systemd",
        )
        self.assertEqual((secret.stat().st_uid, secret.stat().st_gid), (0, 123))
        self.assertEqual(secret.stat().st_mode & 0o777, 0o640)


class OthersTests(SynchronousTestCase):
    """Programs that popd works with."""

    def test_logrotate(self) -> None:
        """The log can be rotated."""
        text = (ETC / "logrotate.d/popd").read_text()
        configuration = Path(self.mktemp()).absolute()
        configuration.write_text(text.replace("su popd popd", "su root root"))
        configuration.chmod(0o644)
        said = run("logrotate", "--debug", configuration, package="logrotate")
        self.assertIn("rotating pattern: /var/log/popd/popd.log", said)
        self.assertNotIn("error:", said)

    def test_haproxy(self) -> None:
        """HAProxy takes its configuration without a warning."""
        said = run("haproxy", "-c", "-f", ETC / "haproxy/popd.cfg", package="haproxy")
        self.assertNotIn("WARNING", said)
