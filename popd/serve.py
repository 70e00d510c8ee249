"""What one process serves with: made before a fork where it can be shared, after it where not."""

from __future__ import annotations

import ctypes
import gc
import sys
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from popd.desk import Desk
from popd.metrics import Meter
from popd.server.factory import CleartextLogin, POP3Factory
from popd.server.insider import Insider
from popd.server.journal import Journal
from popd.server.limits import Gate, Limits, Registry
from popd.server.offload import Offload
from popd.server.port import Lobby
from popd.server.visit import DRAINED, Visits

if TYPE_CHECKING:
    from popd.door import Door
    from popd.server.tls import ServerTLS

__all__ = ["DRAIN_TIMEOUT", "GARBAGE", "SWEEP", "SWITCH", "Service", "Serving"]

DRAIN_TIMEOUT: Final = 30.0
"""Seconds that sessions may go on, by default, when popd is to stop."""

GARBAGE: Final = (700, 10, 1000)
"""When Python looks for garbage.  Its default goes through everything a hundred times as often, and
while it does, with a large maildrop being opened, nobody is served for 10 ms."""

SWEEP: Final = 15.0
"""Seconds after a reload, and between two looks whether what was before it is still in use.  A
checker has less time for an answer, so that nobody who has just gone still asks."""

_LAST: Final = 5.0
"""Seconds that a message which is being sent may take after that, until it is broken off; and that
it may take to find out who a client is when popd is to stop."""

_GOODBYE: Final = 1.0
"""Seconds that clients have to close the connection when the last session is over."""

_LOOK: Final = 0.1
"""Seconds between two looks whether there are sessions left."""

_DRAINED: Final = b"-ERR [SYS/TEMP] the server is about to end, try again later\r\n"

_M_ARENA_MAX: Final = -8  # in glibc's malloc.h

SWITCH: Final = 0.0001
"""Seconds that a thread may compute while the reactor's waits to go on.  It waits anew after each
system call, some 25 times in a session, and Python's default is 5 ms."""


class Service(MultiService):
    """What serves in one process.

    :param reactor: the process's own.
    :param factory: serves connections.
    :param door: how users get in.
    :param patience: seconds that sessions may go on when this is to stop.
    """

    _log: ClassVar = Logger()

    def __init__(self, reactor: Any, factory: POP3Factory, door: Door, patience: float) -> None:
        super().__init__()
        self.reactor = reactor
        self.factory = factory
        self._door = door
        self._former: dict[POP3Factory, Door] = {}  # whose sessions may still ask at the door
        self.desk = Desk(factory, door.domain)
        """Answers operators for the process."""
        self.patience = patience
        self._end: Deferred[None] | None = None
        self._ends = inf  # when sessions are told to end
        self._quiet = inf  # when the last one was told
        self._strangers_end = inf  # when who has not logged in must be gone
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def renew(self, factory: POP3Factory, door: Door, patience: float) -> None:
        """Serve who comes from now on in another way; those who are there go on as they were.

        A door that is none any more is closed when the last who came to it has gone.
        """
        self._former[self.factory] = self._door
        self.factory, self._door, self.patience = factory, door, patience
        self.desk.serve(factory, door.domain)
        self.reactor.callLater(SWEEP, self._sweep)

    def _sweep(self) -> None:
        present = {connection.factory for connection in self.factory.visits}
        gone = [factory for factory in self._former if factory not in present]
        doors = [self._former.pop(factory) for factory in gone]
        used = {self._door, *self._former.values()}
        for door in set(doors) - used:
            door.close()
        if self._former:
            self.reactor.callLater(SWEEP, self._sweep)

    def serving(self) -> Deferred[bool]:
        """Tell that it serves."""
        return succeed(True)

    def leave(self) -> Deferred[None]:
        """Tell that nobody is let in, once the listeners are gone."""
        return succeed(None)

    def retire(self) -> Deferred[None]:
        """Return when the last session has ended, however long that takes.

        Nobody must be let in any more.
        """
        if self._end is None:
            self._end = Deferred()
            self._quiet = self.reactor.seconds()
            self._looks.start(_LOOK)
        return self._end

    def hurry(self) -> None:
        """Wait no longer for sessions."""
        self._ends = min(self._ends, self.reactor.seconds())
        self._dismiss(_DRAINED)

    def stopService(self) -> Deferred[Any]:
        """Let sessions go on for a while, but for those that have not logged in; then stop."""
        ended = self.retire()
        now = self.reactor.seconds()
        self._strangers_end = now + _LAST
        self._dismiss_strangers()
        self._ends = min(self._ends, now + self.patience)
        return ended.addCallback(lambda _: MultiService.stopService(self))

    def _look(self) -> None:
        if self._end is None or self._end.called:
            return
        now = self.reactor.seconds()
        if self._strangers_end < inf:
            self._dismiss_strangers()
        for connection in self.factory.visits:
            if connection.visit.logged_in is None and now > self._strangers_end:
                connection.abort()  # whoever should say who that is may hang
            elif not connection.over:
                self._quiet = now
        if not self.factory.visits or now > min(self._ends + _LAST, self._quiet + _GOODBYE):
            self._looks.stop()
            for connection in self.factory.visits:
                connection.abort()
            # What is aborted is gone, and written down, in the next turn.
            self.reactor.callLater(_LOOK, self._end.callback, None)
        elif now >= self._ends:
            self._dismiss(_DRAINED)

    def _dismiss_strangers(self) -> None:
        """Turn out who has not logged in, but for those whose password is being checked."""
        for connection in self.factory.visits:
            if connection.visit.logged_in is None and not connection.busy:
                connection.dismiss(DRAINED, _DRAINED)

    def _dismiss(self, reply: bytes) -> None:
        for connection in self.factory.visits:
            connection.dismiss(DRAINED, reply)


class Serving:
    """All that the processes of a popd have in common, until it gets another configuration.

    :param door: how users get in.
    :param cleartext_login: who may log in without TLS.
    :param tls: the server's end of TLS, or None.
    :param hashers: how many passwords a process checks at the same time.
    :param limits: how many clients are served, and how.
    :param insider: popd as its own client.
    :param patience: seconds that sessions may go on when popd is to stop.
    :param before: what popd had until now, whose listeners stay.
    """

    def __init__(
        self,
        door: Door,
        cleartext_login: CleartextLogin,
        tls: ServerTLS | None,
        hashers: int,
        limits: Limits,
        insider: Insider | None = None,
        patience: float = DRAIN_TIMEOUT,
        *,
        before: Serving | None = None,
    ) -> None:
        self.cleartext: Lobby = before.cleartext if before else Lobby()
        self.implicit_tls: Lobby = before.implicit_tls if before else Lobby()
        self.door = door
        self.tls = tls
        self._cleartext_login = cleartext_login
        self._hashers = hashers
        self._limits = limits
        self.registry: Registry = before.registry if before else Registry()
        self.registry.prepare(limits)
        """What all processes have counted."""
        self._insider = insider or Insider()
        self._patience = patience
        self.meter: Meter = before.meter if before else Meter()
        """What all processes have counted about what happened."""

    def on(self, reactor: Any, seat: int = 0) -> Service:
        """Return the service that serves what comes into the lobbies, on *reactor*.

        :param seat: which of the processes that serve this is, see `Seats`.
        """
        offload = Offload(reactor)
        journal = Journal(self.meter.of(seat))
        gate = Gate(self._limits, self.registry, journal, reactor, seat)
        factory = self._factory(reactor, offload, journal, Visits(seat), gate)
        service = Service(reactor, factory, self.door, self._patience)
        offload.setServiceParent(service)
        self._open(service.factory)
        reactor.suggestThreadPoolSize(self._hashers)
        sys.setswitchinterval(SWITCH)
        _share_memory()
        gc.freeze()  # what is there now stays, and need not be looked through
        gc.set_threshold(*GARBAGE)
        return service

    def vacate(self, seat: int) -> None:
        """Note that the process on a seat is no more, with all its sessions."""
        self.registry.vacate(seat)
        self.meter.vacated(seat)

    def take_over(self, service: Service) -> None:
        """Serve who comes from now on in this way; those who are there go on as they were."""
        before = service.factory
        before.gate.renew(self._limits)
        factory = self._factory(
            service.reactor, before.offload, before.journal, before.visits, before.gate
        )
        factory.watch = before.watch
        service.renew(factory, self.door, self._patience)
        self._open(factory)

    def _factory(
        self, reactor: Any, offload: Offload, journal: Journal, visits: Visits, gate: Gate
    ) -> POP3Factory:
        factory = POP3Factory(
            self.door.portal(reactor),
            offload,
            reactor,
            cleartext_login=self._cleartext_login,
            tls=self.tls,
            offer=self.door.offer,
            journal=journal,
            visits=visits,
            gate=gate,
        )
        factory.insider = self._insider
        return factory

    def _open(self, factory: POP3Factory) -> None:
        self.cleartext.target = self.implicit_tls.target = factory
        self.implicit_tls.tls = self.tls


def _share_memory() -> None:
    """Let all threads take memory from one place, as far as the C library can.

    By default each has its own, and keeps what it once had; and only one runs at a time anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
