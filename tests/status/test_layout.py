"""The page in a browser, with the longest of everything on it."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

from twisted.trial.unittest import SkipTest

import popd.status
from popd.status.history import SAMPLES, STEP
from popd.status.page import render
from tests.e2e.browser import CHROMIUM, CONTRAST, Browser
from tests.status.test_page import HOSTILE, PageCase, session

PEER = "2001:db8:85a3:1234:5678:8a2e:1370:7334"
PATH = "/etc/letsencrypt/live/a-mail-server-with-a-long-name.example.org/fullchain.pem"
FILES = Path(popd.status.__file__).parent


class LayoutTests(PageCase):
    """Nothing is wider than the window, and all of it can be read."""

    def busy(self) -> str:
        """Return a page on which much goes wrong."""
        names = ("x" * 120, HOSTILE, "a.very.long.name@subdomain.example.org", "")
        one = {"time": 990.0, "ident": "abc0-" + "9" * 15}
        whys = ("", "x" * 120, PATH, HOSTILE)
        whats = ("credentials", "temporary", "in-use", "tls-error", HOSTILE)
        self.crew.recent = [
            [
                one | {"user": user, "peer": PEER, "what": what, "why": why}
                for user, what, why in product(names, whats, whys)
            ]
        ]
        self.crew.sessions = [
            [session(9**14, user=user, peer=PEER, octets=9**14, messages=9**9) for user in names]
        ]
        hosts = [f"{'x' * 60}.{n}.a-long-name.example.org" for n in range(20)]
        self.certificates = [self.served(PATH, *hosts, days=5), self.served(f"/{'x' * 99}")]
        self.crew.deaths = 0
        counts = self.meter.of(0)
        for _ in range(SAMPLES + 1):
            self.history.take()
            self.now += STEP
            counts.began()
            counts.let_in("PLAIN", 3.3, remembered=True)
            counts.shut_out("PLAIN", "temporary")
            counts.limited("max-sessions-per-user")
            counts.sent(10**12, 200.0, whole=True)
        self.crew.deaths = 10**6
        self.history.take()
        report = self.report() | {"host": "a-mail-server-with-a-long-name.example.org"}
        for worker in report["workers"]:
            worker.update({"pid": 4_194_303, "cpu_seconds": 10**7, "memory_octets": 10**10})
        css = (FILES / "status.css").read_text(encoding="utf-8")
        page = render(report, self.history).decode()
        link = '<link rel="stylesheet" href="/status.css">'
        self.assertIn(link, page)
        return page.replace(link, f"<style>{css}</style>")

    def test_fits(self) -> None:
        """Neither on a phone nor on a desk, in the light and in the dark."""
        if not CHROMIUM:
            raise SkipTest("chromium is not installed: apt-get install chromium")
        empty = self.enterContext(tempfile.TemporaryDirectory())
        path = Path(empty, "page.html")
        path.write_text(self.busy(), encoding="utf-8")
        with Browser() as browser:
            for dark, width in product((False, True), (320, 390, 768, 1280, 2560)):
                browser.show(path.as_uri(), width=width, dark=dark)
                scrolled = browser.value("document.documentElement.scrollWidth")
                self.assertLessEqual(scrolled, width)
                self.assertEqual(browser.value(CONTRAST), [])
