"""One log for all: what the floors below write with `logging` goes to Twisted's log as well."""

from __future__ import annotations

import logging

from twisted.logger import Logger, LogLevel

__all__ = ["LoggingBridge", "bridge"]

_LEVELS = {
    logging.DEBUG: LogLevel.debug,
    logging.INFO: LogLevel.info,
    logging.WARNING: LogLevel.warn,
    logging.ERROR: LogLevel.error,
    logging.CRITICAL: LogLevel.critical,
}


class LoggingBridge(logging.Handler):
    """Hands records on to `twisted.logger`, which takes them from any thread."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to Twisted's log, under the name of the logger that it came from."""
        level = _LEVELS.get(record.levelno, LogLevel.warn)
        Logger(record.name).emit(level, "{text}", text=record.getMessage())


def bridge() -> None:
    """Let popd's own loggers write to Twisted's log.  A second call does nothing."""
    logger = logging.getLogger("popd")
    if not any(isinstance(handler, LoggingBridge) for handler in logger.handlers):
        logger.addHandler(LoggingBridge())
