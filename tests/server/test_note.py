"""Tests of `popd.server.note`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from twisted.logger import (
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    jsonFileLogObserver,
    textFileLogObserver,
)
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

    def test_others(self) -> None:
        """A log that is written in another way stays as it is."""
        json, dateless = io.StringIO(), io.StringIO()
        publisher = LogPublisher(
            jsonFileLogObserver(json), textFileLogObserver(dateless, timeFormat="")
        )
        hasten(publisher)
        note(Logger("popd.test", observer=publisher), LogLevel.info, "hello")
        self.assertIn('"log_namespace": "popd.test"', json.getvalue())
        self.assertEqual(dateless.getvalue(), " [popd.test#info] hello\n")
