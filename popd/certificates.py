"""Certificates that are renewed while popd runs, and those that are not."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from popd.server.sni import pairs, serve_names
from popd.server.tls import load_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime

    from popd.config import Settings
    from popd.server.tls import Served, ServerTLS

__all__ = ["EXPIRY_WARNING", "INTERVAL", "CertificateWatch", "load", "state"]

INTERVAL: Final = 10.0
"""Seconds between two looks at the files."""

EXPIRY_WARNING: Final = timedelta(days=14)
"""How long before a certificate expires there is a warning each day."""

_DAY: Final = timedelta(days=1)


def load(settings: Settings) -> ServerTLS | None:
    """Return how TLS is spoken; None if there is no certificate.

    :raises ValueError: a file cannot be used; the text is a line that names option and file.
    """
    if not settings.certificate:
        return None
    with _blamed_on("--certificate"):
        tls = load_context(settings.certificate, settings.private_key)
    if settings.certificate_dir:
        with _blamed_on("--certificate-dir"):
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

    :param clock: what time is measured with.
    :param settings: returns the settings that are in force.
    :param served: returns the certificates that are in use.
    :param renew: called with the new certificates when files have changed, and are good.
    :param now: returns the time, in UTC.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: Callable[[], Settings],
        served: Callable[[], Iterable[Served]],
        renew: Callable[[ServerTLS], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._served = served
        self._renew = renew
        self._now = now
        self._state: object = None
        self._warned: datetime | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._state = state(self._settings())
        self._looks.start(INTERVAL, now=True)

    def refresh(self) -> None:
        """Take the files as they are now for known: somebody else has read them."""
        self._state = state(self._settings())

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        self._warn()
        settings = self._settings()
        found = state(settings)
        if found == self._state:
            return
        self._state = found
        try:
            tls = load(settings)
        except ValueError as error:
            self._log.error("{error}; the certificates in use stay", error=error)
            return
        if tls is not None:
            self._log.info("The certificates have changed, and are taken over")
            self._renew(tls)

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
