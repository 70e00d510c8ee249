"""Tests of what a chain's links lead to, and how one that is down is spared."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account
from popd.auth.chain import CheckerChain
from popd.auth.credentials import Attempt
from popd.auth.interfaces import AuthTemporaryError
from popd.auth.link import FIRST_RETRY, MAX_RETRY, TIMEOUT, Action, Link, Policy
from tests.auth.fakes import AvatarId, Directory, FakeChecker

if TYPE_CHECKING:
    from twisted.cred.checkers import ICredentialsChecker

DOWN = AuthTemporaryError("no route to host")


class Words(SynchronousTestCase):
    """How a policy is written."""

    def test_none(self) -> None:
        """Without brackets all is as usual."""
        self.assertEqual(Policy.split("popd-passwd:/x[1]"), (Policy(), "popd-passwd:/x[1]"))

    def test_some(self) -> None:
        """What is in the brackets is otherwise; commas and spaces separate."""
        stop, following = Action.STOP, Action.NEXT
        for text, policy in (
            ("[failure=stop,temporary=stop]", Policy(failure=stop, temporary=stop)),
            ("[ success=next  failure=stop ] ", Policy(following, stop)),
            ("[success=accept, failure=next, temporary=next] ", Policy()),
            ("[]", Policy()),
        ):
            self.assertEqual(Policy.split(f"{text}file:[x]"), (policy, "file:[x]"))

    def test_wrong(self) -> None:
        """An unknown word is an error that names the known ones."""
        for text, reason in (
            ("notfound=next", "there are success, failure, temporary"),
            ("failure", "failure can be next or stop"),
            ("failure=accept", "failure can be next or stop"),
            ("success=return", "success can be accept or next or stop"),
        ):
            error = self.assertRaises(ValueError, Policy.split, f"[{text}] file:x")
            self.assertIn(f"[{text}]: {reason}", str(error))


class LinkCase(SynchronousTestCase):
    """Somebody who asks chains."""

    def setUp(self) -> None:
        """Set the clock."""
        self.clock = Clock()

    def outcome(self, chain: CheckerChain) -> str:
        """Return the name of who is let in, or of the error, which has to be there at once."""
        login: Deferred[str] = chain.requestAvatarId(Attempt(b"alice", b"secret")).addCallbacks(
            lambda account: account.name, lambda failure: failure.type.__name__
        )
        self.addCleanup(self.flushLoggedErrors)
        return self.successResultOf(login)


class Policies(LinkCase):
    """What each answer of each of two links leads to."""

    def assertOutcomes(self, policy: str, *expected: str) -> None:
        """Check what becomes of a log-in.

        :param expected: the outcome if the first link, which has the policy, accepts, refuses, or
            cannot answer; while the second one accepts.  And so on while that one refuses.
        """
        outcomes = []
        for second in (b"two", UnauthorizedLogin()):
            for first in (b"one", UnauthorizedLogin(), DOWN):
                links = [
                    Link(FakeChecker(first), Policy.split(f"[{policy}]")[0]),
                    Link(FakeChecker(second)),
                ]
                outcomes.append(self.outcome(CheckerChain(links, clock=self.clock)))
        self.assertEqual(outcomes, list(expected))

    def test_each(self) -> None:
        """The outcome is what the policy says."""
        no, later = "UnauthorizedLogin", "AuthTemporaryError"
        for policy, *outcomes in (
            ("", "one", "two", "two", "one", no, later),
            ("failure=stop", "one", no, "two", "one", no, later),
            ("temporary=stop", "one", "two", later, "one", no, later),
            ("success=next", "two", "two", "two", no, no, later),
            ("success=next,failure=stop", "two", no, "two", no, no, later),
            ("success=next,failure=stop,temporary=stop", "two", no, later, no, no, later),
            ("success=stop", "LoginRefusedError", "two", "two", "LoginRefusedError", no, later),
        ):
            self.assertOutcomes(policy, *outcomes)

    def test_refused_like_a_wrong_password(self) -> None:
        """After a link has shut somebody out the rest are asked too, as after a wrong password."""
        links = [FakeChecker(b"one"), FakeChecker(b"two")]
        self.outcome(CheckerChain([Link(links[0], Policy(Action.STOP)), links[1]]))
        self.assertEqual([len(link.asked) for link in links], [1, 1])

    def test_unfit(self) -> None:
        """A link that cannot verify what is shown is passed over, unless its policy bars that."""
        digests = FakeChecker(b"one")
        digests.credentialInterfaces = (IUsernameHashedPassword,)  # type: ignore[assignment]
        behind = Directory(Account("alice"))
        for text, outcome in (
            ("", "alice"),
            ("temporary=stop", "alice"),
            ("failure=stop", "UnauthorizedLogin"),
            ("success=next", "UnauthorizedLogin"),
            ("success=stop", "UnauthorizedLogin"),
        ):
            chain = CheckerChain([Link(digests, Policy.split(f"[{text}]")[0]), behind])
            self.assertEqual(self.outcome(chain), outcome, text)
        self.assertEqual(digests.asked, [])

    def test_mechanisms(self) -> None:
        """What nobody can verify, or a link bars, is not offered."""
        passwords = {"USER", "PLAIN", "LOGIN"}
        digests = {"CRAM-MD5", "APOP"}
        everything = passwords | digests | {"OAUTHBEARER", "XOAUTH2", "EXTERNAL", "SCRAM-SHA-256"}
        simple, directory = FakeChecker(b""), Directory()
        memory = InMemoryUsernamePasswordDatabaseDontUse()

        def offered(*links: tuple[ICredentialsChecker, str]) -> frozenset[str]:
            return CheckerChain(
                Link(checker, Policy.split(f"[{text}]")[0]) for checker, text in links
            ).mechanisms

        self.assertEqual(offered(), frozenset())
        self.assertEqual(offered((simple, "")), passwords)
        self.assertEqual(offered((memory, "")), passwords | digests)
        self.assertEqual(offered((simple, ""), (directory, "")), everything)
        self.assertEqual(offered((simple, "failure=stop"), (directory, "")), passwords)
        self.assertEqual(offered((directory, ""), (simple, "failure=stop")), everything)
        self.assertEqual(
            offered((memory, "failure=stop"), (simple, "failure=stop"), (directory, "")),
            passwords | digests,
        )
        # A link that is not the last word has keys, but nobody can tell what they prove.
        self.assertEqual(
            offered((directory, "success=next"), (directory, "")), everything - {"SCRAM-SHA-256"}
        )


class BackOff(LinkCase):
    """A checker that is down is asked seldom, one that does not answer not waited for."""

    def setUp(self) -> None:
        """Make a chain of a checker that is down."""
        super().setUp()
        self.checker = FakeChecker(DOWN)
        self.chain = CheckerChain([self.checker], clock=self.clock)

    def test_intervals(self) -> None:
        """It is asked again soon, then ever less often, but never less than that."""
        times = []
        for _ in range(1200):
            before = len(self.checker.asked)
            self.assertEqual(self.outcome(self.chain), "AuthTemporaryError")
            if len(self.checker.asked) > before:
                times.append(self.clock.seconds())
            self.clock.advance(0.125)
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        self.assertEqual(gaps, [FIRST_RETRY, 2, 4, 8, 16, MAX_RETRY, MAX_RETRY, MAX_RETRY])

    def test_back(self) -> None:
        """Once it answers, whatever that is, it is asked each time; a new outage is a new one."""
        for answer in (UnauthorizedLogin(), b"one"):
            self.checker.answer = DOWN
            self.outcome(self.chain)
            self.clock.advance(FIRST_RETRY)
            self.checker.answer = answer
            self.checker.asked.clear()
            outcomes = {self.outcome(self.chain) for _ in range(3)}
            self.assertEqual(outcomes, {"one" if answer == b"one" else "UnauthorizedLogin"})
            self.assertEqual(len(self.checker.asked), 3)

    def test_one_asks(self) -> None:
        """While one log-in waits to see whether it is back, the others do not."""
        self.outcome(self.chain)
        self.clock.advance(FIRST_RETRY)
        self.checker.answer = pending = Deferred[AvatarId]()
        waiting = self.chain.requestAvatarId(Attempt(b"bob", b"x"))
        self.assertEqual(self.outcome(self.chain), "AuthTemporaryError")
        self.assertEqual(len(self.checker.asked), 2)
        pending.callback(b"bob")
        self.assertEqual(self.successResultOf(waiting).name, "bob")

    def test_who_asked_gives_up(self) -> None:
        """If the client is gone that waited to see whether it is back, the next one asks."""
        self.outcome(self.chain)
        self.clock.advance(FIRST_RETRY)
        self.checker.answer = Deferred()
        waiting = self.chain.requestAvatarId(Attempt(b"bob", b"x"))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.checker.answer = b"one"
        self.assertEqual(self.outcome(self.chain), "one")

    def test_many_at_once(self) -> None:
        """However many log-ins an outage hits at once, it is one outage."""
        pending: list[Deferred[AvatarId]] = [Deferred() for _ in range(5)]
        waiting = []
        for self.checker.answer in pending:
            waiting.append(self.chain.requestAvatarId(Attempt(b"bob", b"x")))
        for answer, login in zip(pending, waiting, strict=True):
            answer.errback(DOWN)
            self.failureResultOf(login, AuthTemporaryError)
        self.clock.advance(FIRST_RETRY)
        self.checker.answer = b"one"
        self.assertEqual(self.outcome(self.chain), "one")

    def test_one_users_trouble(self) -> None:
        """What may be about one user only keeps no other from being asked about."""
        self.checker.answer = ValueError("the field quota has a value that means nothing")
        self.assertEqual(self.outcome(self.chain), "AuthTemporaryError")
        self.checker.answer = b"one"
        self.assertEqual(self.outcome(self.chain), "one")

    def test_no_answer(self) -> None:
        """Who does not answer in time cannot answer, and need not go on; the next link is asked."""
        cancelled: list[object] = []
        self.checker.answer = Deferred(cancelled.append)
        chain = CheckerChain([self.checker, FakeChecker(b"two")], clock=self.clock)
        login = chain.requestAvatarId(Attempt(b"alice", b"x"))
        self.clock.advance(TIMEOUT - 0.01)
        self.assertNoResult(login)
        self.clock.advance(0.01)
        self.assertEqual(self.successResultOf(login).name, "two")
        self.assertEqual(cancelled, [self.checker.answer])
        self.assertEqual(self.outcome(chain), "two")
        self.assertEqual(len(self.checker.asked), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
