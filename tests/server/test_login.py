"""Tests of the driver's part in log-ins other than by a password alone."""

from __future__ import annotations

import base64
import re
from itertools import count
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs, formatEvent

from popd.auth.account import Account
from popd.auth.chain import CheckerChain
from popd.auth.interfaces import AuthTemporaryError
from popd.auth.realm import MaildropRealm
from popd.maildrop.memory import MemoryStore
from popd.protocol.events import Problem
from popd.protocol.offer import WAYS, Offer
from popd.server.factory import POP3Factory
from tests.auth.fakes import Directory, FakeGuard
from tests.protocol.scram import ScramClient, derive
from tests.server.helpers import ServerCase, told

PEER = "from 192.0.2.1, mechanism"
TLS_LESS = "from 192.0.2.1, no TLS, mechanism"
NOTHING = "retrieved 0, top 0, octets 0, deleted 0, left 3, 0.000 s, disconnected"


def unique_from(numbers: Any) -> Any:
    """Return what makes values that nobody had before."""
    return lambda: b"%d@example.org" % next(numbers)


class LoginCase(ServerCase):
    """A server with every mechanism, whose users are joe and a master called root."""

    def setUp(self) -> None:
        """Serve joe's mail."""
        super().setUp()
        self.directory = Directory(Account("joe"), Account("root", master=True))
        self.directory.keys[b"joe"] = derive(b"pencil", b"salt", 4096, owner=Account("joe"))
        self.guard = FakeGuard()
        self.serve()

    def serve(self, **more: Any) -> None:
        """Serve with another chain."""
        chain = CheckerChain([self.directory], clock=self.clock, guard=self.guard, **more)
        store = MemoryStore({"joe": self.box})
        self.factory = POP3Factory(
            Portal(MaildropRealm(store), [chain]),
            self.offload,  # type: ignore[arg-type]
            self.clock,
            cleartext_login="always",
            offer=Offer.of(WAYS - {"APOP"}, unique_from(count())),
        )

    def outcome(self, *lines: bytes, leave: bool = False) -> tuple[bytes, str]:
        """Say lines on a new connection, and maybe leave; return the last reply, and the log."""
        with capturedLogs() as events:
            self.protocol, self.wire = self.connect()
            for line in lines:
                self.wire.clear()
                self.protocol.dataReceived(line + b"\r\n")
            reply = told(self.wire.value())
            if leave:
                self.lose(self.protocol)
        return reply, "\n".join(unnamed(event) for event in events)


def unnamed(event: Any) -> str:
    """Return the text of an event without the name of the session."""
    return re.sub(r"^Session \w+-\d+: ", "", str(formatEvent(event)))


def sasl(mechanism: bytes, response: bytes) -> bytes:
    """Return an AUTH command."""
    return b"AUTH %b %b" % (mechanism, base64.b64encode(response))


class LoggedTests(LoginCase):
    """A line in the log says who logged in, from where and how, or why not."""

    def test_let_in(self) -> None:
        """Each mechanism is named, a master, and an app password."""
        self.directory.accounts[b"phone"] = Account("phone", program="my phone")
        for lines, said in (
            ((b"USER Joe", b"PASS x"), f"user joe, {TLS_LESS} USER"),
            ((sasl(b"PLAIN", b"\0joe\0x"),), f"user joe, {TLS_LESS} PLAIN"),
            ((sasl(b"XOAUTH2", b"user=joe\1auth=Bearer t\1\1"),), f"user joe, {TLS_LESS} XOAUTH2"),
        ):
            reply, log = self.outcome(*lines, leave=True)
            self.assertTrue(reply.startswith(b"+OK"), reply)
            self.assertEqual(log, f"{said}, {NOTHING}")
        self.directory.accounts[b"joe"] = Account("joe", program="my phone\n")
        _, log = self.outcome(b"USER joe", b"PASS x", leave=True)
        self.assertEqual(log, rf"user joe, by app password my phone\n, {TLS_LESS} USER, {NOTHING}")

    def test_masters(self) -> None:
        """That a master is let in is logged at once."""
        for lines, mechanism in (
            ((b"USER joe*root", b"PASS x"), "USER"),
            ((sasl(b"PLAIN", b"joe\0root\0x"),), "PLAIN"),
        ):
            _, log = self.outcome(*lines, leave=True)
            begun, ended = log.splitlines()
            self.assertEqual(begun, "log-in, user joe, by master root, from 192.0.2.1")
            said = f"user joe, by master root, {TLS_LESS} {mechanism}, {NOTHING}"
            self.assertEqual(ended, said)

    def test_token_alone(self) -> None:
        """Where the credentials alone say who it is, it is the account's name."""
        self.directory.accounts[b""] = Account("joe")
        _, log = self.outcome(sasl(b"OAUTHBEARER", b"n,,\1auth=Bearer t\1\1"), leave=True)
        self.assertEqual(log, f"user joe, {TLS_LESS} OAUTHBEARER, {NOTHING}")

    def test_refused(self) -> None:
        """The client hears always the same; the log says more, if there is more to say."""
        self.directory.accounts[b"joe"] = Account("joe", require_tls=True)
        for name, reason in ((b"joe", ": the account requires TLS"), (b"eve", "")):
            reply, log = self.outcome(b"USER " + name, b"PASS x", leave=True)
            self.assertEqual(reply, Problem.CREDENTIALS.value)
            refused, ended = log.splitlines()
            self.assertEqual(refused, f"log-in refused: user {name.decode()}, {PEER} USER{reason}")
            said = f"user {name.decode()}, {TLS_LESS} USER, no log-in, 0.000 s, disconnected"
            self.assertEqual(ended, said)

    def test_too_soon(self) -> None:
        """Who must not log in yet is told so."""
        self.directory.accounts[b"joe"] = Account("joe", interval=60)
        self.serve(record=lambda *_: succeed("once a minute"))
        reply, log = self.outcome(b"USER joe", b"PASS x", leave=True)
        self.assertEqual(reply, Problem.TOO_SOON.value)
        failed = log.splitlines()[0]
        self.assertEqual(failed, f"log-in failed: user joe, {PEER} USER: once a minute")


class ScramTests(LoginCase):
    """SCRAM through the driver."""

    def begun(self, name: bytes = b"joe") -> tuple[ScramClient, bytes]:
        """Begin to log in; return the client and what the server says."""
        client = ScramClient(name=name)
        reply, self.log = self.outcome(sasl(b"SCRAM-SHA-256", client.first))
        return client, reply

    def test_let_in(self) -> None:
        """Who proves to know the password is let in, once he has heard the server's proof."""
        client, reply = self.begun()
        with capturedLogs() as events:
            final = client.final(base64.b64decode(reply[2:]))
            self.wire.clear()
            self.protocol.dataReceived(base64.b64encode(final) + b"\r\n")
            self.assertEqual(base64.b64decode(self.wire.value()[2:]), client.expected)
            self.protocol.dataReceived(b"\r\n")
            self.lose(self.protocol)
        self.assertTrue(self.wire.value().endswith(b"+OK maildrop locked and ready\r\n"))
        self.assertEqual(
            [unnamed(event) for event in events], [f"user joe, {TLS_LESS} SCRAM-SHA-256, {NOTHING}"]
        )

    def test_nobody(self) -> None:
        """Whoever does not exist is asked for a proof, and it is wrong."""
        client, reply = self.begun(b"eve")
        final = base64.b64encode(client.final(base64.b64decode(reply[2:])))
        self.wire.clear()
        self.protocol.dataReceived(final + b"\r\n")
        self.assertEqual(self.wire.value(), Problem.CREDENTIALS.value)

    def test_down(self) -> None:
        """A directory that is down is no reason to ask for another password."""
        self.directory.error = AuthTemporaryError("no route")
        _, reply = self.begun()
        self.assertEqual(reply, Problem.TEMPORARY.value)
        self.assertIn(f"log-in failed: user joe, {PEER} SCRAM-SHA-256: ", self.log)

    def test_no_chain(self) -> None:
        """Nor is a portal that has no chain to ask."""
        self.factory._chain = None
        _, reply = self.begun()
        self.assertEqual(reply, Problem.TEMPORARY.value)


class WaitingTests(LoginCase):
    """A client that the guard makes wait."""

    def setUp(self) -> None:
        """Make all wait."""
        super().setUp()
        self.guard.seconds = 10.0

    def test_waits(self) -> None:
        """It waits without being timed out, and then is let in."""
        reply, _ = self.outcome(b"USER joe", b"PASS x")
        self.assertEqual(reply, b"")
        self.clock.pump([1.0] * 10)
        self.assertTrue(self.wire.value().startswith(b"+OK"))

    def test_gone(self) -> None:
        """If it is gone nobody waits any more, or is asked, or has to be told."""
        for line in (b"USER joe\r\nPASS x", sasl(b"SCRAM-SHA-256", ScramClient().first)):
            self.outcome(line)
            self.lose(self.protocol)
            self.assertEqual(self.guard.events(), ["delay", "unanswered"])
            self.assertTrue(self.protocol.over)
        self.clock.advance(20)
        self.assertEqual((self.directory.claims, self.directory.looked_up), ([], []))


class NoDeletionTests(LoginCase):
    """A log-in that may not delete."""

    def test_dele(self) -> None:
        """DELE is refused however often, what is no message is none, and nothing is deleted."""
        self.directory.accounts[b"joe"] = Account("joe", no_delete=True)
        replies = [
            self.outcome(b"USER joe", b"PASS x", *([b"DELE 1"] * 60))[0],
            self.continued(b"DELE 9"),
            self.continued(b"STAT"),
            self.continued(b"QUIT"),
        ]
        self.assertEqual(
            replies,
            [
                b"-ERR this password may not delete messages\r\n",
                b"-ERR no such message\r\n",
                b"+OK 3 69\r\n",
                b"+OK bye\r\n",
            ],
        )
        self.assertEqual(len(self.left()), 3)

    def continued(self, line: bytes) -> bytes:
        """Say one more line."""
        self.wire.clear()
        self.protocol.dataReceived(line + b"\r\n")
        reply: bytes = self.wire.value()
        return reply
