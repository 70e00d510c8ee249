"""Asking the links of a chain, one after the other, what they make of a password."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import react

from popd.auth.account import Account, Client
from popd.auth.interfaces import IAccounts, IKnowsBareNames
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from twisted.cred.checkers import ICredentialsChecker

__all__ = ["ACCEPTED", "CANNOT_ANSWER", "Answer", "ask", "run"]

_TIMEOUT: Final = 30.0

ACCEPTED: Final = "accepted"
CANNOT_ANSWER: Final = "cannot answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a link said.

    :param link: its type.
    :param said: ``accepted``, ``disabled`` (with the right password), ``wrong password``, ``unknown
        user``, ``refused`` (one of these two), ``not asked`` or ``cannot answer``.
    :param why: more about that, or ``""``.
    :param seconds: how long it took.
    """

    link: str
    said: str
    why: str = ""
    seconds: float = 0.0


def run(descriptions: list[str], name: str, password: bytes, domain: str) -> list[Answer]:
    """Ask each link, in a reactor of our own that cannot be run again.

    :param domain: completes a bare user name.
    """
    answers: list[Answer] = []

    async def gather(reactor: Any) -> None:
        answers.extend(await _ask_all(reactor, descriptions, name, password, domain))

    try:
        react(lambda reactor: Deferred.fromCoroutine(gather(reactor)))
    except SystemExit as end:
        if end.code:
            raise
    return answers


async def _ask_all(
    reactor: Any, descriptions: list[str], name: str, password: bytes, domain: str
) -> list[Answer]:

    user = UserName.parse(name, domain)
    bare = user.local if user and user.domain and user.domain == domain else ""
    answers = []
    for description in descriptions:
        link = description.partition(":")[0]
        try:
            checker = makeChecker(description)
        except InvalidAuthType:
            answers.append(Answer(link, CANNOT_ANSWER, "there is no such type of --auth"))
            continue
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            reason = str(error).removeprefix(link).lstrip(": ") or type(error).__name__
            answers.append(Answer(link, CANNOT_ANSWER, reason))
            continue
        start = time.perf_counter()
        said, why = await ask(reactor, checker, str(user or name), password, bare)
        answers.append(Answer(link, said, why, time.perf_counter() - start))
    return answers


async def ask(
    reactor: Any, checker: ICredentialsChecker, name: str, password: bytes, bare: str = ""
) -> tuple[str, str]:
    """Return what *checker* says, and more about it; see `Answer`.

    :param reactor: keeps the time, of which a checker has 30 seconds.
    :param bare: what the user may be called there instead, without the default domain.
    """
    if not any(map(IUsernamePassword.isOrExtends, checker.credentialInterfaces)):
        return "not asked", "it takes no passwords"
    knows_bare = IKnowsBareNames.providedBy(checker)
    names = [(name, bare)] if knows_bare or not bare else [(name, ""), (bare, "")]
    said = "refused", ""
    for one, other in names:
        said = await _ask(reactor, checker, one.encode(), other.encode(), password)
        if said[0] in {ACCEPTED, "disabled", CANNOT_ANSWER}:
            break
    return said


async def _ask(
    reactor: Any, checker: Any, name: bytes, bare: bytes, password: bytes
) -> tuple[str, str]:

    credentials = _Credentials(name, password, bare)
    try:
        answer = maybeDeferred(checker.requestAvatarId, credentials)
        account = await answer.addTimeout(_TIMEOUT, reactor)
    except (UnauthorizedLogin, LoginDenied):
        if not IAccounts.providedBy(checker):
            return "refused", "wrong password or unknown user"
    except Exception as error:  # noqa: BLE001 - whatever a checker fails with
        return CANNOT_ANSWER, _reason(error)
    else:
        if isinstance(account, Account):
            return _accepted(account)
        return (ACCEPTED, "") if account else ("refused", "")
    try:
        known = await maybeDeferred(checker.account, name, bare).addTimeout(_TIMEOUT, reactor)
    except Exception as error:  # noqa: BLE001 - likewise
        return "refused", f"whether the user is known cannot be told: {_reason(error)}"
    return ("unknown user", "") if known is None else ("wrong password", "")


class _Credentials(UsernamePassword):
    """A password for a checker, with what popd's own look at besides."""

    mechanism = "USER"
    authzid = b""
    client = Client()

    def __init__(self, username: bytes, password: bytes, bare: bytes) -> None:
        super().__init__(username, password)
        self.bare = bare


def _accepted(account: Account) -> tuple[str, str]:
    """Say who was accepted, and what limits that."""
    refusal = account.refusal(Client())
    if refusal:
        return "disabled", refusal
    limits = [
        f"as {account.name}",
        f"by the app password {account.program}" if account.program else "",
        "by TLS only" if account.require_tls else "",
        "from " + ",".join(map(str, account.networks)) if account.networks else "",
        "may delete nothing" if account.no_delete else "",
        f"once in {account.interval:g} s" if account.interval else "",
        "a master user" if account.master else "",
    ]
    return ACCEPTED, ", ".join(filter(None, limits))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
