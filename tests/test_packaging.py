"""Twisted finds popd, and importing popd changes nothing.

That the wheel has all of the tree is seen where it is built, in ``.ci/run``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import popd
from tests.test_layers import MODULES

ROOT = Path(popd.__file__).parent.parent
PLUGINS = ROOT / "twisted" / "plugins"

CHECKERS = [
    "popd-certificate",
    "popd-dovecot",
    "popd-ldap",
    "popd-oauth2",
    "popd-pam",
    "popd-passwd",
    "popd-sql",
]

PROBE = """
import importlib, logging, os, signal, sys, threading
from twisted.logger import globalLogPublisher

def state():
    return (
        sorted(os.environ.items()), os.getcwd(), os.umask(0o22), sys.stdout, sys.stderr,
        sys.excepthook, sys.path, [signal.getsignal(n) for n in signal.valid_signals()],
        threading.active_count(), list(globalLogPublisher._observers), logging.root.handlers,
        sorted(os.listdir("/proc/self/fd")), "twisted.internet.reactor" in sys.modules,
    )

os.umask(0o22)
before = state()
for module in sys.argv[1:]:
    importlib.import_module(module)
    assert state() == before, (module, before, state())
"""


class PluginTests(SynchronousTestCase):
    """Twisted finds what popd adds to it."""

    def test_service(self) -> None:
        """There is one ``twistd popd``."""
        (maker,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "popd"]
        verifyObject(IServiceMaker, maker)
        self.assertIn("maildrop", maker.options().docs)
        self.assertTrue(callable(maker.makeService))

    def test_checkers(self) -> None:
        """Every checker factory of popd is there, under a name that is nobody else's."""
        mine = [
            factory
            for factory in getPlugins(ICheckerFactory)
            if type(factory).__module__.startswith("popd.")
        ]
        self.assertEqual(sorted(factory.authType for factory in mine), CHECKERS)
        for factory in mine:
            verifyObject(ICheckerFactory, factory)
            verifyObject(IPlugin, factory)

    def test_light(self) -> None:
        """Looking for plugins, as every twistd does, does not load the server."""
        code = "import sys, twisted.plugins.popd_plugin as p; print(*sys.modules)"
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, text=True
        ).stdout.split()
        heavy = ("argon2", "bcrypt", "cryptography", "jwt", "OpenSSL", "twisted.web")
        for module in ("popd.tap", "popd.server", *heavy):
            self.assertNotIn(module, output)


class TreeTests(SynchronousTestCase):
    """The tree is as a package with Twisted plugins has to be."""

    def test_no_package_in_twisted(self) -> None:
        """An ``__init__.py`` would replace Twisted's own, and take it along when it goes."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_plugin_is_small(self) -> None:
        """The plugin file has names and nothing else: all of it is run by every twistd."""
        source = (PLUGINS / "popd_plugin.py").read_text()
        self.assertLessEqual(len(source.splitlines()), 15)

    def test_no_side_effects(self) -> None:
        """Importing any module of popd leaves the process as it was."""
        subprocess.run(
            [sys.executable, "-c", PROBE, *MODULES, "popcheck.main", "popcheck.rules"],
            check=True,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )
