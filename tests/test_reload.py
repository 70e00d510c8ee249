"""Tests of `popd.reload`: what comes while something else is under way.  The rest is end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.tap import Server, build
from popd.workers import ENDING
from tests.test_tap import MINIMUM, FakeReactor, parsed


class Telling:
    """Remembers what systemd would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def reloading(self) -> None:
        """Take note."""
        self.told.append("reloading")

    def ready(self) -> None:
        """Take note."""
        self.told.append("ready")


class OneAtATimeTests(SynchronousTestCase):
    """Reloads come one after the other, and none once popd is about to end."""

    def setUp(self) -> None:
        """Have a popd whose next version comes when the test says so."""
        config = Path(self.mktemp()).absolute()
        config.write_text("", encoding="utf-8")
        self.server: Server = build(parsed(*MINIMUM, "--config", str(config)), FakeReactor())
        self.notifier = Telling()
        self.patch(self.server, "notifier", self.notifier)
        self.reloader = self.server.reloader
        self.started: list[Deferred[str]] = []

        async def hand_over() -> str:
            self.started.append(Deferred())
            return await self.started[-1]

        self.server.succession.hand_over = hand_over  # type: ignore[method-assign]

    def test_shared(self) -> None:
        """Who asks while one is under way has the next in common; another kind has its turn."""
        first = self.server.reload_code()
        more = [self.server.reload_code(), self.server.reload(), self.server.reload_code()]
        self.assertEqual(len(self.started), 1)
        with capturedLogs() as events:
            self.started[0].callback("no good")
        self.assertEqual(self.successResultOf(first), "no good")
        self.assertIn("Not reloaded: no good; all stays", str(formatEvent(events[0])))
        self.assertEqual(len(self.started), 2)
        self.assertNoResult(more[1])
        self.started[1].callback("")
        self.assertEqual([self.successResultOf(one) for one in more], ["", "", ""])
        self.assertEqual(len(self.started), 2)
        self.assertEqual(self.notifier.told, ["reloading", "ready"] * 3)

    def test_certificates_meanwhile(self) -> None:
        """New certificates are not taken while something else is done, and are afterwards."""
        self.server.reload_code()
        tls: Any = None
        self.assertFalse(self.reloader._renew(tls, "files"))
        with capturedLogs():
            self.started[0].callback("no good")
            self.assertTrue(self.reloader._renew(tls, "files"))

    def test_ending(self) -> None:
        """Nothing is reloaded at the end, and systemd, which knows of that, is told nothing."""
        before = self.server.reload_code()
        waiting = self.server.reload()
        told = self.notifier.told[:]
        self.server.draining = True
        plan = self.reloader.plan
        with capturedLogs():
            self.started[0].callback("no good")
            self.successResultOf(before)
            outcomes = [waiting, self.server.reload(), self.server.reload_code()]
        self.assertEqual([self.successResultOf(one) for one in outcomes], [ENDING] * 3)
        self.assertEqual((self.notifier.told, len(self.started)), (told, 1))
        self.assertIs(self.reloader.plan, plan)
