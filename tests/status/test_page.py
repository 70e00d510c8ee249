"""Tests of the page and of what is on it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from popd.desk import Process
from popd.metrics import Meter, Sources
from popd.server.tls import Served
from popd.status import units
from popd.status.history import SAMPLES, STEP, History
from popd.status.markup import Markup, element, joined
from popd.status.page import render
from popd.status.plot import plot
from popd.status.report import DAY, PAGE, Reporter

HOSTILE = "<script>alert(1)</script>\"'&\u202e\r\n\0\x1b[31m"
VOID = {"link", "meta", "wbr"}


class Crew:
    """Processes whose answers the test says."""

    def __init__(self) -> None:
        self.deaths = 0
        self.states = ["serving", "starting"]
        self.sessions: list[list[dict[str, Any]]] = [[], []]
        self.recent: list[list[dict[str, Any]]] = [[], []]
        self.asked: list[tuple[str, Any]] = []

    def processes(self) -> list[Process]:
        """See `popd.desk.Crew`."""
        return [Process(1, seat, 900.0, state) for seat, state in enumerate(self.states)]

    def ask(self, what: str, about: Any = None) -> Any:
        """See `popd.desk.Crew`."""
        self.asked.append((what, about))
        return succeed(self.sessions if what == "sessions" else self.recent)


def session(number: int, seat: int = 0, **more: Any) -> dict[str, Any]:
    """Return a row about a session."""
    row = {
        "ident": f"abc{seat}-{number}",
        "user": f"user{number}@example.org",
        "peer": "192.0.2.1",
        "state": "transaction",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
        "mechanism": "PLAIN",
        "since": 900.0,
        "idle": 3.2,
        "messages": 4,
        "octets": 12_345,
    }
    return row | more


class Checker(HTMLParser):
    """Reads HTML, and sees to it that its elements are nested as they should."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a start tag."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Take an end tag."""
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.text += data


def checked(page: str) -> Checker:
    """Return what *page* has."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open, checker.open
    return checker


class MarkupTests(SynchronousTestCase):
    """Nothing gets into HTML unescaped."""

    def test_escaped(self) -> None:
        """Text and attributes are escaped."""
        self.assertEqual(
            element("p", "<b> & '", title='"><x>'),
            '<p title="&quot;&gt;&lt;x&gt;">&lt;b&gt; &amp; &#x27;</p>',
        )

    def test_nested(self) -> None:
        """What is HTML already stays what it is."""
        self.assertEqual(element("p", element("b", "<"), " ", 5), "<p><b>&lt;</b> 5</p>")
        self.assertIsInstance(joined("<", None), Markup)

    def test_attributes(self) -> None:
        """Some have no value, some are not there."""
        self.assertEqual(
            element("a", class_="x", data_live="y", open=True, title=None, hidden=False, name="n"),
            '<a class="x" data-live="y" open name="n"></a>',
        )

    def test_void(self) -> None:
        """Some elements have no end."""
        self.assertEqual(element("wbr"), "<wbr>")


class UnitsTests(SynchronousTestCase):
    """Numbers as people read them."""

    def said(self, show: Any, *pairs: tuple[float, str]) -> None:
        """Check what is said."""
        for value, text in pairs:
            self.assertEqual(show(value).replace("\u202f", " "), text, value)

    def test_all(self) -> None:
        """As many digits as tell something."""
        self.said(
            units.count,
            *((0, "0"), (0.001, "< 0.01"), (0.123456, "0.123"), (12.34, "12.3")),
            *((999.6, "1 000"), (1234567, "1 234 567")),
        )
        self.said(
            units.data,
            *(
                (0, "0 B"),
                (999, "999 B"),
                (1500, "1.5 kB"),
                (2.345e9, "2.35 GB"),
                (9e15, "9e+03 TB"),
            ),
        )
        self.said(
            units.seconds,
            *(
                (0, "0 ms"),
                (0.00042, "0.42 ms"),
                (0.0123, "12 ms"),
                (0.5, "500 ms"),
                (2.34, "2.3 s"),
            ),
            (77.7, "78 s"),
        )
        self.said(units.share, (0, "0 %"), (0.034, "3 %"), (1.5, "150 %"))
        self.said(
            units.duration,
            *((-5, "0 s"), (0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h")),
            (86_400 + 59, "1 d"),
        )

    def test_moment(self) -> None:
        """A time is UTC."""
        self.assertEqual(units.moment(0), "1970-01-01 00:00:00Z")

    def test_ceiling(self) -> None:
        """An axis ends with a number that is easily read."""
        for value, end in ((0, 1), (0.7, 0.8), (1, 1), (10.2, 15), (87, 100), (0.0011, 0.0015)):
            self.assertAlmostEqual(units.ceiling(value), end, msg=str(value))

    def test_plain(self) -> None:
        """Characters that nobody sees, or that turn others round, are written out."""
        self.assertEqual(units.plain("a\u202e\0\n\u00e9"), "a\\u202e\\x00\\n\u00e9")


class PlotTests(SynchronousTestCase):
    """Small plots."""

    def paths(self, values: list[float | None], times: list[float]) -> list[str]:
        """Return the paths of a plot that ends at 3600."""
        drawn = plot("Title", [("s", "now", values)], times, 3600.0, 3600.0, units.count)
        checker = checked(drawn)
        return [attrs["d"] or "" for tag, attrs in checker.elements if tag == "path"]

    def test_line(self) -> None:
        """From the left, an hour ago, to the right; greater is further up."""
        area, line = self.paths([0.0, 5.0, 10.0], [3580.0, 3590.0, 3600.0])
        self.assertEqual(line, "M358.0 71.0L359.0 36.0L360.0 1.0")
        self.assertEqual(area, "M358.0 72L358.0 71.0L359.0 36.0L360.0 1.0L360.0 72Z")

    def test_gaps(self) -> None:
        """Where nothing is known there is no line; one point is seen as well."""
        _, line = self.paths([1.0, None, 1.0, 1.0], [3570.0, 3580.0, 3590.0, 3600.0])
        self.assertEqual(line, "M357.0 1.0h1M359.0 1.0L360.0 1.0")
        _, line = self.paths([1.0, 1.0], [3400.0, 3600.0])
        self.assertEqual(line.count("M"), 2)

    def test_old(self) -> None:
        """What is older than an hour is not shown."""
        _, line = self.paths([1.0, 1.0], [-20.0, 3600.0])
        self.assertEqual(line, "M360.0 1.0h1")

    def test_spoken(self) -> None:
        """Who does not see it is told."""
        drawn = plot(
            "Log-ins", [("a", "good", [7.0]), ("b", "bad", [None])], [9.0], 9.0, 300.0, units.count
        )
        (label,) = (attrs["aria-label"] for tag, attrs in checked(drawn).elements if tag == "svg")
        self.assertEqual(label, "Log-ins. Now: good 7, bad \u2013. Most: 7.")
        empty = plot("Log-ins", [("a", "good", [])], [], 9.0, 300.0, units.count)
        self.assertIn("Most: nothing yet.", empty)


class PageCase(SynchronousTestCase):
    """A page of a popd of which the test says how it is."""

    def setUp(self) -> None:
        """Set up a popd that was started a hundred seconds ago."""
        self.now = 1000.0
        self.crew = Crew()
        self.meter = Meter()
        self.draining = False
        self.certificates = [self.served("/b.pem", "b.example", days=90)]
        crew: Any = self.crew
        sources = Sources(self.meter, crew, lambda: self.certificates, lambda: 2, 900.0)
        self.history = History(sources, lambda: self.now)
        self.reporter = Reporter(sources, self.history, lambda: self.now, lambda: self.draining)

    def served(self, path: str, *names: str, days: float = 0.0) -> Served:
        """Return what is known of a certificate that expires in so many days."""
        return Served(path, names, datetime.fromtimestamp(self.now + days * DAY, UTC))

    def report(self, after: str = "") -> dict[str, Any]:
        """Return the report."""
        found: list[Any] = []
        Deferred.fromCoroutine(self.reporter.report(after)).addCallback(found.append)
        report: dict[str, Any] = found[0]
        return report

    def page(self, after: str = "") -> Checker:
        """Return the page, of which everything closes."""
        self.raw = render(self.report(after), self.history).decode()
        return checked(self.raw)


class PageTests(PageCase):
    """The page."""

    def test_hostile(self) -> None:
        """Names that strangers choose are text, whole and on one line."""
        names: Any = {"user": HOSTILE, "peer": HOSTILE, "tls": HOSTILE, "mechanism": HOSTILE}
        self.crew.sessions = [[session(1, **names)], []]
        self.crew.recent = [
            [
                {"time": 990.0, "ident": HOSTILE, "user": HOSTILE}
                | {"peer": HOSTILE, "what": HOSTILE, "why": HOSTILE}
            ]
        ]
        self.certificates = [self.served(HOSTILE, HOSTILE)]
        page = self.page()
        self.assertEqual([a["src"] for t, a in page.elements if t == "script"], ["/status.js"])
        self.assertIn("<script>alert(1)</script>\"'&\\u202e\\r\\n\\x00\\x1b[31m", page.text)

    def test_policy(self) -> None:
        """There is nothing that the content security policy would stop."""
        page = self.page()
        for tag, attributes in page.elements:
            self.assertNotEqual(tag, "style")
            self.assertNotIn("style", attributes)
            self.assertEqual([name for name in attributes if name.startswith("on")], [])
            for name in ("src", "href"):
                self.assertTrue((attributes.get(name) or "/").startswith("/"), attributes)

    def test_accessible(self) -> None:
        """Headings in order, a title for each section, scopes in tables, a language."""
        self.crew.sessions = [[session(1), session(2, user="", tls="")], []]
        page = self.page()
        idents = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        self.assertEqual(len(idents), len(set(idents)))
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        self.assertEqual(levels[0], 1)
        self.assertEqual(levels.count(1), 1)
        for before, after in pairwise(levels):
            self.assertLessEqual(after, before + 1)
        for tag, attributes in page.elements:
            if tag == "section":
                self.assertIn(attributes["aria-labelledby"], idents)
            if tag == "th":
                self.assertEqual(attributes["scope"], "col")
            if tag == "svg":
                self.assertEqual(attributes["role"], "img")
                self.assertTrue(attributes["aria-label"])
            if tag == "html":
                self.assertEqual(attributes["lang"], "en")

    def test_states(self) -> None:
        """Whether popd serves is said first; the same that health says."""
        self.assertIn("serving", self.page().text)
        self.crew.states = ["starting", "retiring"]
        self.assertTrue(self.reporter.trouble().startswith("no workers"))
        self.assertIn("no workers", self.page().text)
        self.draining = True
        self.assertTrue(self.reporter.trouble().startswith("draining"))
        self.assertFalse(self.report()["ok"])

    def test_pages(self) -> None:
        """Sessions of several processes, some at a time, each once and in one order."""
        everything = [[session(n, seat) for n in range(1, 90)] for seat in (1, 0)]
        self.crew.sessions = [rows[: PAGE + 1] for rows in everything]
        report = self.report()
        self.assertEqual(len(report["sessions"]["rows"]), PAGE)
        self.assertEqual(report["sessions"]["next"], f"abc0-{PAGE}")
        links = [a["href"] for t, a in self.page().elements if t == "a"]
        self.assertIn(f"/?after=abc0-{PAGE}", links)
        self.assertNotIn("/", links)
        self.crew.sessions = [everything[0][:5], []]
        self.crew.asked.clear()
        links = [a["href"] for t, a in self.page(f"abc0-{PAGE}").elements if t == "a"]
        self.assertIn("/", links)
        self.assertEqual([link for link in links if link and "after" in link], [])
        self.assertIn(("sessions", {"after": f"abc0-{PAGE}", "limit": PAGE + 1}), self.crew.asked)

    def test_after_garbage(self) -> None:
        """What is no name of a session is not asked for."""
        for after in (HOSTILE, "x", "-1", "a" * 99 + "-1", "a-" + "1" * 99):
            self.crew.asked.clear()
            self.assertEqual(self.report(after)["sessions"]["after"], "")
            self.assertEqual(self.crew.asked[0][1]["after"], None)

    def test_failures(self) -> None:
        """The newest of all processes first, with reasons that people understand."""
        one = {"ident": "a-1", "user": "ada", "peer": "192.0.2.1", "why": ""}
        disabled = "the account is disabled"
        self.crew.recent = [
            [one | {"time": 950.0, "what": "credentials"}],
            [one | {"time": 990.0, "what": "temporary", "why": "the disk is full"}],
            [one | {"time": 940.0, "user": "joe", "what": "credentials", "why": disabled}],
        ]
        self.assertEqual([f["time"] for f in self.report()["failures"]], [990.0, 950.0, 940.0])
        text = self.page().text
        self.assertIn("192.0.2.1wrong user name or password", text)
        self.assertIn("popd could not do it just thenthe disk is full", text)
        self.assertIn("192.0.2.1the account is disabled", text)

    def test_alike(self) -> None:
        """What happens again and again is one row, as new as the last time, with their number."""
        one = {"ident": "a-1", "peer": "192.0.2.1", "what": "credentials", "why": ""}
        self.crew.recent = [
            [one | {"time": 900.0 + n, "user": "root"} for n in range(0, 40, 2)],
            [one | {"time": 900.0 + n, "user": "root"} for n in range(1, 41, 2)]
            + [one | {"time": 850.0 + n, "user": f"user{n}"} for n in range(40)],
        ]
        failures = self.report()["failures"]
        self.assertEqual(len(failures), 25)
        first, second = ((f["user"], f["time"], f["times"]) for f in failures[:2])
        self.assertEqual((first, second), (("root", 939.0, 40), ("user39", 889.0, 1)))
        text = self.page().text.replace("\u202f", " ")
        self.assertIn("wrong user name or password 40 \u00d7", text)
        self.assertNotIn(" 1 \u00d7", text)

    def test_calm(self) -> None:
        """Where nothing needs anybody, nothing is said."""
        self.history.take()
        self.now += STEP
        self.history.take()
        self.assertEqual(self.report()["concerns"], [])
        self.assertNotIn("Look after", self.page().text)

    def test_concerns(self) -> None:
        """What needs somebody is said, with what to do."""
        counts = self.meter.of(0)
        self.history.take()
        self.certificates = [
            self.served("/soon.pem", days=5.5),
            self.served("/late.pem", days=-0.1),
        ]
        self.crew.deaths = 2
        counts.limited("max-sessions")
        counts.limited("max-sessions-per-ip")
        counts.limited("idle-timeout")  # nor is this
        for _ in range(30):
            counts.shut_out("USER", "credentials")
        counts.shut_out("USER", "temporary")
        counts.shut_out("USER", "in-use")  # which is no concern
        self.now += STEP
        self.history.take()
        concerns = "\n".join(self.report()["concerns"])
        for text in (
            "/soon.pem expires in 5 days: renew",
            "/late.pem has expired: renew",
            "died in the last hour: 2",
            "Limits hit in the last hour: max-sessions 1, max-sessions-per-ip 1. The log",
            "no fault of the user: 1.",
            "Of 30 log-ins in the last hour 30 were refused",
        ):
            self.assertIn(text, concerns)
        self.assertIn("Look after", self.page().text)

    def test_workers(self) -> None:
        """Each process, with the sessions that it has."""
        self.meter.of(0).began()
        first, second = self.report()["workers"]
        self.assertEqual((first["pid"], first["state"], first["sessions"]), (1, "serving", 1))
        self.assertEqual((second["state"], second["sessions"]), ("starting", 0))

    def test_table(self) -> None:
        """The last hour is there as a table too."""
        for _ in range(SAMPLES + 1):
            self.history.take()
            self.now += STEP
        page = self.page()
        self.assertIn("As a table", page.text)
        rows = [line for line in self.raw.split("<tr>") if "<td>" in line]
        self.assertGreaterEqual(len(rows), 12)

    def test_span(self) -> None:
        """A popd that was started a short while ago does not show an hour of nothing."""
        for samples, title in ((0, "5 minutes"), (30, "5 minutes"), (31, "10 minutes")):
            while len(self.history.times) < samples - 1:
                self.history.take()
                self.now += STEP
            self.assertIn(f"The last {title}", self.page().text)
        for _ in range(SAMPLES):
            self.history.take()
        page = self.page()
        self.assertIn("The last hour", page.text)
        self.assertIn("3600", [attributes.get("data-span") for _, attributes in page.elements])

    def test_size(self) -> None:
        """However many sessions there are, the page has an end."""
        self.crew.sessions = [[session(n, user="x" * 120) for n in range(1, 2000)]]
        self.crew.recent = [
            [
                {"time": 9.0, "ident": "a-1", "user": f"{n}" * 120, "peer": "", "what": "x" * 120}
                | {"why": "x" * 120}
                for n in range(2000)
            ]
        ]
        for _ in range(SAMPLES + 1):
            self.history.take()
            self.now += STEP
        self.page()
        self.assertLess(len(self.raw), 150_000)
