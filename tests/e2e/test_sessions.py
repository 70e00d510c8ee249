"""Sessions that meet, break off, flood, or last while the Maildir changes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from tests.e2e.server import LIMIT, PASSWORDS, Client, ServerCase, stored, until

MAIL = (
    b"Subject: one\n\nfirst\n",
    b"Subject: two\n\nsecond\n",
    b"Subject: three\n\nthird\n",
)
LOGIN = b"USER alice\r\nPASS %s\r\n" % PASSWORDS["alice"].encode()
ENOUGH = 50_000_000
"""Octets of memory that the server has no need to grow by, whatever clients do."""

FLOOD = 1_000_000
"""Commands that a client sends without reading a reply."""

STALL = 1.0
"""Seconds without progress after which a peer is taken to read no more."""


class SessionCase(ServerCase):
    """A server for users with some mail, who may log in without TLS."""

    options = ("--cleartext-login", "always")

    def setUp(self) -> None:
        """Deliver mail."""
        super().setUp()
        self.files = [self.site.deliver("alice", message) for message in MAIL]

    def assert_left(self, *numbers: int) -> None:
        """Check which messages are still there, by the numbers they had."""
        self.assertEqual(
            self.site.messages("alice"), sorted(self.files[number - 1] for number in numbers)
        )


class LockTests(SessionCase):
    """One session at a time."""

    def test_in_use(self) -> None:
        """While one client is logged in another is not let in, but may be a moment later."""
        first, second = self.logged_in(), self.tls_client()
        second.expect(b"USER alice")
        second.expect(b"PASS " + PASSWORDS["alice"].encode(), b"-ERR [IN-USE]")
        self.logged_in("bob").expect(b"QUIT")
        first.expect(b"QUIT")
        second.log_in()
        second.expect(b"QUIT")

    def test_other_server(self) -> None:
        """The lock counts between servers too, and a server that is killed leaves none."""
        other = self.start()
        holder = self.logged_in()
        holder.expect(b"DELE 1")
        second = Client(other.tls_port, self.site.client_context())
        self.addCleanup(second.close)
        second.expect(b"USER alice")
        second.expect(b"PASS " + PASSWORDS["alice"].encode(), b"-ERR [IN-USE]")
        self.server.kill()
        second.log_in()
        self.assertEqual(second.expect(b"STAT").split()[1], b"3")

    def test_restart_after_kill(self) -> None:
        """After a crash the next server lets in at once, and nothing is deleted."""
        holder = self.logged_in()
        holder.expect(b"DELE 1")
        self.server.kill()
        self.server = self.start()
        self.logged_in().expect(b"QUIT")
        self.assert_left(1, 2, 3)

    def test_stop(self) -> None:
        """A server that is told to stop ends though a client is logged in, and deletes nothing."""
        self.server.stop()
        self.server = self.start(*self.options, "--drain-timeout", "1")
        holder = self.logged_in()
        holder.expect(b"DELE 1")
        self.server.stop()
        self.assertNotIn(b"+OK", holder.rest())
        self.assert_left(1, 2, 3)

    def test_unix_socket(self) -> None:
        """A session over a UNIX socket is like any other, STLS included."""
        path = str(self.site.root / "pop3")
        self.start("--listen", f"unix:{path}", "--cleartext-login", "local")
        with self.client(path) as client:
            client.log_in()
            self.assertEqual(stored(client.fetch(1)), MAIL[0])
            client.expect(b"DELE 1")
            client.expect(b"QUIT")
        self.assert_left(2, 3)
        with self.client(path) as client:
            client.stls(self.site.client_context())
            client.log_in()
            client.expect(b"QUIT")


class EndTests(SessionCase):
    """How a session ends decides what is deleted."""

    DELETE_TWO = LOGIN + b"RETR 2\r\nDELE 1\r\nDELE 3\r\n"

    def _assert_deleted(self) -> None:
        self.log_in_when_free().expect(b"QUIT")
        self.assert_left(2)

    def _assert_not_deleted(self) -> None:
        self.log_in_when_free().expect(b"QUIT")
        self.assert_left(1, 2, 3)

    def _vanish(self, client: Client, how: str) -> None:
        if how == "RST":
            client.reset()
        elif how == "close_notify":
            assert isinstance(client.socket, ssl.SSLSocket)
            client.socket.settimeout(0)  # do not wait for the server's
            with contextlib.suppress(OSError):
                client.socket.unwrap()
            client.close()
        else:
            client.close()

    def _quit_and_vanish(self, client: Client, how: str) -> None:
        """Log in, delete, say QUIT, all in one segment, and be gone."""
        client.send(LOGIN + b"DELE 1\r\nDELE 3\r\nQUIT\r\n")
        self._vanish(client, how)
        until(lambda: len(self.site.messages("alice")) == 1, "deleted messages are not removed")
        self._assert_deleted()

    def test_quit_and_fin(self) -> None:
        """A client that closes right after QUIT gets its deletions."""
        self._quit_and_vanish(self.client(), "FIN")

    def test_quit_and_rst(self) -> None:
        """A client whose connection is reset right after QUIT gets its deletions."""
        self._quit_and_vanish(self.client(), "RST")

    def test_quit_and_fin_over_tls(self) -> None:
        """A client that closes right after QUIT, without TLS's good-bye, gets its deletions."""
        self._quit_and_vanish(self.tls_client(), "FIN")

    def test_quit_and_rst_over_tls(self) -> None:
        """A client whose TLS connection is reset right after QUIT gets its deletions."""
        self._quit_and_vanish(self.tls_client(), "RST")

    def test_quit_and_close_notify(self) -> None:
        """A client that ends TLS right after QUIT gets its deletions."""
        self._quit_and_vanish(self.tls_client(), "close_notify")

    def test_step_by_step(self) -> None:
        """So does one that has read its mail, and sends only QUIT before it closes."""
        client = self.logged_in()
        client.fetch(1)
        client.expect(b"DELE 1")
        client.expect(b"DELE 3")
        client.send(b"QUIT\r\n")
        client.close()
        until(lambda: len(self.site.messages("alice")) == 1, "deleted messages are not removed")
        self._assert_deleted()

    def test_half_close(self) -> None:
        """A client that sends all it has to say and half-closes reads every reply."""
        client = self.client()
        client.send(self.DELETE_TWO + b"QUIT\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(
            client.rest(),
            b"+OK send PASS\r\n+OK maildrop locked and ready\r\n"
            b"+OK 24 octets\r\nSubject: two\r\n\r\nsecond\r\n.\r\n+OK\r\n+OK\r\n+OK bye\r\n",
        )
        self._assert_deleted()

    def test_half_close_without_quit(self) -> None:
        """One that half-closes without QUIT reads every reply too, and deletes nothing."""
        client = self.client()
        client.send(self.DELETE_TWO + b"STAT\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertTrue(client.rest().endswith(b".\r\n+OK\r\n+OK\r\n+OK 1 24\r\n"))
        self._assert_not_deleted()

    def test_vanished(self) -> None:
        """A client that is gone without QUIT, in whatever way, deletes nothing."""
        for how in ("FIN", "RST", "close_notify"):
            for tls in (False, True):
                if tls or how != "close_notify":
                    client = self.tls_client() if tls else self.client()
                    client.log_in()
                    client.expect(b"DELE 1")
                    client.send(b"DELE 3\r\n")
                    self._vanish(client, how)
                    self._assert_not_deleted()

    def test_half_a_quit(self) -> None:
        """A QUIT without its line end is none."""
        client = self.logged_in()
        client.expect(b"DELE 1")
        client.send(b"QUIT")
        client.close()
        self._assert_not_deleted()


class LoadTests(SessionCase):
    """Clients that send without reading, and mail that is big."""

    def _flood(self, client: Client) -> None:
        """Send commands until the server reads no more; check what that costs."""
        client.log_in()
        before = self.server.memory
        begun = time.monotonic()
        client.socket.settimeout(STALL)
        batch = 1_000
        sent = 0
        try:
            for _ in range(FLOOD // batch):
                client.send(b"CAPA\r\n" * batch)
                sent += batch
        except TimeoutError:
            pass
        self.assertLess(sent, FLOOD, "the server never stops reading")
        with self.logged_in("bob") as other:
            other.expect(b"STAT")
            other.expect(b"QUIT")
        self.assertLess(self.server.memory - before, ENOUGH)
        self.assertLess(time.monotonic() - begun, LIMIT)
        client.reset()
        self._assert_free()

    def _assert_free(self) -> None:
        self.log_in_when_free().expect(b"QUIT")

    def test_flood(self) -> None:
        """A million commands of a client that reads nothing cost little, and hinder nobody."""
        self._flood(self.client())

    def test_flood_over_tls(self) -> None:
        """So they do under TLS."""
        self._flood(self.tls_client())

    def _big(self) -> bytes:
        line = b"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
        text = b"Subject: big\n\n" + b".\n..dots\n" + line * (20_000_000 // len(line))
        return text.replace(b"\n", b"\r\n")

    def test_big_message(self) -> None:
        """20 MB come whole over TLS, and are as long as was said."""
        message = self._big()
        self.site.deliver("bob", message)
        with self.logged_in("bob") as client:
            self.assertEqual(client.expect(b"LIST 1"), b"+OK 1 %d" % len(message))
            self.assertTrue(client.fetch(1) == message, "20 MB are not what was delivered")
            client.expect(b"DELE 1")
            client.expect(b"QUIT")
        self.assertEqual(self.site.messages("bob"), [])

    def test_quit_behind_an_unread_message(self) -> None:
        """Who vanishes before the message has reached it keeps it, though QUIT was pipelined."""
        file = self.site.deliver("alice", self._big())
        for tls in (False, True):
            client = self.tls_client() if tls else self.client()
            client.send(LOGIN + b"RETR 4\r\nDELE 4\r\nQUIT\r\n")
            for _ in range(3):
                client.line()
            client.reset()
            self._assert_free()
            self.assertTrue(file.exists())


class ChangingMaildirTests(SessionCase):
    """Others are at work on the Maildir during a session."""

    def test_delivered(self) -> None:
        """Mail that comes during a session is not seen in it, and is in the next."""
        with self.logged_in() as client:
            before = client.expect(b"STAT")
            self.files.append(self.site.deliver("alice", b"Subject: late\n\nlate\n"))
            self.assertEqual(client.expect(b"STAT"), before)
            client.expect(b"RETR 4", b"-ERR")
            client.expect(b"DELE 4", b"-ERR")
            for number in (1, 2, 3):
                client.expect(b"DELE %d" % number)
            client.expect(b"QUIT")
        self.assert_left(4)
        with self.logged_in() as client:
            self.assertEqual(stored(client.fetch(1)), b"Subject: late\n\nlate\n")

    def test_renamed(self) -> None:
        """A message whose file moves to cur, and gets flags, is still served and deleted."""
        current = self.site.maildir("alice") / "cur"
        with self.logged_in() as client:
            client.expect(b"UIDL")
            ids = client.body()
            moved = self.files[1].rename(current / f"{self.files[1].name}:2,")
            self.assertEqual(stored(client.fetch(2)), MAIL[1])
            moved = moved.rename(current / f"{self.files[1].name}:2,S")
            self.assertEqual(stored(client.fetch(2)), MAIL[1])
            client.expect(b"DELE 2")
            moved = moved.rename(current / f"{self.files[1].name}:2,FS")
            kept = self.files[2].rename(current / f"{self.files[2].name}:2,S")
            self.files[2] = kept
            client.expect(b"QUIT")
        self.assert_left(1, 3)
        with self.logged_in() as client:
            client.expect(b"UIDL")
            self.assertEqual(
                [line.split()[1] for line in client.body().splitlines()],
                [ids.split()[1], ids.split()[5]],
            )

    def test_vanished(self) -> None:
        """A message that another program removed fails alone, and to delete it is no error."""
        with self.logged_in() as client:
            self.files[1].unlink()
            client.expect(b"RETR 2", b"-ERR")
            client.expect(b"TOP 2 0", b"-ERR")
            self.assertEqual(stored(client.fetch(1)), MAIL[0])
            self.assertEqual(stored(client.fetch(3)), MAIL[2])
            client.expect(b"DELE 2")
            client.expect(b"DELE 3")
            client.expect(b"QUIT")
        self.assert_left(1)

    def test_lost_directory(self) -> None:
        """A Maildir that has lost its cur is an error, and never looks empty."""
        (self.site.maildir("alice") / "cur").rmdir()
        with self.tls_client() as client:
            client.expect(b"USER alice")
            client.expect(b"PASS " + PASSWORDS["alice"].encode(), b"-ERR [SYS/TEMP]")

    def test_not_mounted(self) -> None:
        """When the disk with the mail goes away, there is an error, and never no mail."""
        gone = self.site.mail.with_name("gone")
        self.site.mail.rename(gone)
        with self.tls_client() as client:
            client.expect(b"USER alice")
            client.expect(b"PASS " + PASSWORDS["alice"].encode(), b"-ERR [SYS/TEMP]")
        gone.rename(self.site.mail)
        with self.logged_in() as client:
            self.assertEqual(client.expect(b"STAT").split()[1], b"3")
