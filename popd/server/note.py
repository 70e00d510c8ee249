"""Lines in the log: how they are made quickly, and what they look like."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from twisted.logger import (
    FileLogObserver,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.logfile import LogFile

from popd.server.visit import Visit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.logger import Logger, LogPublisher

__all__ = ["Event", "LogFormat", "hasten", "note"]

Event: TypeAlias = Literal[
    "session",
    "log-in-refused",
    "log-in-failed",
    "log-in-by-master",
    "deleted",
    "connections",
    "message",
]
"""What a line of the log is about; ``docs/logging.rst`` says more about each."""

LogFormat: TypeAlias = Literal["text", "json"]
"""What lines of the log are: for people, or an object in JSON each."""

_PROBE: Final = {"log_time": 1.5, "log_system": "popd", "log_format": "probe"}

_PRIORITY: Final = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""The priorities of syslog, which the journal of systemd takes in front of a line: sd-daemon(3)."""


def note(
    log: Logger,
    level: Any,
    text: str,
    event: Event = "message",
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Write *text* to the log, as `Logger.emit` does, at a fifth of its cost.

    What costs there is to look the level up, to format text and system with fields in them, and to
    make an event for all who may want to know of it, where that is one file and its lines are text.

    :param event: what it is about, for programs.
    :param fields: what is to be known about that, for programs; a `Visit` stands for all of it.
    """
    system = f"{log.namespace}#{level.name}"
    short = _shortcuts.get(log.observer)
    if short is not None and short.is_alone:
        try:
            short.write(f"[{system}] {text}")
        except Exception:  # noqa: BLE001, S110 - a full disk, say, which the long way deals with
            pass
        else:
            return
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
            "popd_event": event,
            "popd_fields": fields,
        }
    )


class _Shortcut:
    """The way to the one file that a log goes to.

    :param publisher: where all that is logged comes by.
    :param observer: what writes it to the file.
    """

    __slots__ = ("_file", "_observers")

    def __init__(self, publisher: LogPublisher, observer: FileLogObserver) -> None:
        self._file = observer._outFile  # noqa: SLF001
        self._observers = publisher._observers  # noqa: SLF001

    @property
    def is_alone(self) -> bool:
        """Whether nobody else wants to know."""
        return len(self._observers) == 1

    def write(self, line: str) -> None:
        """Write a line that begins now."""
        self._file.write(_timed(time(), line))
        self._file.flush()


_shortcuts: Final[WeakKeyDictionary[Any, _Shortcut]] = WeakKeyDictionary()
"""The short ways that there are."""


def hasten(publisher: LogPublisher, form: LogFormat = "text") -> None:
    """Let the log files that *publisher* writes to have popd's lines.

    For people these are Twisted's own, but that the time is written out once a second, which costs
    more than the rest of a line; and where the journal of systemd reads them, it is told their
    level, and has the time already.  Who has lines made otherwise keeps that.  What twistd writes
    to a file (``--logfile``) goes to its end: a popd that takes this one's place writes there, too.
    """
    for observer in publisher._observers:  # noqa: SLF001 - there is no other way to know them
        file = getattr(observer, "_outFile", None)
        if type(file) is LogFile:
            file.__class__ = _CommonLogFile
            _append(file._file)  # noqa: SLF001
        if isinstance(observer, FileLogObserver) and observer.formatEvent(_PROBE) == _line(_PROBE):
            make: Callable[[Any], str | None] = _json if form == "json" else _line
            if _is_journal(observer._outFile):  # noqa: SLF001
                make = _with_level(_json if form == "json" else _bare)
            observer.formatEvent = make
            if make is _line and observer._encoding is None:  # noqa: SLF001
                _shortcuts[publisher] = _Shortcut(publisher, observer)


class _CommonLogFile(LogFile):
    """A log file to which several processes write, each with a descriptor of its own."""

    def _openFile(self) -> None:
        super()._openFile()
        _append(self._file)


def _append(file: Any) -> None:
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_APPEND)


def _is_journal(file: Any) -> bool:
    """Return whether what is written to *file* is read by the journal of systemd."""
    try:
        status = os.fstat(file.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_level(make: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    def made(event: Any) -> str | None:
        text = make(event)
        mark = f"<{_PRIORITY.get(event.get('log_level'), 6)}>"
        return text and "".join(mark + line for line in text.splitlines(keepends=True))

    return made


def _line(event: Any) -> str | None:
    line = event.get("popd_line")
    if line is None:
        return formatEventAsClassicLogText(event, _shown)
    return _timed(event["log_time"], line)


def _timed(when: float, line: str) -> str:
    if "\n" in line:
        line = line.replace("\n", "\n\t")
    return f"{_second(int(when))} {line}\n"


def _bare(event: Any) -> str | None:
    """Return a line without the time."""
    line = event.get("popd_line")
    if line is None:
        line = eventAsText(event, includeTimestamp=False)
    return line.replace("\n", "\n\t") + "\n" if line else None


def _json(event: Any) -> str | None:
    """Return an object in JSON, on one line; ``docs/logging.rst`` says what is in it."""
    level = event.get("log_level", LogLevel.info)
    when = datetime.fromtimestamp(event.get("log_time") or time(), UTC)
    record: dict[str, Any] = {
        "time": when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level.name,
        "event": event.get("popd_event", "message"),
    }
    fields = event.get("popd_fields")
    if fields is None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if not text:
            return None
        record |= {"source": event.get("log_namespace", ""), "text": text}
    else:
        for name, value in fields.items():
            record |= _session(value) if isinstance(value, Visit) else {name: value}
    return json.dumps(record, separators=(",", ":"), default=str) + "\n"


def _session(visit: Visit) -> dict[str, object]:
    return {
        "session": visit.ident,
        "user": visit.user,
        "by": visit.by,
        "address": visit.peer,
        "tls": visit.tls,
        "mechanism": visit.mechanism,
        "logged_in": visit.logged_in is not None,
        "refused": visit.tries,
        "retrieved": visit.messages,
        "top": visit.tops,
        "octets": visit.octets,
        "deleted": visit.deleted,
        "left": visit.left,
        "reason": visit.why,
        "detail": visit.detail,
    }


def _shown(when: float | None) -> str:
    return formatTime(None) if when is None else _second(int(when))


@lru_cache(maxsize=1)
def _second(when: int) -> str:
    return formatTime(when)
