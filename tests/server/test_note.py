"""Tests of `popd.server.note`."""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from popd.server.note import hasten, note

if TYPE_CHECKING:
    from twisted.logger import ILogObserver, LogEvent


class NoteTests(SynchronousTestCase):
    """What is noted is an event like any other."""

    def setUp(self) -> None:
        """Make a log with two files, of which one is made hasty."""
        self.slow, self.fast = io.StringIO(), io.StringIO()
        self.publisher = LogPublisher(textFileLogObserver(self.fast))
        hasten(self.publisher)
        self.publisher.addObserver(textFileLogObserver(self.slow))
        self.log = Logger("popd.test", observer=self.publisher)

    def test_event(self) -> None:
        """Observers find in it what `Logger.emit` puts in; braces mean nothing."""
        events: list[LogEvent] = []
        self.publisher.addObserver(cast("ILogObserver", events.append))
        note(self.log, LogLevel.info, "Log-in: {user}")
        self.assertEqual(formatEvent(events[0]), "Log-in: {user}")
        self.assertEqual(events[0]["log_namespace"], "popd.test")
        self.assertIs(events[0]["log_level"], LogLevel.info)

    def test_same_lines(self) -> None:
        """A hasty log has the lines of one that is not, whatever is logged."""
        note(self.log, LogLevel.info, "one {line}")
        note(self.log, LogLevel.warn, "two\nlines")
        self.log.error("with {field}", field="a field")
        self.publisher({"log_format": "no time at all"})
        self.assertEqual(self.fast.getvalue().splitlines(), self.slow.getvalue().splitlines())
        self.assertIn("[popd.test#info] one {line}\n", self.fast.getvalue())
        self.assertIn("two\n\tlines\n", self.fast.getvalue())

    def test_alone(self) -> None:
        """Nor does a line depend on whether that log is the only one."""
        file = io.StringIO()
        publisher = LogPublisher(textFileLogObserver(file))
        hasten(publisher)
        log = Logger("popd.test", observer=publisher)
        lines = "one {line}", "two\nlines"
        for number in range(2):
            for line in lines:
                note(log, LogLevel.info, line)
            if not number:
                publisher.addObserver(textFileLogObserver(self.slow))
        written = [line[line.find("[") :] for line in file.getvalue().splitlines()]
        self.assertEqual(len(written), 6)
        self.assertEqual(written[:3], written[3:])

    def test_full(self) -> None:
        """A line that cannot be written harms nobody."""
        full = Path("/dev/full").open("w", encoding="ascii")  # noqa: SIM115 - closing it fails
        publisher = LogPublisher(textFileLogObserver(full))
        hasten(publisher)
        note(Logger("popd.test", observer=publisher), LogLevel.info, "hello")
        self.assertRaises(OSError, full.close)

    def test_json(self) -> None:
        """For programs there is an object on each line, whatever is logged."""
        file = io.StringIO()
        publisher = LogPublisher(textFileLogObserver(file))
        hasten(publisher, "json")
        log = Logger("popd.test", observer=publisher)
        note(log, LogLevel.info, "for people", "deleted", {"user": "a\u2028\n", "count": 1})
        log.warn("two\nlines {field}", field="x")
        log.failure("broken", Failure(ValueError("why")))
        publisher({"log_format": ""})
        first, second, third = map(json.loads, file.getvalue().splitlines())
        self.assertRegex(first.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertEqual(
            first, {"level": "info", "event": "deleted", "user": "a\u2028\n", "count": 1}
        )
        self.assertEqual((second["level"], second["event"]), ("warn", "message"))
        self.assertEqual((second["source"], second["text"]), ("popd.test", "two\nlines x"))
        self.assertIn("ValueError: why", third["text"])

    def test_journal(self) -> None:
        """Where systemd's journal reads, a line has its level, and no time."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            publisher = LogPublisher(textFileLogObserver(file))
            self.patch(
                os, "environ", os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            )
            hasten(publisher)
            log = Logger("popd.test", observer=publisher)
            note(log, LogLevel.warn, "a note")
            log.error("two\nlines")
            file.seek(0)
            self.assertEqual(
                file.read().splitlines(),
                ["<4>[popd.test#warn] a note", "<3>[popd.test#error] two", "<3>\tlines"],
            )

    def test_others(self) -> None:
        """A log that is written in another way stays as it is."""
        structured, dateless = io.StringIO(), io.StringIO()
        publisher = LogPublisher(
            jsonFileLogObserver(structured), textFileLogObserver(dateless, timeFormat="")
        )
        hasten(publisher)
        note(Logger("popd.test", observer=publisher), LogLevel.info, "hello")
        self.assertIn('"log_namespace": "popd.test"', structured.getvalue())
        self.assertEqual(dateless.getvalue(), " [popd.test#info] hello\n")


class CommonFileTests(SynchronousTestCase):
    """A log file that belongs to more than one popd."""

    def test_nothing_overwritten(self) -> None:
        """What each writes goes to the end, also after a new file was begun."""
        path = Path(self.mktemp()).absolute()
        logs, files = [], []
        for _ in range(2):
            files.append(LogFile.fromFullPath(str(path)))
            self.addCleanup(files[-1].close)
            publisher = LogPublisher(textFileLogObserver(files[-1]))
            hasten(publisher)
            logs.append(Logger("popd.test", observer=publisher))
        lines = []
        for turn in range(6):
            if turn == 2:
                files[0].rotate()
            if turn == 4:
                files[1].reopen()
            for number, log in enumerate(logs):
                log.info("turn {turn} of {number}", turn=turn, number=number)
                lines.append(f"turn {turn} of {number}")
        found = (path.with_name(f"{path.name}.1").read_text() + path.read_text()).splitlines()
        said = [line.partition("#info] ")[2] for line in found]
        self.assertEqual(sorted(said), sorted(lines))
