"""Tests of `popd.logs`."""

from __future__ import annotations

import logging

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.logs import LoggingBridge, bridge


class BridgeTests(SynchronousTestCase):
    """What is written with `logging` is in Twisted's log."""

    def setUp(self) -> None:
        """Bridge, twice, and take the bridge away again after the test."""
        logger = logging.getLogger("popd")
        before = list(logger.handlers)
        self.addCleanup(setattr, logger, "handlers", before)
        logger.handlers = []
        bridge()
        bridge()

    def test_record(self) -> None:
        """A record comes through once, with its level, name and text; braces mean nothing."""
        with capturedLogs() as events:
            logging.getLogger("popd.maildrop.lock").warning("%s: {no} disk", "/srv")
        self.assertEqual([formatEvent(event) for event in events], ["/srv: {no} disk"])
        self.assertEqual(events[0]["log_namespace"], "popd.maildrop.lock")
        self.assertIs(events[0]["log_level"], LogLevel.warn)

    def test_odd_level(self) -> None:
        """A level that Twisted does not know becomes a warning."""
        with capturedLogs() as events:
            logging.getLogger("popd.x").log(35, "odd")
        self.assertIs(events[0]["log_level"], LogLevel.warn)

    def test_once(self) -> None:
        """Bridging twice makes one bridge."""
        handlers = logging.getLogger("popd").handlers
        self.assertEqual([type(handler) for handler in handlers], [LoggingBridge])
