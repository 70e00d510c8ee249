"""Tests of `popd.workers`: whether workers answer.  What they do, ``tests/e2e`` sees."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd.workers import HUNG, LOOK, Supervisor, _Worker

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
