"""Certificates that are renewed while popd runs, and those that are not."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from popd.server.sni import pairs, serve_names, unfinished
from popd.server.tls import load_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from popd.config import Settings
    from popd.server.tls import Served, ServerTLS

__all__ = ["AGAIN", "EXPIRY_WARNING", "INTERVAL", "CertificateWatch", "load", "state"]

INTERVAL: Final = 10.0
"""Seconds between two looks at the files."""

AGAIN: Final = 60.0
"""Seconds after which a renewal that did not work, though the files are good, is tried again."""

EXPIRY_WARNING: Final = timedelta(days=14)
"""How long before a certificate expires there is a warning each day."""

_DAY: Final = timedelta(days=1)


def load(settings: Settings, served: Iterable[Served] = ()) -> ServerTLS | None:
    """Return how TLS is spoken; None if there is no certificate.

    :param served: the certificates in use until now.  If a pair of those lacks a half it is being
        renewed, and not taken for removed.
    :raises ValueError: a file cannot be used; the text is a line that names option and file.
    """
    if not settings.certificate:
        return None
    with _blamed_on("--certificate"):
        tls = load_context(settings.certificate, settings.private_key)
    if settings.certificate_dir:
        used = {one.path for one in served}
        with _blamed_on("--certificate-dir"):
            for chain, missing in unfinished(settings.certificate_dir):
                if chain in used:
                    raise ValueError(f"{missing}: this file is missing")
            serve_names(tls, settings.certificate_dir)
    if settings.client_ca:
        with _blamed_on("--client-ca"):
            tls.ask_clients(settings.client_ca)
    return tls


@contextmanager
def _blamed_on(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def state(settings: Settings) -> object:
    """Return what is another value if a file of the certificates was changed or replaced."""
    paths = [*settings.certificate, *settings.private_key]
    if settings.client_ca:
        paths.append(settings.client_ca)
    if settings.certificate_dir:
        try:
            paths += [path for pair in pairs(settings.certificate_dir) for path in pair]
        except ValueError:
            paths.append(settings.certificate_dir)
    return [_signature(path) for path in paths]


def _signature(path: str) -> tuple[object, ...]:
    try:
        status = Path(path).stat()
    except OSError as error:
        return path, error.errno
    return (
        path,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class CertificateWatch(Service):
    """Looks at the files of the certificates, and at their ends.

    It compares them with those that are in use, and so a change is never lost, whatever else goes
    on when it is made: what was not taken over is still another when popd looks again.

    :param clock: what time is measured with.
    :param settings: returns the settings that are in force.
    :param known: returns the `state` of the files when the certificates in use were read.
    :param served: returns the certificates that are in use.
    :param renew: called with the new certificates, and the state of their files, when those have
        changed and are good; returns whether they are tried, and not something else just now.
    :param now: returns the time, in UTC.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: Callable[[], Settings],
        known: Callable[[], object],
        served: Callable[[], Iterable[Served]],
        renew: Callable[[ServerTLS, object], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._known = known
        self._served = served
        self._renew = renew
        self._now = now
        self._seen: object = None  # what was found last that is not in use
        self._again = inf  # when that is tried again, though it is still the same
        self._warned: datetime | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._looks.start(INTERVAL, now=True)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        self._warn()
        settings = self._settings()
        found = state(settings)  # before they are read: what changes meanwhile shows the next time
        if found == self._known():
            self._seen = None
            return
        if found == self._seen and self._clock.seconds() < self._again:
            return
        self._seen, self._again = found, inf
        try:
            tls = load(settings, self._served())
        except ValueError as error:
            self._log.error("{error}; the certificates in use stay", error=error)
            return
        if tls is not None:
            self._log.info("The certificates have changed, and are taken over")
            tried = self._renew(tls, found)
            self._again = self._clock.seconds() + (AGAIN if tried else 0.0)

    def _warn(self) -> None:
        now = self._now()
        if self._warned is not None and now - self._warned < _DAY:
            return
        self._warned = now
        for one in self._served():
            left = one.not_after - now
            if left < EXPIRY_WARNING:
                self._log.warn(
                    "{path}: this certificate {expires} {when:%Y-%m-%d %H:%M} UTC: renew it",
                    path=one.path,
                    expires="expires at" if left > timedelta() else "has expired at",
                    when=one.not_after,
                )
