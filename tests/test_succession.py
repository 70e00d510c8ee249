"""Tests of `popd.succession`: what an old popd does when another is to take its place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from popd.heritage import END, REFUSED, SERVES, YOURS, Heritage
from popd.succession import PATIENCE, Invocation, Succession, _Candidate
from popd.workers import ENDING


class FakeService:
    """What serves."""

    def __init__(self, done: list[str]) -> None:
        self._done = done
        self.left: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def leave(self) -> Deferred[None]:
        """Let nobody in any more."""
        self._done.append("leave")
        return self.left

    def retire(self) -> Deferred[None]:
        """Wait for the last session."""
        return self.ended


class HandOverTests(SynchronousTestCase):
    """All is handed over, in this order, or nothing is."""

    def setUp(self) -> None:
        """Have a popd, another that does what the test says, and a PID file."""
        self.done: list[str] = []
        self.service = FakeService(self.done)
        self.clock: Any = Clock()

        def note(what: str) -> Any:
            return lambda *_: self.done.append(what)

        self.watchman = SimpleNamespace(trusting=False, disownServiceParent=note("no probes"))
        self.server: Any = SimpleNamespace(
            reactor=self.clock,
            draining=False,
            watchman=self.watchman,
            control=SimpleNamespace(bound=None, hand_over=note("control")),
            heritage=Heritage(self.clock, {}),
            notifier=SimpleNamespace(succeeded=lambda pid: self.done.append(f"main {pid}")),
            reloader=SimpleNamespace(
                service=self.service,
                watch=SimpleNamespace(disownServiceParent=note("no looks")),
            ),
            all_listeners=lambda: [SimpleNamespace(bound=None, hand_over=note("port"))],
            drain=note("drain"),
            hurry=note("hurry"),
        )
        self.pidfile = Path(self.mktemp())
        self.pidfile.write_text(str(os.getpid()), encoding="ascii")
        self.twistd: dict[str, Any] = {"pidfile": str(self.pidfile)}
        self.candidates: list[_Candidate] = []
        self.said: list[bytes] = []

        def start(candidate: _Candidate, *_: object) -> None:
            self.assertFalse(self.pidfile.exists())
            self.candidates.append(candidate)
            candidate.line.say = lambda *words: self.said.extend(words)  # type: ignore[method-assign]

        self.patch(_Candidate, "start", start)

    def begin(self) -> Deferred[str]:
        """Begin to hand over."""
        work = Succession(self.server, Invocation(Path("/"), self.twistd))
        return Deferred.fromCoroutine(work.hand_over())

    def say(self, *words: bytes) -> None:
        """Have the new one say something."""
        self.candidates[-1].line.lineReceived(b" ".join(words))

    def assertAsBefore(self, outcome: Deferred[str], why: str) -> None:
        """Assert that nothing has happened."""
        self.assertIn(why, self.successResultOf(outcome))
        self.assertEqual(self.done, [])
        self.assertFalse(self.server.draining)
        self.assertFalse(self.watchman.trusting)
        self.assertEqual(self.pidfile.read_text(), str(os.getpid()))
        self.assertEqual(self.twistd["pidfile"], str(self.pidfile))

    def test_handed_over(self) -> None:
        """The old one leaves when the new one serves, and says so when it has."""
        outcome = self.begin()
        self.assertTrue(self.watchman.trusting)
        self.assertEqual(self.done, [])
        self.say(SERVES, b"42", b"1.0")
        self.assertTrue(self.server.draining)
        first = ["no looks", "no probes", "leave", "port", "control"]
        self.assertEqual((self.done, self.said), (first, []))
        self.service.left.callback(None)
        self.assertEqual((self.done, self.said), ([*first, "main 42"], [YOURS]))
        self.assertEqual(self.successResultOf(outcome), "")
        self.assertEqual(self.twistd["pidfile"], "")
        self.assertEqual(list(self.pidfile.parent.glob(f"{self.pidfile.name}*")), [])
        self.service.ended.callback(None)
        self.assertEqual(self.done[-1], "drain")

    def served(self) -> None:
        """Hand over."""
        self.service.left.callback(None)
        self.begin()
        self.say(SERVES, b"42", b"1.0")
        self.done.clear()

    def test_chain(self) -> None:
        """It stays as long as one that was before it, too."""
        before: Deferred[None] = Deferred()
        self.server.heritage.gone = before
        self.served()
        self.service.ended.callback(None)
        self.assertEqual(self.done, [])
        before.callback(None)
        self.assertEqual(self.done, ["drain"])

    def test_end(self) -> None:
        """The new one has it end, and then be quick; the new one's death is the same."""
        for lost in (False, True):
            self.setUp()
            self.served()
            self.say(END)
            self.assertEqual(self.done, ["drain"])
            if lost:
                self.candidates[-1].line.connectionLost()
            else:
                self.say(END)
            self.assertEqual(self.done, ["drain", "hurry", "drain"])

    def test_not_started(self) -> None:
        """If it ends before it serves, the last that it said is why."""
        with capturedLogs():
            outcome = self.begin()
            self.say(b"Traceback (most recent call last):")
            self.say(b"twistd popd: --listen tcp:110: no")
            self.say(b"")
            self.say(END)
            self.candidates[-1].line.connectionLost()
        self.assertAsBefore(outcome, "does not start: --listen tcp:110: no")

    def test_speechless(self) -> None:
        """It may say nothing."""
        outcome = self.begin()
        self.candidates[-1].line.connectionLost()
        self.assertAsBefore(outcome, "does not start: its log says why")

    def test_late(self) -> None:
        """One that takes too long is ended, and its word comes too late."""
        outcome = self.begin()
        self.clock.advance(PATIENCE)
        self.assertAsBefore(outcome, "did not serve within 60 s")
        self.assertEqual(self.said, [REFUSED])
        self.say(SERVES, b"42", b"1.0")
        self.assertEqual(self.done, [])

    def test_ending(self) -> None:
        """If this one is ended meanwhile the other is not to serve."""
        work = Succession(self.server, Invocation(Path("/"), self.twistd))
        work.break_off()
        outcome = Deferred.fromCoroutine(work.hand_over())
        self.server.draining = True
        work.break_off()
        self.assertEqual(self.said, [REFUSED])
        self.say(SERVES, b"42", b"1.0")  # it may have been faster
        self.assertEqual(self.successResultOf(outcome), ENDING)
        self.assertEqual(self.done, [])
        self.assertEqual(self.pidfile.read_text(), str(os.getpid()))

    def test_impossible(self) -> None:
        """No process, no place for the PID file, or one whose end would be that of all."""

        def start(*_: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        self.patch(_Candidate, "start", start)
        self.assertAsBefore(self.begin(), "can be started: Resource temporarily unavailable")
        self.patch(Path, "rename", start)
        self.assertAsBefore(self.begin(), "--pidfile cannot be moved: Resource")
        self.patch(os, "getpid", lambda: 1)
        self.assertIn("process 1", self.successResultOf(self.begin()))

    def test_foreign_pidfile(self) -> None:
        """A PID file that is somebody else's is left alone."""
        self.pidfile.write_text("1", encoding="ascii")
        self.patch(_Candidate, "start", lambda candidate, *_: self.candidates.append(candidate))
        self.service.left = succeed(None)
        self.begin()
        self.say(SERVES, b"42", b"1.0")
        self.assertEqual(self.pidfile.read_text(), "1")

    def test_too_early(self) -> None:
        """One that is not quite popd yet waits until it is."""
        self.server.heritage = before = Heritage(self.clock, {})
        before.pending = True
        outcome = self.begin()
        self.assertEqual(self.candidates, [])
        before._begin()
        self.assertEqual(len(self.candidates), 1)
        self.assertNoResult(outcome)
