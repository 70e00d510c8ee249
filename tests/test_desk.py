"""Tests of what operators may ask."""

from __future__ import annotations

import json
import os

from popd.desk import Alone, Desk, Process, age_of
from tests.server.helpers import ServerCase


class DeskTests(ServerCase):
    """One process answers."""

    def setUp(self) -> None:
        """Set up a desk."""
        super().setUp()
        self.desk = Desk(self.factory)

    def test_sessions(self) -> None:
        """What is known of each session."""
        self.clock.advance(1000)
        protocol, _ = self.log_in()
        self.connect("2001:db8::1")
        self.clock.advance(5)
        protocol.dataReceived(b"RETR 1\r\n")
        self.clock.advance(2)
        first, second = self.desk.answer("sessions", None)
        self.assertEqual(
            first,
            {
                "ident": protocol.visit.ident,
                "user": "joe",
                "peer": "192.0.2.1",
                "state": "transaction",
                "tls": "",
                "mechanism": "USER",
                "since": 1000.0,
                "idle": 2.0,
                "messages": 1,
                "octets": protocol.visit.octets,
            },
        )
        self.assertGreater(first["octets"], 20)
        self.assertEqual((second["user"], second["state"]), ("", "authorization"))
        self.assertEqual(self.desk.answer("count", None), 2)

    def test_tls(self) -> None:
        """How a session is protected."""
        protocol, _ = self.connect()
        protocol.visit.transport = "stls"
        self.assertEqual(self.desk.answer("sessions", None)[0]["tls"], "stls")
        protocol.visit.tls = "TLSv1.3 TLS_AES_256_GCM_SHA384"
        self.assertEqual(
            self.desk.answer("sessions", None)[0]["tls"], "TLSv1.3 TLS_AES_256_GCM_SHA384"
        )

    def test_pages(self) -> None:
        """All sessions, some at a time, each once."""
        idents = [self.connect()[0].visit.ident for _ in range(25)]
        seen: list[str] = []
        about: dict[str, object] = {"after": None, "limit": 10}
        while page := self.desk.answer("sessions", about):
            self.assertLessEqual(len(page), 10)
            seen += [row["ident"] for row in page]
            about = {"after": seen[-1], "limit": 10}
        self.assertEqual(seen, idents)

    def test_after_other_process(self) -> None:
        """The sessions of a process come all before or all behind those of another."""
        self.connect()
        self.assertEqual(len(self.desk.answer("sessions", {"after": "0-99"})), 1)
        self.assertEqual(len(self.desk.answer("sessions", {"after": "zzzzzzzzz-1"})), 0)

    def test_age_of(self) -> None:
        """Numbers sort as numbers; garbage is no error."""
        self.assertLess(age_of("a-9"), age_of("a-10"))
        for garbage in ("", "-", "a-", "a-x", "a-\u00b2", "a-" + "9" * 99):
            self.assertEqual(age_of(garbage)[1], 0, garbage)

    def test_fits(self) -> None:
        """Whatever strangers call themselves, an answer fits into AMP's 65,535 octets."""
        for _ in range(120):
            protocol, _ = self.connect()
            protocol.visit.user = "\U0001f600".encode() * 500
            self.factory.journal.shut_out(protocol.visit, "USER", "credentials", b"\xff" * 9999)
        for what in ("sessions", "recent"):
            rows = self.desk.answer(what, {"limit": 10**9})
            self.assertGreater(len(rows), 20)
            self.assertLess(len(rows), 120)
            self.assertLess(len(json.dumps(rows)), 65_535)

    def test_many(self) -> None:
        """Of ten thousand sessions no more are shown than fit."""
        for _ in range(10_000):
            self.connect()
        rows = self.desk.answer("sessions", None)
        self.assertLess(len(json.dumps(rows)), 65_535)
        last = self.desk.answer("sessions", {"after": rows[-1]["ident"], "limit": 1})
        self.assertEqual(age_of(last[0]["ident"])[1], len(rows) + 1)

    def test_recent(self) -> None:
        """The log-ins that failed last, the newest first."""
        protocol, _ = self.connect()
        protocol.dataReceived(b"USER joe\r\nPASS one\r\nUSER ada\r\nPASS two\r\n")
        rows = self.desk.answer("recent", {"limit": 1})
        self.assertEqual([row["user"] for row in rows], ["ada"])
        self.assertEqual([row["user"] for row in self.desk.answer("recent", None)], ["ada", "joe"])

    def test_unknown(self) -> None:
        """There are no other questions."""
        self.assertRaises(KeyError, self.desk.answer, "nonsense", None)

    def test_alone(self) -> None:
        """A crew of one is this process."""
        crew = Alone(self.desk)
        (process,) = crew.processes()
        self.assertEqual(process, Process(os.getpid(), 0, process.born))
        self.assertEqual(self.successResultOf(crew.ask("count")), [0])
        self.assertEqual(crew.deaths, 0)
