"""Log-ins that PAM decides about: the real library, with stacks of the test's own."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SkipTest

from tests.e2e.backends import DENIED, IN, TEMPORARY, BackendCase
from tests.e2e.server import until

_STACK: Final = """
auth optional pam_faildelay.so delay=8000000
auth sufficient pam_exec.so quiet expose_authtok seteuid {home}/asks
auth required pam_deny.so
account sufficient pam_exec.so quiet {home}/may
account required pam_deny.so
"""

_ASKS: Final = """#!/bin/sh
# PAM gives the password with a NUL behind it.
read -r password
while [ -e {home}/hang ]; do sleep 0.1; done
echo "$PAM_USER from $PAM_RHOST at $PAM_SERVICE" >>{home}/asked
[ "$PAM_USER" = zoe ] || [ "$PAM_USER" = yan ] || exit 1
[ "$password" = "$PAM_USER's secret" ]
"""

_MAY: Final = """#!/bin/sh
[ "$PAM_USER" != yan ]
"""

_UNAVAILABLE: Final = """
auth required pam_debug.so auth=authinfo_unavail
account required pam_permit.so
"""


def _has_pam() -> bool:
    try:
        library = ctypes.CDLL("libpam.so.0")
    except OSError:
        return False
    return hasattr(library, "pam_start_confdir")


class PamTests(BackendCase):
    """PAM knows users whom nobody else knows."""

    def setUp(self) -> None:
        """Write the services."""
        super().setUp()
        if not _has_pam() or not any(Path("/").glob("usr/lib*/**/security/pam_exec.so")):
            raise SkipTest("needs Linux-PAM 1.4: apt-get install libpam-modules")
        self.pam = self.root / "pam.d"
        self.pam.mkdir()
        for name, text in (("asks", _ASKS), ("may", _MAY)):
            script = self.root / name
            script.write_text(text.format(home=self.root), "ascii")
            script.chmod(0o755)
        (self.pam / "mail").write_text(_STACK.format(home=self.root), "ascii")

    def start_popd(self, *options: str, workers: int = 1) -> None:
        """Start popd, whose default domain PAM does not know."""
        backend = ":".join((f"popd-pam:mail:confdir={self.pam}", *options))
        state = ("--state-directory", str(self.root))  # where modules may write
        self.start(backend, "--default-domain", "example.org", "--workers", str(workers), *state)

    def helpers(self) -> set[int]:
        """Return popd's processes that ask PAM."""
        pid = self.popd.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
        return set(map(int, children.split()))

    def test_decides(self) -> None:
        """PAM says who gets in, without pauses of its own; it is told where the client is."""
        self.start_popd()
        self.assertEqual(self.helpers(), set())
        self.assertLogIn("zoe", "zoe's secret", IN)
        self.assertLogIn("ZOE@example.org", "zoe's secret", IN)
        self.assertLogIn("zoe@example.net", "zoe's secret", DENIED)
        reply, seconds = self.log_in("zoe", "Zoe's secret")
        self.assertTrue(reply.startswith(DENIED))
        self.assertLess(seconds, 4.0)
        self.assertLogIn("nobody", "zoe's secret", DENIED)
        self.assertLogIn("yan", "yan's secret", DENIED)
        self.assertIn("the account is disabled", self.popd.log)
        asked = (self.root / "asked").read_text("ascii").splitlines()
        self.assertEqual(asked[0], "zoe from 127.0.0.1 at mail")
        self.assertEqual(asked[2], "zoe@example.net from 127.0.0.1 at mail")
        self.assertEqual(len(self.helpers()), 1)

    def test_ends(self) -> None:
        """The helpers end with popd, and so does one that hangs when popd is killed."""
        self.start_popd()
        self.assertLogIn("zoe", "zoe's secret", IN)
        (helper,) = self.helpers()
        os.kill(helper, signal.SIGSTOP)
        self.popd.process.kill()
        self.popd.process.wait()
        until(lambda: not Path(f"/proc/{helper}/exe").exists(), "the helper lives on")

    def test_down(self) -> None:
        """Where PAM cannot say, its users are not told that their passwords were wrong."""
        (self.pam / "mail").write_text(_UNAVAILABLE, "ascii")
        self.start_popd()
        self.assertLogIn("zoe", "zoe's secret", TEMPORARY)
        self.assertIn("cannot retrieve authentication info", self.popd.log)
        self.assertOthersFast()
        (self.pam / "mail").write_text(_STACK.format(home=self.root), "ascii")
        self.assertLogIn("zoe", "zoe's secret", IN)
        self.assertLogIn("zoe", "wrong", DENIED)

    def test_hangs(self) -> None:
        """A module that hangs costs one time-out and its process, and is tried again."""
        self.start_popd("timeout=1.5")
        self.assertLogIn("zoe", "zoe's secret", IN)
        before = self.helpers()
        (self.root / "hang").touch()
        self.assertLogIn("zoe", "zoe's secret", TEMPORARY)
        self.assertOthersFast()
        (self.root / "hang").unlink()
        self.wait_for("zoe", "zoe's secret")
        self.assertTrue(before.isdisjoint(self.helpers()))

    def test_workers(self) -> None:
        """Each of popd's processes has helpers of its own."""
        self.start_popd(workers=2)
        for _ in range(6):
            self.assertLogIn("zoe", "zoe's secret", IN)

    def test_dies(self) -> None:
        """A helper that dies is replaced."""
        self.start_popd()
        self.assertLogIn("zoe", "zoe's secret", IN)
        for helper in self.helpers():
            os.kill(helper, signal.SIGKILL)
        self.assertLogIn("zoe", "zoe's secret", IN)
        until(lambda: len(self.helpers()) == 1, "the dead one is still there")
