"""Names, paths and links: whoever can make what he likes reaches nobody else's mail (T15, T16)."""

from __future__ import annotations

import itertools
import os
import socket
import time
from typing import TYPE_CHECKING

from tests.e2e.server import Client, ServerCase, stored

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"Subject: another's\r\n\r\nsecret\r\n"

NAMES = (
    *(b"../../etc/passwd", b"..", b".", b"a/b", b"/etc", b"../alice", b"alice/../bob", b"%00"),
    *(b"bob@../x", b"bob@a/b", b"bob@..", b"bob@example.org/../x", b"~root", b"alice@", b"@"),
    *(b"\xef\xbc\x8e\xef\xbc\x8e\xef\xbc\x8falice", b"a" * 256, b"%u", b"%{user}", b"{local}"),
    *(b"*", b"*)(uid=*", b"' OR 1=1", b"alice\xe2\x80\xae", b"alice\xff", b".alice", b"alice."),
)
"""User names that mean to be something else (T15)."""


class NameTests(ServerCase):
    """User names."""

    def test_each(self) -> None:
        """Hostile ones are answered as a wrong password is, and nothing is made anywhere (T15)."""
        self.site.deliver("alice", stored(b"Subject: x\r\n\r\nx\r\n"))
        before = self.everything()
        sources = itertools.count(1)
        wrong = self.refusal(b"carol", next(sources))
        for name in NAMES:
            self.assertEqual(self.refusal(name, next(sources)), wrong, name)
        self.assertEqual(self.everything(), before)
        # Other spellings of a name are the same user.
        for name in (b"Alice", b"ALICE@EXAMPLE.ORG", b"\xef\xbd\x81lice", b"alice@example.org"):
            client = self.tls_client()
            client.expect(b"USER " + name)
            client.expect(b"PASS secret-of-alice")
            client.expect(b"STAT", b"+OK 1 ")
            client.expect(b"QUIT")

    def refusal(self, name: bytes, source: int) -> bytes:
        """Return what a client from an address of its own hears; it is not slowed down."""
        context = self.site.client_context()
        with Client(self.server.tls_port, context, source=f"127.0.{source}.1") as client:
            client.expect(b"USER " + name)
            return client.ask(b"PASS secret-of-alice")

    def everything(self) -> set[Path]:
        """Return all paths of the site, but those of the log."""
        return set(self.site.root.rglob("*"))


class LinkTests(ServerCase):
    """What lies in a Maildir, or in its place, and is no message (T16)."""

    def setUp(self) -> None:
        """Give Bob a secret, and Alice a message."""
        super().setUp()
        self.secret = self.site.deliver("bob", stored(SECRET))
        self.maildir = self.site.maildir("alice")
        self.own = self.site.deliver("alice", stored(b"Subject: own\r\n\r\nown\r\n"))

    def assert_shut(self) -> None:
        """Check that Alice is told at once that her maildrop cannot be had, and Bob has his."""
        client = self.tls_client()
        client.expect(b"USER alice")
        client.expect(b"PASS secret-of-alice", b"-ERR [SYS/")
        client.close()
        bob = self.logged_in("bob")
        self.assertEqual(bob.fetch(1), SECRET)
        bob.expect(b"QUIT")

    def test_before(self) -> None:
        """Links, FIFOs, devices and the like among the messages are none of them (T16)."""
        for directory in ("new", "cur"):
            here = self.maildir / directory
            (here / "1.link").symlink_to(self.secret)
            (here / "2.shadow").symlink_to("/etc/shadow")
            (here / "3.link").symlink_to(self.secret.parent)
            os.mkfifo(here / "4.fifo")
            (here / "5.directory").mkdir()
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(here / "6.socket"))
            if os.geteuid() == 0:
                os.mknod(here / "7.device", 0o20600, os.makedev(1, 5))
        client = self.logged_in()
        client.expect(b"STAT", b"+OK 1 ")
        self.assertEqual(client.fetch(1), b"Subject: own\r\n\r\nown\r\n")
        client.expect(b"QUIT")
        self.links_to_directories()
        self.links_by_own_names()

    def links_to_directories(self) -> None:
        """A link in the place of a directory, of the Maildir or of one above leads nowhere."""
        for path in (
            *(self.maildir / "cur", self.maildir / "new", self.maildir),
            *(self.maildir.parent, self.maildir.parent.parent),
        ):
            with self.subTest(path.name):
                aside = path.with_name(f"{path.name}-aside")
                path.rename(aside)
                target = self.site.maildir("bob") if "bob" not in str(path) else path
                if path == self.maildir:
                    path.symlink_to(target)
                elif path == self.maildir.parent:
                    path.symlink_to(target.parent)
                elif path == self.maildir.parent.parent:
                    path.symlink_to(aside)
                else:
                    path.symlink_to(target / path.name)
                client = self.tls_client()
                client.expect(b"USER alice")
                client.expect(b"PASS secret-of-alice", b"-ERR [SYS/")
                client.close()
                path.unlink()
                aside.rename(path)
        self.logged_in().expect(b"QUIT")

    def test_meanwhile(self) -> None:
        """What takes the place of a message, or its directory, in a session is left alone."""
        client = self.logged_in()
        client.expect(b"LIST 1")
        for make in (lambda: self.own.symlink_to(self.secret), lambda: os.mkfifo(self.own)):
            self.own.unlink(missing_ok=True)
            make()
            began = time.monotonic()
            client.expect(b"RETR 1", b"-ERR")
            self.assertLess(time.monotonic() - began, 5)
        self.own.unlink()
        new = self.maildir / "new"
        new.rename(self.maildir / "old")
        other = self.site.maildir("bob") / "new"
        (other / self.own.name).write_bytes(b"Subject: own\n\nown\n")
        new.symlink_to(other)
        client.expect(b"RETR 1", b"-ERR")
        client.expect(b"DELE 1")
        client.expect(b"QUIT", b"-ERR")
        self.assertTrue((other / self.own.name).exists())
        new.unlink()
        (other / self.own.name).unlink()
        (self.maildir / "old").rename(new)
        self.logged_in().expect(b"QUIT")

    def links_by_own_names(self) -> None:
        """Links by the names of popd's own files are not followed, and nothing is written there."""
        target = self.site.root / "target"
        target.write_bytes(b"as it was")
        for name in ("popd-cache", "popd-cache-new", "popd-cache.new", "popd-uidl.new"):
            (self.maildir / name).unlink(missing_ok=True)
            (self.maildir / name).symlink_to(target)
        client = self.logged_in()
        self.assertEqual(client.fetch(1), b"Subject: own\r\n\r\nown\r\n")
        client.expect(b"QUIT")
        for name in ("popd-lock", "popd-uidl"):
            (self.maildir / name).unlink(missing_ok=True)
            (self.maildir / name).symlink_to(target)
            self.assert_shut()
            (self.maildir / name).unlink()
        self.assertEqual(target.read_bytes(), b"as it was")
        self.logged_in().expect(b"QUIT")
