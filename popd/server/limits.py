"""How many clients are served, how long they may take, and whom they must make room for."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

from popd.auth.account import Client
from popd.server.allowance import Allowance
from popd.server.census import MAX_SESSIONS, Census, LimitError, settle
from popd.server.crowd import Crowd
from popd.server.networks import NOBODY, Networks
from popd.server.sparing import Sparing

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from popd.server.guest import Guest
    from popd.server.journal import Journal
    from popd.server.visit import Visit

__all__ = [
    "IDLE_TIMEOUT",
    "LOGIN_SILENCE",
    "LOGIN_TIMEOUT",
    "MEGABYTE",
    "PER_ADDRESS",
    "SESSIONS",
    "Gate",
    "Limits",
    "Registry",
    "raise_file_limit",
    "shortage",
]

IDLE_TIMEOUT: Final = 600.0
"""Seconds without a command, and without an octet taken by the client, until a session that is
logged in ends.  RFC 1939 section 3 allows no less."""

LOGIN_SILENCE: Final = 60.0
"""Seconds without a command until a session that is not logged in ends."""

LOGIN_TIMEOUT: Final = 180.0
"""Seconds from the connection until a session must be logged in, whatever it says meanwhile."""

SESSIONS: Final = 10_000
"""How many sessions there may be, unless something else is said."""

PER_ADDRESS: Final = 500
"""How many may come from one address: more than a large office has at any moment behind one, since
most sessions take less than a second, and a twentieth of all."""

MEGABYTE: Final = 1_000_000
"""Octets."""

FILES: Final = 2
"""Files that a session keeps open: its connection, and the lock on its maildrop."""

OTHER_FILES: Final = 64
"""Files that a process needs besides: ports, the log, databases, messages being sent."""

_LOOK: Final = 64
"""Sessions that are looked at for one that can make room."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What administrators can say.  0 is no limit.

    :param sessions: how many connections there may be, in all processes together.
    :param per_address: how many from one IPv4 address, or IPv6 /64.
    :param per_user: how many one user may have.
    :param login_timeout: seconds from the connection until a session must be logged in.
    :param idle_timeout: see `IDLE_TIMEOUT`.
    :param per_day: octets of messages after which a user gets no more on that day (UTC).
    :param proxies: from where each connection must begin with a PROXY header, which is believed.
    :param relays: from where XCLIENT is believed.
    :param watch_crowds: whether to say so if it looks as if there were a proxy.
    """

    sessions: int = SESSIONS
    per_address: int = PER_ADDRESS
    per_user: int = 0
    login_timeout: float = LOGIN_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    per_day: int = 0
    proxies: Networks = NOBODY
    relays: Networks = NOBODY
    watch_crowds: bool = True


class Registry:
    """What is counted in memory that all processes share; to be made before a fork.

    It has to outlive each of them: what is in it goes on to count.
    """

    def __init__(self) -> None:
        self.census = Census()
        self.allowance: Allowance | None = None
        """What users have downloaded, if that is limited."""

    def prepare(self, limits: Limits) -> None:
        """Make what these limits need besides; what is there stays."""
        if limits.per_day and self.allowance is None:
            self.allowance = Allowance()

    def vacate(self, seat: int) -> None:
        """Forget the sessions of the process on a seat, which is no more."""
        self.census.vacate(seat)


class Gate:
    """Lets clients in as far as the limits allow, in one process.

    :param limits: the limits.
    :param registry: what all processes have counted.
    :param journal: is told what is refused.
    :param clock: tells the time.
    :param seat: which of the processes this is.
    :param now: tells the seconds since 1970.
    """

    def __init__(
        self,
        limits: Limits,
        registry: Registry,
        journal: Journal,
        clock: IReactorTime,
        seat: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._crowd: Crowd | None = None
        self._registry = registry
        self.renew(limits)
        self._census = registry.census
        self._addresses = registry.census.addresses.row(seat)
        self._users = registry.census.users.row(seat)
        self._journal = journal
        self._seat = seat
        self._now = now
        self._sessions = 0
        self._waiting: dict[Guest, None] = {}  # not logged in, the oldest first
        self.sparing = Sparing(clock)
        """For other warnings about what strangers do."""
        self._census.take(seat)

    def renew(self, limits: Limits) -> None:
        """Go by other limits from now on.  Who is in stays in."""
        self.limits = limits
        self.login_timeout = limits.login_timeout or inf
        """Seconds from the connection until a session must be logged in."""
        self.login_silence = min(LOGIN_SILENCE, self.login_timeout)
        """Seconds without a command until a session that is not logged in ends."""
        self.idle_timeout = limits.idle_timeout or inf
        """Seconds without a command until a session that is logged in ends."""
        self.proxies = limits.proxies or None
        """From where each connection must begin with a PROXY header; None if from nowhere."""
        self.relays = limits.relays or None
        """From where XCLIENT is believed; None if from nowhere."""
        self._registry.prepare(limits)
        self._allowance = self._registry.allowance if limits.per_day else None
        if not limits.watch_crowds:
            self._crowd = None
        elif self._crowd is None:
            self._crowd = Crowd(self._clock)

    def begin(self, protocol: Guest, *, proxy: bool) -> bool:
        """Count a client that has connected; return whether it may stay.

        This is on the way of every session: so it is all in one place.

        :param proxy: whether its address is that of a proxy, which has many clients.
        """
        visit, limits, census = protocol.visit, self.limits, self._census
        self._sessions += 1
        census.sessions[self._seat] = self._sessions
        visit.counted = True
        seats = census.seats
        if limits.per_address and not proxy and not self._enter_address(visit, seats):
            self.end(protocol)
            return False
        sessions = self._sessions
        if seats > 1:
            settle()
            sessions = sum(census.sessions[:seats])
        most = limits.sessions or inf
        if (sessions > most or self._sessions > MAX_SESSIONS) and not self.make_room():
            self.end(protocol)
            self._refuse(visit, "max-sessions", min(most, MAX_SESSIONS))
            return False
        self._waiting[protocol] = None
        return True

    def moved(self, protocol: Guest, address: str) -> bool:
        """Learn that a client has another address; return whether it may stay."""
        visit = protocol.visit
        if visit.of_address is not None:
            self._addresses.leave(visit.of_address)
            visit.of_address = None
        visit.peer = address
        return not self.limits.per_address or self._enter_address(visit, self._census.seats)

    def let_in(self, protocol: Guest) -> bool:
        """Count a session whose user is known; return whether he may have one more."""
        visit = protocol.visit
        most = self.limits.per_user
        if most:
            try:
                visit.of_user = self._users.enter(visit.user.encode(), most, self._census.seats)
            except LimitError:
                self._journal.limited(visit, visit.peer, "max-sessions-per-user")
                return False
        self._waiting.pop(protocol, None)
        if self._crowd is not None:
            self._crowd.see(visit.peer, visit.user.encode())
        return True

    def end(self, protocol: Guest) -> None:
        """Count a session no more.  A second call does nothing."""
        visit = protocol.visit
        if not visit.counted:
            return
        visit.counted = False
        self._sessions -= 1
        self._census.sessions[self._seat] = self._sessions
        self._waiting.pop(protocol, None)
        if visit.of_address is not None:
            self._addresses.leave(visit.of_address)
            visit.of_address = None
        if visit.of_user is not None:
            self._users.leave(visit.of_user)
            visit.of_user = None

    def make_room(self) -> bool:
        """Let go of the one who connected first and has not logged in; return whether one went."""
        for protocol in list(islice(self._waiting, _LOOK)):
            if protocol.give_way():
                self.end(protocol)
                visit = protocol.visit
                self._journal.limited(visit, visit.peer, "max-sessions")
                self.sparing.warn(
                    "replaced",
                    f"Made room: ended the session from {visit.peer or 'this machine'}, the oldest"
                    " that has not logged in",
                )
                return True
        return False

    def may_download(self, visit: Visit) -> bool:
        """Return whether a user may download one more message today."""
        allowance, most = self._allowance, self.limits.per_day
        if allowance is None or allowance.spent(visit.user.encode(), self._now()) < most:
            return True
        self._refuse(visit, "max-download-per-day", most / MEGABYTE)
        return False

    def downloaded(self, visit: Visit, octets: int) -> None:
        """Count what a user has downloaded."""
        if self._allowance is not None:
            self._allowance.spend(visit.user.encode(), octets, self._now())

    def _enter_address(self, visit: Visit, seats: int) -> bool:
        most = self.limits.per_address
        if visit.peer:
            try:
                visit.of_address = self._addresses.enter(network_of(visit.peer), most, seats)
            except LimitError:
                self._refuse(visit, "max-sessions-per-ip", most)
                return False
        return True

    def _refuse(self, visit: Visit, limit: str, most: float) -> None:
        self._journal.limited(visit, visit.peer, limit)
        whom = f"user {ascii(visit.user)[1:-1]}, " if visit.user else ""
        self.sparing.warn(
            limit,
            f"Refused: {whom}from {visit.peer or 'this machine'}: --{limit} {most:.15g} is reached",
        )


@lru_cache(4_096)
def network_of(address: str) -> bytes:
    """Return what the clients of one address have in common: it, or an IPv6 /64."""
    ip = Client(address).ip
    if isinstance(ip, IPv6Address):
        return ip.packed[:8]
    return ip.packed if ip is not None else b""


def raise_file_limit() -> int:
    """Let this process open as many files as it ever may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def shortage(limits: Limits, processes: int, files: int) -> str:
    """Return what to say if there are more sessions allowed than there can be; else ``""``.

    :param processes: how many serve.
    :param files: how many each may have open.
    """
    room = processes * min(max(0, files - OTHER_FILES) // FILES, MAX_SESSIONS)
    if limits.sessions <= room:
        return ""
    return (
        f"--max-sessions {limits.sessions} is more than there can be: {files} open files allow for"
        f" {room} sessions; raise that limit (LimitNOFILE= in systemd, ulimit -n), or lower this"
    )
