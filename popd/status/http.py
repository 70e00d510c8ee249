"""HTTP for a page that anybody on this machine can ask for: small, strict, and bounded.

There is no log-in, so there is nothing to do here but to look, and nobody else's page may look.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, HTTPFactory, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    Query: TypeAlias = Mapping[bytes, list[bytes]]

__all__ = ["LIFETIME", "MAX_CONNECTIONS", "Answer", "Asked", "StatusFactory"]

MAX_CONNECTIONS: Final = 32
"""How many connections there may be at the same time."""

LIFETIME: Final = 30.0
"""Seconds that a connection lasts at most; each is for one request."""

_LOOPBACK: Final = re.compile(
    rb"(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?", re.IGNORECASE
)
"""What a request may call this server.  A page of somebody else's that has its name resolved to
this machine (DNS rebinding) calls it by that name."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    :param body: the content.
    :param kind: its media type.
    :param code: the HTTP status.
    """

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    code: int = 200


@dataclass(frozen=True)
class Asked:
    """What a request says that matters.

    :param query: the fields behind the path.
    :param accept: what its header ``Accept`` says.
    """

    query: Query
    accept: str = ""

    def get(self, name: bytes) -> str:
        """Return a field of the query, empty if there is none."""
        values = self.query.get(name)
        return values[0].decode("utf-8", "replace") if values else ""


class _Request(Request):
    """One request."""

    log: ClassVar = Logger()

    def gotLength(self, length: int | None) -> None:
        """Be ready for a body, which is read and forgotten."""
        del length
        self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Forget a piece of the body."""

    def process(self) -> None:
        """Answer."""
        answer = self._refusal()
        if answer is not None:
            self._give(answer)
            return
        gone: list[object] = []
        self.notifyFinish().addErrback(gone.append)
        accept = ",".join(self.requestHeaders.getRawHeaders("Accept", []))
        asked = Asked(self.args or {}, accept)
        given: Deferred[Answer] = maybeDeferred(self._routes[self.path], asked)
        given.addErrback(self._failed)
        given.addCallback(lambda answer: None if gone else self._give(answer))

    @property
    def _factory(self) -> StatusFactory:
        return self.channel.factory  # type: ignore[no-any-return]

    @property
    def _routes(self) -> Mapping[bytes, Callable[[Asked], Any]]:
        return self._factory.routes

    def _refusal(self) -> Answer | None:
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        if self._factory.checks_host and not (
            len(hosts) == 1 and _LOOPBACK.fullmatch(hosts[0].strip())
        ):
            return Answer(b"Ask for localhost, 127.0.0.1 or [::1].\n", code=421)
        if self.method not in {b"GET", b"HEAD"}:
            self.setHeader("Allow", "GET, HEAD")
            return Answer(b"There is nothing to do here but to look.\n", code=405)
        if self.path not in self._routes:
            paths = b", ".join(sorted(self._routes))
            return Answer(b"There is no such page; there are %b.\n" % paths, code=404)
        return None

    def _failed(self, failure: Failure) -> Answer:
        self.log.failure("Status page: {path}", failure, path=self.path)
        return Answer(b"Something went wrong; the log says what.\n", code=500)

    def _give(self, answer: Answer) -> None:
        self.setResponseCode(answer.code)
        for name, value in _HEADERS.items():
            self.setHeader(name, value)
        self.setHeader("Content-Type", answer.kind)
        self.setHeader("Content-Length", str(len(answer.body)))
        self.write(answer.body)
        self.finish()


class _Channel(HTTPChannel):
    """One connection."""

    requestFactory = _Request
    maxHeaders = 64
    totalHeadersSize = 8192

    factory: StatusFactory

    def connectionMade(self) -> None:
        """Begin, and set an end."""
        super().connectionMade()
        self.factory.connections += 1
        transport: Any = self.transport
        self._end = self.callLater(LIFETIME, transport.abortConnection)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Say that there is one request only."""
        request.responseHeaders.setRawHeaders("Connection", ["close"])
        return False

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # no default there
        """The client is gone."""
        super().connectionLost(reason)
        self.factory.connections -= 1
        if self._end.active():
            self._end.cancel()


class StatusFactory(HTTPFactory):
    """Answers requests.

    :param reactor: measures time.
    :param routes: by path, what answers: called with what is `Asked`, it returns an `Answer` or a
        Deferred of one.
    :param checks_host: whether a browser can come here, so that it matters by which name.
    """

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(
        self, reactor: Any, routes: Mapping[bytes, Callable[[Asked], Any]], *, checks_host: bool
    ) -> None:
        super().__init__(timeout=LIFETIME, reactor=reactor)
        self.routes = routes
        self.checks_host = checks_host
        self.connections = 0
        """How many there are."""

    def startFactory(self) -> None:
        """Begin; without Twisted's log of requests, which ticks every second."""

    def stopFactory(self) -> None:
        """End."""

    def log(self, request: Request) -> None:
        """Write down nothing: who looks does so every few seconds."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what serves a connection; nothing if there are too many, which closes it."""
        return super().buildProtocol(addr) if self.connections < MAX_CONNECTIONS else None
