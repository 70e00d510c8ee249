"""Users whom PAM knows: those of the machine, and whoever else its modules know."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.account import Client
from popd.auth.answers import read_account
from popd.auth.health import MAX_TIMEOUT, limited, process_reactor
from popd.auth.interfaces import AuthUncertainError, IClosable, IKnowsBareNames, INeeds, Needs
from popd.auth.pam_pool import Launcher, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from popd.auth.account import Account

__all__ = ["PROCESSES", "PamChecker", "PamCheckerFactory"]

PROCESSES: Final = 4
"""How many questions PAM is asked at the same time, by each process."""

_MAX_PASSWORD: Final = 1024
"""Octets of a password: no module takes more (PAM_MAX_RESP_SIZE is 512)."""

# Return codes of libpam, in its _pam_types.h.
_SUCCESS: Final = 0
_CONV_ERR: Final = 19
_WRONG: Final = frozenset((6, 7, 10, 11, 12, 13))
"""Permission denied, authentication error, user unknown, too many tries, and what is about accounts
but was found before the password was seen to be right."""
_DISABLED: Final = frozenset((6, 7, 10, 12, 13))
"""Permission denied, likewise in other words, password expired, account expired."""


@implementer(ICredentialsChecker, IClosable, IKnowsBareNames, INeeds)
class PamChecker:
    """Lets PAM check passwords, in processes of their own.

    :param pool: makes what asks PAM, of a reactor.
    :param timeout: seconds that a log-in may take.
    :param full_names: whether PAM knows users with their domains, also with the default one.
    :param reactor: if it is another than the process's own.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        pool: Callable[[Any], Pool],
        timeout: float = MAX_TIMEOUT,
        *,
        full_names: bool = False,
        reactor: Any = None,
    ) -> None:
        self._make_pool = pool
        self._timeout = timeout
        self._full_names = full_names
        self._reactor = reactor

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """Return the user's `Account`, later.

        Fails with UnauthorizedLogin and `AuthUncertainError`.
        """
        checking = Deferred.fromCoroutine(self._check(credentials))
        return limited(checking, self._timeout, self._clock, "PAM does not answer")

    def close(self) -> None:
        """See `IClosable`."""
        if "_pool" in self.__dict__:
            self._pool.close()

    def needs(self) -> Needs:
        """See `INeeds`: whatever the modules do."""
        return Needs(anything=True)

    @cached_property
    def _clock(self) -> Any:
        return self._reactor or process_reactor()

    @cached_property
    def _pool(self) -> Pool:
        return self._make_pool(self._clock)

    async def _check(self, credentials: IUsernamePassword) -> Account:
        username, password = credentials.username, credentials.password
        client = getattr(credentials, "client", None) or Client()
        asked = username if self._full_names else getattr(credentials, "bare", b"") or username
        if not asked or not password or b"\0" in asked + password or len(password) > _MAX_PASSWORD:
            raise UnauthorizedLogin
        ip = client.ip
        answer = await self._pool.ask(
            {
                "user": asked.decode("latin-1"),
                "password": password.decode("latin-1"),
                "host": "" if ip is None else str(ip).partition("%")[0],
            }
        )
        return _account(answer, username, asked)


def _account(answer: Mapping[str, Any], username: bytes, asked: bytes) -> Account:
    """Return the account that PAM lets in.

    :param username: the user's complete name.
    :param asked: the name that PAM was asked about.
    :raises UnauthorizedLogin: it lets nobody in.
    :raises AuthUncertainError: it does not know.
    """
    stage, code = answer["stage"], answer["code"]
    # A module may have found out that he is called otherwise.
    name = answer["user"].encode("latin-1") or asked
    name = username if name == asked else name
    if stage == "account" and code == _SUCCESS:
        return read_account("PAM", name, {})
    if stage == "account" and code in _DISABLED:
        return read_account("PAM", name, {"disabled": ""})
    if stage == "authenticate" and code in _WRONG:
        raise UnauthorizedLogin
    if code == _CONV_ERR:
        raise AuthUncertainError("PAM asks for more than a password")
    raise AuthUncertainError(f"PAM cannot say ({stage}): {answer['text']}")


_ARGUMENT: Final = re.compile(
    r"(?P<service>[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?"
    r"(?P<options>(?::(?:confdir=/[^:]+|names=(?:full|bare)|processes=\d{1,2}"
    r"|timeout=\d(?:\.\d+)?))*)",
)

_PLACES: Final = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")
"""Where services are that come with packages, or are the site's own."""


@implementer(ICheckerFactory, IPlugin)
class PamCheckerFactory:
    """Makes a `PamChecker` of ``--auth popd-pam:SERVICE``."""

    authType = "popd-pam"
    argStringFormat = (
        "A PAM service such as popd; then :names=full, :processes=N, :timeout=SECONDS."
    )
    authHelp = """
PAM, with the service popd unless you name another.  /etc/pam.d/popd may be:

    @include common-auth
    @include common-account

PAM is asked about users without popd's default domain; if its users have names
with that, say popd-pam:popd:names=full.  It is asked by processes of their own,
4 to each of popd's; processes=8 makes them 8.

They are the same user as popd.  To check passwords in /etc/shadow that has to
be a member of the group shadow.  docs/authentication-pam.rst has the rest.
"""
    credentialInterfaces = PamChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> PamChecker:
        """Return a checker that asks the service *argstring*; no process is started yet.

        :raises InvalidAuthArgumentString: it is no service, or there is no file for it.
        """
        match = _ARGUMENT.fullmatch(argstring)
        options = (
            dict(part.split("=", 1) for part in match["options"].split(":")[1:]) if match else {}
        )
        processes = int(options.get("processes", PROCESSES))
        timeout = float(options.get("timeout", MAX_TIMEOUT))
        if match is None or not processes or not 0 < timeout <= MAX_TIMEOUT:
            raise InvalidAuthArgumentString(
                f"{self.authType} needs a service: {self.authType}:SERVICE, and then"
                " :names=full, :processes=N, :timeout=SECONDS if need be"
            )
        service, directory = match["service"] or "popd", options.get("confdir", "")
        places = [directory] if directory else _PLACES
        if not any(Path(place, service).is_file() for place in places):
            # PAM would ask the service "other" instead, which lets nobody in.
            raise InvalidAuthArgumentString(f"{self.authType}: there is no {places[0]}/{service}")
        arguments = [service, directory] if directory else [service]

        def pool(reactor: Any) -> Pool:
            launcher = Launcher(arguments, 4 * processes, reactor)
            return Pool(launcher.start, processes, timeout, reactor)

        return PamChecker(pool, timeout, full_names=options.get("names") == "full")
