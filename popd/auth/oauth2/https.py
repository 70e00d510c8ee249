"""Requests to the OAuth 2 provider, of which none may hold anybody up for long."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote_plus, urlencode

from cryptography import x509
from OpenSSL.crypto import X509
from twisted.internet import ssl
from twisted.internet._resolver import GAIResolver
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.threadpool import ThreadPool
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import directlyProvides, implementer, providedBy

from popd import __version__
from popd.auth.health import reason as explained
from popd.auth.interfaces import AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IConsumer, IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent, IResponse

__all__ = ["MAX_ANSWER", "MAX_FAILURES", "MAX_PENDING", "TIMEOUT", "HttpsClient", "trust_root"]

TIMEOUT: Final = 4.5
"""Seconds that a request may take, with all waiting: a log-in, for which a checker has
10 seconds, may need two of them."""

MAX_ANSWER: Final = 256 << 10
"""Octets that an answer may have: large providers' keys, with certificates, are some 30 KiB."""

MAX_PENDING: Final = 500
"""How many requests may wait, while `_MAX_RUNNING` are under way."""

_MAX_RUNNING: Final = 20

MAX_FAILURES: Final = 3
"""After so many failures in a row a provider is left alone for a while, at most `_MAX_REST`."""

_MAX_REST: Final = 30.0

_CONNECT_TIMEOUT: Final = 4.0

_IDLE: Final = 2
"""Seconds that an idle connection is kept: less than servers do, lest a request meet its end."""

_MAX_CA_FILE: Final = 4 << 20

_OK: Final = 200
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500


def trust_root(ca_file: str) -> Any:
    """Return what makes Twisted trust the certificates in a PEM file and no others.

    :raises ValueError: there are none in it.
    :raises OSError: it cannot be read.
    """
    with open(ca_file, "rb") as file:  # noqa: PTH123 - so that the error is strerror's
        content = file.read(_MAX_CA_FILE)
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ValueError(f"{ca_file}: there is no certificate in PEM, or a broken one") from error
    certificates = [ssl.Certificate(X509.from_cryptography(one)) for one in found]
    return ssl.trustRootFromCertificates(certificates)


class HttpsClient:
    """Gets JSON objects by HTTPS, and follows no redirections.

    It has no reactor, connections or threads before its first request, so that a process may fork.

    A provider that does not answer, or with nonsense or a server's error, is left alone for a time
    that grows; then one request finds out whether it is back, and others fail until that is known.

    :param trust_root: who may vouch for servers, see `trust_root`; None for the system's
        authorities.
    :param clock: the reactor; by default the one that is installed when it is first needed.
    :param agent: makes requests; by default Twisted's.
    """

    def __init__(
        self,
        trust_root: Any = None,
        clock: IReactorTime | None = None,
        agent: IAgent | None = None,
    ) -> None:
        self._trust_root = trust_root
        self._clock: Any = clock
        self._agent = agent
        self._closing: list[Callable[[], object]] = []
        self._slots = DeferredSemaphore(_MAX_RUNNING)
        self._pending = 0
        self._failures: int = 0
        self._rest_until = 0.0

    def close(self) -> None:
        """Have no connections and threads any more."""
        closing, self._closing = self._closing, []
        for close in closing:
            close()

    async def get(self, url: str) -> tuple[int, dict[str, Any]]:
        """Return the status of the answer to a GET request, and what is in it if that is 200.

        :raises AuthUncertainError: there is no such answer.
        """
        return await self._ask(b"GET", url, {}, None)

    async def post(
        self, url: str, form: dict[str, str], client: tuple[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Do the same with a POST request that has *form* in it.

        :param client: an OAuth 2 client's name and secret (RFC 6749 section 2.3.1).
        :raises AuthUncertainError: there is no such answer.
        """
        name, secret = map(quote_plus, client)
        headers = {
            b"Content-Type": [b"application/x-www-form-urlencoded"],
            b"Authorization": [b"Basic " + base64.b64encode(f"{name}:{secret}".encode())],
        }
        return await self._ask(b"POST", url, headers, urlencode(form).encode())

    async def _ask(
        self, method: bytes, url: str, headers: dict[bytes, list[bytes]], body: bytes | None
    ) -> tuple[int, dict[str, Any]]:
        clock = self._the_clock()
        if clock.seconds() < self._rest_until:
            raise AuthUncertainError(f"{url} has failed, and is tried again soon")
        if self._pending >= MAX_PENDING:
            raise AuthUncertainError(f"too many requests wait for {url}")
        probe = self._failures >= MAX_FAILURES
        if probe:
            self._rest_until = clock.seconds() + TIMEOUT  # others fail until this one is done
        work = Deferred.fromCoroutine(self._in_turn(method, url, headers, body))
        waiting = _Waiting(work.addTimeout(TIMEOUT, clock, _too_late))
        self._pending += 1
        try:
            answer: tuple[int, dict[str, Any]] = await waiting.outcome
        except Exception as error:
            if waiting.cancelled:  # which is nobody's failure, or whoever hangs up could feign some
                self._rest_until = 0.0 if probe else self._rest_until
                raise CancelledError from error
            self._failed(probe=probe)
            raise AuthUncertainError(f"{url}: {_reason(error)}") from error
        finally:
            self._pending -= 1
        self._failures, self._rest_until = 0, 0.0
        return answer

    def _failed(self, *, probe: bool) -> None:
        if probe or self._failures < MAX_FAILURES:  # others had begun before, and are nothing new
            self._failures += 1
        excess = self._failures - MAX_FAILURES
        if excess >= 0:
            rest = min(_MAX_REST, float(1 << min(excess, 10)))
            self._rest_until = self._the_clock().seconds() + rest

    async def _in_turn(
        self, method: bytes, url: str, headers: dict[bytes, list[bytes]], body: bytes | None
    ) -> tuple[int, dict[str, Any]]:
        await self._slots.acquire()
        try:
            response = await self._the_agent().request(
                method,
                url.encode("ascii"),
                Headers({b"Accept": [b"application/json"], b"User-Agent": [_NAME], **headers}),
                None if body is None else _Body(body),
            )
            content = await _content(response)
        finally:
            self._slots.release()
        if response.code >= _SERVER_ERROR or response.code == _TOO_MANY_REQUESTS:
            raise ValueError(f"the answer is {response.code}")
        return response.code, _object(content) if response.code == _OK else {}

    def _the_clock(self) -> Any:
        if self._clock is None:
            from twisted.internet import reactor  # noqa: PLC0415 - each worker has its own

            self._clock = reactor
        return self._clock

    def _the_agent(self) -> IAgent:
        if self._agent is None:
            reactor = self._the_clock()
            pool = HTTPConnectionPool(reactor)
            pool._factory = _QuietFactory  # noqa: SLF001 - there is no other way to tell it
            pool.maxPersistentPerHost = 4
            pool.cachedConnectionTimeout = _IDLE
            resolving = _Resolving(reactor)
            self._closing = [pool.closeCachedConnections, resolving.close]
            self._agent = Agent(
                resolving,
                BrowserLikePolicyForHTTPS(self._trust_root),
                connectTimeout=_CONNECT_TIMEOUT,
                pool=pool,
            )
        return self._agent


_NAME: Final = f"popd/{__version__}".encode("ascii")


class _QuietFactory(_HTTP11ClientFactory):
    """Makes connections without two lines in the log for each."""

    noisy = False


class _Resolving:
    """A reactor that looks up names in threads of their own.

    Its usual ones check passwords, which a name server that does not answer must not stop.
    """

    def __init__(self, reactor: Any) -> None:
        directlyProvides(self, providedBy(reactor))
        self._reactor = reactor
        self._pool = pool = ThreadPool(0, 2, "popd-oauth2")
        pool.start()
        self._trigger = reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
        self.nameResolver = GAIResolver(reactor, lambda: pool)

    def close(self) -> None:
        """Have no threads any more."""
        self._reactor.removeSystemEventTrigger(self._trigger)
        self._reactor.callInThread(self._pool.stop)  # it waits for those that still look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IBodyProducer)
class _Body:
    """What a request has in it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def stopProducing(self) -> None:
        pass

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass


class _Waiting:
    """Waits for *work*, and knows whether that was given up.

    The work itself may then end with whatever error its being cancelled has led to.
    """

    def __init__(self, work: Deferred[Any]) -> None:
        self.cancelled = False
        self.outcome: Deferred[Any] = Deferred(self._cancel)
        self._work = work
        work.addBoth(self.outcome.callback)

    def _cancel(self, outcome: Deferred[Any]) -> None:
        self.cancelled = True
        self._work.cancel()


def _too_late(outcome: object, timeout: float) -> NoReturn:
    del outcome
    raise ValueError(f"no answer within {timeout:g} seconds")


def _reason(error: BaseException) -> str:
    """Return in words why a request failed."""
    reasons = getattr(error, "reasons", None)  # of several failures at one attempt
    return _reason(reasons[0].value) if reasons else explained(error)


def _content(response: IResponse) -> Deferred[bytes]:
    """Return what is in an answer; its failure or cancellation closes the connection."""
    finished: Deferred[bytes] = Deferred(lambda _: content.abort())
    content = _Content(finished)
    response.deliverBody(content)
    return finished


class _Content(Protocol):
    """Collects what is in an answer, up to `MAX_ANSWER`."""

    def __init__(self, finished: Deferred[bytes]) -> None:
        self._finished: Deferred[bytes] | None = finished
        self._received = bytearray()

    def abort(self) -> None:
        self._finished = None
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_ANSWER and self._finished is not None:
            finished = self._finished
            self.abort()
            finished.errback(ValueError("the answer is too long"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            if reason.check(ResponseDone, PotentialDataLoss):
                finished.callback(bytes(self._received))
            else:
                finished.errback(reason)


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004 - it is not of our making
    return document
