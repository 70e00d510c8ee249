"""A line in the log for what happens often."""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import FileLogObserver, formatEventAsClassicLogText, formatTime

if TYPE_CHECKING:
    from twisted.logger import Logger, LogPublisher

__all__ = ["hasten", "note"]

_PROBE: Final = {"log_time": 1.5, "log_system": "popd", "log_format": "probe"}


def note(log: Logger, level: Any, text: str) -> None:
    """Write *text* to the log, as `Logger.emit` does, at a third of its cost.

    What costs there is to look the level up, and to format text and system with fields in them.
    """
    system = f"{log.namespace}#{level.name}"
    log.observer(
        {
            "log_logger": log,
            "log_level": level,
            "log_namespace": log.namespace,
            "log_source": log.source,
            "log_system": system,
            "log_format": text.replace("{", "{{").replace("}", "}}"),
            "log_time": time(),
            "popd_line": f"[{system}] {text}",
        }
    )


def hasten(publisher: LogPublisher) -> None:
    """Let the log files that *publisher* writes to write the time out once a second.

    That costs more than the rest of a line.  The lines stay what Twisted makes them; who has them
    made otherwise keeps that.
    """
    for observer in publisher._observers:  # noqa: SLF001 - there is no other way to know them
        if isinstance(observer, FileLogObserver) and observer.formatEvent(_PROBE) == _line(_PROBE):
            observer.formatEvent = _line


def _line(event: Any) -> str | None:
    line = event.get("popd_line")
    if line is None:
        return formatEventAsClassicLogText(event, _shown)
    if "\n" in line:
        line = line.replace("\n", "\n\t")
    return f"{_second(int(event['log_time']))} {line}\n"


def _shown(when: float | None) -> str:
    return formatTime(None) if when is None else _second(int(when))


@lru_cache(maxsize=1)
def _second(when: int) -> str:
    return formatTime(when)
