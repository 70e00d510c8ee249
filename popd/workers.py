"""Several processes that share the listening sockets, and the one that looks after them.

The supervisor binds the ports, drops its privileges, and forks.  Workers are forked, not started
afresh, so that they have in common what was made before: the listening sockets, the table of users
(as memory that is copied only when written to), and the TLS context with its session ticket keys,
by which a client may resume with one worker the session that it had with another.  For a fork to
be safe the supervisor runs no threads.  A worker has a reactor of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import installReactor
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from popd.control import Ask, Channel, Ready, Retire, Stop, channel_factory
from popd.desk import Process
from popd.server.reactor import make_lean, make_steady
from popd.server.seats import SEATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.protocols.amp import Command

    from popd.listen import Listener
    from popd.serve import Service as Serves

__all__ = [
    "ASK_TIMEOUT",
    "ENDING",
    "HUNG",
    "LOOK",
    "READY_TIMEOUT",
    "RETRY",
    "STOP_TIMEOUT",
    "Supervisor",
]

ENDING: Final = "popd is about to end"
"""Why nothing is renewed any more."""

ASK_TIMEOUT: Final = 5.0
"""Seconds that a worker has to answer an operator."""

LOOK: Final = 5.0
"""Seconds between two looks at whether the workers answer."""

HUNG: Final = 4
"""At how many looks in a row a worker has still not answered that is given up.  Looks are counted
and not seconds, because after a pause of the whole machine nobody has had time to answer."""

RETRY: Final = 1.0
"""Seconds that a worker must have lived to be replaced at once; otherwise so many pass first."""

READY_TIMEOUT: Final = 30.0
"""Seconds that new workers have to accept connections."""

STOP_TIMEOUT: Final = 20.0
"""Seconds that workers have to end in good order when sessions had their time."""

_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that often go to a whole group; what follows from them, the supervisor says."""


def _fresh_reactor(old: Any) -> Any:
    """Return a reactor of the same kind as *old*, in which nothing has happened yet."""
    fresh = type(old)()
    make_lean(fresh)
    make_steady(fresh)
    return fresh


@dataclass(frozen=True, eq=False)
class _Duty:
    """What workers of one generation do."""

    serve: Callable[[Any, int], Serves]
    listeners: tuple[Listener, ...]
    count: int
    """How many there are to be."""
    patience: float
    """Seconds that they let sessions go on when they are to stop."""
    generation: int = 0
    """How often the workers had been renewed."""


@dataclass(eq=False)
class _Worker:
    """A worker, as the supervisor sees it."""

    pid: int
    seat: int
    born: float
    channel: Channel
    ready: Deferred[bool]
    """Whether it came to accept connections, once that is known."""
    ended: Deferred[None]
    retiring: bool = False
    """Whether it is not to be replaced when it ends: it goes, or is on trial."""
    silent: int = 0
    """At how many looks in a row it had not answered."""

    since: float = field(default_factory=time.time)
    """When it was made, in seconds since 1970."""
    generation: int = 0
    """How often the workers had been renewed by then."""

    @property
    def state(self) -> str:
        """How it is, see `Process`."""
        if not self.ready.called:
            return "starting"
        return "retiring" if self.retiring else "serving"

    def heard(self, _: object) -> None:
        """It has answered."""
        self.silent = 0


class Supervisor(Service):
    """Keeps a number of workers alive.

    :param reactor: the supervisor's own.
    :param count: how many workers.
    :param listeners: what the workers accept connections from.
    :param serve: called in a worker with its reactor and its seat; returns what the worker runs.
    :param patience: seconds that workers let sessions go on when they are to stop.
    :param vacate: called with the seat of a worker that is no more.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        reactor: Any,
        count: int,
        listeners: Iterable[Listener],
        serve: Callable[[Any, int], Serves],
        patience: float = 0.0,
        vacate: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._duty = _Duty(serve, tuple(listeners), count, patience)
        self._vacate = vacate
        self._workers: dict[int, _Worker] = {}
        self._over = False  # whether nobody is hired any more
        self.deaths = 0
        """How many workers died."""
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def startService(self) -> None:
        """Start all workers."""
        super().startService()
        _settle_memory()
        self._fill()
        self._looks.start(LOOK, now=False)

    async def renew(
        self,
        serve: Callable[[Any, int], Serves],
        listeners: Iterable[Listener],
        count: int,
        patience: float,
    ) -> str:
        """Start workers that serve in another way; when all of them do, let those before retire.

        :return: empty; or why that could not be done, in which case all is as before.
        """
        if not self.running:
            return ENDING
        staying = sum(worker.retiring for worker in self._workers.values())
        if len(self._workers) + count > SEATS:
            return (
                f"{staying} workers of earlier configurations still have sessions: try again when"
                " some of those have ended"
            )
        duty = _Duty(serve, tuple(listeners), count, patience, self._duty.generation + 1)
        _settle_memory()
        new = [self._hire(duty, trial=True) for _ in range(count)]
        late = self._reactor.callLater(READY_TIMEOUT, self._too_late, new)
        results = [await worker.ready for worker in new]
        if late.active():
            late.cancel()
        if not self.running:  # and so they have all been told
            return ENDING
        if not all(results):
            for worker in new:
                self._dismiss(worker, Stop)
            return "the new workers did not start; the log says why"
        self._duty = duty
        for worker in self._workers.values():
            if worker in new:
                worker.retiring = False
            elif not worker.retiring:  # who replaced somebody meanwhile, too
                self._dismiss(worker, Retire)
        self._fill()
        return ""

    def serving(self) -> Deferred[bool]:
        """Tell whether all workers there are now accept connections, once that is known."""
        ready = DeferredList([worker.ready for worker in self._workers.values()])
        return ready.addCallback(lambda results: all(value for _, value in results))

    def leave(self) -> Deferred[None]:
        """Let nobody in any more; fires when no worker does, or soon if one does not answer."""
        self._over = True
        told = [self._dismiss(worker, Retire) for worker in self._workers.values()]
        left = DeferredList(told).addCallback(lambda _: None)
        return left.addTimeout(ASK_TIMEOUT, self._reactor, lambda *_: None)

    def retire(self) -> Deferred[Any]:
        """Tell when the last worker has ended, which they do with their last session."""
        return DeferredList([worker.ended for worker in self._workers.values()])

    @staticmethod
    def _too_late(workers: list[_Worker]) -> None:
        for worker in workers:
            if not worker.ready.called:
                worker.ready.callback(False)

    @staticmethod
    def _dismiss(worker: _Worker, how: type[Command]) -> Deferred[object]:
        worker.retiring = True
        told: Deferred[object] = worker.channel.callRemote(how)
        return told.addErrback(lambda _: None)  # it may be gone already

    def stopService(self) -> Deferred[Any]:
        """Stop all workers, the slow ones by force."""
        super().stopService()
        if self._looks.running:
            self._looks.stop()
        workers = list(self._workers.values())
        self.hurry()
        force = self._reactor.callLater(self._duty.patience + STOP_TIMEOUT, self._kill_all)
        ended = DeferredList([worker.ended for worker in workers])
        return ended.addCallback(lambda _: force.cancel() if force.active() else None)

    def hurry(self) -> None:
        """Tell all workers to stop, and if they know that already, to be quick."""
        for worker in self._workers.values():
            self._dismiss(worker, Stop)

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """Ask all workers something, see `popd.desk.Crew`.  Slow ones are left out."""
        asked = [
            worker.channel.callRemote(Ask, what=what, about=about)
            for worker in self._workers.values()
        ]
        for answer in asked:
            answer.addTimeout(ASK_TIMEOUT, self._reactor)
        return DeferredList(asked, consumeErrors=True).addCallback(
            lambda results: [result["answer"] for good, result in results if good]
        )

    def processes(self) -> list[Process]:
        """Return which workers there are."""
        return [
            Process(worker.pid, worker.seat, worker.since, worker.state, worker.generation)
            for worker in self._workers.values()
        ]

    def _look(self) -> None:
        """See whether all workers still answer; end those that hang, so that they are replaced."""
        for worker in list(self._workers.values()):
            if worker.silent >= HUNG:
                self._log.critical(
                    "Worker {pid} hangs: it has not answered for {seconds:g} s and is killed",
                    pid=worker.pid,
                    seconds=HUNG * LOOK,
                )
                os.kill(worker.pid, signal.SIGKILL)
            elif not worker.silent:
                answer = worker.channel.callRemote(Ask, what="count", about=None)
                answer.addCallbacks(worker.heard, lambda _: None)  # who is gone is soon replaced
            worker.silent += 1

    def _kill_all(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)

    def _fill(self) -> None:
        """Hire whoever is missing."""
        if self.running and not self._over:
            serving = sum(not worker.retiring for worker in self._workers.values())
            for _ in range(self._duty.count - serving):
                self._hire(self._duty)

    def _hire(self, duty: _Duty, *, trial: bool = False) -> _Worker:
        taken = {worker.seat for worker in self._workers.values()}
        seat = next(seat for seat in range(SEATS) if seat not in taken)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._work(duty, theirs, seat)
            channel = Channel(on_ready=lambda: self._ready(pid), on_lost=lambda: self._lost(pid))
            born = self._reactor.seconds()
            worker = _Worker(pid, seat, born, channel, Deferred(), Deferred(), retiring=trial)
            worker.generation = duty.generation
            self._workers[pid] = worker
            _adopt(self._reactor, ours, channel)
        return worker

    def _ready(self, pid: int) -> None:
        self._log.info("Worker {pid} accepts connections", pid=pid)
        worker = self._workers[pid]
        if not worker.ready.called:
            worker.ready.callback(True)

    def _lost(self, pid: int) -> None:
        """A worker died, or is as good as dead."""
        worker = self._workers.pop(pid)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._vacate(worker.seat)
        worker.ended.callback(None)
        if not worker.ready.called:
            worker.ready.callback(False)
        code = os.waitstatus_to_exitcode(status)
        if not self.running or (worker.retiring and code in {0, -signal.SIGKILL}):
            return
        self.deaths += 1
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._log.critical("Worker {pid} died ({how}); its clients are cut off", pid=pid, how=how)
        if worker.retiring:
            return
        if self._reactor.seconds() - worker.born >= RETRY:
            self._fill()
        else:
            self._reactor.callLater(RETRY, self._fill)

    def _work(self, duty: _Duty, theirs: socket.socket, seat: int) -> NoReturn:
        """Be a worker; never return to the supervisor's stack."""
        status = 1
        try:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            _let_go(self._reactor)
            reactor = _fresh_reactor(self._reactor)
            del sys.modules["twisted.internet.reactor"]
            installReactor(reactor)
            self._run(duty, reactor, theirs, seat)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, it must not go on from here
            self._log.failure("Worker broken off")
        finally:
            sys.stdout.flush()
            os._exit(status)

    @staticmethod
    def _run(duty: _Duty, reactor: Any, theirs: socket.socket, seat: int) -> None:
        service = duty.serve(reactor, seat)

        def leave() -> None:
            for listener in duty.listeners:
                listener.leave()

        def stop() -> None:
            leave()
            try:
                reactor.stop()
            except ReactorNotRunning:
                service.hurry()

        def retire() -> None:
            leave()
            service.retire().addCallback(lambda _: stop())

        def begin() -> None:
            service.startService()
            for listener in duty.listeners:
                listener.accept(reactor)
            channel = Channel(
                on_stop=stop, on_retire=retire, on_ask=service.desk.answer, on_lost=stop
            )
            with theirs:
                _adopt(reactor, theirs, channel)
            channel.callRemote(Ready).addErrback(lambda _: None)

        reactor.callWhenRunning(begin)
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        reactor.run(installSignalHandlers=False)


def _settle_memory() -> None:
    """Have what is there now stay, so that collecting garbage does not copy what is shared."""
    gc.collect()
    gc.freeze()


def _let_go(reactor: Any) -> None:
    """Close a forked process's copies of what only the supervisor reads and writes."""
    for selectable in {*reactor.getReaders(), *reactor.getWriters()}:
        end = getattr(selectable, "socket", None) or getattr(selectable, "bound", None)
        if end is not None:
            end.close()


def _adopt(reactor: Any, end: socket.socket, channel: Channel) -> None:
    """Speak AMP on one end of a socket pair."""
    end.setblocking(False)
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, channel_factory(channel))
