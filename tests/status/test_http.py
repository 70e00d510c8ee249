"""Tests of HTTP for a page that anybody on the machine can ask for."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from popd.status.http import LIFETIME, MAX_CONNECTIONS, Answer, Asked, StatusFactory


class Wire(StringTransport):
    """A connection that remembers that it was cut."""

    aborted = False

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True


class HTTPTests(SynchronousTestCase):
    """Requests and what they are answered with."""

    checks_host = True

    def setUp(self) -> None:
        """Make a server."""
        self.clock = Clock()
        self.later: Deferred[Answer] = Deferred()
        self.asked: list[Asked] = []

        def page(asked: Asked) -> Answer:
            self.asked.append(asked)
            return Answer(b"<p>page</p>", "text/html; charset=utf-8")

        self.factory = StatusFactory(
            self.clock,
            {
                b"/": page,
                b"/later": lambda _asked: self.later,
                b"/broken": lambda _asked: fail(RuntimeError("secret")),
            },
            checks_host=self.checks_host,
        )
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)

    def connect(self) -> tuple[Any, Wire]:
        """Open a connection."""
        channel = self.factory.buildProtocol(None)
        wire = Wire()
        channel.makeConnection(wire)
        self.addCleanup(self.lose, channel)
        return channel, wire

    def lose(self, channel: Any) -> None:
        """Let the client go, if it is still there."""
        if not getattr(channel, "gone", False):
            channel.gone = True
            channel.connectionLost(Failure(ConnectionDone()))

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return the answer's status, header and body."""
        channel, wire = self.connect()
        channel.dataReceived(request)
        self.assertTrue(wire.disconnecting, request)
        return parsed(wire.value())

    def get(self, path: bytes = b"/", host: bytes = b"localhost", more: bytes = b"") -> int:
        """Return the status that a request is answered with."""
        code, _, _ = self.ask(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path, host, more))
        return code

    def test_page(self) -> None:
        """A page, with all that keeps a browser from doing anything else with it."""
        code, header, body = self.ask(
            b"GET /?after=x-1 HTTP/1.1\r\nHost: localhost:9110\r\nAccept: a/b\r\n\r\n"
        )
        self.assertEqual((code, body), (200, b"<p>page</p>"))
        self.assertEqual(header["content-type"], "text/html; charset=utf-8")
        self.assertEqual(header["content-length"], "11")
        self.assertEqual(header["connection"], "close")
        self.assertEqual(header["cache-control"], "no-store")
        self.assertEqual(header["x-content-type-options"], "nosniff")
        policy = header["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotIn("*", policy)
        self.assertNotIn("set-cookie", header)
        (asked,) = self.asked
        self.assertEqual((asked.get(b"after"), asked.get(b"x")), ("x-1", ""))
        self.assertEqual(asked.accept, "a/b")

    def test_head(self) -> None:
        """HEAD is GET without the content."""
        code, header, body = self.ask(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual((code, header["content-length"], body), (200, "11", b""))

    def test_methods(self) -> None:
        """There is nothing to do but to look."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"get"):
            code, header, _ = self.ask(b"%b / HTTP/1.1\r\nHost: localhost\r\n\r\n" % method)
            self.assertEqual((code, header["allow"]), (405, "GET, HEAD"), method)
        self.assertEqual(self.asked, [])

    def test_no_such_page(self) -> None:
        """Nothing that a request says comes back in an error."""
        for path in (b"/x%3Cscript%3E", b"/../etc/passwd", b"//", b"http://localhost/", b"*"):
            code, _, body = self.ask(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            self.assertEqual(code, 404, path)
            self.assertEqual(body, b"There is no such page; there are /, /broken, /later.\n")

    def test_hosts(self) -> None:
        """A page from elsewhere whose name leads here (DNS rebinding) gets nothing."""
        good = (b"127.0.0.1", b"127.0.0.1:9110", b"LOCALHOST:1", b"[::1]:9110", b"127.8.9.1")
        bad = (
            *(b"evil.example", b"evil.example:9110", b"localhost.evil.example", b"", b"[::2]"),
            *(
                b"127.0.0.1.evil.example",
                b"xlocalhost",
                b"localhost:",
                b"localhost:x",
                b"192.0.2.1",
            ),
        )
        self.assertEqual([self.get(host=host) for host in good], [200] * len(good))
        self.assertEqual([self.get(host=host) for host in bad], [421] * len(bad))
        self.assertEqual(self.get(more=b"Host: evil.example\r\n"), 421)
        code, _, _ = self.ask(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(code, 421)

    def test_garbage(self) -> None:
        """What is no HTTP ends the connection."""
        for data in (
            b"\x16\x03\x01\r\n",
            b"+OK\r\n\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.1\r\nx\r\n\r\n",
        ):
            code, _, _ = self.ask(data)
            self.assertEqual(code, 400, data)

    def test_size(self) -> None:
        """What a request may have of lines and octets is bounded."""
        self.assertEqual(self.get(more=b"X: y\r\n" * 70), 400)
        self.assertEqual(self.get(more=(b"X: %b\r\n" % (b"y" * 1000)) * 9), 400)
        channel, wire = self.connect()
        channel.dataReceived(b"GET /" + b"x" * 20_000)
        self.assertTrue(wire.disconnecting)

    def test_body(self) -> None:
        """A body is read and forgotten, in no file and in no memory."""
        channel, wire = self.connect()
        channel.dataReceived(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
        )
        for _ in range(9):
            channel.dataReceived(b"x" * 1_000_000)
            request = (channel.requests or [None])[0]
            if request is not None:
                self.assertEqual(request.content.getvalue(), b"")
        self.assertEqual(parsed(wire.value())[0], 200)

    def test_time(self) -> None:
        """No connection lasts longer than so long, however busy its client seems."""
        channel, wire = self.connect()
        for _ in range(int(LIFETIME)):
            self.assertFalse(wire.aborted)
            channel.dataReceived(b"x")
            self.clock.advance(1)
        self.assertTrue(wire.aborted)

    def test_no_timer_left(self) -> None:
        """A connection that is over leaves nothing behind."""
        channel, _ = self.connect()
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.lose(channel)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crowd(self) -> None:
        """There can be so many connections; one that ends makes room."""
        channels = [self.connect()[0] for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(self.factory.buildProtocol(None))
        self.lose(channels[3])
        self.connect()
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_one_request(self) -> None:
        """A connection is for one request; what comes behind it is not even read."""
        _, _, body = self.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        self.assertEqual(body, b"<p>page</p>")
        self.assertEqual(len(self.asked), 1)

    def test_later(self) -> None:
        """An answer may take its time."""
        channel, wire = self.connect()
        channel.dataReceived(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(wire.value(), b"")
        self.later.callback(Answer(b"{}", "application/json"))
        self.assertEqual(json.loads(parsed(wire.value())[2]), {})

    def test_gone(self) -> None:
        """Who does not wait for the answer gets none."""
        channel, wire = self.connect()
        channel.dataReceived(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.lose(channel)
        self.later.callback(Answer(b"{}"))
        self.assertEqual(wire.value(), b"")

    def test_broken(self) -> None:
        """An error in popd goes to the log, not to the client."""
        code, _, body = self.ask(b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(code, 500)
        self.assertNotIn(b"secret", body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class SocketTests(HTTPTests):
    """On a UNIX socket no browser comes by, and a server in front has a name of its own."""

    checks_host = False

    def test_hosts(self) -> None:
        """Any name will do."""
        self.assertEqual(self.get(host=b"status.example.org"), 200)


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, header and body of an HTTP response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    header = {}
    for line in lines:
        name, _, value = line.partition(": ")
        header[name.lower()] = value
    return int(status.split()[1]), header, body
