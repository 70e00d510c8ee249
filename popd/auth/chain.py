"""Several checkers in a row, each asked until one knows the user and accepts what he shows."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from popd.auth.account import Account
from popd.auth.admission import Admission
from popd.auth.cache import CredentialCache
from popd.auth.credentials import (
    NOWHERE,
    Attempt,
    BearerToken,
    Claim,
    IScramOutcome,
    Question,
    ScramOutcome,
)
from popd.auth.fakekeys import FakeKeys
from popd.auth.guard import HOLD
from popd.auth.interfaces import (
    AuthTemporaryError,
    IBearerToken,
    IClientCertificate,
    LoginRefusedError,
    LoginTooSoonError,
)
from popd.auth.link import Action, Link
from popd.auth.person import Person, shown_name
from popd.auth.scram import look_up
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from popd.auth.account import Client
    from popd.auth.admission import Record
    from popd.auth.interfaces import Guard
    from popd.protocol.credentials import ScramKeys

__all__ = ["CheckerChain"]


class _Nobody:
    """A guard who lets everybody pass."""

    def passes(self, client: Client, username: bytes) -> bool:
        """See `Guard`."""
        del client, username
        return True

    def delay(self, client: Client, username: bytes) -> float:
        """See `Guard`."""
        del client, username
        return 0.0

    def failed(self, client: Client, username: bytes, secret: bytes | None) -> None:
        """See `Guard`."""

    def succeeded(self, client: Client, username: bytes) -> None:
        """See `Guard`."""

    def unanswered(self, client: Client) -> None:
        """See `Guard`."""


class _Verdict:
    """What came of asking the links."""

    account: Account | None = None
    refusal: LoginRefusedError | LoginTooSoonError | None = None
    in_doubt = False  # a link that might have accepted could not answer
    denied = False  # a link said no


@implementer(ICredentialsChecker)
class CheckerChain:
    """Asks checkers in order; the first that accepts decides who the user is.

    The user name is brought into its canonical spelling first, and completed with the default
    domain.  A checker that does not know the complete name may know the bare one; the account's
    name is complete in any case.  A name that no user can have, an empty password and one with NUL
    never get in, whatever the checkers say, but cost what a wrong password costs.  So does a user
    who must not log in though his credentials are right.

    A master is let in as another user, by ``user*master`` or an authorization identity, see
    `Admission`.

    Names and passwords must be given to the checkers as octets, as Twisted's own want them.

    :param checkers: what to ask.
    :param default_domain: completes a bare user name.
    :param cache: where credentials that were found good are remembered.
    :param clock: what time-outs are measured with; by default the process's reactor.
    :param guard: makes guessing slow; by default nobody does.
    :param fakes: makes up SCRAM keys.
    :param record: see `Admission`.
    :raises ValueError: a checker takes nothing that a POP3 client can show.
    """

    credentialInterfaces = (
        IUsernamePassword,
        IUsernameHashedPassword,
        IBearerToken,
        IClientCertificate,
        IScramOutcome,
    )

    def __init__(
        self,
        checkers: Iterable[ICredentialsChecker | Link],
        default_domain: str = "",
        cache: CredentialCache | None = None,
        *,
        clock: IReactorTime | None = None,
        guard: Guard | None = None,
        fakes: FakeKeys | None = None,
        record: Record | None = None,
    ) -> None:
        self._links = [link if isinstance(link, Link) else Link(link) for link in checkers]
        for link in self._links:
            link.timer = self._timer
        self._default_domain = default_domain
        self._cache = cache or CredentialCache(ttl=0)
        self._guard = guard or _Nobody()
        self._fakes = fakes or FakeKeys()
        self._admission = Admission(self._links, default_domain, record)
        self._clock = clock

    @property
    def mechanisms(self) -> frozenset[str]:
        """By which mechanisms somebody may be let in: USER, which is USER and PASS, and SASL's.

        What a link cannot verify does not get past it, if its policy bars that.
        """
        found = frozenset[str]()
        passing = None
        for link in self._links:
            own = link.mechanisms if link.policy.success is Action.ACCEPT else frozenset()
            found |= own if passing is None else own & passing
            if link.policy.bars:
                able = link.mechanisms
                if link.policy.success is not Action.ACCEPT:
                    able -= link.scram_mechanisms
                passing = able if passing is None else able & passing
        return found

    # Log-in.

    def requestAvatarId(  # type: ignore[override]  # any object can be an avatar id
        self, credentials: Any
    ) -> Deferred[Account]:
        """Return the account from the first checker that accepts.

        :param credentials: a `Claim`, or anything that has a user name and a password.

        Fails with UnauthorizedLogin; with `LoginTooSoonError`; or with `AuthTemporaryError` if a
        checker that might have accepted cannot answer now.
        """
        claim: Claim = (
            credentials
            if isinstance(credentials, Claim)
            else Attempt(credentials.username, credentials.password)
        )
        account = claim.account or self.remembered(claim)
        if account is not None:
            return succeed(account)
        return Deferred.fromCoroutine(self._log_in(claim))

    def remembered(self, claim: Claim) -> Account | None:
        """Return the account of one who was let in with the same a short while ago, if any.

        If that is so, `Claim.account` is set.  None may mean that the user has to wait.
        """
        account = self._recalled(claim)
        if account is None or self._admission.is_recorded(account):
            return None
        if not self._guard.passes(claim.client, account.name.encode(errors="surrogateescape")):
            return None
        claim.account = account
        return account

    def _recalled(self, claim: Claim) -> Account | None:
        if not isinstance(claim, Attempt) or claim.authzid not in {b"", claim.username}:
            return None
        account = self._cache.get(claim.username, claim.password)
        # Who must not log in is refused in the time that a wrong password takes.
        return None if account is None or account.refusal(claim.client) else account

    async def _log_in(self, claim: Claim) -> Account:
        person = Person.of(claim, self._default_domain)
        answered = False
        try:
            if not isinstance(claim, ScramOutcome):  # that waited when its keys were looked up
                claim.delay = self._guard.delay(claim.client, person.shown)
                await self._wait(claim.delay)
            verdict = await self._verdict(claim, person)
            answered = self._report(claim, person, verdict)
        finally:
            if not answered:
                self._guard.unanswered(claim.client)
        if verdict.account is not None:
            claim.account = verdict.account
            return verdict.account
        if isinstance(verdict.refusal, LoginTooSoonError):
            raise verdict.refusal
        if verdict.in_doubt and person.possible:
            raise AuthTemporaryError("not all could be asked")
        raise verdict.refusal or UnauthorizedLogin

    async def _wait(self, delay: float) -> None:
        """Wait for an attempt's turn.

        :raises AuthTemporaryError: there is none soon enough.
        """
        if delay > 0:
            await deferLater(self._timer(), HOLD if delay == inf else delay)
        if delay == inf:
            raise AuthTemporaryError("too many attempts wait already")

    async def _verdict(self, claim: Claim, person: Person) -> _Verdict:
        verdict = _Verdict()
        recalled = self._recalled(claim)
        if recalled is not None:
            await self._admit(recalled, claim, person, verdict)
        elif isinstance(claim, ScramOutcome):
            await self._judge(claim, person, verdict)
        else:
            await self._ask(claim, person, verdict)
        return verdict

    def _report(self, claim: Claim, person: Person, verdict: _Verdict) -> bool:
        """Tell the guard what came of an attempt; return whether it was told."""
        if verdict.account is not None:
            self._guard.succeeded(claim.client, person.shown)
            return True
        if isinstance(verdict.refusal, LoginTooSoonError):
            return False
        if verdict.denied or not verdict.in_doubt:
            self._guard.failed(claim.client, person.shown, _secret(claim))
            return True
        return False

    async def _ask(self, claim: Question, person: Person, verdict: _Verdict) -> None:
        """Ask the links about *claim*.

        When one has accepted a user who must not log in, the rest are asked all the same, since
        that is what happens after a wrong password.
        """
        question = claim.renamed(person.name, person.bare)
        barred = False
        for link in self._links:
            if link.takes(claim):
                version = link.version()
                account, action = await self._hear(link, question, verdict)
                if account is not None and action is Action.ACCEPT and person.possible:
                    await self._admit(account, claim, person, verdict)
                    if verdict.account is not None:
                        if not verdict.in_doubt and not barred:
                            self._remember(claim, person, verdict.account, link, version)
                        return
                    action = link.policy.failure
                if action is Action.STOP:
                    return
            elif link.policy.bars:
                return
            barred = barred or link.policy.bars

    async def _hear(
        self, link: Link, question: Question, verdict: _Verdict
    ) -> tuple[Account | None, Action]:
        """Return what *link* says, and what that leads to; it is noted if the link says no."""
        policy = link.policy
        try:
            account = await link.ask(question)
        except AuthTemporaryError:
            verdict.in_doubt = True
            return None, policy.temporary
        if account is None or verdict.refusal is not None:
            verdict.denied = True
            return None, policy.failure
        if policy.success is Action.STOP:
            verdict.refusal = LoginRefusedError(f"{link.name} knows the user")
            return None, policy.failure
        return account, policy.success

    async def _judge(self, claim: ScramOutcome, person: Person, verdict: _Verdict) -> None:
        """Decide about a SCRAM exchange."""
        owner = claim.keys.owner
        if person.possible and isinstance(owner, Account):
            reason = owner.refusal(claim.client)
            if reason:
                verdict.refusal = LoginRefusedError(reason)
            elif claim.proven:
                await self._admit(owner, claim, person, verdict)
        verdict.denied = verdict.account is None

    async def _admit(
        self, account: Account, claim: Claim, person: Person, verdict: _Verdict
    ) -> None:
        try:
            verdict.account = await self._admission.admit(account, claim, person)
        except (LoginRefusedError, LoginTooSoonError) as refusal:
            verdict.refusal = refusal
        except AuthTemporaryError:
            verdict.in_doubt = True

    def _remember(
        self, claim: Claim, person: Person, account: Account, link: Link, version: object
    ) -> None:
        if isinstance(claim, Attempt) and person.wanted is None:
            self._cache.put(claim.username, claim.password, account, link.checker, version)

    # SCRAM.

    def scram_keys(
        self, username: bytes, mechanism: str, client: Client = NOWHERE
    ) -> Deferred[ScramKeys]:
        """Return a user's SCRAM keys; made up ones, without an owner, if he has none.

        This, and not its end, is where an attempt by SCRAM waits: the proof that follows would be
        answered at once if it is right, and who hears nothing would know, and try the next.

        Fails with `AuthTemporaryError`.

        :param mechanism: never -PLUS.
        """
        return Deferred.fromCoroutine(self._scram_keys(username, mechanism, client))

    async def _scram_keys(self, username: bytes, mechanism: str, client: Client) -> ScramKeys:
        user = UserName.parse(username, self._default_domain)
        found = False
        try:
            await self._wait(self._guard.delay(client, shown_name(username, user)))
            keys = await look_up(self._links, user, self._default_domain, mechanism)
            found = True
        finally:
            if not found:
                self._guard.unanswered(client)
        fake = self._fakes.make(shown_name(username, user), mechanism)
        if keys is None:
            return fake
        self._fakes.seen(mechanism, keys)
        if isinstance(keys.owner, Account) and keys.owner.refusal(client):
            # No proof will be right, as for who has no keys.
            return replace(keys, stored_key=fake.stored_key, server_key=fake.server_key)
        return keys

    # Names and clocks.

    def _timer(self) -> IReactorTime:
        if self._clock is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it chooses it

            self._clock = cast("IReactorTime", reactor)
        return self._clock


def _secret(claim: Claim) -> bytes | None:
    match claim:
        case Attempt():
            return claim.password
        case BearerToken():
            return claim.token
    return None
