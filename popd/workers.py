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
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import installReactor
from twisted.logger import Logger

from popd.control import Ask, Channel, Ready, Stop, channel_factory
from popd.desk import Process
from popd.server.reactor import make_lean
from popd.server.seats import SEATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from popd.listen import Listener
    from popd.serve import Service as Serves

__all__ = ["ASK_TIMEOUT", "RETRY", "STOP_TIMEOUT", "Supervisor"]

ASK_TIMEOUT: Final = 5.0
"""Seconds that a worker has to answer an operator."""

RETRY: Final = 1.0
"""Seconds that a worker must have lived to be replaced at once; otherwise so many pass first."""

STOP_TIMEOUT: Final = 20.0
"""Seconds that workers have to end in good order."""


def _fresh_reactor(old: Any) -> Any:
    """Return a reactor of the same kind as *old*, in which nothing has happened yet."""
    fresh = type(old)()
    make_lean(fresh)
    return fresh


@dataclass(eq=False)
class _Worker:
    """A worker, as the supervisor sees it."""

    pid: int
    seat: int
    born: float
    channel: Channel
    ended: Deferred[None]
    ready: bool = False


class Supervisor(Service):
    """Keeps a number of workers alive.

    :param reactor: the supervisor's own.
    :param count: how many workers.
    :param listeners: what the workers accept connections from.
    :param serve: called in a worker with its reactor and its seat; returns what the worker runs.
    :param vacated: called with the seat of a worker that died.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        reactor: Any,
        count: int,
        listeners: Iterable[Listener],
        serve: Callable[[Any, int], Serves],
        vacated: Callable[[int], object] = lambda _seat: None,
    ) -> None:
        self._reactor = reactor
        self._count = count
        self._listeners = listeners
        self._serve = serve
        self._vacated = vacated
        self._workers: dict[int, _Worker] = {}
        self.deaths = 0
        """How many workers died."""

    def startService(self) -> None:
        """Start all workers."""
        super().startService()
        gc.collect()
        gc.freeze()  # so that collecting garbage does not copy what the workers share
        for _ in range(self._count):
            self._hire()

    def stopService(self) -> Deferred[Any]:
        """Stop all workers, the slow ones by force."""
        super().stopService()
        workers = list(self._workers.values())
        for worker in workers:
            worker.channel.callRemote(Stop).addErrback(lambda _: None)  # it may be gone already
        force = self._reactor.callLater(STOP_TIMEOUT, self._kill_all)
        ended = DeferredList([worker.ended for worker in workers])
        return ended.addCallback(lambda _: force.cancel() if force.active() else None)

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
            Process(worker.pid, worker.seat, worker.born, "serving" if worker.ready else "starting")
            for worker in self._workers.values()
        ]

    def _kill_all(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)

    def _hire(self) -> None:
        taken = {worker.seat for worker in self._workers.values()}
        seat = next(seat for seat in range(SEATS) if seat not in taken)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._work(theirs, seat)
            channel = Channel(on_ready=lambda: self._ready(pid), on_lost=lambda: self._lost(pid))
            born = self._reactor.seconds()
            self._workers[pid] = _Worker(pid, seat, born, channel, Deferred())
            _adopt(self._reactor, ours, channel)

    def _ready(self, pid: int) -> None:
        self._workers[pid].ready = True
        self._log.info("Worker {pid} accepts connections", pid=pid)

    def _lost(self, pid: int) -> None:
        """A worker died, or is as good as dead."""
        worker = self._workers.pop(pid)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._vacated(worker.seat)
        worker.ended.callback(None)
        if not self.running:
            return
        self.deaths += 1
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._log.critical("Worker {pid} died ({how}); its clients are cut off", pid=pid, how=how)
        if self._reactor.seconds() - worker.born >= RETRY:
            self._hire()
        else:
            self._reactor.callLater(RETRY, self._replace)

    def _replace(self) -> None:
        if self.running:
            self._hire()

    def _work(self, theirs: socket.socket, seat: int) -> NoReturn:
        """Be a worker; never return to the supervisor's stack."""
        status = 1
        try:
            # Signals often go to a whole group; what follows from them, the supervisor says.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            for other in self._workers.values():
                other.channel.let_go()
            _let_go(self._reactor)
            reactor = _fresh_reactor(self._reactor)
            del sys.modules["twisted.internet.reactor"]
            installReactor(reactor)
            self._run(reactor, theirs, seat)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, it must not go on from here
            self._log.failure("Worker broken off")
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _run(self, reactor: Any, theirs: socket.socket, seat: int) -> None:
        service = self._serve(reactor, seat)

        def stop() -> None:
            with suppress(ReactorNotRunning):
                reactor.stop()

        def begin() -> None:
            service.startService()
            for listener in self._listeners:
                listener.accept(reactor)
            channel = Channel(on_stop=stop, on_ask=service.desk.answer, on_lost=stop)
            with theirs:
                _adopt(reactor, theirs, channel)
            channel.callRemote(Ready).addErrback(lambda _: None)

        reactor.callWhenRunning(begin)
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        reactor.run(installSignalHandlers=False)


def _let_go(reactor: Any) -> None:
    """Close a forked process's copies of what only the supervisor reads and writes."""
    for selectable in {*reactor.getReaders(), *reactor.getWriters()}:
        end = getattr(selectable, "socket", None)
        if end is not None:
            end.close()


def _adopt(reactor: Any, end: socket.socket, channel: Channel) -> None:
    """Speak AMP on one end of a socket pair."""
    end.setblocking(False)
    reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, channel_factory(channel))
