"""One checker of a chain: what its answers lead to, and how it is spared while it has none."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, TimeoutError, maybeDeferred  # noqa: A004
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from popd.auth.account import Account
from popd.auth.credentials import octets
from popd.auth.interfaces import (
    AuthTemporaryError,
    IAccounts,
    IBearerToken,
    IClientCertificate,
    IKnowsBareNames,
    IScramKeyring,
    IVersioned,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from zope.interface import Interface

    from popd.auth.credentials import Claim, Question
    from popd.protocol.credentials import ScramKeys

__all__ = ["FIRST_RETRY", "MAX_RETRY", "TIMEOUT", "Action", "Link", "Policy"]

TIMEOUT: Final = 10.0
"""Seconds that a checker has for an answer."""

FIRST_RETRY: Final = 1.0
"""Seconds after which a checker that is down is asked again; each time it is still down doubles
them, as far as `MAX_RETRY`."""

MAX_RETRY: Final = 30.0
"""Seconds after which a checker that is down is asked again, at most."""

_log = Logger()

_OUTAGES: Final = (AuthTemporaryError, OSError, TimeoutError, ConnectError, ConnectionClosed)
"""What says that a checker can answer nobody.  Any other exception may be about one user only."""

_MECHANISMS: Final = {
    IUsernamePassword: frozenset({"USER", "PLAIN", "LOGIN"}),
    IUsernameHashedPassword: frozenset({"CRAM-MD5", "APOP"}),
    IBearerToken: frozenset({"OAUTHBEARER", "XOAUTH2"}),
    IClientCertificate: frozenset({"EXTERNAL"}),
}
"""What a checker can verify who takes such credentials; USER is for USER and PASS."""


class Action(enum.Enum):
    """What a link's answer leads to."""

    ACCEPT = "accept"
    """The user is let in."""
    NEXT = "next"
    """The next link is asked, as if this one had not been."""
    STOP = "stop"
    """No other link is asked."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What each of a link's answers leads to.

    If nobody accepts, the user is refused; or nobody can tell, if a link could not.

    :param success: the credentials are good.  ``stop`` refuses whoever the link knows, ``next``
        demands that another link accepts as well.
    :param failure: they are not, or the user is unknown.  ``stop`` makes the links behind a
        substitute that counts only while this one cannot answer.
    :param temporary: the link cannot answer now.
    """

    success: Action = Action.ACCEPT
    failure: Action = Action.NEXT
    temporary: Action = Action.NEXT

    @property
    def bars(self) -> bool:
        """Whether what this link cannot verify must not get past it."""
        return self.success is not Action.ACCEPT or self.failure is Action.STOP

    @classmethod
    def split(cls, description: str) -> tuple[Policy, str]:
        """Return the policy in front of ``TYPE:ARGUMENT``, and that.

        It looks like ``[failure=stop,temporary=next] TYPE:ARGUMENT``; what is not in it, or all of
        it if there is none, is as usual.

        :raises ValueError: something else is in it.
        """
        match = _POLICY.fullmatch(description)
        if match is None:
            return cls(), description
        actions = {}
        for part in filter(None, re.split(r"[,\s]+", match[1])):
            answer, _, action = part.partition("=")
            allowed = _ACTIONS.get(answer)
            if allowed is None:
                raise ValueError(f"[{part}]: there are {', '.join(_ACTIONS)}, as in [failure=stop]")
            if action not in allowed:
                raise ValueError(f"[{part}]: {answer} can be {' or '.join(allowed)}")
            actions[answer] = Action(action)
        return cls(**actions), match[2]


_POLICY: Final = re.compile(r"\[([^\]]*)\]\s*(.*)", re.DOTALL)

_ACTIONS: Final = {
    "success": ("accept", "next", "stop"),
    "failure": ("next", "stop"),
    "temporary": ("next", "stop"),
}


class Link:
    """A checker in a chain.

    A checker that is down is not asked at every log-in: one log-in asks it again after
    `FIRST_RETRY`, and so on, while the others go without.

    :param checker: the checker.  Any failure of its but UnauthorizedLogin and LoginDenied means
        that it cannot answer now, and is logged when it begins and when it has ended.
    :param policy: what its answers lead to.
    :param name: what the log calls it; by default the checker's class.
    :raises ValueError: it takes no credentials that a POP3 client can show.
    """

    timer: Callable[[], IReactorTime]
    """Returns what time is measured by; the chain sets it."""

    checker: Any  # an ICredentialsChecker with its add-ons

    def __init__(
        self, checker: ICredentialsChecker, policy: Policy | None = None, name: str = ""
    ) -> None:
        self.checker = checker
        self.policy = policy or Policy()
        self.name = name or type(checker).__qualname__
        if not self.mechanisms:
            raise ValueError(f"{self.name} can check nothing that a POP3 client shows")
        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # Twisted's "memory" plugin fills it with str, which no client ever sends.
            checker.users = {octets(u): octets(p) for u, p in checker.users.items()}
        self._knows_bare_names = IKnowsBareNames.providedBy(checker)
        self._silent = False  # it could not answer when asked last
        self._interval = 0.0  # seconds between two questions; 0 unless it is down
        self._again = 0.0  # when it may be asked again

    @cached_property
    def mechanisms(self) -> frozenset[str]:
        """By which mechanisms it can verify users: USER, which is USER and PASS, and SASL's."""
        found = frozenset[str]()
        for interface, mechanisms in _MECHANISMS.items():
            if any(map(interface.isOrExtends, self.checker.credentialInterfaces)):
                found |= mechanisms
        return found | self.scram_mechanisms

    @property
    def scram_mechanisms(self) -> frozenset[str]:
        """For which mechanisms it may have keys."""
        if IScramKeyring.providedBy(self.checker):
            mechanisms: frozenset[str] = self.checker.scram_mechanisms
            return mechanisms
        return frozenset()

    @property
    def knows_accounts(self) -> bool:
        """Whether it can be asked for an `account`."""
        provides: bool = IAccounts.providedBy(self.checker)
        return provides

    def takes(self, claim: Claim) -> bool:
        """Tell whether it can verify such credentials."""
        interfaces: tuple[type[Interface], ...] = self.checker.credentialInterfaces
        return any(interface.providedBy(claim) for interface in interfaces)

    def version(self) -> object:
        """Return the checker's version, if it has any."""
        return self.checker.version() if IVersioned.providedBy(self.checker) else None

    async def ask(self, claim: Question) -> Account | None:
        """Return whose credentials these are; None if it refuses or grants anonymous access.

        :raises AuthTemporaryError: the checker cannot answer now.
        """
        account = await self._ask(claim)
        if claim.bare and account is None and not self._knows_bare_names:
            account = await self._ask(claim.renamed(claim.bare))
        return account

    async def _ask(self, claim: Question) -> Account | None:
        answer = await self._call(lambda: self.checker.requestAvatarId(claim))
        if not answer or isinstance(answer, Account):
            return answer or None
        return Account(octets(answer).decode("utf-8", "surrogateescape"))

    async def scram_keys(self, name: bytes, bare: bytes, mechanism: str) -> ScramKeys | None:
        """See `IScramKeyring.scram_keys`."""
        keys: ScramKeys | None = await self._call(
            lambda: self.checker.scram_keys(name, bare, mechanism)
        )
        return keys

    async def account(self, name: bytes, bare: bytes) -> Account | None:
        """See `IAccounts.account`."""
        account: Account | None = await self._call(lambda: self.checker.account(name, bare))
        return account

    async def _call(self, question: Callable[[], Any]) -> Any:
        """Return what the checker answers, None if that is no.

        :raises AuthTemporaryError: it cannot answer now, or could not a moment ago.
        """
        down = self._interval > 0
        if down and self.timer().seconds() < self._again:
            raise AuthTemporaryError(f"{self.name} cannot answer now")
        if down:  # nobody else need wait for what this one waits for
            self._again = self.timer().seconds() + TIMEOUT
        answer = maybeDeferred(question)
        if not answer.called:
            answer.addTimeout(TIMEOUT, self.timer())
        try:
            result = await answer
        except (UnauthorizedLogin, LoginDenied):
            result = None
        except CancelledError:
            if down:
                self._again = self.timer().seconds()
            raise
        except Exception as error:
            self._falls_silent(error, asked_again=down)
            raise AuthTemporaryError(f"{self.name} cannot answer now") from error
        if self._silent:
            _log.info("{checker} answers again", checker=self.name)
            self._silent = False
            self._interval = 0.0
        return result

    def _falls_silent(self, error: Exception, *, asked_again: bool) -> None:
        """It could not answer: say so once, and ask less often while it is down."""
        if not self._silent:
            if isinstance(error, TimeoutError):
                _log.error("{name} does not answer within {n:g} s", name=self.name, n=TIMEOUT)
            elif isinstance(error, AuthTemporaryError):
                _log.error("{name} cannot answer now: {error}", name=self.name, error=error)
            else:
                _log.failure(
                    "{checker} cannot answer now", Failure(), LogLevel.error, checker=self.name
                )
        self._silent = True
        if asked_again or (isinstance(error, _OUTAGES) and not self._interval):
            self._interval = min(2 * self._interval, MAX_RETRY) or FIRST_RETRY
            self._again = self.timer().seconds() + self._interval
