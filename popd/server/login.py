"""How the client of a connection is let in, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import connectionDone

from popd.auth.account import Client
from popd.auth.credentials import Claim, adapt
from popd.auth.interfaces import AuthTemporaryError, LoginTooSoonError
from popd.maildrop.interfaces import (
    IMaildrop,
    IPromptMaildrop,
    MaildropError,
    MaildropInUseError,
    MaildropPermanentError,
    MessageGoneError,
)
from popd.protocol.events import Authenticate, Lookup, Problem
from popd.server.bindings import client_certificate, tls_connection, tls_shown
from popd.server.guest import Guest
from popd.server.offload import OverdueError
from popd.server.visit import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate
    from twisted.python.failure import Failure

    from popd.maildrop.interfaces import Place
    from popd.protocol.snapshot import Snapshot
    from popd.server.factory import POP3Factory
    from popd.server.protocol import POP3Protocol

    Refusal = UnauthorizedLogin | LoginTooSoonError | MaildropError | AuthTemporaryError

__all__ = ["LoginConnection", "place_of", "problem_of"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class LoginConnection(Guest):
    """A connection whose client can log in, and then has a maildrop.

    :param factory: what it has in common with the others.
    """

    __slots__ = (
        "_asked",
        "_holding",
        "_maildrop",
        "_prompt",
        "_snapshot",
    )

    _maildrop: IMaildrop
    _prompt: IPromptMaildrop | None
    _snapshot: Snapshot

    def __init__(self, factory: POP3Factory) -> None:
        super().__init__(factory)
        self._holding = False  # a maildrop is open and has to be released
        self._asked = 0.0  # when the client showed its credentials

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone.  A log-in of its that has to wait does not wait any more."""
        super().connectionLost(reason)
        if self._idle_login is not None:
            self._idle_login.cancel()

    def _log_in(self, event: Authenticate | Lookup) -> bool:
        """Find out who the client is; return whether that is done already."""
        if self._secure and not self.visit.tls and not self._relayed:
            self.visit.tls = tls_shown(tls_connection(self.transport))
        match event:
            case Lookup(username, mechanism):
                return self.begin(self._look_up(username, mechanism))
            case Authenticate(shown):
                self._asked = self._clock.seconds()
                claim = adapt(shown, Client(self.visit.peer, self._secure), self._certificate())
                return self._authenticate_promptly(claim) or self.begin(self._authenticate(claim))

    async def _look_up(self, username: bytes, mechanism: str) -> None:
        """Find the keys that a client's proof is checked with."""
        client = Client(self.visit.peer, self._secure)
        try:
            self._idle_login = self.factory.scram_keys(username, mechanism, client)
            keys = await self.wait(self._idle_login)
        except AuthTemporaryError as error:
            self._denied(username, mechanism, Problem.TEMPORARY, str(error))
        except CancelledError:
            self.end()
        else:
            self._session.found(keys)
        finally:
            self._idle_login = None

    def _authenticate_promptly(self, claim: Claim) -> bool:
        """Open a maildrop at once, if it is known whose and near; return whether it was."""
        try:
            if self.visit.insider:
                maildrop: IMaildrop | None = self.factory.insider.maildrop(claim)
            else:
                maildrop = self.factory.remembered_maildrop(claim)
            prompt = IPromptMaildrop(maildrop, None)
            snapshot = prompt.open_promptly() if prompt else None
        except (UnauthorizedLogin, MaildropError) as error:
            self._shut_out(claim, error)
            return True
        if maildrop is None or snapshot is None:
            return False
        self._let_in(claim, maildrop, prompt, snapshot, remembered=True)
        return True

    async def _authenticate(self, claim: Claim) -> None:
        """Find out who the client is, and open its maildrop."""
        try:
            login = self.factory.portal.login(claim, None, IMaildrop)
            self._idle_login = login if claim.delay else None
            _, avatar, _ = await self.wait(login)
            maildrop = cast("IMaildrop", avatar)
            prompt = IPromptMaildrop(maildrop, None)
            at_once = prompt.open_promptly() if prompt else None
            snapshot = await self._off(maildrop, maildrop.open) if at_once is None else at_once
        except (UnauthorizedLogin, LoginTooSoonError, MaildropError, AuthTemporaryError) as error:
            self._shut_out(claim, error)
        except CancelledError:
            self.end()
        else:
            self._let_in(claim, maildrop, prompt, snapshot, remembered=at_once is not None)
            self.factory.journal.duplicates(getattr(maildrop, "duplicates", 0))
        finally:
            self._idle_login = None

    def _let_in(
        self,
        claim: Claim,
        maildrop: IMaildrop,
        prompt: IPromptMaildrop | None,
        snapshot: Snapshot,
        *,
        remembered: bool,
    ) -> None:
        account, visit = claim.account, self.visit
        visit.mechanism, visit.left = claim.mechanism, len(snapshot)
        visit.user = account.name if account is not None else shown(claim.username)
        if not visit.insider and not self.factory.gate.let_in(self):
            self._let_go(maildrop)
            self._denied(
                claim.username,
                claim.mechanism,
                Problem.TOO_MANY,
                f"--max-sessions-per-user {self.factory.gate.limits.per_user} is reached",
            )
            return
        visit.logged_in = self._clock.seconds()
        if account is not None and claim.master:
            visit.by = f"master {claim.master}"
        elif account is not None and account.program:
            visit.by = f"app password {account.program}"
        seconds = visit.logged_in - self._asked
        self.factory.journal.let_in(visit, seconds, remembered=remembered)
        self._maildrop, self._prompt = maildrop, prompt
        self._snapshot, self._holding = snapshot, True
        if self.factory.tracer is not None:
            self.factory.tracer.let_in(cast("POP3Protocol", self))
        self._session.authenticated(snapshot, may_delete=account is None or not account.no_delete)

    def _shut_out(self, claim: Claim, error: Refusal) -> None:
        problem = Problem.CREDENTIALS if isinstance(error, UnauthorizedLogin) else problem_of(error)
        why = str(error) if error.args else ""
        self._denied(claim.username, claim.mechanism, problem, why)

    def _denied(self, name: bytes, mechanism: str, problem: Problem, why: str) -> None:
        self.factory.journal.shut_out(self.visit, name, mechanism, problem, why)
        self._session.denied(problem)

    def _certificate(self) -> Certificate | None:
        """Return the client's TLS certificate, if it has shown one."""
        tls = self.factory.tls
        if tls is None or self._relayed or not (tls.asks_clients and self._secure):
            return None
        return client_certificate(tls_connection(self.transport))

    def _let_go(self, maildrop: IMaildrop) -> None:
        """Let go of a maildrop, which takes its time."""
        self.factory.offload.later(place_of(maildrop), maildrop.release)

    async def _off(
        self,
        maildrop: IMaildrop,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Do file work off the reactor's thread.  Until it is done, nothing else happens.

        :param maildrop: what it is on.
        :raises OverdueError: it may go on for ever; the maildrop is not this session's any more.
        """
        try:
            return await self.wait(
                self.factory.offload(place_of(maildrop), function, *args, **kwargs)
            )
        except OverdueError:
            self._holding = False
            self._let_go(maildrop)
            raise


def place_of(maildrop: IMaildrop) -> Place:
    """Return where a maildrop is.  All that do not say so are on one disk."""
    place: Place = getattr(maildrop, "place", (None, str(id(maildrop))))
    return place


def problem_of(error: MaildropError | AuthTemporaryError | LoginTooSoonError) -> Problem:
    """Return what a client is told about an error."""
    match error:
        case LoginTooSoonError():
            return Problem.TOO_SOON
        case MaildropInUseError():
            return Problem.IN_USE
        case MaildropPermanentError():
            return Problem.PERMANENT
        case MessageGoneError():
            return Problem.GONE
    return Problem.TEMPORARY
