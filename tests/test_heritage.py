"""Tests of `popd.heritage`: what a new popd makes of what it is handed over."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from popd import __version__, systemd
from popd.heritage import END, LINE, REFUSED, SERVES, STDERR, YOURS, Heritage, Line, name_of
from popd.listen import parse_endpoint


class HeritageTests(SynchronousTestCase):
    """Sockets and a line are taken for what their names say."""

    def setUp(self) -> None:
        """Have a reactor, and a line on which nothing is really said."""
        self.reactor: Any = MemoryReactorClock()
        self.said: list[tuple[bytes, ...]] = []
        self.patch(Line, "adopt", lambda _line, _reactor, end: end.close())
        self.patch(Line, "say", lambda _line, *words: self.said.append(words))
        self.exits: list[int] = []
        self.patch(os, "_exit", self.exits.append)

    def listening(self, path: str = "") -> int:
        """Return the descriptor of a socket that listens."""
        end = socket.socket(socket.AF_UNIX) if path else socket.create_server(("127.0.0.1", 0))
        with end:
            if path:
                end.bind(path)
                end.listen()
            return os.dup(end.fileno())

    def inherit(self, **descriptors: int) -> Heritage:
        """Return what there is, a line included."""
        return Heritage(self.reactor, {LINE: os.dup(socket.socket().detach()), **descriptors})

    def heard(self, inherited: Heritage, line: bytes) -> None:
        """Have the popd before say something."""
        assert inherited._line is not None
        inherited._line.lineReceived(line)

    def test_claimed(self) -> None:
        """Names stand in an environment variable with colons between them, and come back."""
        what = "--listen tcp6:110:interface=\\:\\:1"
        name = name_of(what)
        self.assertNotIn(":", name)
        descriptor = self.listening()
        os.set_inheritable(descriptor, True)
        theirs = self.listening()
        self.addCleanup(os.close, theirs)
        self.patch(systemd, "inherited", lambda: [(theirs, "pop3"), (descriptor, name)])
        found = Heritage.claimed(self.reactor)
        self.assertFalse(found.pending)
        self.assertEqual(found.take(what), descriptor)
        self.assertIsNone(found.take(what))
        self.assertFalse(os.get_inheritable(descriptor))
        os.close(descriptor)
        # Those of systemd alone are what --listen and --listen-tls are by default.
        self.assertEqual(
            systemd.handed_over(), {"listen": ("systemd:domain=INET:index=0",), "listen-tls": ()}
        )
        self.assertEqual([name for _, name in kept_and_closed()], ["pop3"])

    def test_tcp(self) -> None:
        """An endpoint listens on its socket, whatever else there is at its address."""
        descriptor = self.listening()
        with socket.socket(fileno=os.dup(descriptor)) as end:
            number = end.getsockname()[1]
        inherited = Heritage(self.reactor, {"--listen tcp:110": descriptor})
        port = self.listen(inherited, "--listen", "tcp:110")
        self.addCleanup(port.socket.close)
        self.assertEqual(port.getHost().port, number)
        self.assertIs(port.reactor, self.reactor)
        self.assertIn(port, self.reactor.getReaders())
        self.assertFalse(port._shouldShutdown)
        # There was one: whoever listens there next does so as ever.
        self.assertIs(inherited.reactor_for("--listen tcp:110"), self.reactor)

    def listen(self, inherited: Heritage, option: str, description: str) -> Any:
        """Listen on an endpoint."""
        reactor = inherited.reactor_for(f"{option} {description}")
        endpoint = parse_endpoint(reactor, option, description)
        return self.successResultOf(endpoint.listen(Factory()))

    def test_unix(self) -> None:
        """So does a UNIX socket's, whose mode is the endpoint's."""
        path = f"/tmp/popd-heritage-{os.getpid()}"  # noqa: S108 - short
        self.addCleanup(Path(path).unlink, missing_ok=True)
        inherited = Heritage(self.reactor, {f"--listen unix:{path}:mode=600": self.listening(path)})
        port = self.listen(inherited, "--listen", f"unix:{path}:mode=600")
        self.addCleanup(port.socket.close)
        self.assertEqual(Path(path).stat().st_mode & 0o777, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_begins(self) -> None:
        """What waits for the other begins when that says so; what nobody wants is closed."""
        path = f"/tmp/popd-heritage-{os.getpid()}"  # noqa: S108 - short
        descriptor = self.listening(path)
        inherited = self.inherit(unwanted=descriptor)
        begun: list[bool] = []
        inherited.when_ours(lambda: begun.append(True))
        inherited.serves(True)
        self.assertEqual(self.said, [(SERVES, b"%d" % os.getpid(), __version__.encode())])
        self.assertEqual(begun, [])
        self.heard(inherited, b"whatever")
        self.assertTrue(inherited.pending)
        self.heard(inherited, YOURS)
        self.assertEqual((begun, inherited.pending), ([True], False))
        self.assertFalse(Path(path).exists())
        self.assertRaises(OSError, os.fstat, descriptor)
        inherited.when_ours(lambda: begun.append(True))
        self.assertEqual(begun, [True, True])
        inherited._lost()
        self.assertEqual(len(begun), 2)

    def test_not_serving(self) -> None:
        """One that does not serve, or is not wanted any more, ends without tidying up."""
        inherited = self.inherit()
        inherited.serves(False)
        self.assertEqual(self.exits, [1])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.heard(inherited, REFUSED)
        self.assertEqual(self.exits, [1, 1])

    def test_alone_now(self) -> None:
        """If the popd before dies on the way, this one is popd."""
        inherited = self.inherit()
        begun: list[bool] = []
        inherited.when_ours(lambda: begun.append(True))
        inherited._lost()
        self.assertEqual(begun, [True])

    def test_end(self) -> None:
        """It asks the one before to end, and waits for that."""
        inherited = self.inherit()
        ended = [inherited.end(), inherited.end()]
        self.assertEqual(self.said, [(END,), (END,)])
        for one in ended:
            self.assertNoResult(one)
        inherited._lost()
        for one in ended:
            self.successResultOf(one)

    def test_nothing(self) -> None:
        """Without a popd before there is nothing to say and nobody to wait for."""
        inherited = Heritage(self.reactor, {})
        inherited.serves(True)
        inherited.serves(False)
        self.successResultOf(inherited.end())
        self.assertEqual((self.said, self.exits), ([], []))

    def test_standard_error(self) -> None:
        """It gets another standard error back, once."""
        moved: list[tuple[int, int]] = []
        self.patch(os, "dup2", lambda one, other: moved.append((one, other)))
        descriptor = os.dup(0)
        inherited = self.inherit(**{STDERR: descriptor})
        inherited.speak_up()
        inherited.speak_up()
        self.assertEqual(moved, [(descriptor, 2)])
        self.assertRaises(OSError, os.fstat, descriptor)


def kept_and_closed() -> list[tuple[int, str]]:
    """Return what would be handed on, closed."""
    kept = systemd.kept()
    for descriptor, _ in kept:
        os.close(descriptor)
    return kept
