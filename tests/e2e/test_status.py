"""The status page of a real server: its numbers after real traffic, and as a browser shows it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from itertools import product
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest

from tests.e2e.browser import CHROMIUM, CONTRAST, Browser
from tests.e2e.server import LIMIT, ServerCase, until

STATUS: Final = ("--status", "tcp:0:interface=127.0.0.1")
LISTENS: Final = re.compile(r"Listening on (\S+), HTTP, the status page")
NAME: Final = "<b-title='x'>o&amp;"
"""A user who is called like that."""
HOSTILE: Final = b"<script>document.title='owned'</script>\"'&"


class Numbers(dict[tuple[str, ...], float]):
    """The samples of all metrics, by name and label values."""

    def of(self, name: str, *labels: str) -> float:
        """Return the sum of all samples that have these label values."""
        return sum(v for k, v in self.items() if k[0] == name and set(labels) <= set(k[1:]))


class StatusCase(ServerCase):
    """A test case whose server has a status page."""

    options: tuple[str, ...] = STATUS

    def status(self) -> str:
        """Return the host and port of the status page."""
        return str(until(lambda: LISTENS.search(self.server.log), "no status page")[1])

    def get(self, path: str, method: str = "GET", **header: str) -> tuple[int, bytes]:
        """Ask for something."""
        connection = http.client.HTTPConnection(self.status(), timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request(method, path, headers=header)
            response = connection.getresponse()
            return response.status, response.read()

    def numbers(self) -> Numbers:
        """Return what Prometheus would read."""
        code, text = self.get("/metrics")
        self.assertEqual(code, 200)
        return Numbers(
            {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(text.decode())
                for sample in family.samples
            }
        )

    def report(self) -> Any:
        """Return status.json."""
        code, text = self.get("/status.json")
        self.assertEqual(code, 200)
        return json.loads(text)

    def sessions(self, state: str) -> float:
        """Return how many there are."""
        return self.numbers().of("popd_sessions_active", state)

    def traffic(self) -> None:
        """Do a little of everything."""
        for _ in range(4):
            self.site.deliver("alice", b"Subject: x\n\n" + b"x" * 5000 + b"\n")
        twin = self.site.deliver("bob", b"one\n")
        self.site.maildir("bob").joinpath("cur", f"{twin.name}:2,S").write_bytes(b"two\n")
        for _ in range(2):
            with self.logged_in() as client:
                client.fetch(1)
                client.expect(b"TOP 2 0")
                client.body()
                with self.tls_client() as busy:
                    busy.expect(b"USER alice")
                    busy.expect(b"PASS secret-of-alice", b"-ERR [IN-USE]")
                    busy.expect(b"QUIT")
                client.expect(b"DELE 2")
                client.expect(b"QUIT")
        with self.client() as client:
            client.stls(self.site.client_context())
            client.log_in("bob")
            client.expect(b"QUIT")
        with self.client() as client:
            client.stls(self.site.client_context())
            client.expect(b"USER mallory")
            client.expect(b"PASS wrong", b"-ERR [AUTH]")
            client.expect(b"QUIT")
        with self.client() as client:
            client.expect(b"QUIT")


class MetricsTests(StatusCase):
    """One process."""

    workers = 1

    def test_traffic(self) -> None:
        """After real traffic the numbers are what happened."""
        self.traffic()
        until(lambda: self.numbers().of("popd_sessions_total") == 7, "sessions do not end")
        numbers = self.numbers()
        for name, labels, wanted in (
            ("popd_workers", ("serving",), self.workers),
            ("popd_connections_total", (), 7),
            ("popd_sessions_total", ("tls", "transaction"), 2),
            ("popd_sessions_total", ("tls", "authorization"), 2),
            ("popd_sessions_total", ("stls", "transaction"), 1),
            ("popd_sessions_total", ("stls", "authorization"), 1),
            ("popd_sessions_total", ("cleartext", "authorization"), 1),
            ("popd_sessions_ended_total", (), 7),
            ("popd_logins_total", ("USER", "success"), 3),
            ("popd_logins_total", ("USER", "in-use"), 2),
            ("popd_logins_total", ("USER", "credentials"), 1),
            ("popd_login_duration_seconds_count", (), 3),
            ("popd_retr_duration_seconds_count", (), 2),
            ("popd_messages_retrieved_total", (), 2),
            ("popd_messages_top_total", (), 2),
            ("popd_messages_deleted_total", (), 2),
            ("popd_maildrop_opens_total", (), 3),
            ("popd_uidl_duplicates_total", (), 2),
            ("popd_sessions_active", (), 0),
            ("popd_worker_restarts_total", (), 0),
        ):
            self.assertEqual(numbers.of(name, *labels), wanted, (name, labels))
        self.assertGreater(numbers.of("popd_messages_sent_bytes_total"), 10_000)
        self.assertGreater(numbers.of("popd_login_duration_seconds_sum"), 0)
        self.assertGreater(numbers.of("popd_retr_duration_seconds_sum"), 0)
        self.assertGreater(numbers.of("popd_process_cpu_seconds_total"), 0)
        for seat in range(self.workers):  # so little time that they may have used none
            worker = f"worker-{seat}"
            self.assertIn(("popd_process_cpu_seconds_total", worker), numbers)
            self.assertGreater(numbers.of("popd_process_resident_memory_bytes", worker), 1e6)
        self.assertGreater(numbers.of("popd_certificate_expiry_timestamp_seconds"), 1.7e9)
        self.lint()

    def lint(self) -> None:
        """Let Prometheus look for what there is to complain about."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed: apt-get install prometheus")
        _, text = self.get("/metrics")
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, check=False
        )
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b""))

    def test_penalties(self) -> None:
        """Who guesses is slowed down, and seen."""
        self.assertEqual(self.numbers().of("popd_guess_penalties"), 0)
        for number in range(12):
            client = self.tls_client()
            client.expect(b"USER alice")
            client.expect(b"PASS guess-%d" % number, b"-ERR [AUTH]")
            client.close()
        self.assertGreater(self.numbers().of("popd_guess_penalties"), 0)

    def test_live(self) -> None:
        """Sessions are seen while they last, on the page as well."""
        client = self.logged_in("dave")
        waiting = self.client()
        self.assertEqual((self.sessions("transaction"), self.sessions("authorization")), (1, 1))
        report = self.report()
        rows = {row["user"]: row for row in report["sessions"]["rows"]}
        self.assertEqual(rows["dave@example.org"]["state"], "transaction")
        self.assertEqual(rows["dave@example.org"]["peer"], "127.0.0.1")
        self.assertEqual(rows[""]["state"], "authorization")
        code, page = self.get("/")
        self.assertEqual(code, 200)
        self.assertIn(b"dave", page)
        self.assertEqual(sum(worker["sessions"] for worker in report["workers"]), 2)
        waiting.reset()
        client.close()
        until(lambda: self.numbers().of("popd_sessions_active") == 0, "sessions stay")


class OneProcessTests(StatusCase):
    """What is the same however many there are."""

    options = ("--max-sessions-per-ip", "3", *STATUS)

    def test_limit(self) -> None:
        """A limit that was hit is counted by its name, and who was refused is on the page."""
        for _ in range(3):
            self.client()
        refused = self.client(greeted=False)
        self.assertIn(b"too many sessions", refused.line())
        until(lambda: self.numbers().of("popd_sessions_ended_total", "limit"), "it does not end")
        self.assertEqual(self.numbers().of("popd_limits_hit_total", "max-sessions-per-ip"), 1)
        self.assertEqual(self.numbers().of("popd_limits_hit_total"), 1)
        self.assertIn(b"too many sessions", self.get("/")[1])

    def test_remembered(self) -> None:
        """Who comes again and again is known, and so is the maildrop."""
        self.site.deliver("carol", b"one\n")

        def remembered() -> bool:
            with self.logged_in("carol") as client:
                client.expect(b"QUIT")
            numbers = self.numbers()
            return (
                numbers.of("popd_auth_cache_hits_total") > 0
                and numbers.of("popd_maildrop_opens_total", "hit") > 0
            )

        until(remembered, "nothing is remembered")

    def test_http(self) -> None:
        """Web pages from elsewhere are kept out, and so is who wants to change something."""
        self.assertEqual(self.get("/healthz"), (200, b"ok\n"))
        self.assertEqual(self.get("/healthz", "HEAD"), (200, b""))
        self.assertEqual(self.get("/", Host="evil.example")[0], 421)
        self.assertEqual(self.get("/", "POST")[0], 405)
        self.assertEqual(self.get("/nothing")[0], 404)


class WorkersMetricsTests(MetricsTests):
    """Two workers and the process that looks after them, which tells about all of them."""

    options = ("--workers", "2", *STATUS)
    workers = 2

    def setUp(self) -> None:
        """Wait until both workers serve."""
        super().setUp()
        until(lambda: self.numbers().of("popd_workers", "serving") == 2, "two workers")

    def test_death(self) -> None:
        """A worker that is killed takes its sessions along, but nothing that was counted."""
        self.traffic()
        until(lambda: self.numbers().of("popd_sessions_active") == 0, "sessions stay")
        before = self.numbers()
        clients = [self.client() for _ in range(20)]
        clients.append(self.logged_in("erin"))
        self.assertEqual(self.numbers().of("popd_sessions_active"), 21)
        workers = {worker["pid"]: worker["sessions"] for worker in self.report()["workers"]}
        self.assertEqual(sum(workers.values()), 21)
        victim = max(workers, key=lambda pid: workers[pid])
        os.kill(victim, signal.SIGKILL)
        left = 21 - workers[victim]
        until(lambda: self.numbers().of("popd_worker_restarts_total") == 1, "not noticed")
        until(lambda: self.numbers().of("popd_workers", "serving") == 2, "not replaced")
        after = self.numbers()
        self.assertEqual(after.of("popd_sessions_active"), left)
        self.assertEqual(after.of("popd_sessions_lost_total"), workers[victim])
        for name in ("popd_connections_total", "popd_messages_sent_bytes_total"):
            self.assertGreaterEqual(after.of(name), before.of(name), name)
        self.assertEqual(after.of("popd_logins_total", "success"), 4)
        for client in clients:
            client.close()
        until(lambda: self.numbers().of("popd_sessions_active") == 0, "sessions stay")

    def test_no_workers(self) -> None:
        """Without workers health is bad, and says so."""
        for worker in self.report()["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
        code, text = until(
            lambda: (answer := self.get("/healthz"))[0] == 503 and answer, "health stays good"
        )
        self.assertEqual((code, text[:10]), (503, b"no workers"))
        until(lambda: self.get("/healthz")[0] == 200, "health does not come back")

    def test_not_inherited(self) -> None:
        """Workers have no copies of the status page's sockets, those made later included."""
        host, _, port = self.status().rpartition(":")
        with socket.create_connection((host, int(port))) as waiting:
            until(lambda: self.get("/healthz")[0] == 200, "no answer")  # so it was accepted
            (victim, *_) = [worker["pid"] for worker in self.report()["workers"]]
            os.kill(victim, signal.SIGKILL)
            until(lambda: self.numbers().of("popd_worker_restarts_total") == 1, "not noticed")
            until(lambda: self.numbers().of("popd_workers", "serving") == 2, "not replaced")
            mine = sockets(self.server.process.pid)
            inodes = tcp_sockets(int(port))
            self.assertGreaterEqual(len(inodes & mine), 2)
            for worker in self.report()["workers"]:
                self.assertEqual(inodes & sockets(worker["pid"]), set())
            waiting.close()


def sockets(pid: int) -> set[str]:
    """Return the inode numbers of the sockets that a process has."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            match = re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink()))
            if match:
                found.add(match[1])
    return found


def tcp_sockets(port: int) -> set[str]:
    """Return the inode numbers of the IPv4 sockets whose own port this is."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return {line.split()[9] for line in lines if line.split()[1].endswith(f":{port:04X}")}


class StartTests(ServerCase):
    """Where the status page can be."""

    def test_socket(self) -> None:
        """On a UNIX socket, which not everybody may use."""
        path = str(self.site.root / "status")
        server = self.start("--status", f"unix:{path}")
        until(lambda: LISTENS.search(server.log), "no status page")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)  # noqa: PTH116
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(path)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: status.example.org\r\n\r\n")
            answer = b""
            while data := client.recv(4096):
                answer += data
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        server.stop()
        self.assertFalse(os.path.lexists(path))

    def test_off(self) -> None:
        """By default there is none."""
        self.assertIsNone(LISTENS.search(self.server.log))


class BrowserTests(StatusCase):
    """The page in Chromium."""

    options = ("--workers", "2", *STATUS)

    def setUp(self) -> None:
        """Start the browser."""
        if not CHROMIUM:
            raise SkipTest("chromium is not installed: apt-get install chromium")
        super().setUp()
        self.browser = Browser()
        self.browser.__enter__()
        self.addCleanup(self.browser.__exit__, None, None, None)
        until(lambda: self.report()["ok"], "no workers")

    def url(self, path: str = "/") -> str:
        """Return where a page is."""
        return f"http://{self.status()}{path}"

    def calm(self) -> None:
        """Make sure that the browser found nothing wrong, and asked nobody else."""
        self.browser.value("1")  # all that was said before has come by then
        self.assertEqual(self.browser.told("Log.entryAdded"), [])
        self.assertEqual(self.browser.told("Runtime.exceptionThrown"), [])
        self.assertEqual(self.browser.told("Runtime.consoleAPICalled"), [])
        asked = [sent["request"]["url"] for sent in self.browser.told("Network.requestWillBeSent")]
        self.assertTrue(asked)
        for url in asked:
            self.assertTrue(url.startswith(self.url()), url)
        self.assertEqual(self.browser.told("Network.loadingFailed"), [])

    def happen(self) -> None:
        """Have something happen, part of it to people who are called strangely."""
        self.traffic()
        for name in (HOSTILE, b"x" * 200):
            client = self.tls_client()
            client.expect(b"USER " + name)
            client.expect(b"PASS wrong", b"-ERR [AUTH]")
        self.site.add_user(NAME)
        client = self.tls_client()
        client.expect(b"USER " + NAME.encode())
        client.expect(b"PASS " + NAME.encode())
        self.logged_in("dave")
        self.client()

    def text(self) -> str:
        """Return what is read on the page."""
        return str(self.browser.value("document.body.innerText"))

    def test_look(self) -> None:
        """The page says what happened, in the light and in the dark, on a phone as on a desk."""
        self.happen()
        colours = set()
        for dark, width in product((False, True), (320, 390, 768, 1280)):
            self.browser.show(self.url(), dark=dark, width=width)
            text = self.text()
            for word in (
                *("serving", "dave@example.org", f"{NAME}@example.org", "not logged in"),
                *("wrong user name or password", f"(no name, {len(HOSTILE)} octets)"),
                *("another session has the maildrop 2\u202f\N{MULTIPLICATION SIGN}", "localhost"),
            ):
                self.assertIn(word, text)
            scrolled = self.browser.value("document.documentElement.scrollWidth")
            self.assertLessEqual(scrolled, width)
            self.assertEqual(self.browser.value(CONTRAST), [])
            colours.add(self.browser.value("getComputedStyle(document.body).backgroundColor"))
        self.assertTrue(self.browser.value("document.title").startswith("popd on "))
        self.assertEqual(len(colours), 2)
        self.calm()
        self.browser.show(self.url(), script=False)
        nodes = self.browser.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        html = self.browser.call("DOM.getOuterHTML", nodeId=nodes)["outerHTML"]
        for part in ("<svg", "As a table", "Recent failures", "wrong user name or password"):
            self.assertIn(part, html)

    def test_script(self) -> None:
        """The script puts in what is new and keeps what is open; the pointer tells a value."""
        self.traffic()
        self.browser.show(self.url())
        self.browser.value("document.querySelector('details').open = true")
        client = self.logged_in("erin")
        self.assertNotIn("erin", self.text())
        self.look_again()
        until(lambda: "erin" in self.text(), "nothing new is shown")
        self.assertTrue(self.browser.value("document.querySelector('details').open"))
        self.assertIn("looks again", self.text())
        until(lambda: self.report()["history"]["times"], "no samples")
        self.point()
        self.calm()
        client.close()
        self.server.stop()
        self.look_again()
        until(lambda: "No answer" in self.text(), "the page does not say that it is old")

    def look_again(self) -> None:
        """Come back to the page, as if it had been in the background."""
        self.browser.value("document.dispatchEvent(new Event('visibilitychange'))")

    def point(self) -> None:
        """Point at the first plot: left, right, and away from it."""
        self.browser.show(self.url())
        left, right, y = self.browser.value(
            "(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
            " return [box.left + 1, box.right - 1, box.top + 9]; })()"
        )
        value = "document.querySelector('[data-series]').textContent"
        latest = self.browser.value(value)
        self.assertRegex(latest, r"^\d")
        self.move(left, y)
        until(lambda: self.browser.value(value) == "\u2013", "there was nothing then")
        self.move(right, y)
        until(lambda: self.browser.value(value) == latest, "now there is something")
        self.move(1, 1)
        until(lambda: self.browser.value("!document.querySelector('.cursor')"), "it stays")
        self.assertEqual(self.browser.value(value), latest)

    def move(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
