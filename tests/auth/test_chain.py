"""Tests of the chain of checkers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.chain import CheckerChain
from popd.auth.checkers import PasswordFileChecker
from popd.auth.interfaces import AuthTemporaryError, LoginRefusedError
from popd.auth.link import MAX_RETRY
from popd.auth.passwd import PasswordFile
from popd.auth.realm import MaildropRealm
from popd.maildrop.interfaces import IMaildrop
from popd.maildrop.user import UserName
from tests.auth.fakes import AvatarId, FakeChecker, FakeMaildrop, FakeStore

if TYPE_CHECKING:
    from twisted.logger import ILogObserver, LogEvent


class ChainTestCase(SynchronousTestCase):
    """Somebody who asks chains."""

    def ask(
        self, chain: CheckerChain, name: bytes = b"alice", password: bytes = b"wonderland"
    ) -> bytes:
        """Return the name of whom the chain lets in, which has to be there at once."""
        login = chain.requestAvatarId(UsernamePassword(name, password))
        return self.successResultOf(login).name.encode(errors="surrogateescape")

    def assertFails(
        self,
        error: type[Exception],
        chain: CheckerChain,
        name: bytes = b"alice",
        password: bytes = b"wonderland",
    ) -> None:
        """Assert that the chain fails with *error* and no other, at once."""
        deferred = chain.requestAvatarId(UsernamePassword(name, password))
        self.assertIs(self.failureResultOf(deferred).type, error)


class Order(ChainTestCase):
    """Checkers are asked in order."""

    def test_interface(self) -> None:
        """A chain is a checker as twisted.cred knows it."""
        verifyObject(ICredentialsChecker, CheckerChain([]))

    def test_first_success(self) -> None:
        """The first checker that accepts is the last one asked."""
        links = [FakeChecker(a) for a in (UnauthorizedLogin(), b"one", b"two")]
        self.assertEqual(self.ask(CheckerChain(links)), b"one")
        self.assertEqual([len(link.asked) for link in links], [1, 1, 0])

    def test_refused(self) -> None:
        """If all refuse, whatever they call it, the chain does, and all were asked."""
        links = [FakeChecker(a) for a in (UnauthorizedLogin(), LoginDenied(), UnauthorizedLogin())]
        self.assertFails(UnauthorizedLogin, CheckerChain(links))
        self.assertEqual([link.asked for link in links], [[(b"alice", b"wonderland")]] * 3)

    def test_nobody_to_ask(self) -> None:
        """A chain without checkers refuses."""
        self.assertFails(UnauthorizedLogin, CheckerChain([]))

    def test_anonymous(self) -> None:
        """Anonymous access is no success."""
        links = [FakeChecker(ANONYMOUS), FakeChecker(b"")]
        self.assertFails(UnauthorizedLogin, CheckerChain(links))
        self.assertEqual(self.ask(CheckerChain([*links, FakeChecker(b"one")])), b"one")

    def test_text(self) -> None:
        """An avatar id that is text is answered in octets."""
        self.assertEqual(self.ask(CheckerChain([FakeChecker("älice")])), "älice".encode())

    def test_slow(self) -> None:
        """A checker that takes its time is waited for before the next is asked."""
        slow: Deferred[AvatarId] = Deferred()
        links = [FakeChecker(slow), FakeChecker(b"two")]
        answer = CheckerChain(links).requestAvatarId(UsernamePassword(b"alice", b"x"))
        self.assertNoResult(answer)
        self.assertEqual(links[1].asked, [])
        slow.errback(UnauthorizedLogin())
        self.assertEqual(self.successResultOf(answer).name, "two")

    def test_cancelled(self) -> None:
        """To cancel the question cancels the checker that works on it, and asks no other."""
        cancelled: list[Deferred[AvatarId]] = []
        links = [FakeChecker(Deferred(cancelled.append)), FakeChecker(b"two")]
        answer = CheckerChain(links).requestAvatarId(UsernamePassword(b"alice", b"x"))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(cancelled, [links[0].answer])
        self.assertEqual(links[1].asked, [])


class Names(ChainTestCase):
    """Checkers see canonical names and no others."""

    def test_canonical(self) -> None:
        """Every checker is asked for the canonical name."""
        link = FakeChecker(UnauthorizedLogin())
        self.assertFails(UnauthorizedLogin, CheckerChain([link]), "ÄLICE@Example.ORG".encode())
        self.assertEqual(link.asked, [("älice@example.org".encode(), b"wonderland")])

    def test_default_domain(self) -> None:
        """The default domain completes a bare name and no other."""
        link = FakeChecker(b"one")
        chain = CheckerChain([link], "Example.org")
        self.ask(chain, b"Alice")
        self.ask(chain, b"alice@example.com")
        self.assertEqual(
            [name for name, _ in link.asked], [b"alice@example.org", b"alice@example.com"]
        )

    def test_impossible(self) -> None:
        """Who cannot exist is refused, but every checker does the work, for a harmless name."""
        links = [FakeChecker(b"one"), FakeChecker(UnauthorizedLogin()), FakeChecker(b"two")]
        chain = CheckerChain(links, "example.org")
        names = (b"", b"../../etc/passwd", b"a/b", b"a\0b", b"\xff", b"a@../x", b"@", b"x" * 256)
        for name in names:
            self.assertFails(UnauthorizedLogin, chain, name)
        for link in links:
            self.assertEqual(link.asked, [(b".nobody", b"wonderland")] * len(names))
        self.assertIsNone(UserName.parse(b".nobody"))

    def test_impossible_passwords(self) -> None:
        """An empty password and one with NUL are refused, whatever checkers think of them."""
        link = FakeChecker(b"one")
        for password in (b"", b"\0", b"wonderland\0", b"wonderland\0x"):
            self.assertFails(UnauthorizedLogin, CheckerChain([link]), b"alice", password)
        self.assertEqual({name for name, _ in link.asked}, {b".nobody"})


class Outages(ChainTestCase):
    """A checker that cannot answer is not one that refuses."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def logged(self) -> list[str]:
        """Return what the chain logged since this was asked last."""
        lines = [
            event["log_format"].format(**event)
            for event in self.events
            if event.get("log_namespace") == "popd.auth.link"
        ]
        self.events.clear()
        return lines

    def test_down(self) -> None:
        """If nobody accepts and someone cannot answer, nobody knows."""
        for answers in (
            [OSError("down")],
            [OSError("down"), UnauthorizedLogin()],
            [UnauthorizedLogin(), OSError("down")],
        ):
            links = [FakeChecker(answer) for answer in answers]
            self.assertFails(AuthTemporaryError, CheckerChain(links))
            self.assertEqual([len(link.asked) for link in links], [1] * len(links))
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertFalse(issubclass(AuthTemporaryError, UnauthorizedLogin))

    def test_next_accepts(self) -> None:
        """If one cannot answer, another may still accept."""
        links = [FakeChecker(OSError("down")), FakeChecker(b"two")]
        self.assertEqual(self.ask(CheckerChain(links)), b"two")
        self.flushLoggedErrors(OSError)

    def test_impossible(self) -> None:
        """That a name cannot exist is known without any checker."""
        links = [FakeChecker(OSError("down")), FakeChecker(b"two")]
        self.assertFails(UnauthorizedLogin, CheckerChain(links), b"..")
        self.assertEqual(len(links[1].asked), 1)
        self.flushLoggedErrors(OSError)

    def test_logged_once(self) -> None:
        """An outage is logged when it begins, with its reason, and when it is over."""
        link, clock = FakeChecker(OSError("down")), Clock()
        chain = CheckerChain([link], clock=clock)
        for _ in range(3):
            self.assertFails(AuthTemporaryError, chain)
            clock.advance(MAX_RETRY)
        self.assertEqual(self.logged(), ["FakeChecker cannot answer now"])
        (failure,) = self.flushLoggedErrors(OSError)
        self.assertEqual(failure.getErrorMessage(), "down")
        link.answer = UnauthorizedLogin()
        self.assertFails(UnauthorizedLogin, chain)
        link.answer = b"one"
        self.assertEqual(self.ask(chain), b"one")
        self.assertEqual(self.logged(), ["FakeChecker answers again"])
        link.answer = ZeroDivisionError()
        self.assertFails(AuthTemporaryError, chain)
        self.assertEqual(self.logged(), ["FakeChecker cannot answer now"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_raised(self) -> None:
        """A checker may raise as well as fail."""

        def down() -> bytes:
            raise OSError("down")

        def refuse() -> bytes:
            raise UnauthorizedLogin

        self.assertFails(AuthTemporaryError, CheckerChain([FakeChecker(down)]))
        self.assertFails(UnauthorizedLogin, CheckerChain([FakeChecker(refuse)]))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class OtherCheckers(ChainTestCase):
    """Checkers of other making fit into a chain, or are refused."""

    def test_refused(self) -> None:
        """A checker that can check nothing is refused by name."""
        error = self.assertRaises(ValueError, CheckerChain, [AllowAnonymousAccess()])
        self.assertEqual(
            str(error), "AllowAnonymousAccess can check nothing that a POP3 client shows"
        )

    def test_generic(self) -> None:
        """A checker of credentials of any kind will do."""
        link = FakeChecker(b"one")
        link.credentialInterfaces = (ICredentials,)  # type: ignore[assignment]
        self.assertEqual(self.ask(CheckerChain([link])), b"one")

    def test_credentials(self) -> None:
        """What checkers are given is credentials, which compare octets and text."""

        def check(credentials: IUsernamePassword) -> bytes:
            self.assertTrue(IUsernamePassword.providedBy(credentials))
            self.assertTrue(credentials.checkPassword("wönderland".encode()))
            self.assertTrue(credentials.checkPassword("wönderland"))  # type: ignore[arg-type]
            self.assertFalse(credentials.checkPassword(b"wonderland"))
            return b"one"

        link = FakeChecker(b"")
        self.patch(link, "requestAvatarId", check)
        self.assertEqual(self.ask(CheckerChain([link]), password="wönderland".encode()), b"one")

    def assertAlice(self, checker: ICredentialsChecker) -> None:
        """Assert that alice's password is wonderland, and that nobody else gets in."""
        chain = CheckerChain([checker])
        self.assertEqual(self.ask(chain, b"Alice"), b"alice")
        self.assertFails(UnauthorizedLogin, chain, b"alice", b"Wonderland")
        self.assertFails(UnauthorizedLogin, chain, b"alice", b"")
        self.assertFails(UnauthorizedLogin, chain, b"bob")
        self.assertFails(UnauthorizedLogin, chain, b"../alice")

    def test_memory(self) -> None:
        """Twisted's users in memory work, whether made in Python or by --auth."""
        self.assertAlice(InMemoryUsernamePasswordDatabaseDontUse(alice=b"wonderland"))
        self.assertAlice(makeChecker("memory:alice:wonderland:empty:"))

    def test_file(self) -> None:
        """Twisted's password files work, whether made in Python or by --auth."""
        path = Path(self.mktemp())
        path.write_text("alice:wonderland\nempty:\n", "utf-8")
        self.assertAlice(FilePasswordDB(str(path)))
        self.assertAlice(makeChecker(f"file:{path}"))


class ThroughAPortal(SynchronousTestCase):
    """An ordinary portal logs in through a chain."""

    def setUp(self) -> None:
        """Make a portal with one user in each of three checkers."""
        cred_file, passwd_file = Path(self.mktemp()), Path(self.mktemp())
        cred_file.write_text("bob@example.org:builder\n", "utf-8")
        passwd_file.write_text("carol@example.org:{PLAIN}christmas\n", "utf-8")
        chain = CheckerChain(
            [
                makeChecker("memory:alice@example.org:wonderland"),
                makeChecker(f"file:{cred_file}"),
                PasswordFileChecker(PasswordFile(passwd_file), maybeDeferred),
            ],
            "example.org",
        )
        self.portal = Portal(MaildropRealm(FakeStore()), [chain])

    def test_maildrop(self) -> None:
        """Everyone gets his own maildrop, at once where nothing takes time."""
        for name, password in (
            (b"alice", b"wonderland"),
            (b"Bob", b"builder"),
            (b"CAROL@example.org", b"christmas"),
        ):
            login = self.portal.login(UsernamePassword(name, password), None, IMaildrop)
            interface, maildrop, logout = self.successResultOf(login)
            assert isinstance(maildrop, FakeMaildrop)
            self.assertIs(interface, IMaildrop)
            local = name.partition(b"@")[0].decode().lower()
            self.assertEqual(maildrop.user, UserName(local, "example.org"))
            logout()
            self.assertEqual(maildrop.calls, ["release"])

    def test_refused(self) -> None:
        """Nobody gets in with another's password."""
        for name, password in ((b"alice", b"builder"), (b"bob", b"wonderland"), (b"dave", b"x")):
            login = self.portal.login(UsernamePassword(name, password), None, IMaildrop)
            self.failureResultOf(login, UnauthorizedLogin)


class DefaultDomain(ChainTestCase):
    """Bare names and complete ones are the same user's."""

    def chain(self, *checkers: ICredentialsChecker) -> CheckerChain:
        """Return a chain in example.org."""
        return CheckerChain(checkers, "Example.org")

    def file(self, text: str) -> PasswordFileChecker:
        """Return a checker of a password file."""
        path = Path(self.mktemp())
        path.write_text(text, encoding="ascii")
        return PasswordFileChecker(PasswordFile(path), maybeDeferred)

    def test_bare_names_known(self) -> None:
        """A checker that knows bare names knows their complete ones; the avatar id is complete."""
        memory = InMemoryUsernamePasswordDatabaseDontUse(alice=b"wonderland")
        for checker in (memory, self.file("alice:{PLAIN}wonderland\n")):
            for name in (b"alice", b"Alice@example.ORG"):
                self.assertEqual(self.ask(self.chain(checker), name), b"alice@example.org")

    def test_complete_names_known(self) -> None:
        """A checker that knows complete names knows the bare ones."""
        checker = self.file("alice@example.org:{PLAIN}wonderland\n")
        for name in (b"alice", b"alice@example.org"):
            self.assertEqual(self.ask(self.chain(checker), name), b"alice@example.org")

    def test_both_known(self) -> None:
        """In a file that has both, the complete name counts."""
        checker = self.file("alice:{PLAIN}x\nalice@example.org:{PLAIN}wonderland\n")
        self.assertEqual(self.ask(self.chain(checker)), b"alice@example.org")
        self.assertFails(UnauthorizedLogin, self.chain(checker), password=b"x")

    def test_other_domains(self) -> None:
        """A name in another domain is not the bare one."""
        memory = InMemoryUsernamePasswordDatabaseDontUse(alice=b"wonderland")
        for checker in (memory, self.file("alice:{PLAIN}wonderland\n")):
            chain = self.chain(checker)
            self.assertFails(UnauthorizedLogin, chain, b"alice@example.com")

    def test_shut_out(self) -> None:
        """A complete name that cannot log in does not get in by its bare one."""
        checker = self.file(
            "alice@example.org:{PLAIN}wonderland::::::nologin\nalice:{PLAIN}wonderland\n"
        )
        self.assertFails(LoginRefusedError, self.chain(checker))

    def test_strange_avatar(self) -> None:
        """An avatar id that is no user name is left for the realm to refuse."""
        self.assertEqual(self.ask(self.chain(FakeChecker(b"../x"))), b"../x")
