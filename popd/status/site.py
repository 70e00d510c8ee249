"""``--status``: where it listens, what it answers, and when it takes samples."""

from __future__ import annotations

import json
import time
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
)

from popd.listen import Listener, Purpose, StartError, parse_endpoint
from popd.status.exposition import expose
from popd.status.history import STEP, History
from popd.status.http import Answer, Asked, StatusFactory
from popd.status.page import render
from popd.status.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IStreamServerEndpoint

    from popd.metrics import Sources

__all__ = ["OPTION", "Status", "status_endpoint"]

OPTION: Final = "--status"

_FILES: Final = {
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def status_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return the endpoint that *description* means.

    A UNIX socket is open to its owner and group unless it says otherwise.

    :raises StartError: it means none, or one that can be reached from other machines.
    """
    if description.startswith("unix:") and ":mode=" not in description:
        description += ":mode=660"
    endpoint = parse_endpoint(reactor, OPTION, description)
    if isinstance(endpoint, UNIXServerEndpoint):
        return endpoint
    interface = getattr(endpoint, "_interface", "")
    if isinstance(endpoint, TCP4ServerEndpoint | TCP6ServerEndpoint) and _is_loopback(interface):
        return endpoint
    raise StartError(
        f"{OPTION} {description}: whoever reaches this page sees who reads mail, without logging"
        " in; let it be on this machine only, such as tcp:9110:interface=127.0.0.1 or"
        " unix:/run/popd/status"
    )


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return False


class Status(MultiService):
    """Answers over HTTP how popd is, and keeps the last hour in mind.

    :param reactor: the process's.
    :param description: the endpoint to listen on.
    :param sources: where everything is looked up.
    :param draining: tells whether popd takes no new sessions because it is about to end.
    :param give_up: see `Listener`.
    :raises StartError: nobody should listen there.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        sources: Sources,
        draining: Callable[[], bool],
        give_up: Callable[[StartError], None],
    ) -> None:
        super().__init__()
        self._sources = sources
        self._history = History(sources, time.time)
        self._reporter = Reporter(sources, self._history, time.time, draining)
        endpoint = status_endpoint(reactor, description)
        routes = {
            b"/": self.page,
            b"/status.json": self.json,
            b"/metrics": self.metrics,
            b"/healthz": self.health,
            **{f"/{name}".encode(): _file(name, kind) for name, kind in _FILES.items()},
        }
        checks_host = not isinstance(endpoint, UNIXServerEndpoint)
        factory = StatusFactory(reactor, routes, checks_host=checks_host)
        self.listener = Listener(
            endpoint, factory, Purpose.STATUS, f"{OPTION} {description}", give_up
        )
        self.listener.setServiceParent(self)
        sampler = TimerService(STEP, self._history.take)
        sampler.clock = reactor
        sampler.setServiceParent(self)

    def page(self, asked: Asked) -> Deferred[Answer]:
        """Answer ``/``: the page.  ``after`` says where the list of sessions goes on."""

        async def page() -> Answer:
            report = await self._reporter.report(asked.get(b"after"))
            return Answer(render(report, self._history), "text/html; charset=utf-8")

        return Deferred.fromCoroutine(page())

    def json(self, asked: Asked) -> Deferred[Answer]:
        """Answer ``/status.json``: the same for programs."""

        async def values() -> Answer:
            report = await self._reporter.report(asked.get(b"after"))
            report["history"] = self._reporter.past()
            return Answer(json.dumps(report).encode(), "application/json")

        return Deferred.fromCoroutine(values())

    def metrics(self, asked: Asked) -> Answer:
        """Answer ``/metrics``, for Prometheus."""
        return Answer(*expose(self._sources, asked.accept))

    def health(self, _asked: Asked) -> Answer:
        """Answer ``/healthz``: 200 if popd serves new clients, else 503 and why not."""
        trouble = self._reporter.trouble()
        if trouble:
            return Answer(f"{trouble}\n".encode(), code=503)
        return Answer(b"ok\n")


def _file(name: str, kind: str) -> Callable[[Asked], Answer]:
    content = files("popd.status").joinpath(name).read_bytes()
    return lambda _asked: Answer(content, kind)
