"""The one way for file work off the reactor's thread, and how a disk that hangs harms no other.

A call that waits for a disk cannot be ended from outside.  So a disk has a few threads at most, and
who waits for a call that gets nowhere is told so, while the thread waits on.
"""

from __future__ import annotations

import time
from collections import deque
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from popd.maildrop.interfaces import MaildropError, MaildropTemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.maildrop.interfaces import Place

    _HandIn = Callable[["_Job", object], None]

__all__ = ["LOOK", "LOOKS", "THREADS", "Offload", "OverdueError", "Worker"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

THREADS: Final = 10
"""How many calls may be under way on one disk at the same time; the others wait their turn."""

LOOK: Final = 2.0
"""Seconds between two looks at the calls that are under way."""

LOOKS: Final = 3
"""How many looks in a row must find that a thread has not moved, after one that saw where it was.
So who waits is told after six to eight seconds.  Looks are counted, not seconds: after a pause of
the whole machine nothing has moved."""


class OverdueError(MaildropTemporaryError):
    """A disk does not answer.  The call may be under way for ever, or be carried out later."""


class Offload(Service):
    """Threads for work that may wait for a disk, apart from those that hash passwords.

    Call it with the place of the maildrop that the work is on (`IPlacedMaildrop`), a function, and
    its arguments; the Deferred fires in the reactor's thread.  It fails with `OverdueError` if the
    thread does not move any more, at once if that is known of the maildrop, or of all that the disk
    may have.  A thread that moves, however slowly, is waited for.

    :param reactor: where results come back to, and what tells the time.
    :param worker: makes a thread.
    """

    name = "offload"

    _log = Logger()

    def __init__(self, reactor: Any, worker: Callable[[_HandIn], Worker] | None = None) -> None:
        self._reactor = reactor
        self._worker = worker or Worker
        self._idle: list[Worker] = []
        self._disks: dict[object, _Disk] = {}
        self._overdue: dict[Place, set[_Job]] = {}
        self._after: dict[Place, list[_Job]] = {}  # what is to be done when all that has ended
        self._awaited: set[_Job] = set()  # under way, and not overdue
        self._looks: Any = None
        self._stopped: Deferred[None] | None = None

    def stopService(self) -> Deferred[None] | None:
        """Finish the work that can be finished, and end the threads that did it."""
        super().stopService()
        self._stopped = Deferred()
        return None if self._check_stopped() else self._stopped

    def __call__(
        self,
        place: Place,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Deferred[Result]:
        """Call *function* in a thread."""
        disk = self._disk(place)
        if place in self._overdue or disk.dead:
            return fail(_overdue(place))
        job = _Job(place, lambda: function(*args, **kwargs))
        job.result = Deferred()
        self._begin(disk, job)
        return job.result

    def later(self, place: Place, function: Callable[[], object]) -> None:
        """Call *function* in a thread, at the earliest when nothing of *place* is overdue any more.

        Nobody waits for it, and it is never given up.
        """
        job = _Job(place, function)
        if place in self._overdue:
            self._after.setdefault(place, []).append(job)
        else:
            self._begin(self._disk(place), job)

    def _disk(self, place: Place) -> _Disk:
        return self._disks.setdefault(place[0], _Disk())

    def _begin(self, disk: _Disk, job: _Job) -> None:
        disk.waiting.append(job)
        self._go_on(disk)

    def _go_on(self, disk: _Disk) -> None:
        """Hand work to threads that have none, or can be had."""
        while disk.waiting and disk.busy < THREADS:
            job = disk.waiting.popleft()
            job.worker = self._idle.pop() if self._idle else self._worker(self._hand_in)
            disk.busy += 1
            self._awaited.add(job)
            job.worker.jobs.put(job)
        self._look_soon()

    def _hand_in(self, job: _Job, outcome: object) -> None:
        """Take what came of a job from the thread that did it."""
        self._reactor.callFromThread(self._done, job, outcome)

    def _done(self, job: _Job, outcome: object) -> None:
        disk = self._disk(job.place)
        self._idle.append(job.worker)
        disk.busy -= 1
        if job in self._awaited:
            self._awaited.remove(job)
        else:
            disk.overdue -= 1
            overdue = self._overdue[job.place]
            overdue.remove(job)
            if not overdue:
                del self._overdue[job.place]
                disk.waiting.extend(self._after.pop(job.place, ()))
            self._log.info("{place}: the disk answers again", place=job.place[1])
        self._go_on(disk)
        if job.result is not None:
            job.result.callback(outcome)
        elif isinstance(outcome, Failure):
            if outcome.check(MaildropError, OSError):
                self._log.error("Work that nobody waits for: {error}", error=outcome.value)
            else:
                self._log.failure("Work that nobody waits for", outcome)
        self._check_stopped()

    def _look(self) -> None:
        self._looks = None
        for job in [job for job in self._awaited if not job.moves()]:
            self._give_up(job)
        self._look_soon()
        self._check_stopped()

    def _look_soon(self) -> None:
        if self._awaited and self._looks is None:
            self._looks = self._reactor.callLater(LOOK, self._look)

    def _give_up(self, job: _Job) -> None:
        """Wait no longer for a job's end, nor for the beginning of those that it keeps waiting."""
        self._awaited.remove(job)
        self._overdue.setdefault(job.place, set()).add(job)
        disk = self._disk(job.place)
        disk.overdue += 1
        given_up = [job]
        if disk.dead:
            given_up += [other for other in disk.waiting if other.result is not None]
            disk.waiting = deque(other for other in disk.waiting if other.result is None)
        for one in given_up:
            result, one.result = one.result, None
            if result is not None:
                result.errback(_overdue(one.place))

    def _check_stopped(self) -> bool:
        """End the threads if all that can be finished is; return whether it is."""
        if self._stopped is None or self._awaited:
            return False
        while self._idle:
            self._idle.pop().jobs.put(None)
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)
        return True


class _Disk:
    """What is under way on a disk: so many calls, of which so many are overdue; others wait."""

    def __init__(self) -> None:
        self.busy = 0
        self.overdue = 0
        self.waiting: deque[_Job] = deque()

    @property
    def dead(self) -> bool:
        """Whether all threads that it may have are stuck."""
        return self.overdue >= THREADS


class _Job:
    """A call, and who waits for it, if anybody does."""

    __slots__ = ("_looks", "_seen", "call", "place", "result", "worker")

    worker: Worker

    def __init__(self, place: Place, call: Callable[[], object]) -> None:
        self.place = place
        self.call = call
        self.result: Deferred[Any] | None = None
        self._seen = -1
        self._looks = 0

    def moves(self) -> bool:
        """Tell whether the thread has done anything since one of the last `LOOKS` looks."""
        now = self.worker.used
        self._looks = self._looks + 1 if now == self._seen else 0
        self._seen = now
        return self._looks < LOOKS


class Worker(Thread):
    """A thread.  It ends with the process, whatever it waits for.

    :param hand_in: takes a job and what came of it: a result or a `Failure`.
    """

    def __init__(self, hand_in: _HandIn) -> None:
        super().__init__(name="popd-files", daemon=True)
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._hand_in = hand_in
        self.start()

    @property
    def used(self) -> int:
        """How much processor time it has had, in nanoseconds: whoever waits gets none."""
        return time.clock_gettime_ns(time.pthread_getcpuclockid(self.ident or 0))

    def run(self) -> None:
        """Do jobs until there is None."""
        while job := self.jobs.get():
            try:
                outcome = job.call()
            except BaseException:  # noqa: BLE001 - it is whoever waits for it who has to know
                outcome = Failure()
            self._hand_in(job, outcome)
            del job, outcome


def _overdue(place: Place) -> OverdueError:
    return OverdueError(f"{place[1]}: the disk does not answer")
