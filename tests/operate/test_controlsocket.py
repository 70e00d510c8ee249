"""Tests of `popd.operate.controlsocket` and `popd.operate.commands`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd import __version__
from popd.auth.account import Client
from popd.auth.guard import Guard
from popd.auth.tablefile import GuessTable, Shape
from popd.operate.commands import Commands
from popd.operate.controlsocket import ASK_LIMIT, PATIENCE, Caller
from popd.server.tls import Served
from popd.server.trace import TRACES

if TYPE_CHECKING:
    from popd.desk import Process


class FakeCrew:
    """Processes that answer what the test says."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, Any]] = []

    deaths = 0

    def processes(self) -> list[Process]:
        """There are none to tell of."""
        return []

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """Answer."""
        self.asked.append((what, about))
        answers = self.answers.get(what, [])
        return succeed(answers)


class FakeServer:
    """A popd that does nothing."""

    def __init__(self) -> None:
        self.crew = FakeCrew()
        self.guesses = GuessTable.in_memory(Shape(64, 256, 256))
        self.reloaded: tuple[float, str] | None = None
        self.problem = ""
        self.drained = False

    def reload(self) -> Deferred[str]:
        """Say what is wrong."""
        return succeed(self.problem)

    def reload_code(self) -> Deferred[str]:
        """Likewise, of code."""
        return succeed("no other")

    def drain(self) -> None:
        """Remember it."""
        self.drained = True

    def certificates(self) -> list[Served]:
        """Return one."""
        return [Served("/x.pem", ("mail.example.org",), datetime.fromtimestamp(2e9, UTC))]


class Wire(StringTransport):
    """A connection that can be cut."""

    aborted = False

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True


def row(ident: str) -> dict[str, str]:
    """Return a session."""
    return {"ident": ident}


class CallerTests(SynchronousTestCase):
    """Somebody asks."""

    def setUp(self) -> None:
        """Set up a popd."""
        self.clock = Clock()
        self.server = FakeServer()
        self.addCleanup(self.server.guesses.close)
        self.crew = self.server.crew
        self.commands = Commands(self.clock, self.server)
        self.gone: list[Caller] = []

    def connect(self) -> tuple[Caller, Wire]:
        """Connect."""
        caller = Caller(self.clock, self.commands, self.gone.append)
        wire = Wire()
        caller.makeConnection(wire)
        return caller, wire

    def say(self, what: str, **about: Any) -> tuple[Caller, Wire]:
        """Ask a question."""
        caller, wire = self.connect()
        caller.dataReceived(json.dumps({"ask": what, "about": about}).encode() + b"\n")
        return caller, wire

    def said(self, wire: Wire) -> list[Any]:
        """Return what was said since the last time."""
        lines = wire.value().splitlines()
        wire.clear()
        return [json.loads(line) for line in lines]

    def ask(self, what: str, **about: Any) -> Any:
        """Ask a question, and return the answer."""
        caller, wire = self.say(what, **about)
        (said,) = self.said(wire)
        self.assertTrue(wire.disconnecting)
        self.lose(caller)
        return said["answer"]

    def refused(self, what: str, **about: Any) -> str:
        """Return why a question is not answered."""
        _, wire = self.say(what, **about)
        (said,) = self.said(wire)
        self.assertTrue(wire.disconnecting)
        return str(said["error"])

    def lose(self, caller: Caller) -> None:
        """Let the client go."""
        caller.connectionLost(Failure(ConnectionDone()))

    def test_silent(self) -> None:
        """Who asks nothing, or does not read the answer, is cut off after a while."""
        _, wire = self.connect()
        self.clock.advance(PATIENCE)
        self.assertTrue(wire.aborted)
        _, wire = self.say("who")
        self.clock.advance(PATIENCE)
        self.assertTrue(wire.aborted)

    def test_gone(self) -> None:
        """Who is gone is forgotten, and nothing waits for it."""
        caller, _ = self.connect()
        self.lose(caller)
        other, _ = self.say("who")
        self.lose(other)
        self.assertEqual(self.gone, [caller, other])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long(self) -> None:
        """A question that is too long is none."""
        caller, wire = self.connect()
        caller.dataReceived(b"x" * (ASK_LIMIT + 1))
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value(), b"")

    def test_one_question(self) -> None:
        """There is one question for each connection."""
        self.crew.answers["kick"] = [1]
        caller, wire = self.connect()
        caller.dataReceived(b'{"ask": "kick", "about": {"subject": "x"}}\n' * 3)
        self.assertEqual(self.said(wire), [{"answer": 1}])
        self.assertEqual(len(self.crew.asked), 1)

    def test_nonsense(self) -> None:
        """What cannot be answered is refused in a line."""
        self.assertIn("knows nothing of 'x'", self.refused("x"))
        self.assertEqual(self.refused("kick"), "subject is missing, or no text")
        self.assertEqual(self.refused("kick", subject=1), "subject is missing, or no text")
        self.assertEqual(self.refused("penalties", users="x"), "users are a list of names")

    def test_broken(self) -> None:
        """An error of popd's own is logged, and the client hears of it."""
        self.crew.answers["kick"] = ["no number"]
        with capturedLogs() as logs:
            self.assertIn("popd's log", self.refused("kick", subject="x"))
        self.assertEqual(len(logs), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_status(self) -> None:
        """How popd is."""
        self.crew.answers["process"] = [{"pid": 1}, {"pid": 2}]
        answer = self.ask("status")
        self.assertEqual(answer["version"], __version__)
        self.assertEqual(len(answer["processes"]), 2)
        self.assertEqual(
            answer["certificates"],
            [{"names": ["mail.example.org"], "path": "/x.pem", "not_after": 2e9}],
        )
        self.assertIsNone(answer["reloaded"])

    def test_pages(self) -> None:
        """A page ends where one of the processes may have more to say."""
        self.crew.answers["sessions"] = [
            [row("a0-1"), row("a0-2")],
            [row("a1-1")],
            [],
            [row("a0-3"), row("a1-2")],
        ]
        self.assertEqual([one["ident"] for one in self.ask("who")], ["a0-1", "a0-2"])
        self.assertEqual(self.crew.asked, [("sessions", {})])
        self.crew.answers["sessions"] = [[row("a1-10")], [row("a1-9"), row("a1-11")]]
        page = self.ask("who", after="a0-2", subject="joe")
        self.assertEqual([one["ident"] for one in page], ["a1-9", "a1-10"])
        self.assertEqual(self.crew.asked[-1], ("sessions", {"after": "a0-2", "subject": "joe"}))
        self.crew.answers["sessions"] = [[], []]
        self.assertEqual(self.ask("who"), [])

    def test_kick(self) -> None:
        """Sessions of all processes are ended."""
        self.crew.answers["kick"] = [1, 0, 2]
        self.assertEqual(self.ask("kick", subject="joe"), 3)

    def test_explain(self) -> None:
        """What all processes know is put together."""
        self.crew.answers["recent"] = [[{"time": 2.0}], [{"time": 1.0}], []]
        self.crew.answers["sessions"] = [[], [row("a-1"), row("a-2")]]
        answer = self.ask("explain", ident="a-1")
        self.assertEqual([one["time"] for one in answer["failures"]], [1.0, 2.0])
        self.assertEqual(answer["sessions"], [row("a-1")])

    def test_penalties(self) -> None:
        """Guesses are told, and forgiven."""
        guard = Guard(self.server.guesses)
        for number in range(12):
            guard.failed(Client("192.0.2.1"), b"joe", b"%d" % number)
        kinds = {(one["kind"], one["subject"]) for one in self.ask("penalties", users=["joe"])}
        self.assertIn(("network", "192.0.2.1"), kinds)
        self.assertIn(("account", "joe"), kinds)
        self.assertGreater(self.ask("penalties")[0]["ends"], time.time())
        self.assertEqual(self.ask("forgive", subject="192.0.2.1"), 1)
        self.assertGreater(self.ask("forgive"), 0)
        self.assertEqual(self.ask("penalties"), [])

    def test_reload(self) -> None:
        """What is wrong with the new configuration is said."""
        self.assertEqual(self.ask("reload"), "")
        self.server.problem = "no good"
        self.assertEqual(self.ask("reload"), "no good")
        self.assertEqual(self.ask("reload", code=True), "no other")

    def test_gone_while_reloading(self) -> None:
        """A reload goes on, though nobody waits for it any more."""
        cancelled: list[Deferred[str]] = []
        reloading: Deferred[str] = Deferred(cancelled.append)
        self.patch(self.server, "reload", lambda: reloading)
        caller, wire = self.say("reload")
        self.lose(caller)
        self.assertEqual(cancelled, [])
        reloading.callback("")
        self.assertEqual(wire.value(), b"")

    def test_drain(self) -> None:
        """Popd drains once it has said that it will."""
        self.ask("drain")
        self.assertFalse(self.server.drained)
        self.clock.advance(1)
        self.assertTrue(self.server.drained)

    def test_trace(self) -> None:
        """Lines of all processes come in order, until the client has enough."""
        caller, wire = self.say("trace", user="joe")
        self.assertEqual(self.said(wire), [])
        self.crew.answers["trace"] = [
            {"lines": [{"time": 2}, {"time": 3}], "lost": 0},
            {"lines": [{"time": 1}], "lost": 4},
        ]
        self.clock.advance(0.2)
        ((said,),) = [self.said(wire)]
        self.assertEqual([line["time"] for line in said["answer"]["lines"]], [1, 2, 3])
        self.assertEqual(said["answer"]["lost"], 4)
        caller.pauseProducing()
        asked = len(self.crew.asked)
        self.clock.advance(0.2)
        self.assertEqual(len(self.crew.asked), asked)  # the lines stay where they are bounded
        caller.resumeProducing()
        self.clock.advance(0.2)
        self.assertEqual(len(self.said(wire)), 1)
        self.lose(caller)
        self.assertEqual(self.crew.asked[-1][0], "untrace")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_while_asked(self) -> None:
        """Who goes while the processes are asked ends the trace."""
        waiting: Deferred[list[Any]] = Deferred(lambda one: one.callback([]))
        caller, _ = self.say("trace", user="joe")
        answered = self.crew.ask
        self.crew.ask = lambda what, about=None: (  # type: ignore[method-assign]
            waiting if what == "trace" else answered(what, about)
        )
        self.clock.advance(0.2)
        self.lose(caller)
        self.clock.advance(0.2)
        self.assertEqual(self.crew.asked[-1][0], "untrace")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_traces_bounded(self) -> None:
        """Few can look on at the same time."""
        callers = [self.say("trace", user="joe")[0] for _ in range(TRACES)]
        self.assertIn("look on already", self.refused("trace", user="joe"))
        self.lose(callers[0])
        _, wire = self.say("trace", user="joe")
        self.assertFalse(wire.disconnecting)
