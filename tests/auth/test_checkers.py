"""Tests of the checkers that come with popd."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.account import Account
from popd.auth.checkers import PasswdCheckerFactory, PasswordFileChecker
from popd.auth.passwd import PasswordFile

if TYPE_CHECKING:
    from collections.abc import Callable


class FilesTestCase(SynchronousTestCase):
    """A password file with one user."""

    def setUp(self) -> None:
        """Write the file."""
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text("alice@example.org:{PLAIN}wonderland\n", "utf-8")
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)


class Checking(FilesTestCase):
    """A checker verifies passwords with a password file."""

    def setUp(self) -> None:
        """Make a checker that does its work at once."""
        super().setUp()
        self.deferred: list[Callable[..., bytes]] = []

        def at_once(work: Callable[..., bytes], *args: Any) -> Deferred[Any]:
            self.deferred.append(work)
            return maybeDeferred(work, *args)

        self.checker = PasswordFileChecker(PasswordFile(self.path), at_once)

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self) -> None:
        """The right password is answered with the account."""
        for name in (b"alice@example.org", b"Alice@EXAMPLE.ORG"):
            credentials = UsernamePassword(name, b"wonderland")
            account = self.successResultOf(self.checker.requestAvatarId(credentials))
            self.assertEqual(account, Account("alice@example.org"))

    def test_wrong(self) -> None:
        """Anything else is refused, after work in the same place."""
        attempts = (
            (b"alice@example.org", b"Wonderland"),
            (b"alice@example.org", b""),
            (b"bob@example.org", b"wonderland"),
            (b"alice", b"wonderland"),
            (b"../alice@example.org", b"wonderland"),
            (b"\xff", b"wonderland"),
            (b"", b""),
        )
        for name, password in attempts:
            credentials = UsernamePassword(name, password)
            self.failureResultOf(self.checker.requestAvatarId(credentials), UnauthorizedLogin)
        self.assertEqual(len(self.deferred), len(attempts))

    def test_default(self) -> None:
        """Unless told otherwise the work is done in a thread."""
        self.assertIs(PasswordFileChecker(PasswordFile(self.path))._defer, deferToThread)


class Making(FilesTestCase):
    """The factory makes checkers from the argument of --auth."""

    factory = PasswdCheckerFactory()

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)
        self.assertEqual(self.factory.authType, "popd-passwd")

    def test_file(self) -> None:
        """The name of a password file is all that it needs."""
        checker = self.factory.generateChecker(str(self.path))
        account = checker._verify(("alice@example.org", ""), b"wonderland")
        self.assertEqual(account, Account("alice@example.org"))

    def assertRefused(self, argument: str, reason: str) -> None:
        """Assert that *argument* is refused for *reason*, in one line."""
        error = self.assertRaises(InvalidAuthArgumentString, self.factory.generateChecker, argument)
        self.assertEqual(str(error), f"popd-passwd{reason}")

    def test_no_argument(self) -> None:
        """Without a file, the error says how to name one."""
        self.assertRefused("", " needs a file: popd-passwd:FILE")

    def test_unusable(self) -> None:
        """The error names the file and what is wrong with it."""
        missing = f"{self.path}/missing"
        self.assertRefused(missing, f": {missing}: Not a directory")
        self.assertRefused("/dev/null", ": /dev/null: not a regular file")
        self.assertRefused("a\0b", ": embedded null byte")

    def test_light(self) -> None:
        """To import the factory brings in neither hashing libraries nor the reactor."""
        code = (
            "import sys, popd.auth.checkers\n"
            "heavy = {'argon2', 'bcrypt', 'passlib', 'twisted.internet.reactor'}\n"
            "print(sorted(heavy.intersection(sys.modules)))\n"
        )
        output = subprocess.check_output(
            [sys.executable, "-c", code], text=True, env={"PYTHONPATH": ":".join(sys.path)}
        )
        self.assertEqual(output, "[]\n")
