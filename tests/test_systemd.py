"""Tests of `popd.systemd`: against sockets such as systemd's."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd import config
from popd.listen import StartError
from popd.systemd import Notifier, handed_over


class NotifierCase(SynchronousTestCase):
    """A test case with a socket in systemd's place."""

    def setUp(self) -> None:
        """Listen."""
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.systemd.close)
        self.systemd.settimeout(5)
        self.path = f"/tmp/popd-notify-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 - short
        self.systemd.bind(self.path)
        self.addCleanup(Path(self.path).unlink, missing_ok=True)

    def said(self) -> list[str]:
        """Return the lines of the next message."""
        return self.systemd.recv(4096).decode().split("\n")


class NotifierTests(NotifierCase):
    """What systemd is told."""

    def test_words(self) -> None:
        """Each state has its word."""
        notifier = Notifier({"NOTIFY_SOCKET": self.path})
        self.assertTrue(notifier)
        notifier.ready()
        notifier.stopping()
        notifier.watchdog()
        self.assertEqual(
            [self.said() for _ in range(3)], [["READY=1"], ["STOPPING=1"], ["WATCHDOG=1"]]
        )

    def test_reloading(self) -> None:
        """A reload has its time, by the clock that systemd wants, in microseconds."""
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notifier({"NOTIFY_SOCKET": self.path}).reloading()
        word, when = self.said()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertEqual(word, "RELOADING=1")
        self.assertTrue(before <= int(when.removeprefix("MONOTONIC_USEC=")) <= after, when)

    def test_status(self) -> None:
        """A status is one line, whatever is in it, and so no other word."""
        Notifier({"NOTIFY_SOCKET": self.path}).status("a\nREADY=1\n  b")
        self.assertEqual(self.said(), ["STATUS=a READY=1 b"])

    def test_abstract(self) -> None:
        """The socket may be in the abstract namespace."""
        name = f"popd-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.settimeout(5)
            systemd.bind(f"\0{name}")
            Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
            self.assertEqual(systemd.recv(100), b"READY=1")

    def test_nobody(self) -> None:
        """Without the variable nobody is told, and none is there to look for."""
        notifier = Notifier({})
        self.assertFalse(notifier)
        with capturedLogs() as events:
            notifier.ready()
            notifier.status("x")
        self.assertEqual(events, [])

    def test_once(self) -> None:
        """What popd starts does not speak for it."""
        environment = {
            "NOTIFY_SOCKET": self.path,
            "WATCHDOG_USEC": "1",
            "WATCHDOG_PID": "2",
            "HOME": "/",
        }
        notifier = Notifier(environment)
        self.assertEqual(environment, {"HOME": "/"})
        self.assertEqual(
            notifier.variables,
            {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"},
        )

    def test_gone(self) -> None:
        """A systemd that cannot be reached is no reason to end."""
        Path(self.path).unlink()
        with capturedLogs() as events:
            Notifier({"NOTIFY_SOCKET": self.path}).ready()
        self.assertEqual(
            [formatEvent(event) for event in events],
            [f"systemd cannot be told READY=1 at {self.path}: No such file or directory"],
        )

    def test_deaf(self) -> None:
        """A systemd that does not read holds popd up for a second, and not for ever."""
        notifier = Notifier({"NOTIFY_SOCKET": self.path})
        began = time.monotonic()
        with capturedLogs() as events:
            while not events:
                notifier.ready()
                self.assertLess(time.monotonic() - began, 30)
        self.assertIn("timed out", formatEvent(events[0]) or "")


class WatchdogTests(SynchronousTestCase):
    """How often systemd wants to hear."""

    def interval(self, **variables: str) -> float:
        """Return the interval that follows from the environment."""
        return Notifier({"NOTIFY_SOCKET": "/x", **variables}).watchdog_interval

    def test_microseconds(self) -> None:
        """It is given in microseconds, for this process or for all."""
        self.assertEqual(self.interval(WATCHDOG_USEC="30000000"), 30.0)
        self.assertEqual(self.interval(WATCHDOG_USEC="500000", WATCHDOG_PID=str(os.getpid())), 0.5)

    def test_none(self) -> None:
        """There may be no watchdog, or one for another process."""
        self.assertEqual(self.interval(), 0.0)
        self.assertEqual(self.interval(WATCHDOG_USEC="30000000", WATCHDOG_PID="1"), 0.0)
        self.assertEqual(Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_interval, 0.0)

    def test_nonsense(self) -> None:
        """What is no number is no watchdog."""
        self.assertEqual(self.interval(WATCHDOG_USEC="soon"), 0.0)
        self.assertEqual(self.interval(WATCHDOG_USEC="-5"), 0.0)


class HandedOverTests(SynchronousTestCase):
    """Sockets that systemd listens on."""

    def listening(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Return the number of a listening socket."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.socket(family)
        self.addCleanup(server.close)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()
        return server.fileno()

    def test_none(self) -> None:
        """Without such sockets nothing is said, and popd's own defaults count."""
        self.assertEqual(handed_over([]), {})
        self.assertEqual(handed_over(), {})

    def test_names(self) -> None:
        """A name says what a socket is for; there may be several of a name."""
        sockets = [
            (self.listening(), "pop3s"),
            (self.listening(), "pop3"),
            (self.listening("::1"), "pop3s"),
        ]
        self.assertEqual(
            handed_over(sockets),
            {
                "listen": ("systemd:domain=INET:index=1",),
                "listen-tls": ("systemd:domain=INET:index=0", "systemd:domain=INET6:index=2"),
            },
        )

    def test_one_kind(self) -> None:
        """What there is no socket for is not listened on."""
        found = handed_over([(self.listening(), "pop3s")])
        self.assertEqual(found["listen"], ())

    def test_below_all(self) -> None:
        """Sockets take the place of defaults, and of nothing that was said."""
        sockets = handed_over([(self.listening(), "pop3s")])
        said: config.Layer = {"auth": ("x",), "maildrop": "y", "certificate": ("z",)}
        settings = config.settle(sockets, said)
        self.assertEqual((settings.listen, settings.listen_tls), ((), sockets["listen-tls"]))
        settings = config.settle(sockets, {**said, "listen": ("tcp:1",)})
        self.assertEqual(settings.listen, ("tcp:1",))

    def test_ports(self) -> None:
        """Sockets of one unit have one name; the well-known ports say what they are for."""
        if os.geteuid() != 0:
            self.skipTest("only root may listen on 110")
        for attempt in range(2, 250):
            host = f"127.113.7.{attempt}"  # all of 127.0.0.0/8 is this machine
            try:
                sockets = [(self.listening(host, 995), "popd.socket")]
                sockets.append((self.listening(host, 110), "popd.socket"))
            except OSError:
                continue
            break
        self.assertEqual(
            handed_over(sockets),
            {
                "listen": ("systemd:domain=INET:index=1",),
                "listen-tls": ("systemd:domain=INET:index=0",),
            },
        )

    def test_unclear(self) -> None:
        """Whether it is for TLS is not guessed."""
        descriptor = self.listening()
        with self.assertRaises(StartError) as caught:
            handed_over([(descriptor, "popd.socket")])
        self.assertIn("named popd.socket: is it for TLS", str(caught.exception))
        self.assertIn("FileDescriptorName=pop3s", str(caught.exception))

    def test_unix(self) -> None:
        """UNIX sockets are popd's own business."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("")
            server.listen()
            with self.assertRaises(StartError) as caught:
                handed_over([(server.fileno(), "pop3")])
        self.assertIn("popd makes UNIX sockets itself", str(caught.exception))

    def test_left_alone(self) -> None:
        """Looking at a socket does not close it."""
        descriptor = self.listening()
        handed_over([(descriptor, "pop3")])
        os.fstat(descriptor)
