"""Tests of what clients see of a disk that does not answer."""

from __future__ import annotations

from popd.maildrop.memory import MemoryMessage
from popd.server.offload import OverdueError
from tests.server.helpers import LOGIN, ServerCase, told

LARGE = b"Subject: large\n\n" + b"0123456789\n" * 10_000


class OverdueTests(ServerCase):
    """The disk hangs in the middle of what a client wants."""

    def setUp(self) -> None:
        """Deliver a message that takes several reads."""
        super().setUp()
        self.box.messages.append((b"uid-4", LARGE))

    def give_up(self) -> None:
        """Let the call that waits be overdue; it ends some time later."""
        result, _ = self.offload.waiting.pop(0)
        result.errback(OverdueError("'/mail/joe': the disk does not answer"))

    def assert_let_go(self) -> None:
        """Check that the maildrop is let go of as soon as its disk answers."""
        self.assertTrue(self.offload.waiting)
        while self.offload.waiting:
            self.offload.go()
        self.assertFalse(self.box.locked)

    def test_log_in(self) -> None:
        """Who cannot be let in is told so, may try again, and holds no lock later."""
        protocol, wire = self.connect()
        self.offload.hold = True
        protocol.dataReceived(LOGIN)
        self.offload.waiting[0][1]()  # in the end it opens after all
        self.assertTrue(self.box.locked)
        self.give_up()
        self.assertIn(b"-ERR [SYS/TEMP] ", wire.value())
        self.assertFalse(wire.disconnecting)
        self.assert_let_go()

    def test_message(self) -> None:
        """Who fetches a message is told so, and the session ends."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
        self.give_up()
        self.assertEqual(
            told(wire.value()), b"-ERR [SYS/TEMP] not possible now, try again later\r\n"
        )
        self.assertTrue(wire.disconnecting)
        self.assert_let_go()
        self.assertEqual(len(self.left()), 4)

    def test_in_a_message(self) -> None:
        """In the middle of a message the session is cut: a part is never taken for the whole."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"RETR 4\r\nQUIT\r\n")
        self.offload.go()
        self.give_up()
        self.assertTrue(wire.value().startswith(b"+OK "))
        self.assertNotIn(b"\r\n.\r\n", wire.value())
        self.assertTrue(wire.aborted)
        self.assert_let_go()
        self.flushLoggedErrors()

    def test_quit(self) -> None:
        """QUIT does not say that anything was removed."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"DELE 1\r\nQUIT\r\n")
        wire.clear()
        self.give_up()
        self.assertTrue(
            wire.value().startswith(b"-ERR [SYS/TEMP] some deleted messages not removed")
        )
        self.assertTrue(wire.disconnecting)

    def test_quit_without_deletions(self) -> None:
        """Where nothing was to be removed there is nothing to complain about."""
        protocol, wire = self.log_in()
        self.offload.hold = True
        protocol.dataReceived(b"QUIT\r\n")
        self.give_up()
        self.assertTrue(wire.value().startswith(b"+OK "))
        self.assert_let_go()

    def test_closing(self) -> None:
        """To close a file that was not read to its end may take time, and is done elsewhere."""
        protocol, wire = self.log_in()
        closed: list[object] = []
        self.patch(MemoryMessage, "close", lambda _: closed.append(None))
        wire.stuck = True
        protocol.dataReceived(b"RETR 4\r\n")
        self.offload.hold = True
        self.lose(protocol)
        self.assertEqual(closed, [])
        self.assert_let_go()
        self.assertEqual(closed, [None])
