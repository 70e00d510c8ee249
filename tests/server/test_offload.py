"""Tests of `popd.server.offload`."""

from __future__ import annotations

import threading
from queue import Queue
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop.interfaces import MaildropTemporaryError
from popd.server.offload import LOOK, LOOKS, THREADS, Offload, OverdueError, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from popd.maildrop.interfaces import Place

JOE: Place = (b"dead", "'/mail/joe'")
ANN: Place = (b"dead", "'/mail/ann'")
BOB: Place = (b"other", "'/other/bob'")

LIMIT = 20
"""Seconds that a thread may take.  All of it takes far less unless something is broken."""


class Desk(Clock):
    """As much of a reactor as threads need: what they hand in is done when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_in: Queue[tuple[Callable[..., object], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """Take a call."""
        self.handed_in.put((function, args))

    def run(self) -> None:
        """Do the next call that is handed in, once it is."""
        function, args = self.handed_in.get(timeout=LIMIT)
        function(*args)


class Hand:
    """A thread that does nothing until the test says so."""

    def __init__(self, hand_in: Callable[[Any, object], None]) -> None:
        self.jobs: Queue[Any] = Queue()
        self.used = 0
        self.hand_in = hand_in

    def end(self, outcome: object = None) -> None:
        """Hand in what came of a job."""
        self.hand_in(self.jobs.get(timeout=0), outcome)


class ThreadTests(SynchronousTestCase):
    """Work is done in other threads."""

    def setUp(self) -> None:
        """Start."""
        self.desk = Desk()
        self.offload = Offload(self.desk)
        self.offload.startService()
        self.addCleanup(self.offload.stopService)

    def test_result(self) -> None:
        """A function's result comes back, from another thread."""
        thread = self.offload(JOE, threading.get_ident)
        self.assertNoResult(thread)
        self.desk.run()
        total = self.offload(JOE, sum, [1, 2], start=3)
        self.desk.run()
        self.assertEqual(self.successResultOf(total), 6)
        self.assertNotEqual(self.successResultOf(thread), threading.get_ident())

    def test_error(self) -> None:
        """So does its exception."""
        result = self.offload(JOE, int, "x")
        self.desk.run()
        self.failureResultOf(result, ValueError)

    def test_stuck(self) -> None:
        """A thread that waits uses no processor time, and so is seen not to move."""
        end, began = threading.Event(), threading.Event()
        self.addCleanup(end.set)

        def wait() -> None:
            began.set()
            end.wait(LIMIT)

        result = self.offload(JOE, wait)
        began.wait(LIMIT)
        for _ in range(100):  # it may still be on its way into that
            self.desk.advance(LOOK)
            if result.called:
                break
        self.failureResultOf(result, OverdueError)
        end.set()
        self.desk.run()

    def test_moves(self) -> None:
        """A thread that computes is seen to move."""
        said: Queue[object] = Queue()
        worker = Worker(lambda job, outcome: said.put((job, outcome)))
        self.addCleanup(worker.jobs.put, None)
        stop = threading.Event()

        def compute() -> None:
            while not stop.is_set():
                pass

        job: Any = type("", (), {"call": staticmethod(compute)})
        before = worker.used
        worker.jobs.put(job)
        while worker.used < before + 10**6:
            pass
        stop.set()
        self.assertEqual(said.get(timeout=LIMIT), (job, None))

    def test_stop(self) -> None:
        """Stopping waits for what is under way, and ends the threads."""
        threads = threading.active_count()
        done = threading.Event()
        self.offload(JOE, done.set)
        stopped = self.offload.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        self.desk.run()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertTrue(done.is_set())
        for thread in threading.enumerate():
            if isinstance(thread, Worker):
                thread.join(LIMIT)
        self.assertLessEqual(threading.active_count(), threads)
        self.assertEqual(self.desk.getDelayedCalls(), [])


class OverdueTests(SynchronousTestCase):
    """A disk hangs: its own users are told so, and nobody else waits."""

    def setUp(self) -> None:
        """Start."""
        self.desk = Desk()
        self.hands: list[Hand] = []
        self.offload = Offload(self.desk, self.hire)  # type: ignore[arg-type]
        self.offload.startService()

    def hire(self, hand_in: Callable[[Any, object], None]) -> Hand:
        """Return another thread."""
        self.hands.append(Hand(hand_in))
        return self.hands[-1]

    def call(self, place: Place) -> Deferred[None]:
        """Begin a call."""
        return self.offload(place, lambda: None)

    def end(self, hand: Hand, outcome: object = None) -> None:
        """Let a call end."""
        hand.end(outcome)
        self.desk.run()

    def stick(self) -> None:
        """Let the time pass after which what does not move is overdue."""
        self.desk.pump([LOOK] * (LOOKS + 1))

    def assert_overdue(self, *results: Deferred[None]) -> None:
        """Check that callers were told that a disk does not answer."""
        for result in results:
            error = self.failureResultOf(result, OverdueError).value
            self.assertIsInstance(error, MaildropTemporaryError)
            self.assertIn("the disk does not answer", str(error))

    def test_in_time(self) -> None:
        """Who waits is told within eight seconds, and not after one look too few."""
        result = self.call(JOE)
        self.desk.pump([LOOK] * LOOKS)
        self.assertNoResult(result)
        self.desk.advance(LOOK)
        self.assert_overdue(result)
        self.assertLessEqual(LOOK * (LOOKS + 1), 8)

    def test_slow(self) -> None:
        """A call that gets on, however slowly, is waited for."""
        result = self.call(JOE)
        for _ in range(20):
            self.desk.pump([LOOK] * LOOKS)
            self.hands[0].used += 1
        self.assertNoResult(result)
        self.end(self.hands[0])
        self.successResultOf(result)
        self.desk.advance(LOOK)
        self.assertEqual(self.desk.getDelayedCalls(), [])

    def test_pause(self) -> None:
        """After a pause of the whole machine nothing is overdue at once."""
        result = self.call(JOE)
        self.desk.advance(LOOK)
        self.desk.advance(3600)
        self.assertNoResult(result)

    def test_same_maildrop(self) -> None:
        """Until a call that is overdue has ended no other begins on its maildrop."""
        self.assert_overdue_after(self.call(JOE))
        self.assert_overdue(self.call(JOE))
        other = self.call(ANN)
        self.end(self.hands[1])
        self.successResultOf(other)
        self.end(self.hands[0])
        again = self.call(JOE)
        self.end(self.hands[0])
        self.successResultOf(again)
        self.assertEqual(len(self.hands), 2)

    def assert_overdue_after(self, *results: Deferred[None]) -> None:
        """Check that these become overdue."""
        self.stick()
        self.assert_overdue(*results)

    def test_two_on_a_maildrop(self) -> None:
        """If two calls on it are overdue, both have to end."""
        self.assert_overdue_after(self.call(JOE), self.call(JOE))
        done: list[str] = []
        self.offload.later(JOE, lambda: done.append("released"))
        self.end(self.hands[0])
        self.assert_overdue(self.call(JOE))
        self.assertTrue(self.hands[0].jobs.empty())
        self.end(self.hands[1])
        self.hands[1].jobs.get(timeout=0).call()
        self.assertEqual(done, ["released"])

    def test_other_disks(self) -> None:
        """A disk that hangs keeps some threads, and nobody on another disk waits for one."""
        results = [self.call((b"dead", f"'/mail/{n}'")) for n in range(THREADS + 5)]
        self.assertEqual(len(self.hands), THREADS)
        result = self.call(BOB)
        self.assertEqual(len(self.hands), THREADS + 1)
        self.end(self.hands[-1])
        self.successResultOf(result)
        self.assert_overdue_after(*results)
        self.assert_overdue(self.call(ANN))
        again = self.call(BOB)
        self.end(self.hands[-1])
        self.successResultOf(again)
        self.assertEqual(len(self.hands), THREADS + 1)

    def test_turns(self) -> None:
        """Who has to wait for a thread gets one."""
        results = [self.call((b"dead", f"'/mail/{n}'")) for n in range(THREADS + 1)]
        self.end(self.hands[0])
        self.end(self.hands[0])
        self.successResultOf(results[0])
        self.successResultOf(results[-1])

    def test_answers_again(self) -> None:
        """When the disk answers again all is as before."""
        results = [self.call((b"dead", f"'/mail/{n}'")) for n in range(THREADS)]
        self.assert_overdue_after(*results)
        for hand in self.hands:
            self.end(hand, ValueError())
        result = self.call(ANN)
        self.end(self.hands[-1])
        self.successResultOf(result)

    def test_later(self) -> None:
        """What has to be done anyway is done when what is overdue on its maildrop has ended."""
        self.assert_overdue_after(self.call(JOE))
        done: list[str] = []
        self.offload.later(JOE, lambda: done.append("released"))
        self.assertEqual(len(self.hands), 1)
        self.end(self.hands[0])
        self.hands[0].jobs.queue[0].call()
        self.assertEqual(done, ["released"])

    def test_one_timer(self) -> None:
        """However much is done when something is overdue, there is one timer."""
        self.call(JOE).addErrback(lambda _: self.offload.later(BOB, lambda: None))
        self.stick()
        self.assertEqual(len(self.desk.getDelayedCalls()), 1)

    def test_error_of_ours(self) -> None:
        """An error that nobody thought of is logged with where it was."""
        self.offload.later(JOE, lambda: None)
        self.end(self.hands[0], Failure(ZeroDivisionError()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_later_on_a_dead_disk(self) -> None:
        """It is not given up, not even where all else is."""
        results = [self.call((b"dead", f"'/mail/{n}'")) for n in range(THREADS)]
        self.offload.later(ANN, lambda: None)
        self.assert_overdue_after(*results)
        self.offload.later(ANN, lambda: None)
        self.end(self.hands[0])
        self.end(self.hands[0])
        self.end(self.hands[0])

    def test_later_stuck(self) -> None:
        """It can be stuck as well; what goes wrong in it is logged."""
        self.offload.later(JOE, lambda: None)
        self.stick()
        self.assert_overdue(self.call(JOE))
        self.end(self.hands[0], Failure(MaildropTemporaryError("gone")))
        self.call(JOE)

    def test_stop(self) -> None:
        """Stopping does not wait for what is overdue, and no more for what becomes so."""
        self.assert_overdue_after(self.call(JOE))
        result = self.call(BOB)
        stopped = self.offload.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        self.assert_overdue_after(result)
        self.successResultOf(stopped)

    def test_stop_at_rest(self) -> None:
        """Stopping takes no time when nothing is under way."""
        self.assert_overdue_after(self.call(JOE))
        self.assertIsNone(self.offload.stopService())
