"""Tests of the numbers about a popd, and of how Prometheus is told them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as classic
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from popd.desk import Process
from popd.metrics import GAUGES, Meter, Sources
from popd.processes import usage
from popd.server.counts import CELLS, CONNECTIONS, COUNTED, Counter
from popd.server.seats import Seats
from popd.server.tls import Served
from popd.status.exposition import BUILD, expose

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "metrics.rst"
RULES = ROOT / "etc" / "prometheus" / "popd.rules.yml"
DASHBOARD = ROOT / "etc" / "grafana" / "popd.json"

NOBODY = 1 << 30
"""No process has this number: it is beyond what Linux gives."""

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class FakeCrew:
    """Two processes, of which one begins to serve."""

    deaths = 4

    def processes(self) -> list[Process]:
        """See `popd.desk.Crew`."""
        return [Process(os.getpid(), 0, 1.0), Process(NOBODY, 5, 2.0, "starting")]

    def ask(self, what: str, about: Any = None) -> Any:
        """Nobody asks."""
        raise AssertionError(what, about)


def sources(meter: Meter | None = None) -> Sources:
    """Return where numbers can be looked up."""
    certificates = [
        Served("/b.pem", (), datetime.fromtimestamp(2e9, UTC)),
        Served(
            '/a"\\\n.pem',
            ("mx.example.org", "*.example.org"),
            datetime.fromtimestamp(1e9, UTC),
        ),
    ]
    return Sources(meter or Meter(), FakeCrew(), lambda: certificates, lambda: 6, 1234.5)


def described() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the type and the labels of each metric by its name."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {BUILD[0]: ("info", BUILD[2])}
    for gauge in GAUGES:
        found[gauge.name] = ("counter" if gauge.grows else "gauge", gauge.labels)
    for metric in COUNTED:
        if isinstance(metric, Counter):
            found[metric.name] = ("counter", metric.labels)
        else:
            found[metric.name] = ("histogram", ())
    return found


class MeterTests(SynchronousTestCase):
    """All processes count together."""

    def test_sums(self) -> None:
        """The counts of all seats are added up, those of the dead included."""
        meter = Meter()
        for seat in range(3):
            for _ in range(seat + 1):
                meter.of(seat).began()
        self.assertEqual(meter.sums()[CONNECTIONS.first], 6)
        meter.vacated(1)
        self.assertEqual(meter.sums()[CONNECTIONS.first], 6)
        self.assertEqual(meter.numbers(2)[CONNECTIONS.first], 3)

    def test_nobody(self) -> None:
        """Before anybody counts, all is 0."""
        self.assertEqual(Meter().sums(), [0] * CELLS)

    def test_untouched(self) -> None:
        """Who reads does not touch, and so take memory for, seats that nobody has."""
        touched = []

        class Watched(Seats):
            def row(self, seat: int) -> memoryview:
                touched.append(seat)
                return super().row(seat)

        meter = Meter(Watched(CELLS + 1))
        meter.of(0)
        meter.of(1)
        touched.clear()
        meter.sums()
        self.assertEqual(touched, [0, 1, 2])

    def test_successor(self) -> None:
        """Who takes a seat goes on counting where the one before stopped."""
        meter = Meter()
        meter.of(0).began()
        meter.of(0).began()
        self.assertEqual(meter.sums()[CONNECTIONS.first], 2)


class ExpositionTests(SynchronousTestCase):
    """Prometheus understands it."""

    def families(self, accept: str = "") -> dict[str, Any]:
        """Return all metrics as a reader understands them."""
        text, _ = expose(sources(), accept)
        parse = open_metrics if accept else classic
        return {family.name: family for family in parse(text.decode())}

    def test_formats(self) -> None:
        """The client gets what it likes best."""
        for accept, begins in (
            ("", "text/plain; version=0.0.4"),
            ("*/*", "text/plain; version=0.0.4"),
            (f"{OPEN_METRICS},text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ):
            text, content_type = expose(sources(), accept)
            self.assertTrue(content_type.startswith(begins), content_type)
            self.assertEqual(text.endswith(b"# EOF\n"), accept.startswith(OPEN_METRICS))

    def test_both_agree(self) -> None:
        """Both formats say the same numbers."""

        def numbers(families: dict[str, Any]) -> dict[Any, float]:
            return {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in families.values()
                for sample in family.samples
                if not sample.name.startswith("popd_process_")
            }

        self.assertEqual(numbers(self.families()), numbers(self.families(OPEN_METRICS)))

    def test_complete(self) -> None:
        """All metrics are there, of their types, with their labels."""
        families = self.families(OPEN_METRICS)
        found = {}
        for family in families.values():
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, labels)
        self.assertEqual(
            found, {name: (kind, set(labels)) for name, (kind, labels) in described().items()}
        )

    def test_looked_up(self) -> None:
        """What is not counted is looked up."""
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in self.families().values()
            for sample in family.samples
        }
        self.assertEqual(values["popd_workers", "serving"], 1)
        self.assertEqual(values["popd_workers", "starting"], 1)
        self.assertEqual(values["popd_workers", "retiring"], 0)
        self.assertEqual(values["popd_worker_restarts_total",], 4)
        self.assertEqual(values["popd_guess_penalties",], 6)
        self.assertEqual(values["popd_start_time_seconds",], 1234.5)
        self.assertGreater(values["popd_process_cpu_seconds_total", "worker-0"], 0)
        self.assertGreater(values["popd_process_resident_memory_bytes", "worker-0"], 1e6)

    def test_certificates(self) -> None:
        """Each certificate's expiry, whatever its file is called."""
        family = self.families()["popd_certificate_expiry_timestamp_seconds"]
        found = {(s.labels["path"], s.labels["name"]): s.value for s in family.samples}
        self.assertEqual(found, {('/a"\\\n.pem', "mx.example.org"): 1e9, ("/b.pem", ""): 2e9})

    def test_histogram(self) -> None:
        """Buckets are cumulative, and the last one is the count."""
        meter = Meter()
        for seconds in (0.0002, 0.003, 0.003, 77.0):
            meter.of(0).let_in("USER", seconds, remembered=False)
        text, _ = expose(sources(meter))
        lines = text.decode().splitlines()
        for line in (
            'popd_login_duration_seconds_bucket{le="0.0001"} 0.0',
            'popd_login_duration_seconds_bucket{le="0.00025"} 1.0',
            'popd_login_duration_seconds_bucket{le="0.005"} 3.0',
            'popd_login_duration_seconds_bucket{le="10.0"} 3.0',
            'popd_login_duration_seconds_bucket{le="+Inf"} 4.0',
            "popd_login_duration_seconds_count 4.0",
        ):
            self.assertIn(line, lines)


class UsageTests(SynchronousTestCase):
    """What a process uses."""

    def test_self(self) -> None:
        """The process of this test has used some time and some memory."""
        cpu, memory = usage(os.getpid()) or (0.0, 0)
        self.assertLess(abs(cpu - time.process_time()), 1.0)
        self.assertGreater(memory, 1 << 20)

    def test_name(self) -> None:
        """A process may be called what it likes."""
        proc = Path(self.mktemp())
        (proc / "7").mkdir(parents=True)
        fields = ["S", *("0" for _ in range(10)), "150", "50", *("0" for _ in range(8)), "3"]
        (proc / "7" / "stat").write_text(f"7 (a ) b) {' '.join(fields)} 0 0\n")
        ticks = os.sysconf("SC_CLK_TCK")
        self.assertEqual(usage(7, proc), (200 / ticks, 3 * os.sysconf("SC_PAGE_SIZE")))

    def test_gone(self) -> None:
        """Of a process that is gone nothing is known."""
        self.assertIsNone(usage(7, Path(self.mktemp())))


class DocumentationTests(SynchronousTestCase):
    """Documentation, alerts and dashboard are about the metrics that there are."""

    def test_table(self) -> None:
        """The table in docs/metrics.rst has a row for each metric, with its type and labels."""
        rows = re.findall(
            r"^   \* - ``(popd_\w+)``\n     - (\w+)\n     - (.*)\n     - \S",
            DOCS.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        found = {
            name: (kind, tuple(re.findall(r"``(\w+)``", labels))) for name, kind, labels in rows
        }
        self.assertEqual(found, described())

    def test_label_values(self) -> None:
        """Every value that a counter's label can have is documented, but for mechanisms."""
        text = DOCS.read_text(encoding="utf-8")
        counters = [metric for metric in COUNTED if isinstance(metric, Counter)]
        self.assertGreater(len(counters), 8)
        for metric in counters:
            for values in metric.values:
                for label, value in zip(metric.labels, values, strict=True):
                    if label != "mechanism":
                        self.assertIn(f"``{value}``", text, metric.name)

    def known(self) -> set[str]:
        """Return all names that a query can use."""
        names = set()
        for name, (kind, _) in described().items():
            names.add(name)
            if kind == "histogram":
                names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        return names

    def test_rules(self) -> None:
        """The alert rules use no other, and each says what to do."""
        text = RULES.read_text(encoding="utf-8")
        used = set(re.findall(r"\bpopd_\w+", text))
        self.assertGreater(len(used), 8)
        self.assertEqual(used - self.known(), set())
        alerts = text.count("- alert:")
        self.assertGreater(alerts, 8)
        for part in ("summary:", "description:", "severity:", "expr:"):
            self.assertEqual(text.count(part), alerts, part)

    def test_promtool(self) -> None:
        """Prometheus takes the alert rules."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed: apt-get install prometheus")
        checked = subprocess.run(
            [promtool, "check", "rules", str(RULES)], capture_output=True, check=False, text=True
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_dashboard(self) -> None:
        """So does the dashboard, which is JSON with panels that have a title and a place."""
        dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 8)
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        used = set(re.findall(r"\bpopd_\w+", " ".join(queries)))
        self.assertGreater(len(used), 12)
        self.assertEqual(used - self.known(), set())
        idents = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(set(idents)), len(idents))
        for panel in panels:
            self.assertTrue(panel["title"] and panel["gridPos"] and panel["description"])
