"""How users get in: made of the settings once, before a fork, and used by every process."""

from __future__ import annotations

import codecs
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.portal import Portal
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from popd import mechanisms
from popd.auth.apppass import DIRECTORY, LastUse
from popd.auth.cache import CredentialCache
from popd.auth.chain import CheckerChain
from popd.auth.fakekeys import FILE as FAKE_KEYS
from popd.auth.fakekeys import FakeKeys
from popd.auth.guard import Guard
from popd.auth.interfaces import IClosable, INeeds
from popd.auth.link import Link, Policy
from popd.auth.penalties import slowed
from popd.auth.realm import MaildropRealm
from popd.auth.tablefile import GuessTable
from popd.listen import StartError
from popd.maildrop.snapshots import SnapshotCache
from popd.maildrop.template import MaildirStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.cred.checkers import ICredentialsChecker
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from popd.auth.account import Account, Client
    from popd.auth.interfaces import Needs
    from popd.config import Settings

__all__ = ["Door", "starting"]

_log = Logger()

_MEGABYTE: Final = 1e6


class Door:
    """What the processes of a popd have in common to let users in.

    :param settings: what popd is told to do.
    :param before: the door until now; what is known of guesses and disks is taken over.
    :raises StartError: something cannot be used.
    """

    def __init__(self, settings: Settings, before: Door | None = None) -> None:
        # What looks up host names needs it later, when popd may read less than whoever starts it.
        codecs.lookup("idna")
        self.domain = settings.default_domain
        """What completes a bare user name."""
        self._checkers = [_checker(description) for description in settings.auth]
        self._ttl = settings.auth_cache_ttl
        state = Path(settings.state_directory)
        self._fakes: FakeKeys = before._fakes if before else FakeKeys.kept(state / FAKE_KEYS)  # noqa: SLF001
        self._uses = LastUse(state / DIRECTORY)
        with starting("--auth"):
            chain = self._chain()
        with starting(""):
            self.offer = mechanisms.choose(
                chain.mechanisms,
                settings.sasl,
                apop=settings.apop,
                certificates=bool(settings.client_ca),
            )
            """Which ways to log in there are."""
        self._guess_table = settings.guess_table
        with starting("--guess-table"):
            self.guesses: GuessTable = (
                before.guesses
                if before and before._guess_table == settings.guess_table  # noqa: SLF001
                else GuessTable.open(Path(settings.guess_table))
                if settings.guess_table
                else GuessTable.in_memory()
            )
            """What is known of wrong guesses, by all processes together."""
        with starting("--maildrop"):
            recent = SnapshotCache(settings.cache_size * _MEGABYTE, settings.clock_skew)
            self._store: MaildirStore = MaildirStore.from_template(
                settings.maildrop,
                settings.missing_maildrop,
                recent,
                settings.durability,
                settings.mail_root,
            )
        known = before is not None and self._store.follow(before._store)  # noqa: SLF001
        if not known and not self._store.survey():
            _log.warn(
                "{path} is no directory; is it not mounted? Nobody gets mail",
                path=self._store.fixed,
            )
        self._realm = MaildropRealm(self._store)

    @property
    def mail(self) -> str:
        """The directory beneath which all mail is, with no links in it."""
        return self._store.resolved

    def needs(self) -> Iterator[Needs | None]:
        """Yield what each checker needs; None for one that does not say."""
        for checker, _, _ in self._checkers:
            knowing: Any = INeeds(checker, None)
            yield None if knowing is None else knowing.needs()

    def slowed(self) -> int:
        """Return how many networks, accounts and pairs of them have to wait because of guesses."""
        return slowed(self.guesses, time.time())

    def close(self) -> None:
        """Have checkers let go of what they have: nobody comes in here any more."""
        for checker, _, name in self._checkers:
            if IClosable.providedBy(checker):
                try:
                    checker.close()
                except Exception:  # noqa: BLE001 - the others want to be closed as well
                    _log.failure("{name} of the former configuration is not closed", name=name)

    def portal(self, clock: IReactorTime) -> Portal:
        """Return where credentials become maildrops, for the process whose clock this is."""
        return Portal(self._realm, [self._chain(clock, Guard(self.guesses))])

    def _record(self, account: Account, client: Client) -> Deferred[str]:
        """See `Admission`: this waits for a disk."""
        return deferToThread(self._uses.admit, account, client)

    def _chain(self, clock: IReactorTime | None = None, guard: Guard | None = None) -> CheckerChain:
        return CheckerChain(
            [Link(checker, policy, name) for checker, policy, name in self._checkers],
            self.domain,
            CredentialCache(self._ttl),
            clock=clock,
            guard=guard,
            fakes=self._fakes,
            record=self._record,
        )


def _checker(description: str) -> tuple[ICredentialsChecker, Policy, str]:
    """Return the checker that *description* means, its policy, and its type.

    What follows the type may be secret.
    """
    with starting("--auth"):
        policy, description = Policy.split(description)
    kind = description.partition(":")[0]
    try:
        return makeChecker(description), policy, kind
    except InvalidAuthType as error:
        raise StartError(f"--auth {kind}: no such type; see twistd popd --help-auth") from error
    except Exception as error:
        reason = str(error).removeprefix(kind).lstrip(": ")
        raise StartError(f"--auth {kind}: {reason}") from error


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Make a ValueError about *what* end the start; if that is empty its text says about what."""
    try:
        yield
    except ValueError as error:
        raise StartError(f"{what}: {error}" if what else str(error)) from error
