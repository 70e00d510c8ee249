"""Tests of app passwords and of what is known of their use."""

from __future__ import annotations

import fcntl
import logging
from base64 import b64encode
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.auth import apppass
from popd.auth.account import Account, Client
from popd.auth.apppass import LastUse, Use, digest, limited, make

HERE, THERE = Client("192.0.2.1", tls=True), Client("2001:db8::1", tls=True)
START = 1_800_000_000.25


class Passwords(SynchronousTestCase):
    """How app passwords are made and kept."""

    def test_make(self) -> None:
        """They are random, 140 bits long, and easy to read out."""
        passwords = {make() for _ in range(100)}
        self.assertEqual(len(passwords), 100)
        for password in passwords:
            self.assertRegex(password, r"\A[a-z2-7]{4}(-[a-z2-7]{4}){6}\Z")
        self.assertEqual(len(set("".join(passwords)) - {"-"}), 32)

    def test_digest(self) -> None:
        """What is stored is a SHA-256, whatever becomes of hyphens, spaces and case."""
        expected = "{SHA256}" + b64encode(sha256(b"abcdefgh234567" * 2).digest()).decode()
        for password in (b"abcdefgh234567" * 2, b"ABCD-EFGH 234567a-bcdefgh 234567 "):
            self.assertEqual(digest(password), expected)

    def test_no_app_passwords(self) -> None:
        """What cannot be an app password has no digest, so that nobody's password is looked up."""
        for password in (b"", b"secret", b"a" * 27, b"a" * 29, b"a" * 27 + b"1", b"\xff" * 28):
            self.assertEqual(digest(password), "")


class Limits(SynchronousTestCase):
    """An app password may be used for what both it and the account allow."""

    def test_both_hold(self) -> None:
        """The stricter of each two counts; nobody is a master user by an app password."""
        account = Account("ada", maildrop="maildir:/x", quota=5, master=True, expires=30.0)
        app = Account("ada", program="phone", no_delete=True, interval=60.0, expires=20.0)
        self.assertEqual(
            limited(account, app),
            Account(
                "ada",
                maildrop="maildir:/x",
                quota=5,
                program="phone",
                no_delete=True,
                interval=60.0,
                expires=20.0,
            ),
        )
        for account in (Account("ada", disabled=True), Account("ada", require_tls=True)):
            self.assertNotEqual(limited(account, app).refusal(Client("192.0.2.1")), "")

    def networks(self, of_account: str, of_app: str) -> Account:
        """Return an account limited to these networks."""
        account, app = (
            Account("ada", networks=tuple(map(ip_network, networks.split())))
            for networks in (of_account, of_app)
        )
        return limited(account, app)

    def test_networks(self) -> None:
        """The client has to be in a network of each."""
        for account in (
            self.networks("192.0.2.0/24", ""),
            self.networks("", "192.0.2.0/24"),
            self.networks("192.0.0.0/16 2001:db8::/32", "192.0.2.0/25 10.0.0.0/8"),
            self.networks("192.0.2.1", "0.0.0.0/0 ::/64"),
        ):
            self.assertEqual(account.refusal(HERE), "")
            self.assertNotEqual(account.refusal(THERE), "")

    def test_no_network_left(self) -> None:
        """Networks that have nothing in common let in nobody, and not everybody."""
        for networks in (("10.0.0.0/8", "192.0.2.0/24"), ("192.0.2.0/24", "::/0")):
            account = self.networks(*networks)
            for client in (HERE, THERE, Client()):
                self.assertNotEqual(account.refusal(client), "")


class LastUseTestCase(SynchronousTestCase):
    """Two workers that share a directory, and a clock."""

    poll = Account("ada", program="phone", interval=60.0)
    free = Account("ada", program="laptop")

    def setUp(self) -> None:
        """Make the workers."""
        self.directory = Path(self.mktemp()) / "apppass"
        self.directory.parent.mkdir()
        self.clock = Clock()
        self.clock.advance(START)
        self.one, self.other = self.worker(), self.worker()

    def worker(self) -> LastUse:
        """Return what a process has that begins now."""
        return LastUse(self.directory, self.clock.seconds)

    def changes(self) -> int:
        """Return how often files were written, as far as two writes differ."""
        self.assertEqual(len(list(self.directory.iterdir())), 1)
        (path,) = self.directory.iterdir()
        content = path.read_bytes()
        changed = content != getattr(self, "_content", b"")
        self._content = content
        return changed


class Intervals(LastUseTestCase):
    """Between two log-ins with an app password lies its interval."""

    def test_common(self) -> None:
        """It holds for all workers, and for those that begin later."""
        self.assertEqual(self.one.admit(self.poll, HERE), "")
        self.clock.advance(59.5)
        text = "the app password phone may log in every 60 seconds, in 1 again"
        for worker in (self.one, self.other, self.worker()):
            self.assertEqual(worker.admit(self.poll, THERE), text)
        self.clock.advance(0.5)
        self.assertEqual(self.other.admit(self.poll, THERE), "")
        self.assertNotEqual(self.one.admit(self.poll, HERE), "")

    def test_same_moment(self) -> None:
        """Of two log-ins at the same moment one is refused."""
        self.assertEqual(self.one.admit(self.poll, HERE), "")
        for worker in (self.one, self.other):
            self.assertNotEqual(worker.admit(self.poll, HERE), "")

    def test_refused_does_not_count(self) -> None:
        """Who comes too soon need not wait for longer."""
        self.one.admit(self.poll, HERE)
        for _ in range(5):
            self.clock.advance(11)
            self.assertNotEqual(self.other.admit(self.poll, HERE), "")
        self.clock.advance(5)
        self.assertEqual(self.other.admit(self.poll, HERE), "")

    def test_apart(self) -> None:
        """One app password does not matter to another, nor to the same one of another user."""
        self.one.admit(self.poll, HERE)
        for account in (
            Account("ada", program="tablet", interval=60.0),
            Account("eve", program="phone", interval=60.0),
            Account("ada"),
        ):
            self.assertEqual(self.one.admit(account, HERE), "")

    def test_account(self) -> None:
        """An account without an app password can have an interval too."""
        account = Account("ada", interval=10.0)
        self.assertTrue(LastUse.concerns(account))
        self.assertEqual(self.one.admit(account, HERE), "")
        self.assertTrue(self.other.admit(account, HERE).startswith("the account may "))

    def test_clock_set_back(self) -> None:
        """A use that lies in the future keeps nobody out."""
        self.clock.advance(1000)
        self.one.admit(self.poll, HERE)
        self.clock.rightNow -= 1000
        self.assertEqual(self.one.admit(self.poll, HERE), "")
        self.clock.advance(61)
        self.assertEqual(self.other.admit(self.poll, HERE), "")

    def test_at_this_moment(self) -> None:
        """Where another process is just about it, it is too soon."""
        self.one.admit(self.poll, HERE)
        self.clock.advance(100)
        (path,) = self.directory.iterdir()
        with path.open("r+b") as file:
            fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, apppass._LOCK)
            self.assertNotEqual(self.other.admit(self.poll, HERE), "")
            self.assertEqual(self.other.admit(self.free, HERE), "")
        self.assertEqual(self.other.admit(self.poll, HERE), "")


class Records(LastUseTestCase):
    """The last use is written down."""

    def test_read(self) -> None:
        """Any process finds the time and the address of the last use."""
        self.assertIsNone(self.other.read("ada", "phone"))
        self.one.admit(self.poll, THERE)
        self.assertEqual(self.other.read("ada", "phone"), Use(START, "2001:db8::1"))
        self.assertIsNone(self.other.read("ada", "laptop"))
        self.one.admit(self.free, Client())
        self.assertEqual(self.other.read("ada", "laptop"), Use(START, ""))
        self.assertEqual((self.directory.stat().st_mode & 0o777), 0o700)

    def test_rarely(self) -> None:
        """Without an interval it is written once a minute, whoever does it."""
        self.one.admit(self.free, HERE)
        self.assertTrue(self.changes())
        for _ in range(5):
            self.clock.advance(11)
            for worker in (self.one, self.other):
                self.assertEqual(worker.admit(self.free, THERE), "")
            self.assertFalse(self.changes())
        self.clock.advance(5)
        self.other.admit(self.free, THERE)
        self.assertEqual(self.one.read("ada", "laptop"), Use(START + 60, "2001:db8::1"))

    def test_nobody(self) -> None:
        """Who logs in without an app password, and as often as he likes, is not written down."""
        self.assertFalse(LastUse.concerns(Account("ada")))
        self.assertEqual(self.one.admit(Account("ada"), HERE), "")
        self.assertFalse(self.directory.exists())

    def test_forget(self) -> None:
        """What is forgotten keeps no namesake out, in a process that begins later."""
        self.one.admit(self.poll, HERE)
        for _ in range(2):
            self.other.forget("ada", "phone")
        self.assertIsNone(self.other.read("ada", "phone"))
        self.assertEqual(self.worker().admit(self.poll, HERE), "")

    def test_damaged(self) -> None:
        """A damaged record counts as none, and is replaced."""
        self.one.admit(self.poll, HERE)
        (path,) = self.directory.iterdir()
        for content in (b"", b"\0" * 96, b"x" * 200, b"1e9 192.0.2.1\n", b"1.000 \n"):
            path.write_bytes(content)
            self.assertIsNone(self.other.read("ada", "phone"))
            self.assertEqual(self.worker().admit(self.poll, HERE), "")

    def test_bounded(self) -> None:
        """What is kept in memory is bounded."""
        self.patch(apppass, "_MAX_REMEMBERED", 3)
        for number in range(10):
            self.one.admit(Account("ada", program=f"p{number}", interval=9.0), HERE)
        self.assertEqual(len(self.one._recent), 3)
        for number in range(10):
            account = Account("ada", program=f"p{number}", interval=9.0)
            self.assertNotEqual(self.one.admit(account, HERE), "")


class Losses(LastUseTestCase):
    """A directory that cannot be used keeps nobody from his mail."""

    def setUp(self) -> None:
        """Put a file in the directory's place."""
        super().setUp()
        self.directory.write_text("no directory")

    def test_within_the_process(self) -> None:
        """It is logged once, and each process goes by what it remembers."""
        with self.assertLogs("popd.auth.apppass", logging.ERROR) as logged:
            self.assertEqual(self.one.admit(self.poll, HERE), "")
            self.clock.advance(59)
            self.assertNotEqual(self.one.admit(self.poll, HERE), "")
            self.clock.advance(1)
            self.assertEqual(self.one.admit(self.poll, HERE), "")
        self.assertEqual(len(logged.records), 1)
        self.assertIn("the use of app passwords is not recorded", logged.output[0])
        self.directory.unlink()
        self.clock.advance(60)
        self.assertEqual(self.one.admit(self.poll, HERE), "")
        self.assertNotEqual(self.other.admit(self.poll, HERE), "")

    def test_not_through_links(self) -> None:
        """A link in place of a file is not followed."""
        self.directory.unlink()
        self.one.admit(self.poll, HERE)
        (path,) = self.directory.iterdir()
        path.unlink()
        path.symlink_to(self.directory.parent / "target")
        with self.assertLogs("popd.auth.apppass", logging.ERROR):
            self.worker().admit(self.poll, HERE)
        self.assertEqual(list(self.directory.parent.iterdir()), [self.directory])
