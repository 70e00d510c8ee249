"""Tests of where the status page may be, and of what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from popd.listen import StartError
from popd.metrics import Meter, Sources
from popd.server.journal import Failing
from popd.status.history import STEP
from popd.status.http import Asked
from popd.status.site import Status, status_endpoint
from tests.status.test_page import Crew

GOOD = (
    "tcp:9110:interface=127.0.0.1",
    "tcp:0:interface=127.9.9.9",
    "tcp6:9110:interface=\\:\\:1",
    "unix:/run/popd/status",
    "unix:/run/popd/status:mode=666",
)
OPEN = (
    *("tcp:9110", "tcp6:9110", "tcp:9110:interface=0.0.0.0", "tcp:9110:interface=192.0.2.1"),
    *("tcp:9110:interface=localhost", "tcp6:9110:interface=\\:\\:", "haproxy:tcp:9110"),
    "haproxy:tcp:9110:interface=127.0.0.1",
)


class EndpointTests(SynchronousTestCase):
    """Only this machine can reach it."""

    def test_good(self) -> None:
        """Loopback addresses and UNIX sockets will do."""
        for description in GOOD:
            self.assertTrue(status_endpoint(Clock(), description), description)

    def test_open(self) -> None:
        """Anything else is an error, which says why and what would do."""
        for description in OPEN:
            error = self.assertRaises(StartError, status_endpoint, Clock(), description)
            self.assertIn(f"--status {description}: whoever reaches this page", str(error.code))
            self.assertIn("interface=127.0.0.1", str(error.code))

    def test_none(self) -> None:
        """What is no endpoint at all is refused as elsewhere."""
        for description in ("9110", "tcp:x:interface=127.0.0.1", "tcp:70000:interface=127.0.0.1"):
            error = self.assertRaises(StartError, status_endpoint, Clock(), description)
            self.assertIn(f"--status {description}: ", str(error.code))

    def test_mode(self) -> None:
        """A socket is for its owner and group, unless it says otherwise."""
        modes = [status_endpoint(Clock(), description)._mode for description in GOOD[3:]]  # type: ignore[attr-defined]
        self.assertEqual(modes, [0o660, 0o666])


class SiteTests(SynchronousTestCase):
    """What is answered, without HTTP."""

    def setUp(self) -> None:
        """Make a status page that listens nowhere yet."""
        self.draining = False
        self.crew = Crew()
        self.meter = Meter()
        crew: Any = self.crew
        self.reactor: Any = MemoryReactorClock()
        sources = Sources(self.meter, crew, list, lambda: 0, 0.0)
        self.status = Status(
            self.reactor, "tcp:9110:interface=127.0.0.1", sources, lambda: self.draining, self.fail
        )

    def test_life(self) -> None:
        """It listens and takes samples as long as it runs."""
        self.status.privilegedStartService()
        self.status.startService()
        ((port, factory, _, interface),) = self.reactor.tcpServers
        self.assertEqual((port, interface), (9110, "127.0.0.1"))
        self.assertTrue(factory.checks_host)
        for _ in range(3):
            self.reactor.advance(STEP)
        report = json.loads(self.successResultOf(self.status.json(Asked({}))).body)
        self.assertEqual(len(report["history"]["times"]), 3)
        self.successResultOf(self.status.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_routes(self) -> None:
        """Each path has its type, and the page's parts are there."""
        routes = self.status.listener._factory.routes  # type: ignore[attr-defined]
        kinds = {}
        for path, answer in routes.items():
            given = answer(Asked({}))
            given = given if hasattr(given, "kind") else self.successResultOf(given)
            self.assertEqual(given.code, 200)
            self.assertTrue(given.body)
            kinds[path] = given.kind.partition(";")[0]
        self.assertEqual(
            kinds,
            {
                b"/": "text/html",
                b"/status.json": "application/json",
                b"/metrics": "text/plain",
                b"/healthz": "text/plain",
                b"/status.css": "text/css",
                b"/status.js": "text/javascript",
                b"/icon.svg": "image/svg+xml",
            },
        )

    def test_health(self) -> None:
        """200 if new clients are served, else 503 and why not."""
        answer = self.status.health(Asked({}))
        self.assertEqual((answer.code, answer.body), (200, b"ok\n"))
        self.crew.states = []
        answer = self.status.health(Asked({}))
        self.assertEqual((answer.code, answer.body[:10]), (503, b"no workers"))
        self.crew.states = ["serving"]
        self.draining = True
        answer = self.status.health(Asked({}))
        self.assertEqual((answer.code, answer.body[:8]), (503, b"draining"))

    def test_documented(self) -> None:
        """docs/metrics.rst has every field of status.json, and of its rows."""
        text = (Path(__file__).parents[2] / "docs" / "metrics.rst").read_text(encoding="utf-8")
        documented = text.partition("status.json\n-----------")[2]
        report = json.loads(self.successResultOf(self.status.json(Asked({}))).body)
        names = [*report, *report["history"], *report["history"]["series"], *report["sessions"]]
        names += report["workers"][0]
        names += [*Failing._fields, "times"]
        self.assertGreater(len(names), 35)
        for name in names:
            self.assertIn(f"``{name}``", documented)
