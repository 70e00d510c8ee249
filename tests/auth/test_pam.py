"""Tests of the checker that asks PAM, without PAM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth import pam_pool
from popd.auth.account import Account, Client
from popd.auth.health import FIRST_PAUSE
from popd.auth.interfaces import AuthTemporaryError, AuthUncertainError
from popd.auth.pam import PamChecker, PamCheckerFactory
from popd.auth.pam_pool import MAX_WAITING, Helper, Pool

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

SIZE = 2
TIMEOUT = 5.0


class Attempt(UsernamePassword):
    """What the chain asks with."""

    client = Client("192.0.2.7")
    bare = b""


class FakeHelpers:
    """Helpers that say what a test says."""

    def __init__(self) -> None:
        self.helpers: list[Helper] = []
        self.killed: list[Helper] = []
        self.startable = True

    def start(self) -> Helper:
        """Start one."""
        if not self.startable:
            raise AuthUncertainError("no more processes")
        helper = Helper(lambda: self.killed.append(helper))
        helper.makeConnection(StringTransport())
        self.helpers.append(helper)
        return helper

    def asked(self) -> list[tuple[Helper, dict[str, str]]]:
        """Return what was asked since this was called last, and whom."""
        found = []
        for helper in self.helpers:
            found += [(helper, json.loads(line)) for line in helper.transport.value().splitlines()]
            helper.transport.clear()
        return found


class PamCase(SynchronousTestCase):
    """A checker, and helpers that say what they are told to."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.fake = FakeHelpers()
        self.checker = self.made()

    def made(self, *, full_names: bool = False) -> PamChecker:
        """Return a checker."""
        pool = Pool(self.fake.start, SIZE, TIMEOUT, self.clock)
        return PamChecker(lambda _: pool, TIMEOUT, full_names=full_names, reactor=self.clock)

    def ask(
        self, name: bytes = b"alice@x.org", password: bytes = b"secret", bare: bytes = b"alice"
    ) -> Deferred[Account]:
        """Ask for somebody."""
        attempt = Attempt(name, password)
        attempt.bare = bare
        return self.checker.requestAvatarId(attempt)

    def answer(self, code: int = 0, stage: str = "account", user: str = "alice") -> int:
        """Answer all that was asked; return how much that was."""
        asked = self.fake.asked()
        for helper, _ in asked:
            line = {"stage": stage, "code": code, "text": "so it is", "user": user}
            helper.dataReceived(json.dumps(line).encode("ascii") + b"\n")
        return len(asked)

    def answered(self, code: int, stage: str, user: str = "alice") -> Deferred[Account]:
        """Ask for somebody, and answer."""
        asked = self.ask()
        self.answer(code, stage, user)
        return asked

    def assertUnknown(self, asked: Deferred[Account], why: str) -> None:
        """Assert that it could not be told, for a reason that has *why* in it."""
        text = self.failureResultOf(asked, AuthTemporaryError).getErrorMessage()
        self.assertIn(why, text)


class AskingTests(PamCase):
    """What PAM is asked, and what its answers mean."""

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_question(self) -> None:
        """PAM is asked about the bare name, unless it is told to know full ones."""
        self.assertNoResult(self.ask(password=b"\xff\n"))
        ((_, question),) = self.fake.asked()
        self.assertEqual(question, {"user": "alice", "password": "\xff\n", "host": "192.0.2.7"})
        self.checker = self.made(full_names=True)
        self.assertNoResult(self.ask())
        ((_, question),) = self.fake.asked()
        self.assertEqual(question["user"], "alice@x.org")

    def test_right(self) -> None:
        """The account has the complete name, or the other one that PAM found out."""
        self.assertEqual(self.successResultOf(self.answered(0, "account")), Account("alice@x.org"))
        account = self.successResultOf(self.answered(0, "account", "bob"))
        self.assertEqual(account, Account("bob"))
        self.failureResultOf(self.answered(0, "account", "../etc"), UnauthorizedLogin)

    def test_wrong(self) -> None:
        """Nothing that is said before the password is seen to be right is more than a no."""
        for code in (6, 7, 10, 11, 12, 13):
            self.failureResultOf(self.answered(code, "authenticate"), UnauthorizedLogin)

    def test_disabled(self) -> None:
        """A user whose password is right may be kept out all the same."""
        for code in (6, 7, 10, 12, 13):
            account = self.successResultOf(self.answered(code, "account"))
            self.assertEqual((account.name, account.disabled), ("alice@x.org", True))

    def test_undecided(self) -> None:
        """All else is no answer; success is one only from both stages."""
        for stage in ("start", "authenticate", "account"):
            for code in (4, 5, 8, 9, 26, 31, 99):
                self.assertUnknown(self.answered(code, stage), f"({stage}): so it is")
        self.assertUnknown(self.answered(0, "authenticate"), "(authenticate)")
        self.assertUnknown(self.answered(19, "authenticate"), "more than a password")

    def test_never_asked(self) -> None:
        """What PAM would not see the whole of is refused here."""
        for name, password in ((b"", b"p"), (b"a", b""), (b"a", b"p\0q"), (b"a", b"p" * 1025)):
            self.failureResultOf(self.ask(name, password, b""), UnauthorizedLogin)
        self.assertEqual(self.fake.helpers, [])


class PoolTests(PamCase):
    """A few helpers for many questions."""

    def test_shared(self) -> None:
        """Helpers are started as they are needed, are asked one thing each, and asked again."""
        first = self.ask()
        self.assertEqual(self.answer(), 1)
        self.successResultOf(first)
        asked = [self.ask() for _ in range(5)]
        self.assertEqual(len(self.fake.helpers), SIZE)
        self.assertEqual([self.answer() for _ in range(4)], [2, 2, 1, 0])
        for deferred in asked:
            self.successResultOf(deferred)
        self.assertEqual(self.fake.killed, [])

    def test_bounded(self) -> None:
        """Beyond a number that no site has, nobody more waits."""
        asked = [self.ask() for _ in range(SIZE + MAX_WAITING)]
        self.assertUnknown(self.ask(), "too many log-ins wait for PAM")
        self.answer()
        self.successResultOf(asked[0])
        self.assertNoResult(self.ask())
        for deferred in asked:
            deferred.addErrback(lambda _: None).cancel()

    def test_hangs(self) -> None:
        """Helpers that hang are ended; nobody waits for PAM then, until it answers again."""
        asked = [self.ask() for _ in range(SIZE + 1)]
        self.clock.advance(TIMEOUT)
        for deferred in asked:
            self.assertUnknown(deferred, "does not answer")
        self.assertEqual(self.fake.killed, self.fake.helpers[:SIZE])
        self.assertUnknown(self.ask(), "does not answer for 5 seconds")
        self.fake.asked()
        self.clock.advance(FIRST_PAUSE)
        ((_, question),) = self.fake.asked()
        self.assertEqual(question["user"], ".nobody")
        self.clock.advance(TIMEOUT)
        self.clock.advance(2 * FIRST_PAUSE)
        self.assertUnknown(self.ask(), "does not answer")
        self.assertEqual(self.answer(7, "authenticate", ".nobody"), 1)
        self.successResultOf(self.answered(0, "account"))

    def test_one_slow(self) -> None:
        """One answer that does not come says nothing about the others."""
        slow = self.ask()
        ((stuck, _),) = self.fake.asked()
        self.clock.advance(TIMEOUT - 1)
        self.successResultOf(self.answered(0, "account"))
        self.clock.advance(1)
        self.assertUnknown(slow, "does not answer")
        self.assertEqual(self.fake.killed, [stuck])
        self.successResultOf(self.answered(0, "account"))

    def test_cancelled(self) -> None:
        """A client that goes away costs no helper, and has no turn if it still waits."""
        asked = [self.ask() for _ in range(SIZE + 1)]
        for deferred in asked:
            deferred.addErrback(lambda _: None).cancel()
        self.assertEqual(self.answer(), SIZE)
        self.assertEqual(self.answer(), 0)
        self.assertEqual(self.fake.killed, [])
        self.successResultOf(self.answered(0, "account"))
        self.assertEqual(len(self.fake.helpers), SIZE)

    def test_dies(self) -> None:
        """A helper that a module takes down with it costs one answer."""
        asked = self.ask()
        ((helper, _),) = self.fake.asked()
        helper.connectionLost(Failure(ConnectionDone()))
        self.assertUnknown(asked, "has died")
        self.successResultOf(self.answered(0, "account"))
        self.assertEqual(len(self.fake.helpers), 2)

    def test_dies_reused(self) -> None:
        """If it had answered others before it may have been dead already: another is asked."""
        self.successResultOf(self.answered(0, "account"))
        asked = self.ask()
        self.fake.asked()
        self.fake.helpers[0].connectionLost(Failure(ConnectionDone()))
        self.answer()
        self.successResultOf(asked)
        again = self.ask()
        for helper in self.fake.helpers:
            helper.connectionLost(Failure(ConnectionDone()))
        self.fake.helpers[-1].connectionLost(Failure(ConnectionDone()))
        self.assertUnknown(again, "has died")

    def test_dies_idle(self) -> None:
        """One that ends while it has nothing to do costs nothing."""
        self.successResultOf(self.answered(0, "account"))
        self.fake.helpers[0].connectionLost(Failure(ConnectionDone()))
        self.successResultOf(self.answered(0, "account"))
        self.assertEqual(len(self.fake.helpers), 2)

    def test_worn(self) -> None:
        """A helper is replaced after a while, lest leaks of modules add up."""
        self.patch(pam_pool, "USES", 3)
        for _ in range(7):
            self.successResultOf(self.answered(0, "account"))
        self.assertEqual(len(self.fake.helpers), 3)
        self.assertEqual(self.fake.killed, self.fake.helpers[:2])

    def test_closed(self) -> None:
        """When it is closed no helper is left, once it has answered."""
        self.made().close()  # which has none
        asked = [self.ask(), self.ask(b"bob")]
        self.answer()
        for one in asked:
            self.successResultOf(one)
        last = self.ask()
        self.checker.close()
        self.assertEqual(len(self.fake.killed), 1)
        self.answer()
        self.successResultOf(last)
        self.assertEqual(set(self.fake.killed), set(self.fake.helpers))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_none(self) -> None:
        """Where no process can be started that is said, and others wait no longer for it."""
        self.fake.startable = False
        self.assertUnknown(self.ask(), "no more processes")
        self.fake.startable = True
        self.successResultOf(self.answered(0, "account"))


class FactoryTests(SynchronousTestCase):
    """The factory makes checkers from the argument of --auth."""

    factory = PamCheckerFactory()

    def setUp(self) -> None:
        """Make a place with one service."""
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        (self.place / "popd").touch()

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)

    def test_options(self) -> None:
        """A service, or popd, and options."""
        checker = self.factory.generateChecker(f"popd:confdir={self.place}")
        self.assertEqual((checker._timeout, checker._full_names), (9.0, False))
        options = f"confdir={self.place}:names=full:timeout=2.5:processes=8"
        checker = self.factory.generateChecker(f":{options}")
        self.assertEqual((checker._timeout, checker._full_names), (2.5, True))
        self.assertEqual(checker._make_pool(Clock())._free, 8)

    def test_wrong(self) -> None:
        """The error says what is wrong."""
        for argument, reason in (
            ("../passwd", "needs a service"),
            ("popd:names=none", "needs a service"),
            ("popd:timeout=0", "needs a service"),
            ("popd:processes=0", "needs a service"),
            (f"smtp:confdir={self.place}", f"there is no {self.place}/smtp"),
            ("popd-no-such-service", "there is no /etc/pam.d/popd-no-such-service"),
        ):
            error = self.assertRaises(
                InvalidAuthArgumentString, self.factory.generateChecker, argument
            )
            self.assertIn(reason, str(error))
