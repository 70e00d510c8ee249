"""Tests of the requests to an OAuth 2 provider, without a network."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError  # noqa: A004
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.iweb import IAgent
from zope.interface import implementer

from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2.https import MAX_ANSWER, MAX_FAILURES, MAX_PENDING, TIMEOUT, HttpsClient

URL = "https://login.example.org/x?y"
Answer = tuple[int, dict[str, Any]]


class FakeTransport:
    """Brings an answer's content."""

    aborted = False

    def abortConnection(self) -> None:
        """Note that it happened."""
        self.aborted = True


class FakeResponse:
    """An answer whose content comes when the test says so."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.transport = FakeTransport()
        self.protocol: Any = None

    def deliverBody(self, protocol: Any) -> None:
        """Note who wants the content."""
        self.protocol = protocol
        protocol.makeConnection(self.transport)


class FakeRequest(Deferred[Any]):
    """What a client asked for, and its answer to come."""

    def __init__(self, method: bytes, url: bytes, headers: Any, body: Any) -> None:
        super().__init__(lambda _: self.errback(ResponseNeverReceived([_ABORTED])))
        self.method, self.url, self.headers = method, url, headers
        self.body = bytearray()
        if body is not None:
            body.startProducing(self)
            assert body.length == len(self.body)

    def write(self, data: bytes) -> None:
        """Take what the body has in it."""
        self.body += data

    def answer(self, code: int, content: bytes) -> FakeTransport:
        """Answer, in pieces of a few octets."""
        response = FakeResponse(code)
        self.callback(response)
        for start in range(0, len(content), 1 << 16):
            response.protocol.dataReceived(content[start : start + (1 << 16)])
        if not response.transport.aborted:
            response.protocol.connectionLost(Failure(ResponseDone()))
        return response.transport


_ABORTED = Failure(ConnectionAborted())


@implementer(IAgent)
class FakeAgent:
    """Keeps requests for the test to answer."""

    def __init__(self) -> None:
        self.requests: list[FakeRequest] = []

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        """Keep a request."""
        self.requests.append(FakeRequest(method, uri, headers, bodyProducer))
        return self.requests[-1]


class HttpsCase(SynchronousTestCase):
    """A client whose requests go to the test."""

    def setUp(self) -> None:
        """Make the client."""
        self.clock = Clock()
        self.agent = FakeAgent()
        self.http = HttpsClient(clock=self.clock, agent=self.agent)

    def get(self) -> Deferred[Answer]:
        """Make a request."""
        return Deferred.fromCoroutine(self.http.get(URL))

    def post(self) -> Deferred[Answer]:
        """Make a request with a form in it."""
        form = {"token": "a+b/c=", "x": "y&z"}
        return Deferred.fromCoroutine(self.http.post(URL, form, ("popd", "a:b %\u00fc")))

    def assertFails(self, answer: Deferred[Answer], text: str) -> None:
        """Assert that there is no answer now, and that the reason is said."""
        error = self.failureResultOf(answer, AuthUncertainError).value
        self.assertEqual(str(error), text)

    def fail_once(self) -> None:
        """Make a request that is refused."""
        answer = self.get()
        self.agent.requests[-1].errback(ConnectionRefusedError())
        self.failureResultOf(answer, AuthUncertainError)


class AskingTests(HttpsCase):
    """What is asked, and what comes of it."""

    def test_get(self) -> None:
        """A JSON object is what is wanted, in as many pieces as it comes."""
        answer = self.get()
        (request,) = self.agent.requests
        self.assertEqual((request.method, request.url), (b"GET", URL.encode()))
        self.assertEqual(request.headers.getRawHeaders("accept"), ["application/json"])
        self.assertNoResult(answer)
        request.answer(200, b'{"a": "' + b"b" * 100_000 + b'"}')
        self.assertEqual(self.successResultOf(answer), (200, {"a": "b" * 100_000}))

    def test_post(self) -> None:
        """A client's name and secret are encoded before they go into the header (RFC 6749)."""
        answer = self.post()
        (request,) = self.agent.requests
        self.assertEqual((request.method, request.url), (b"POST", URL.encode()))
        self.assertEqual(bytes(request.body), b"token=a%2Bb%2Fc%3D&x=y%26z")
        (basic,) = request.headers.getRawHeaders(b"authorization")
        self.assertEqual(base64.b64decode(basic.split()[1]), b"popd:a%3Ab+%25%C3%BC")
        request.answer(200, b"{}")
        self.assertEqual(self.successResultOf(answer), (200, {}))

    def test_other_status(self) -> None:
        """Any other answer is one, too, but what is in it does not matter.  None is followed."""
        for status in (201, 302, 400, 401, 404):
            answer = self.post()
            self.agent.requests[-1].answer(status, b'{"active": true}')
            self.assertEqual(self.successResultOf(answer), (status, {}))
        self.assertEqual(len(self.agent.requests), 5)

    def test_broken(self) -> None:
        """A server's error is a failure, and so is nonsense."""
        for status, content, reason in (
            (500, b"{}", "the answer is 500"),
            (503, b"{}", "the answer is 503"),
            (429, b"{}", "the answer is 429"),
            (200, b"<html>", "the answer is no JSON object"),
            (200, b"[1]", "the answer is no JSON object"),
            (200, b"[" * 100_000, "the answer is no JSON object"),
            (200, b"", "the answer is no JSON object"),
        ):
            http = HttpsClient(clock=self.clock, agent=self.agent)
            answer = Deferred.fromCoroutine(http.get(URL))
            self.agent.requests[-1].answer(status, content)
            self.assertFails(answer, f"{URL}: {reason}")

    def test_too_long(self) -> None:
        """An answer without end is not waited for."""
        answer = self.get()
        transport = self.agent.requests[0].answer(200, b"[" * (MAX_ANSWER + 1))
        self.assertFails(answer, f"{URL}: the answer is too long")
        self.assertTrue(transport.aborted)

    def test_cut_off(self) -> None:
        """Half of an answer is none, even if it is JSON."""
        answer = self.get()
        response = FakeResponse(200)
        self.agent.requests[0].callback(response)
        response.protocol.dataReceived(b"{}")
        response.protocol.connectionLost(_ABORTED)
        self.assertFails(answer, f"{URL}: {ConnectionAborted()}")

    def test_timeout(self) -> None:
        """No answer is waited for longer than so many seconds, nor the rest of one."""
        silent, stuck = self.get(), self.get()
        response = FakeResponse(200)
        self.agent.requests[1].callback(response)
        response.protocol.dataReceived(b"{")
        self.clock.advance(TIMEOUT - 0.1)
        self.assertNoResult(silent)
        self.clock.advance(0.2)
        for answer in (silent, stuck):
            self.assertFails(answer, f"{URL}: no answer within 4.5 seconds")
        self.assertTrue(response.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LimitTests(HttpsCase):
    """How much goes on at the same time."""

    def test_many(self) -> None:
        """So many requests are under way, so many wait, and more are refused at once."""
        answers = [self.get() for _ in range(MAX_PENDING)]
        self.assertEqual(len(self.agent.requests), 20)
        self.assertFails(self.get(), f"too many requests wait for {URL}")
        self.agent.requests[0].answer(200, b"{}")
        self.successResultOf(answers[0])
        self.assertEqual(len(self.agent.requests), 21)
        self.clock.advance(TIMEOUT)  # for those that never had their turn as well
        for answer in answers[1:]:
            self.failureResultOf(answer, AuthUncertainError)
        self.clock.advance(1)  # all of which count as if they were few
        last = self.get()
        self.agent.requests[-1].answer(200, b"{}")
        self.successResultOf(last)


class RestTests(HttpsCase):
    """A provider that fails again and again is left alone for a while."""

    def test_rest(self) -> None:
        """After some failures there are no requests for a second."""
        for _ in range(MAX_FAILURES):
            self.fail_once()
        self.assertFails(self.get(), f"{URL} has failed, and is tried again soon")
        self.assertEqual(len(self.agent.requests), MAX_FAILURES)

    def test_probe(self) -> None:
        """Then one request finds out, and if all is well again, it is at once."""
        for _ in range(MAX_FAILURES):
            self.fail_once()
        self.clock.advance(1)
        probe = self.get()
        self.assertFails(self.get(), f"{URL} has failed, and is tried again soon")
        self.agent.requests[-1].answer(200, b"{}")
        self.successResultOf(probe)
        answer = self.get()
        self.agent.requests[-1].answer(200, b"{}")
        self.successResultOf(answer)
        self.fail_once()  # and a single failure is not the next of many
        self.assertNoResult(self.get())

    def test_growing(self) -> None:
        """The longer it goes on, the longer it rests, up to half a minute."""
        rests = []
        for _ in range(MAX_FAILURES - 1):
            self.fail_once()
        for _ in range(7):
            self.fail_once()
            count, start = len(self.agent.requests), self.clock.seconds()
            while len(self.agent.requests) == count:
                self.clock.advance(0.5)
                probe = self.get().addErrback(lambda _: None)
            self.agent.requests.pop()
            probe.cancel()  # whose end changes nothing
            rests.append(self.clock.seconds() - start)
        self.assertEqual(rests, [1, 2, 4, 8, 16, 30, 30])

    def test_client_errors(self) -> None:
        """That a request is refused does not make the next one wait: else strangers could."""
        for _ in range(2 * MAX_FAILURES):
            answer = self.post()
            self.agent.requests[-1].answer(400, b"")
            self.successResultOf(answer)

    def test_hanging_up(self) -> None:
        """Nor does it count as a failure if those who log in do not wait for the answer."""
        for _ in range(2 * MAX_FAILURES):
            answer = self.get()
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(self.get())


class FakeReactor(MemoryReactorClock):
    """A reactor that knows what happens at its end, and has no threads."""

    def __init__(self) -> None:
        super().__init__()
        self.at_end: list[Any] = []

    def addSystemEventTrigger(self, *trigger: Any, **_: object) -> Any:
        """Remember it."""
        self.at_end.append(trigger[2])
        return trigger[2]

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """Forget it."""
        self.at_end.remove(trigger)

    def callInThread(self, function: Any, *arguments: Any) -> None:
        """Call it at once."""
        function(*arguments)


class CloseTests(SynchronousTestCase):
    """A client that nobody needs any more."""

    def test_closed(self) -> None:
        """It has no threads left, and nothing that would happen at the end."""
        reactor: Any = FakeReactor()
        client = HttpsClient(clock=reactor)
        client.close()  # which has none
        client._the_agent()
        (stop,) = reactor.at_end
        client.close()
        self.assertEqual(reactor.at_end, [])
        self.assertTrue(stop.__self__.joined)
        client.close()
