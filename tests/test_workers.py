"""Tests of `popd.workers`: how many there are, and whether they answer.

What they do, ``tests/e2e`` sees.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd import workers
from popd.control import Retire, Stop
from popd.workers import ASK_TIMEOUT, ENDING, HUNG, LOOK, READY_TIMEOUT, RETRY, Supervisor, _Worker

if TYPE_CHECKING:
    from collections.abc import Callable

PIDS = (2_000_000_001, 2_000_000_002)  # more than there can be


class Line:
    """A line to a worker that answers when the test says so."""

    def __init__(self) -> None:
        self.questions: list[Deferred[Any]] = []

    def callRemote(self, *_: object, **__: object) -> Deferred[Any]:
        """Take a question."""
        self.questions.append(Deferred())
        return self.questions[-1]


class LookTests(SynchronousTestCase):
    """A worker that hangs is ended; that it is replaced follows from its death."""

    def setUp(self) -> None:
        """Have a supervisor with two workers."""
        self.clock = Clock()
        self.supervisor = Supervisor(self.clock, 0, [], lambda *_: None)  # type: ignore[arg-type]
        self.supervisor.startService()
        self.addCleanup(self.supervisor._looks.stop)
        self.lines = [Line(), Line()]
        for pid, line in zip(PIDS, self.lines, strict=True):
            channel: Any = line
            self.supervisor._workers[pid] = _Worker(pid, 0, 0.0, channel, Deferred(), Deferred())
        self.killed: list[tuple[int, int]] = []
        self.patch(os, "kill", lambda pid, number: self.killed.append((pid, number)))

    def look(self, times: int = 1) -> None:
        """Let the supervisor look; the second worker always answers."""
        for _ in range(times):
            self.clock.advance(LOOK)
            for question in self.lines[1].questions:
                if not question.called:
                    question.callback({"answer": 0})

    def test_well(self) -> None:
        """Workers that answer are asked again, and left in peace."""
        for _ in range(3 * HUNG):
            self.look()
            self.lines[0].questions[-1].callback({"answer": 3})
        self.assertEqual([len(line.questions) for line in self.lines], [3 * HUNG] * 2)
        self.assertEqual(self.killed, [])

    def test_hangs(self) -> None:
        """One that does not answer is asked once, and ended after so many looks."""
        with capturedLogs() as events:
            self.look(HUNG)
            self.assertEqual((self.killed, events), ([], []))
            self.look()
        self.assertEqual(self.killed, [(PIDS[0], signal.SIGKILL)])
        self.assertEqual(len(self.lines[0].questions), 1)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f"Worker {PIDS[0]} hangs: it has not answered for 20 s and is killed"],
        )

    def test_late(self) -> None:
        """One that answers late, but does, is as good as new."""
        self.look(HUNG)
        self.lines[0].questions[0].callback({"answer": 3})
        self.look(HUNG)
        self.assertEqual(self.killed, [])
        self.assertEqual(len(self.lines[0].questions), 2)

    def test_pause(self) -> None:
        """After a pause of all, nobody has had time to answer, and nobody is ended."""
        self.look()
        self.clock.advance(1000 * LOOK)
        self.assertEqual(self.killed, [])

    def test_gone(self) -> None:
        """A question to one who dies meanwhile is no error."""
        self.look()
        self.lines[0].questions[0].errback(Failure(ConnectionDone()))
        self.look()
        self.assertEqual(self.killed, [])


class Worker:
    """A worker that was not really forked, and the supervisor's line to it."""

    def __init__(self, pid: int, duty: str, seat: int) -> None:
        self.pid = pid
        self.duty = duty
        self.seat = seat
        self.told: list[object] = []
        self.on_ready: Callable[[], object]
        self.on_lost: Callable[[], object]

    def callRemote(self, command: object, **_: object) -> Deferred[Any]:
        """Take a command."""
        self.told.append(command)
        return Deferred()


class GenerationTests(SynchronousTestCase):
    """Workers are replaced by others of the generation in force, whatever happens meanwhile."""

    def setUp(self) -> None:
        """Have a supervisor with two workers that serve."""
        self.clock = Clock()
        self.hired: list[Worker] = []
        self.status = 0
        test = self

        class Untried(Supervisor):
            def _hire(self, duty: Any, *, trial: bool = False) -> _Worker:
                """Do what the real one does, but for the fork."""
                taken = {worker.seat for worker in self._workers.values()}
                seat = next(seat for seat in range(100) if seat not in taken)
                line = Worker(PIDS[0] + len(test.hired), duty.serve, seat)
                line.on_ready = lambda: self._ready(line.pid)
                line.on_lost = lambda: self._lost(line.pid)
                test.hired.append(line)
                channel: Any = line
                worker = _Worker(
                    line.pid, seat, test.clock.seconds(), channel, Deferred(), Deferred(), trial
                )
                worker.generation = duty.generation
                self._workers[line.pid] = worker
                return worker

        self.patch(os, "kill", lambda _pid, _number: None)
        self.patch(os, "waitpid", lambda pid, _options: (pid, self.status))
        self.patch(workers, "_settle_memory", lambda: None)
        self.vacated: list[int] = []
        serve: Any = "old"
        self.supervisor = Untried(self.clock, 2, [], serve, 30.0, self.vacated.append)
        self.supervisor.startService()
        self.addCleanup(self._end)
        self.first = self.hired[:]
        for worker in self.first:
            worker.on_ready()
        self.clock.advance(RETRY)

    def _end(self) -> None:
        if self.supervisor._looks.running:
            self.supervisor._looks.stop()

    def renew(self, count: int = 2) -> tuple[list[str], list[Worker]]:
        """Begin to renew; return where the outcome will be, and the new workers."""
        before = len(self.hired)
        outcome: list[str] = []
        serve: Any = "new"
        Deferred.fromCoroutine(self.supervisor.renew(serve, [], count, 30.0)).addCallback(
            outcome.append
        )
        return outcome, self.hired[before:]

    def serving(self) -> list[str]:
        """Return what those do who are not about to go."""
        duties = {worker.pid: worker.duty for worker in self.hired}
        return sorted(
            duties[pid] for pid, worker in self.supervisor._workers.items() if not worker.retiring
        )

    def test_renewed(self) -> None:
        """When the new ones serve the old ones retire, and their end is no death."""
        outcome, new = self.renew()
        self.assertEqual((outcome, self.serving()), ([], ["old", "old"]))
        for worker in new:
            worker.on_ready()
        self.assertEqual((outcome, self.serving()), ([""], ["new", "new"]))
        with capturedLogs() as events:
            for worker in self.first:
                self.assertEqual(worker.told, [Retire])
                worker.on_lost()
        self.assertEqual((events, self.supervisor.deaths, len(self.hired)), ([], 0, 4))
        self.assertEqual([one.generation for one in self.supervisor.processes()], [1, 1])

    def test_death_meanwhile(self) -> None:
        """Who dies meanwhile is replaced by one like it, who retires with the others."""
        outcome, new = self.renew()
        self.first[0].on_lost()
        self.assertEqual(self.hired[-1].duty, "old")
        self.assertEqual(self.supervisor.deaths, 1)
        for worker in new:
            worker.on_ready()
        self.assertEqual((outcome, self.serving()), ([""], ["new", "new"]))
        self.assertEqual(self.hired[-1].told, [Retire])

    def test_death_before_failure(self) -> None:
        """So it is if the new ones turn out to be no good."""
        outcome, new = self.renew()
        self.first[0].on_lost()
        new[0].on_lost()
        self.clock.advance(READY_TIMEOUT)
        self.assertIn("did not start", outcome[0])
        self.assertEqual(self.serving(), ["old", "old"])
        self.assertEqual(new[1].told[-1], Stop)

    def test_late_replacement(self) -> None:
        """One that was to be replaced in a moment is not, if others have taken over till then."""
        self.first[0].on_lost()
        self.hired[-1].on_lost()  # at once: so there is a pause
        count = len(self.hired)
        _, new = self.renew()
        for worker in new:
            worker.on_ready()
        self.clock.advance(2 * RETRY)
        self.assertEqual((len(self.hired), self.serving()), (count + 2, ["new", "new"]))

    def test_new_one_dies(self) -> None:
        """A new one that dies when the others are not there yet is replaced by a new one."""
        outcome, new = self.renew()
        new[0].on_ready()
        new[0].on_lost()
        new[1].on_ready()
        self.assertEqual((outcome, self.serving()), ([""], ["new", "new"]))

    def test_seats(self) -> None:
        """Nobody gets the seat of one that still has sessions."""
        for _ in range(2):
            _, new = self.renew()
            for worker in new:
                worker.on_ready()
        self.assertEqual([worker.seat for worker in self.hired], list(range(6)))
        self.first[1].on_lost()
        self.assertEqual(self.vacated, [1])
        self.hired[-1].on_lost()
        self.clock.advance(RETRY)
        self.assertEqual(self.hired[-1].seat, 1)

    def test_leaving(self) -> None:
        """Who leaves popd to another has all retire, hires nobody, and hears when they are gone."""
        self.first[0].on_lost()
        self.hired[-1].on_lost()  # at once: so its successor is to come in a moment
        left, ended = self.supervisor.leave(), self.supervisor.retire()
        self.assertEqual(self.first[1].told, [Retire])
        self.assertNoResult(left)
        self.clock.advance(ASK_TIMEOUT)  # for it does not answer
        self.successResultOf(left)
        self.assertNoResult(ended)
        with capturedLogs() as events:
            self.first[1].on_lost()
        self.successResultOf(ended)
        self.clock.advance(10 * RETRY)
        self.assertEqual((events, len(self.hired)), ([], 3))

    def test_stopped_before_replacement(self) -> None:
        """Nobody is hired after the end for who died before it."""
        self.first[0].on_lost()
        self.hired[-1].on_lost()
        self.supervisor.stopService()
        self.clock.advance(2 * RETRY)
        self.assertEqual(len(self.hired), 3)

    def test_serving(self) -> None:
        """Whether the workers serve is known when each does, or one has died."""
        self.assertTrue(self.successResultOf(self.supervisor.serving()))
        self.first[0].on_lost()
        serving = self.supervisor.serving()
        self.assertNoResult(serving)
        self.hired[-1].on_lost()
        self.assertFalse(self.successResultOf(serving))

    def test_stopped(self) -> None:
        """Whoever stops hires nobody, and does not go on with what was begun."""
        outcome, new = self.renew()
        self.supervisor.stopService()
        for worker in (*self.first, *new):
            self.assertEqual(worker.told[-1], Stop)
        for worker in new:
            worker.on_ready()
        self.assertEqual(outcome, [ENDING])
        self.assertEqual(self.renew(), ([ENDING], []))
        with capturedLogs() as events:
            for worker in (*self.first, *new):
                worker.on_lost()
        self.clock.advance(10 * RETRY)
        self.assertEqual((events, len(self.hired), self.supervisor.deaths), ([], 4, 0))
