"""The status page, the metrics and the health of a real popd, after real traffic."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest

from tests.e2e.browser import CHROMIUM, Browser
from tests.e2e.server import ServerCase, until

ETC = Path(__file__).parent.parent.parent / "etc"

HOSTILE = b"<script>alert(1)</script>\"'&"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class StatusCase(ServerCase):
    """A popd with a status page, and sessions that are over."""

    workers: ClassVar = "1"

    def setUp(self) -> None:
        """Start it, and have something happen."""
        self.status = free_port()
        self.options = (
            "--workers",
            self.workers,
            "--status",
            f"tcp:{self.status}:interface=127.0.0.1",
        )
        super().setUp()
        until(self.is_up, "the status page does not come")
        for user in ("alice", "bob"):
            self.site.deliver(user, b"Subject: x\n\nx\n")
            with self.logged_in(user) as client:
                client.fetch(1)
                client.ask(b"DELE 1")
                client.expect(b"QUIT")
        with self.tls_client() as client:
            client.ask(b"USER " + HOSTILE)
            client.ask(b"PASS no")
        until(lambda: self.metric("popd_sessions_ended_total"), "nothing is counted")

    def is_up(self) -> bool:
        """Return whether popd says that all is well."""
        try:
            return self.get("/healthz") == "ok\n"
        except OSError:
            return False

    def get(self, path: str, **headers: str) -> str:
        """Return what is at a path."""
        url = f"http://127.0.0.1:{self.status}{path}"
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - popd's own
            content: bytes = answer.read()
        return content.decode()

    def metrics(self) -> dict[str, float]:
        """Return all metrics, with their labels."""
        lines = (line for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of a metric, of those that have a label."""
        found = self.metrics().items()
        return sum(value for key, value in found if key.partition("{")[0] == name and label in key)


class CountTests(StatusCase):
    """What is counted in one process."""

    def test_metrics(self) -> None:
        """What happened is there: nothing that moved is zero."""
        for name, label, least in (
            ("popd_connections_total", "", 3),
            ("popd_logins_total", 'result="success"', 2),
            ("popd_logins_total", 'result="credentials"', 1),
            ("popd_messages_retrieved_total", "", 2),
            ("popd_messages_deleted_total", "", 2),
            ("popd_messages_sent_bytes_total", "", 34),
            ("popd_login_duration_seconds_count", "", 2),
            ("popd_login_duration_seconds_sum", "", 1e-6),
            ("popd_retr_duration_seconds_count", "", 2),
            ("popd_certificate_expiry_timestamp_seconds", "localhost", 1),
            ("popd_process_resident_memory_bytes", "", 1),
            ("popd_workers", 'state="serving"', int(self.workers)),
        ):
            self.assertGreaterEqual(self.metric(name, label), least, name)
        with self.logged_in("carol"):
            until(lambda: self.metric("popd_sessions_active", "transaction") == 1, "no session")
        until(lambda: self.metric("popd_sessions_active") == 0, "the session stays")

    def test_page(self) -> None:
        """The page has what happened, and nothing that a client said does anything there."""
        self.logged_in("carol")
        page = until(lambda: "carol" in (text := self.get("/")) and text, "no session")
        self.assertNotIn("<script>alert", page)
        self.assertIn("wrong user name or password", page)
        report: dict[str, Any] = json.loads(self.get("/status.json"))
        self.assertTrue(report["ok"])
        self.assertEqual(report["sessions"]["rows"][0]["user"], "carol@example.org")
        self.assertEqual(len(report["workers"]), int(self.workers))

    def test_others(self) -> None:
        """Nobody else's page may look, and nothing can be changed."""
        for headers, method in (({"Host": "evil.example.org"}, "GET"), ({}, "POST")):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.status}/", headers=headers, method=method
            )
            error = self.assertRaises(urllib.error.HTTPError, urllib.request.urlopen, request)
            self.assertIn(error.code, {400, 403, 405, 421})
            error.close()


class WorkersTests(CountTests):
    """What is counted in several."""

    workers = "2"

    def test_death(self) -> None:
        """What a worker had counted is still counted when it is gone; its sessions are not."""
        before = self.metric("popd_logins_total")
        self.logged_in("carol")
        until(lambda: self.metric("popd_sessions_active", "transaction") == 1, "no session")
        report = json.loads(self.get("/status.json"))
        (victim,) = (one["pid"] for one in report["workers"] if one["sessions"])
        os.kill(victim, signal.SIGKILL)
        until(lambda: self.metric("popd_worker_restarts_total") == 1, "the death is not counted")
        self.assertEqual(self.metric("popd_logins_total"), before + 1)
        self.assertEqual(self.metric("popd_sessions_active"), 0)
        self.assertEqual(self.metric("popd_sessions_lost_total"), 1)
        until(self.is_up, "no worker comes back")


class EndpointTests(ServerCase):
    """Where the page may be."""

    def test_elsewhere(self) -> None:
        """It may not be where others can reach it."""
        self.server.stop()
        error = self.assertRaises(AssertionError, self.start, "--status", "tcp:0")
        self.assertIn("has ended with 1", str(error))


class BrowserTests(StatusCase):
    """The page in a browser."""

    workers = "2"

    def test_browser(self) -> None:
        """It is whole in light and dark, on a phone and without scripts, and asks nobody else."""
        if not CHROMIUM:
            raise SkipTest("chromium is not installed: apt-get install chromium")
        self.logged_in("carol")
        url = f"http://127.0.0.1:{self.status}/"
        with Browser() as browser:
            for width in (1280, 375):
                for dark in (False, True):
                    for script in (True, False):
                        browser.show(url, width=width, dark=dark, script=script)
                        if not script:
                            continue
                        text = browser.value("document.body.innerText")
                        self.assertIn("carol@example.org", text)
                        self.assertIn("wrong user name or password", text)
                        scrolled = "document.documentElement.scrollWidth - window.innerWidth"
                        self.assertLessEqual(browser.value(scrolled), 0, width)
                        color = "getComputedStyle(document.body).backgroundColor"
                        light = sum(map(int, re.findall(r"\d+", browser.value(color))[:3]))
                        self.assertEqual(light < 380, dark)
            self.assertEqual(browser.told("Runtime.exceptionThrown"), [])
            self.assertEqual(browser.told("Log.entryAdded"), [])
            asked = {event["request"]["url"] for event in browser.told("Network.requestWillBeSent")}
            self.assertTrue(all(one.startswith(url) for one in asked), asked)


class ShippedTests(StatusCase):
    """What is in ``etc/`` for Prometheus and Grafana."""

    def test_metrics_exist(self) -> None:
        """Each metric that a rule or a dashboard looks at is one that there is."""
        known = {key.partition("{")[0] for key in self.metrics()}
        for path in ("prometheus/popd.rules.yml", "grafana/popd.json"):
            text = (ETC / path).read_text(encoding="utf-8")
            used = set(re.findall(r"\bpopd_[a-z0-9_]+", text))
            self.assertGreater(len(used), 5)
            self.assertEqual(used - known, set(), path)

    def test_promtool(self) -> None:
        """Prometheus finds nothing wrong with the rules."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed: apt-get install prometheus")
        rules = str(ETC / "prometheus" / "popd.rules.yml")
        ran = subprocess.run(
            [promtool, "check", "rules", rules], capture_output=True, text=True, check=False
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
