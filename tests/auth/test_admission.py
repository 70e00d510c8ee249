"""Tests of who is let in once his credentials are found good, and of whom a master may be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from popd.auth.account import Account, Client
from popd.auth.cache import CredentialCache
from popd.auth.chain import CheckerChain
from popd.auth.credentials import Attempt, BearerToken, ClientCertificate, ScramOutcome
from popd.auth.guard import HOLD
from popd.auth.interfaces import (
    AuthTemporaryError,
    IClientCertificate,
    IVersioned,
    LoginRefusedError,
    LoginTooSoonError,
)
from popd.protocol.credentials import ScramCredentials, ScramKeys
from tests.auth.fakes import Directory, FakeChecker, FakeGuard

if TYPE_CHECKING:
    from popd.auth.credentials import Claim

CLIENT = Client("192.0.2.7", tls=False)
SAFE = Client("192.0.2.7", tls=True)
KEYS = ScramKeys(b"salt", 4096, b"stored", b"server")


class AdmissionCase(SynchronousTestCase):
    """Somebody who asks chains."""

    def admitted(self, chain: CheckerChain, claim: Claim) -> Account:
        """Return who is let in, which has to be there at once."""
        account = self.successResultOf(chain.requestAvatarId(claim))
        self.assertIs(claim.account, account)
        return account

    def refused(
        self, chain: CheckerChain, claim: Claim, error: type[Exception] = LoginRefusedError
    ) -> str:
        """Return why nobody is."""
        failure = self.failureResultOf(chain.requestAvatarId(claim))
        self.assertIs(failure.type, error, failure)
        self.assertIsNone(claim.account)
        return str(failure.value)


class Restrictions(AdmissionCase):
    """An account may say who must not come in, or from where."""

    def test_each(self) -> None:
        """Right credentials do not help who must not log in; what the reason is, is for the log."""
        for fields, reason in (
            ({"disabled": True}, "the account is disabled"),
            ({"require_tls": True}, "the account requires TLS"),
            (
                {"networks": (ip_network("198.51.100.0/24"),)},
                "the account's networks do not include the client",
            ),
        ):
            account = Account("alice", **fields)
            directory, other = Directory(account), FakeChecker(b"other")
            links = [directory, other]
            reasons = self.refused(CheckerChain(links), Attempt(b"alice", b"x", CLIENT))
            self.assertEqual(reasons, reason)
            # As many were asked as after a wrong password, and what they say does not matter.
            self.assertEqual([len(directory.claims), len(other.asked)], [1, 1])
            scram = scram_outcome(replace(KEYS, owner=account))
            self.assertEqual(self.refused(CheckerChain(links), scram), reason)

    def test_met(self) -> None:
        """Who meets what his account demands comes in, with all that it says."""
        account = Account("alice", require_tls=True, networks=(ip_network("192.0.2.0/24"),))
        chain = CheckerChain([Directory(account)])
        self.assertEqual(self.admitted(chain, Attempt(b"Alice", b"x", SAFE)), account)

    def test_checkers_see_the_client(self) -> None:
        """Checkers get to know where the client is."""
        directory = Directory(Account("alice"))
        self.admitted(CheckerChain([directory]), Attempt(b"alice", b"x", SAFE))
        self.assertEqual(directory.claims[0].client, SAFE)

    def test_down_behind(self) -> None:
        """A link that is down says the same of a disabled account as of a wrong password."""
        links = [Directory(Account("alice", disabled=True)), FakeChecker(AuthTemporaryError())]
        self.refused(CheckerChain(links), Attempt(b"alice", b"x"), AuthTemporaryError)


def scram_outcome(keys: ScramKeys, *, proven: bool = True, authzid: bytes = b"") -> ScramOutcome:
    """Return what an exchange of alice's came to."""
    shown = ScramCredentials(b"alice", authzid, proven, keys, "SCRAM-SHA-256")
    return ScramOutcome(shown, CLIENT)


class Scram(AdmissionCase):
    """Who proves to have a password is whose keys were looked up."""

    def test_outcomes(self) -> None:
        """Only a proof with real keys lets in."""
        chain = CheckerChain([])
        real = replace(KEYS, owner=Account("alice", quota=7))
        self.assertEqual(self.admitted(chain, scram_outcome(real)).quota, 7)
        self.refused(chain, scram_outcome(real, proven=False), UnauthorizedLogin)
        self.refused(chain, scram_outcome(KEYS), UnauthorizedLogin)
        self.refused(chain, scram_outcome(replace(KEYS, owner="alice")), UnauthorizedLogin)

    def test_restricted(self) -> None:
        """Who must not log in gets the usual salt, but no proof of his is right; the log knows."""
        bob = Account("bob", disabled=True)
        directory = Directory(bob=KEYS)
        directory.keys[b"bob"] = replace(KEYS, owner=bob)
        chain = CheckerChain([directory])
        found = self.successResultOf(chain.scram_keys(b"bob", "SCRAM-SHA-256", CLIENT))
        self.assertEqual((found.salt, found.iterations), (KEYS.salt, KEYS.iterations))
        self.assertFalse({found.stored_key, found.server_key} & {KEYS.stored_key, KEYS.server_key})
        reason = self.refused(chain, scram_outcome(found, proven=False))
        self.assertEqual(reason, "the account is disabled")


class Masters(AdmissionCase):
    """A master may be let in as another user."""

    def setUp(self) -> None:
        """Make a chain that knows a master."""
        self.root = Account("root", master=True)
        self.directory = Directory(
            self.root,
            Account("alice", quota=7, require_tls=True, no_delete=True),
            Account("bob", disabled=True),
            Account("app", master=True, program="phone"),
        )
        self.chain = CheckerChain([self.directory])

    def test_ways(self) -> None:
        """He says so with the user name, or an authorization identity."""
        for claim in (
            Attempt(b"Alice*Root", b"x", CLIENT),
            Attempt(b"root", b"x", CLIENT, b"alice"),
            Attempt(b"alice*root", b"x", CLIENT, b"alice"),
        ):
            account = self.admitted(self.chain, claim)
            self.assertEqual((account.name, account.quota), ("alice", 7))
            self.assertEqual(claim.master, "root")
            self.assertEqual(self.directory.claims[-1].username, b"root")
        proven = scram_outcome(replace(KEYS, owner=self.root), authzid=b"alice")
        self.assertEqual(self.admitted(self.chain, proven).name, "alice")

    def test_restrictions(self) -> None:
        """His own account restricts him, and so does one who is disabled, but nothing else."""
        account = self.admitted(self.chain, Attempt(b"alice*root", b"x", CLIENT))
        self.assertFalse(account.no_delete)
        self.assertIn("bob", self.refused(self.chain, Attempt(b"bob*root", b"x", CLIENT)))
        self.directory.accounts[b"root"] = replace(self.root, require_tls=True, no_delete=True)
        self.refused(self.chain, Attempt(b"alice*root", b"x", CLIENT))
        account = self.admitted(self.chain, Attempt(b"alice*root", b"x", SAFE))
        self.assertTrue(account.no_delete)

    def test_nobody_else(self) -> None:
        """Who is no master, or uses an app password, is himself and nobody else."""
        for master in (b"alice", b"app", b"app*root*alice"):
            claim = Attempt(b"root*" + master, b"x", SAFE)
            self.assertIn("is no master", self.refused(self.chain, claim))
        himself = Attempt(b"alice", b"x", SAFE, b"ALICE")
        self.assertEqual(self.admitted(self.chain, himself).name, "alice")
        self.assertEqual(himself.master, "")

    def test_malformed(self) -> None:
        """Names without a user or a master, or with two users, are nobody's."""
        for name, authzid in ((b"*root", b""), (b"alice*", b""), (b"*", b""), (b"a*root", b"b")):
            self.refused(self.chain, Attempt(name, b"x", SAFE, authzid), UnauthorizedLogin)
        self.refused(self.chain, Attempt(b"root", b"x", SAFE, b"../a"), UnauthorizedLogin)
        self.assertEqual({claim.username for claim in self.directory.claims}, {b".nobody"})

    def test_unknown(self) -> None:
        """The other must be known, if there is a link that knows accounts; and that be up."""
        self.assertIn("exist", self.refused(self.chain, Attempt(b"eve*root", b"x", SAFE)))
        without = FakeChecker(lambda: self.root)
        account = self.admitted(CheckerChain([without]), Attempt(b"eve*root", b"x", SAFE))
        self.assertEqual(account, Account("eve"))
        down = Directory()
        down.error = AuthTemporaryError()
        chain = CheckerChain([without, down], "example.org")
        self.refused(chain, Attempt(b"eve*root", b"x", SAFE), AuthTemporaryError)
        self.assertEqual(down.looked_up, [(b"eve@example.org", b"eve")])

    def test_tokens_and_certificates(self) -> None:
        """Whom a token or a certificate names is compared with who the client wants to be."""
        certificate: Any = object()
        for claim, outcome in (
            (BearerToken(b"", b"t", SAFE), "root"),
            (BearerToken(b"root", b"t", SAFE), "root"),
            (BearerToken(b"alice", b"t", SAFE), "alice"),
            (ClientCertificate(b"", certificate, SAFE), "root"),
            (ClientCertificate(b"alice", certificate, SAFE), "alice"),
        ):
            chain = CheckerChain([Named(self.root), self.directory])
            self.assertEqual(self.admitted(chain, claim).name, outcome)
            self.assertEqual(claim.master, "root" if outcome == "alice" else "")
        for claim in (BearerToken(b"alice", b"t"), ClientCertificate(b"alice", certificate)):
            chain = CheckerChain([Named(Account("carol")), FakeChecker(b"x")])
            self.assertEqual(self.refused(chain, claim), "carol is no master")
        for claim in (BearerToken(b"alice", b"t"), ClientCertificate(b"alice", certificate)):
            chain = CheckerChain([FakeChecker(b"x"), FakeChecker(b"y")])
            self.refused(chain, claim, UnauthorizedLogin)
        for claim in (BearerToken(b"../a", b"t"), ClientCertificate(b"root", None)):
            self.refused(CheckerChain([Named(self.root)]), claim, UnauthorizedLogin)


class Certificates(AdmissionCase):
    """A certificate says who somebody is; all else is for those to say who know accounts."""

    def test_account(self) -> None:
        """Who is known is let in as his account says, or is not."""
        certificate: Any = object()
        names = FakeChecker(b"alice")
        names.credentialInterfaces = (IClientCertificate,)  # type: ignore[assignment]
        self.patch(names, "requestAvatarId", lambda _: succeed(b"alice"))
        directory = Directory()
        directory.credentialInterfaces = (IUsernamePassword,)
        chain = CheckerChain([names, directory])
        claim = ClientCertificate(b"", certificate, SAFE)
        self.assertIn("does not exist", self.refused(chain, claim))
        directory.accounts = {b"alice": Account("alice", quota=7)}
        self.assertEqual(self.admitted(chain, claim).quota, 7)
        directory.accounts = {b"alice": Account("alice", disabled=True)}
        self.refused(chain, ClientCertificate(b"", certificate, SAFE))
        directory.error = AuthTemporaryError()
        self.refused(chain, ClientCertificate(b"", certificate, SAFE), AuthTemporaryError)
        alone = CheckerChain([names])
        account = self.admitted(alone, ClientCertificate(b"", certificate, SAFE))
        self.assertEqual(account, Account("alice"))


class Named(Directory):
    """Accepts whatever it is shown as the same user's."""

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Accept it."""
        return succeed(next(iter(self.accounts.values())))


class GuardedCase(AdmissionCase):
    """Somebody who asks guarded chains."""

    def setUp(self) -> None:
        """Make a guarded chain."""
        self.clock, self.guard = Clock(), FakeGuard()
        self.directory = Directory(Account("alice"), Account("bob", disabled=True))

    def chain(self, *links: Any, **more: Any) -> CheckerChain:
        """Return a guarded chain of *links*, or of one that knows alice and bob."""
        return CheckerChain(links or [self.directory], clock=self.clock, guard=self.guard, **more)


class Guarded(GuardedCase):
    """A guard says how long an attempt has to wait, and hears what came of it."""

    def test_told(self) -> None:
        """It hears who logged in, and with what somebody could not."""
        self.admitted(self.chain(), Attempt(b"Alice", b"x", CLIENT))
        self.refused(self.chain(), Attempt(b"bob", b"y", CLIENT))
        self.refused(self.chain(), BearerToken(b"eve", b"z", CLIENT), UnauthorizedLogin)
        self.refused(self.chain(), scram_outcome(KEYS), UnauthorizedLogin)
        self.refused(self.chain(), Attempt(b"../x", b"y", CLIENT), UnauthorizedLogin)
        self.assertEqual(
            self.guard.told,
            [
                ("delay", "192.0.2.7", b"alice"),
                ("succeeded", "192.0.2.7", b"alice"),
                ("delay", "192.0.2.7", b"bob"),
                ("failed", "192.0.2.7", b"bob", b"y"),
                ("delay", "192.0.2.7", b"eve"),
                ("failed", "192.0.2.7", b"eve", b"z"),
                ("failed", "192.0.2.7", b"alice", None),
                ("delay", "192.0.2.7", b"../x"),
                ("failed", "192.0.2.7", b"../x", b"y"),
            ],
        )

    def test_outage(self) -> None:
        """While nobody can tell, nothing has failed; but where one link can, it has."""
        down = FakeChecker(AuthTemporaryError())
        claim = Attempt(b"alice", b"x")
        self.refused(self.chain(down), claim, AuthTemporaryError)
        self.assertEqual(self.guard.events(), ["delay", "unanswered"])
        self.refused(self.chain(down, Directory()), Attempt(b"alice", b"x"), AuthTemporaryError)
        self.assertEqual(self.guard.events(), ["delay", "failed"])

    def test_wait(self) -> None:
        """Nobody is asked until the time is over; a client that leaves waits no longer."""
        self.guard.seconds = 2.5
        chain = self.chain()
        login, gone = (chain.requestAvatarId(Attempt(b"alice", b"x")) for _ in range(2))
        gone.cancel()
        self.failureResultOf(gone)
        self.clock.advance(2.4)
        self.assertNoResult(login)
        self.assertEqual(self.directory.claims, [])
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(login).name, "alice")
        self.assertEqual(len(self.directory.claims), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.guard.events(), ["delay", "delay", "unanswered", "succeeded"])

    def test_no_turn(self) -> None:
        """If there is no turn soon enough nobody is asked, and it is not the password's fault."""
        self.guard.seconds = inf
        chain = self.chain()
        for begin in (
            lambda: chain.requestAvatarId(Attempt(b"alice", b"x")),
            lambda: chain.scram_keys(b"alice", "SCRAM-SHA-256"),
        ):
            attempt: Deferred[Any] = begin()
            self.clock.advance(HOLD - 0.1)
            self.assertNoResult(attempt)
            self.clock.advance(0.1)
            self.failureResultOf(attempt, AuthTemporaryError)
            self.assertEqual(self.guard.events(), ["delay", "unanswered"])
        self.assertEqual((self.directory.claims, self.directory.looked_up), ([], []))

    def test_scram(self) -> None:
        """By SCRAM an attempt waits for its keys, since a right proof is answered at once."""
        self.guard.seconds = 2.5
        chain = self.chain()
        looking = chain.scram_keys(b"Alice", "SCRAM-SHA-256", CLIENT)
        self.assertNoResult(looking)
        self.assertEqual(self.directory.looked_up, [])
        self.clock.advance(2.5)
        self.successResultOf(looking)
        real = replace(KEYS, owner=Account("alice"))
        self.admitted(chain, scram_outcome(real))
        self.assertEqual(
            self.guard.told,
            [("delay", "192.0.2.7", b"alice"), ("succeeded", "192.0.2.7", b"alice")],
        )


@implementer(IVersioned)
class Versioned(Directory):
    """A directory that never changes."""

    def version(self) -> object:
        """Return the same each time."""
        return 1


class Remembered(GuardedCase):
    """What was found good a short while ago counts, but for what may have changed since."""

    def setUp(self) -> None:
        """Let alice log in."""
        super().setUp()
        account = Account("alice", networks=(ip_network("192.0.2.0/24"),), quota=7)
        self.directory = Versioned(account, Account("root", master=True))
        self.remembering = self.chain(cache=CredentialCache(60, self.clock.seconds))
        self.admitted(self.remembering, Attempt(b"alice", b"x", CLIENT))
        self.directory.claims.clear()
        self.guard.told.clear()

    def test_account(self) -> None:
        """All of the account is remembered, and the guard asked once."""
        claim = Attempt(b"alice", b"x", CLIENT)
        account = self.remembering.remembered(claim)
        assert account is not None
        self.assertEqual(account.quota, 7)
        self.assertIs(self.admitted(self.remembering, claim), account)
        self.assertEqual(self.guard.events(), [])
        self.assertEqual(self.directory.claims, [])

    def test_elsewhere(self) -> None:
        """From where he must not come he is refused, and the checkers asked as always."""
        claim = Attempt(b"alice", b"x", Client("198.51.100.1"))
        self.assertIsNone(self.remembering.remembered(claim))
        self.refused(self.remembering, claim)
        self.assertEqual(len(self.directory.claims), 1)

    def test_delayed(self) -> None:
        """If the guard wants him to wait he waits, is let in, and the guard was asked once."""
        self.guard.seconds = 1.0
        claim = Attempt(b"alice", b"x", CLIENT)
        self.assertIsNone(self.remembering.remembered(claim))
        login = self.remembering.requestAvatarId(claim)
        self.assertNoResult(login)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(login).quota, 7)
        self.assertEqual(self.guard.events(), ["delay", "succeeded"])
        self.assertEqual(self.directory.claims, [])

    def test_masters(self) -> None:
        """What a master was let in as is not remembered, nor is anything remembered of others."""
        for claim in (
            Attempt(b"alice*root", b"x", CLIENT),
            Attempt(b"root", b"x", CLIENT, b"alice"),
            Attempt(b"alice*root", b"x", CLIENT),
        ):
            self.assertIsNone(self.remembering.remembered(claim))
            self.assertEqual(self.admitted(self.remembering, claim).name, "alice")
        self.assertEqual(self.admitted(self.remembering, Attempt(b"root", b"x")).name, "root")
        self.assertIsNone(self.remembering.remembered(Attempt(b"root", b"x", CLIENT, b"alice")))

    def test_outage(self) -> None:
        """What one link said while another was down is not remembered."""
        chain = self.chain(
            FakeChecker(AuthTemporaryError()),
            self.directory,
            cache=CredentialCache(60, self.clock.seconds),
        )
        for _ in range(2):
            self.admitted(chain, Attempt(b"alice", b"x", CLIENT))
        self.assertEqual(len(self.directory.claims), 2)


class Intervals(AdmissionCase):
    """An app password may be used only so often."""

    def setUp(self) -> None:
        """Make a chain that writes down who comes."""
        self.recorded: list[tuple[Account, Client]] = []
        self.reason = ""
        self.app = Account("alice", program="phone")
        self.chain = CheckerChain(
            [Versioned(self.app, Account("bob"))],
            cache=CredentialCache(60, Clock().seconds),
            record=self.record,
        )

    def record(self, account: Account, client: Client) -> Deferred[str]:
        """Write it down, and say what the test wants."""
        self.recorded.append((account, client))
        return succeed(self.reason)

    def test_recorded(self) -> None:
        """Each log-in is written down, though it be remembered; other log-ins are not."""
        for _ in range(2):
            claim = Attempt(b"alice", b"x", CLIENT)
            self.assertIsNone(self.chain.remembered(claim))
            self.assertEqual(self.admitted(self.chain, claim), self.app)
            self.admitted(self.chain, Attempt(b"bob", b"x", CLIENT))
        self.assertEqual(self.recorded, [(self.app, CLIENT)] * 2)

    def test_too_soon(self) -> None:
        """Who comes too soon hears so, and it is no guess."""
        self.reason = "in 7 s again"
        guard = FakeGuard()
        chain = CheckerChain([Directory(self.app)], record=self.record, guard=guard)
        claim = Attempt(b"alice", b"x", CLIENT)
        self.assertEqual(self.refused(chain, claim, LoginTooSoonError), "in 7 s again")
        self.assertEqual(guard.events(), ["delay", "unanswered"])
