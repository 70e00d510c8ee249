"""Tests of the cache of verified credentials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from popd.auth import cache as module
from popd.auth.cache import LOOK, CredentialCache
from popd.auth.chain import CheckerChain
from popd.auth.checkers import PasswordFileChecker
from popd.auth.interfaces import IVersioned
from popd.auth.passwd import PasswordFile
from tests.auth.fakes import FakeChecker

if TYPE_CHECKING:
    from collections.abc import Iterable


@implementer(IVersioned)
class VersionedChecker(FakeChecker):
    """A checker that says when its answers change."""

    current: object = 1

    def version(self) -> object:
        """Return what the test wants."""
        return self.current


class ChainTests(SynchronousTestCase):
    """A chain with a cache asks its checkers no more often than it must."""

    def setUp(self) -> None:
        """Make a chain of one checker."""
        self.clock = Clock()
        self.cache = CredentialCache(60, self.clock.seconds)
        self.checker = VersionedChecker(b"joe")
        self.chain = CheckerChain([self.checker], cache=self.cache)

    def ask(self, password: bytes = b"secret", name: bytes = b"joe") -> str:
        """Return the name of whom the chain lets in, which has to be there at once."""
        login = self.chain.requestAvatarId(UsernamePassword(name, password))
        return self.successResultOf(login).name

    def asked(self) -> int:
        """Return how often the checker was asked."""
        return len(self.checker.asked)

    def test_remembered(self) -> None:
        """Good credentials are not checked again, until their time is over."""
        self.assertEqual([self.ask(), self.ask()], ["joe", "joe"])
        self.assertEqual(self.asked(), 1)
        self.clock.advance(59)
        self.ask()
        self.assertEqual(self.asked(), 1)
        self.clock.advance(1)
        self.assertEqual(self.ask(), "joe")
        self.assertEqual(self.asked(), 2)

    def test_other_credentials(self) -> None:
        """Another password or another name is checked, however the two are put together."""
        self.ask()
        self.ask(b"other")
        self.ask(b"esecret", b"jo")
        self.ask(b"ecret", b"joes")
        self.assertEqual(self.asked(), 4)

    def test_change(self) -> None:
        """When the checker's answers may have changed, it is asked."""
        self.ask()
        self.checker.current = 2
        self.checker.answer = UnauthorizedLogin()
        failed = self.chain.requestAvatarId(UsernamePassword(b"joe", b"secret"))
        self.failureResultOf(failed, UnauthorizedLogin)
        self.assertEqual(self.asked(), 2)

    def test_change_in_a_moment(self) -> None:
        """It is not looked for a change at every log-in, but in a moment it counts."""
        self.ask()
        self.ask()
        self.checker.current = 2
        self.ask()
        self.assertEqual(self.asked(), 1)
        self.clock.advance(LOOK)
        self.ask()
        self.assertEqual(self.asked(), 2)

    def test_change_while_asking(self) -> None:
        """An answer that was given while something changed is not kept."""

        def answer() -> bytes:
            self.checker.current = 2
            return b"joe"

        self.checker.answer = answer
        self.ask()
        self.ask()
        self.assertEqual(self.asked(), 2)

    def test_refusals(self) -> None:
        """Bad credentials are not remembered."""
        self.checker.answer = UnauthorizedLogin()
        for _ in range(2):
            failed = self.chain.requestAvatarId(UsernamePassword(b"joe", b"wrong"))
            self.failureResultOf(failed, UnauthorizedLogin)
        self.assertEqual(self.asked(), 2)

    def test_unversioned(self) -> None:
        """A checker that cannot tell when its answers change is asked every time."""
        checker = FakeChecker(b"joe")
        chain = CheckerChain([checker], cache=self.cache)
        for _ in range(2):
            self.successResultOf(chain.requestAvatarId(UsernamePassword(b"joe", b"secret")))
        self.assertEqual(len(checker.asked), 2)

    def test_off(self) -> None:
        """With a time to live of 0 nothing is remembered."""
        self.chain = CheckerChain([self.checker], cache=CredentialCache(0, self.clock.seconds))
        self.ask()
        self.ask()
        self.assertEqual(self.asked(), 2)

    def test_bound(self) -> None:
        """The cache is bounded; what was used last stays."""
        with mock.patch.object(module, "MAX_ENTRIES", 2):
            for password in (b"1", b"2", b"1", b"3"):
                self.ask(password)
            self.assertEqual(self.asked(), 3)
            self.ask(b"1")
            self.assertEqual(self.asked(), 3)
            self.ask(b"2")
            self.assertEqual(self.asked(), 4)

    def test_no_secrets(self) -> None:
        """Neither names nor passwords are in the cache."""
        self.checker.answer = b"someone"
        self.ask(b"hunter2", b"joseph")
        text = repr(self.cache._entries)
        self.assertNotIn("hunter2", text)
        self.assertNotIn("joseph", text)


class PasswordFileTests(SynchronousTestCase):
    """A password file's version."""

    def setUp(self) -> None:
        """Write a file, long ago."""
        self.path = Path(self.mktemp())
        self.write("joe:{PLAIN}secret\n")
        later = self.path.stat().st_ctime_ns + 60 * 10**9
        self.file = PasswordFile(self.path, now=lambda: later)
        self.checker = PasswordFileChecker(self.file, maybeDeferred)
        self.chain = CheckerChain([self.checker], cache=CredentialCache(60, Clock().seconds))

    def write(self, text: str) -> None:
        """Replace the file."""
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="ascii")
        new.replace(self.path)

    def outcomes(self, *passwords: bytes) -> Iterable[bool]:
        """Tell for each password whether joe may log in with it."""
        for password in passwords:
            result = self.chain.requestAvatarId(UsernamePassword(b"joe", password))
            accepted: list[object] = []
            result.addCallbacks(accepted.append, lambda failure: failure.trap(UnauthorizedLogin))
            yield bool(accepted)

    def test_interface(self) -> None:
        """A checker of a password file has a version."""
        verifyObject(IVersioned, self.checker)

    def test_same(self) -> None:
        """The version stays while the file does."""
        self.assertEqual(self.checker.version(), self.checker.version())

    def test_replaced(self) -> None:
        """It changes with the file: an old password is refused, a new one accepted, at once."""
        self.assertEqual([*self.outcomes(b"secret", b"changed")], [True, False])
        self.write("joe:{PLAIN}changed\n")
        self.assertNotEqual(self.checker.version(), self.checker.version())
        self.assertEqual([*self.outcomes(b"secret", b"changed")], [False, True])

    def test_gone(self) -> None:
        """A file that is gone has no version that equals any other."""
        self.path.unlink()
        self.assertNotEqual(self.checker.version(), self.checker.version())

    def test_fresh(self) -> None:
        """Nor has one that was changed just before it was read."""
        file = PasswordFile(self.path)
        self.assertNotEqual(file.version(), file.version())
