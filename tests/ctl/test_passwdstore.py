"""Tests of how popctl changes password files."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account
from popd.auth.appfile import AppPasswordFile
from popd.auth.apppass import digest
from popd.auth.passwd import PasswordFile
from popd.ctl import editfile
from popd.ctl.passwdstore import PasswdStore
from popd.ctl.store import (
    AppPassword,
    Hashes,
    NoSuchUserError,
    RefusedError,
    UnusableError,
    User,
    UserExistsError,
    open_store,
)

KEYS = (
    "{SCRAM-SHA-256}4096,KwUqHCscn9GjLHr17NUrFA==,OudE9XfNZUXLIdnRM5ZTuext3Blnb60sUezJG1MM1qE=,"
    "t8coLzc/BmzgSXQoZpLiDysGZHVbVi9iGHxP8TBocLM="
)
NEW = Hashes("{PLAIN}new", KEYS)
"""Stand for the hashes of a new password, whatever they are."""

SCRAM = f"scram_sha_256={KEYS}"
PHONE = AppPassword("phone", digest(b"aaaa-bbbb-cccc-dddd-eeee-ffff-2222"), {"interval": "60"})
LAPTOP = AppPassword("laptop", digest(b"aaaa-bbbb-cccc-dddd-eeee-ffff-3333"))


class StoreTestCase(SynchronousTestCase):
    """A store of a password file in a directory of its own."""

    def setUp(self) -> None:
        """Make the directory."""
        self.path = Path(self.mktemp()).absolute() / "passwd"
        self.path.parent.mkdir()
        self.apps = self.path.with_name("passwd.apppass")
        self.store = PasswdStore(str(self.path))
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)

    def write(self, *lines: str) -> None:
        """Write these lines into the password file."""
        self.path.write_bytes("".join(lines).encode())

    def assertLines(self, *lines: str) -> None:
        """Assert that the password file has these lines and no others."""
        self.assertEqual(self.path.read_bytes().decode(), "".join(lines))


class Users(StoreTestCase):
    """Users of a password file."""

    def test_add(self) -> None:
        """A user is added behind the others, which stay as they are, and can log in."""
        self.write("# all of us\n", "\n", "a:{PLAIN}1::::::x  y\r\n", "broken\n", "b:{PLAIN}2")
        fields = {"quota": "1k", "require_tls": ""}
        self.store.add("c@example.org", NEW, fields)
        self.assertLines(
            "# all of us\n",
            "\n",
            "a:{PLAIN}1::::::x  y\r\n",
            "broken\n",
            "b:{PLAIN}2\n",
            f"c@example.org:{{PLAIN}}new::::::quota=1k require_tls {SCRAM}\n",
        )
        account = PasswordFile(self.path).verify("c@example.org", b"new")
        self.assertEqual(account, Account("c@example.org", require_tls=True, quota=1024))

    def test_first(self) -> None:
        """The first user gets a file that others cannot read."""
        self.store.add("a", NEW, {})
        self.assertLines(f"a:{{PLAIN}}new::::::{SCRAM}\n")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)

    def test_add_twice(self) -> None:
        """A user is there once, however he is spelled, and even if his line is broken."""
        self.write("Ada:{PLAIN}1\n", "bob:{NONSENSE}\n")
        for name in ("ada", "bob"):
            self.assertRaises(UserExistsError, self.store.add, name, NEW, {})
        self.assertLines("Ada:{PLAIN}1\n", "bob:{NONSENSE}\n")

    def test_impossible(self) -> None:
        """What a password file cannot hold is refused."""
        for name in ("a:b", "#a"):
            self.assertRaises(RefusedError, self.store.add, name, NEW, {})
        self.assertRaises(RefusedError, self.store.add, "a", NEW, {"maildrop": "maildir:/a b"})
        self.assertFalse(self.path.exists())

    def test_set_password(self) -> None:
        """A new password replaces all that was made of the old one, and nothing else."""
        self.write(
            "a:{PLAIN}1\n",
            "B:{PLAIN}2:5000:5000:B. B.:/home/b:/bin/sh:quota=1k Scram_SHA_1={SCRAM} nologin\r\n",
            f"c:{KEYS}::::::{SCRAM} x=y",
        )
        for name in "abc":
            self.store.set_password(name, NEW)
        self.assertLines(
            f"a:{{PLAIN}}new::::::{SCRAM}\n",
            f"B:{{PLAIN}}new:5000:5000:B. B.:/home/b:/bin/sh:quota=1k nologin {SCRAM}\r\n",
            f"c:{{PLAIN}}new::::::x=y {SCRAM}",
        )
        self.assertEqual(PasswordFile(self.path).problems, ())

    def test_disable(self) -> None:
        """A disabled user stays out, by Dovecot's name for it, until he is enabled again."""
        before = ("a:{PLAIN}1\n", "b:{PLAIN}2:5:5:B:/b:/bin/sh:quota=1k\n", "c:{PLAIN}3\n")
        self.write(*before)
        for _ in range(2):
            for name in "ab":
                self.store.set_disabled(name, disabled=True)
        self.assertLines(
            "a:{PLAIN}1::::::nologin\n",
            "b:{PLAIN}2:5:5:B:/b:/bin/sh:quota=1k nologin\n",
            "c:{PLAIN}3\n",
        )
        account = PasswordFile(self.path).verify("a", b"1")
        self.assertEqual(account, Account("a", disabled=True))
        for name in "abc":
            self.store.set_disabled(name, disabled=False)
        self.assertLines("a:{PLAIN}1::::::\n", *before[1:])

    def test_disabled_otherwise(self) -> None:
        """Whatever keeps a user out is gone when he is enabled; what means nothing, too."""
        self.write(
            "a:{PLAIN}1::::::nologin=no\n",
            "b:{PLAIN}1::::::Disabled=yes x\n",
            "c:{PLAIN}1::::::disabled=nonsense\n",
            "d:{PLAIN}1::::::disabled=no\n",
        )
        for name in "abcd":
            self.store.set_disabled(name, disabled=False)
        lines = ("a:{PLAIN}1::::::\n", "b:{PLAIN}1::::::x\n", "c:{PLAIN}1::::::\n")
        self.assertLines(*lines, "d:{PLAIN}1::::::disabled=no\n")
        self.store.set_disabled("d", disabled=True)
        self.assertLines(*lines, "d:{PLAIN}1::::::nologin\n")

    def test_every_line(self) -> None:
        """All lines of a user are disabled or removed: a broken one lets another count."""
        self.write("a:{NONSENSE}\n", "b:{PLAIN}1\n", "A:{PLAIN}1\n")
        self.store.set_disabled("a", disabled=True)
        account = PasswordFile(self.path).verify("a", b"1")
        self.assertEqual(account and account.disabled, True)
        self.store.delete("a")
        self.assertLines("b:{PLAIN}1\n")

    def test_unchanged(self) -> None:
        """Where nothing changes nothing is written."""
        self.write("a:{PLAIN}1::::::nologin\n")
        before = self.path.stat()
        self.store.set_disabled("a", disabled=True)
        self.assertEqual(self.path.stat(), before)

    def test_nobody(self) -> None:
        """There is no way to change a user who is not there."""
        self.write("a:{PLAIN}1\n")
        store = self.store
        for change in (
            lambda: store.set_password("b", NEW),
            lambda: store.set_disabled("b", disabled=True),
            lambda: store.delete("b"),
            lambda: store.app_passwords("b"),
            lambda: store.add_app_password("b", PHONE),
            lambda: store.revoke_app_password("b", "phone"),
        ):
            self.assertRaises(NoSuchUserError, change)
        self.assertLines("a:{PLAIN}1\n")
        self.assertFalse(self.apps.exists())

    def test_list(self) -> None:
        """Users are listed in order, with what is known of them, and nothing secret."""
        self.write(
            "# a comment\n",
            f"B:{{SSHA.hex}}{'00' * 21}::::::quota=1k {SCRAM} userdb_x=y\n",
            "a:{PLAIN}1::::::nologin require_tls\n",
            "c:\n",
            "d:{NONSENSE}\n",
            "e:{PLAIN}1::::::proxy\n",
            "a:{PLAIN}2\n",
            "nonsense\n",
        )
        barred = "this user cannot log in: popd does not enforce proxy"
        users = list(self.store.users())
        scheme = users.pop(3)
        self.assertEqual(
            users,
            [
                User("b", schemes=("SSHA", "SCRAM-SHA-256"), fields={"quota": "1k"}),
                User("a", True, ("PLAIN",), {"nologin": "", "require_tls": ""}),
                User("c", problem="there is no password"),
                User("e", problem=barred),
            ],
        )
        self.assertEqual(scheme.name, "d")
        self.assertIn("the password scheme is none of", scheme.problem)

    def test_link(self) -> None:
        """The file behind a link is changed, and the link remains."""
        self.write("a:{PLAIN}1\n")
        link = self.path.with_name("link")
        link.symlink_to("passwd")
        PasswdStore(str(link)).delete("a")
        self.assertTrue(link.is_symlink())
        self.assertLines()


class AppPasswords(StoreTestCase):
    """App passwords beside a password file."""

    def setUp(self) -> None:
        """Write two users."""
        super().setUp()
        self.write("a:{PLAIN}1\n", "b:{PLAIN}2\n")
        self.path.chmod(0o604)

    def test_add(self) -> None:
        """They get a file of their own, that is like the password file, and popd finds them."""
        for name in "ab":
            self.assertEqual(self.store.app_passwords(name), [])
        self.store.add_app_password("a", PHONE)
        self.store.add_app_password("a", LAPTOP)
        self.assertEqual(self.apps.stat().st_mode & 0o777, 0o604)
        self.assertEqual(self.store.app_passwords("a"), [PHONE, LAPTOP])
        self.assertEqual(self.store.app_passwords("b"), [])
        found = AppPasswordFile(self.apps).find(b"aaaabbbbccccddddeeeeffff2222")
        self.assertEqual(found and found.account, Account("a", program="phone", interval=60.0))

    def test_one_of_a_name(self) -> None:
        """Each user has one of a name."""
        self.store.add_app_password("a", PHONE)
        self.assertRaises(UserExistsError, self.store.add_app_password, "a", PHONE)
        self.store.add_app_password("b", AppPassword("phone", LAPTOP.digest))
        self.assertEqual(len(self.apps.read_text().splitlines()), 2)

    def test_refused(self) -> None:
        """What would mean nothing to popd is not written."""
        for app in (
            AppPassword("two words", PHONE.digest),
            AppPassword("", PHONE.digest),
            AppPassword("x", PHONE.digest, {"interval": "long"}),
            AppPassword("x", PHONE.digest, {"master": ""}),
            AppPassword("x", "{PLAIN}x"),
        ):
            self.assertRaises(RefusedError, self.store.add_app_password, "a", app)
        self.assertFalse(self.apps.exists())

    def test_revoke(self) -> None:
        """The one that is revoked is gone, and no other."""
        self.store.add_app_password("a", PHONE)
        self.store.add_app_password("a", LAPTOP)
        self.store.add_app_password("b", AppPassword("phone", "{SHA256}" + "A" * 43 + "="))
        self.store.revoke_app_password("a", "phone")
        self.assertEqual(self.store.app_passwords("a"), [LAPTOP])
        self.assertEqual(len(self.store.app_passwords("b")), 1)
        self.assertRaises(NoSuchUserError, self.store.revoke_app_password, "a", "phone")

    def test_go_with_the_user(self) -> None:
        """They go with their user, and none is there for a namesake."""
        self.store.add_app_password("a", PHONE)
        self.store.add_app_password("b", LAPTOP)
        self.store.delete("a")
        self.store.add("a", NEW, {})
        self.assertEqual(self.store.app_passwords("a"), [])
        self.write("a:{PLAIN}1\n")  # b is removed by hand
        self.store.add("b", NEW, {})
        self.assertEqual(self.store.app_passwords("b"), [])

    def test_never_left_behind(self) -> None:
        """If a user cannot be removed after all, his app passwords are gone all the same."""
        self.store.add_app_password("a", PHONE)
        write_lines = editfile.write_lines

        def fail(path: Path, *_: object, **__: object) -> None:
            raise UnusableError(f"{path}: No space left on device")

        self.patch(sys.modules[PasswdStore.__module__], "write_lines", fail)
        self.assertRaises(UnusableError, self.store.delete, "a")
        self.assertEqual(self.store.app_passwords("a"), [PHONE])
        calls: list[Path] = []

        def fail_then(path: Path, *args: object, **kwargs: object) -> None:
            calls.append(path)
            if path == self.path:
                fail(path)
            write_lines(path, *args, **kwargs)  # type: ignore[arg-type]

        self.patch(sys.modules[PasswdStore.__module__], "write_lines", fail_then)
        self.assertRaises(UnusableError, self.store.delete, "a")
        self.assertEqual(calls, [self.apps, self.path])
        self.assertEqual(self.store.app_passwords("a"), [])


class Opening(SynchronousTestCase):
    """Which accounts popctl can change."""

    def test_passwd(self) -> None:
        """Those of a password file."""
        self.assertIsInstance(open_store("popd-passwd:/x"), PasswdStore)

    def test_refused(self) -> None:
        """Not those of a directory; and it has to be known which file."""
        for description, reason in (
            ("popd-ldap:ldap://x", "popctl cannot change accounts of popd-ldap"),
            ("popd-passwd:", "popd-passwd needs a file"),
        ):
            error = self.assertRaises(RefusedError, open_store, description)
            self.assertIn(reason, str(error))


ADD = """
import sys
from popd.ctl.passwdstore import PasswdStore
from popd.ctl.store import AppPassword, Hashes
from popd.auth.apppass import digest, make
store, who = PasswdStore(sys.argv[1]), sys.argv[2]
for number in range(15):
    store.add(f"{who}{number}", Hashes("{PLAIN}x", "y"), {})
    store.add_app_password("all", AppPassword(f"{who}{number}", digest(make().encode())))
    store.set_disabled("all", disabled=bool(number % 2))
"""


class Processes(StoreTestCase):
    """Several popctls at the same time, and ones that die."""

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python program that imports popd from here."""
        return subprocess.Popen(
            [sys.executable, "-c", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def test_nothing_is_lost(self) -> None:
        """What four of them change at once is all there in the end."""
        self.write("all:{PLAIN}1\n")
        processes = [self.start(ADD, str(self.path), who) for who in "wxyz"]
        self.assertEqual([process.wait(60) for process in processes], [0] * 4)
        expected = {f"{who}{number}" for who in "wxyz" for number in range(15)}
        self.assertEqual({user.name for user in self.store.users()}, expected | {"all"})
        self.assertEqual({app.name for app in self.store.app_passwords("all")}, expected)

    def test_killed(self) -> None:
        """Whenever one is killed the file is whole, the lock is free, and the next one works."""
        lines = [f"user{number}:{{PLAIN}}{'x' * 100}\n" for number in range(5000)]
        self.write("all:{PLAIN}1\n", *lines)
        for attempt in range(5):
            process = self.start(ADD, str(self.path), f"try{attempt}-")
            deadline = time.monotonic() + 30
            while not any(self.path.parent.glob("passwd.new")) and time.monotonic() < deadline:
                pass
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            names = [user.name for user in self.store.users()]
            self.assertEqual(len(names), len(set(names)))
            self.assertTrue({f"user{number}" for number in range(5000)} <= set(names))
            self.store.add(f"after{attempt}", NEW, {})
        self.assertFalse(self.path.with_name("passwd.new").exists())


class Files(StoreTestCase):
    """How files are replaced."""

    def test_alike(self) -> None:
        """The new file has the mode, owner, group and attributes of the old one."""
        self.write("a:{PLAIN}1\n")
        self.path.chmod(0o640)
        owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        os.chown(self.path, *owner)
        try:
            os.setxattr(self.path, "user.popd", b"x")
        except OSError:
            attributes = []
        else:
            attributes = ["user.popd"]
        inode = self.path.stat().st_ino
        self.store.set_password("a", NEW)
        status = self.path.stat()
        self.assertNotEqual(status.st_ino, inode)
        self.assertEqual((status.st_uid, status.st_gid, status.st_mode & 0o777), (*owner, 0o640))
        self.assertEqual([name for name in os.listxattr(self.path) if "user." in name], attributes)

    def test_left_behind(self) -> None:
        """What a crash left behind is in nobody's way, be it a link to somewhere else."""
        self.write("a:{PLAIN}1\n")
        target = self.path.with_name("target")
        target.write_text("precious")
        self.path.with_name("passwd.new").symlink_to(target)
        self.store.delete("a")
        self.assertLines()
        self.assertEqual(target.read_text(), "precious")

    def test_failure(self) -> None:
        """If it cannot be written the old file is as it was, and nothing lies about."""
        self.write("a:{PLAIN}1\n")

        def fail(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fail)
        error = self.assertRaises(UnusableError, self.store.delete, "a")
        self.assertEqual(str(error), f"{self.path}: No space left on device")
        self.assertLines("a:{PLAIN}1\n")
        names = sorted(path.name for path in self.path.parent.iterdir())
        self.assertEqual(names, ["passwd", "passwd.lock"])

    def test_unusable(self) -> None:
        """What is missing, or no file, is named."""
        for reason in ("No such file or directory", "not a regular file"):
            for use in (lambda: list(self.store.users()), lambda: self.store.delete("a")):
                error = self.assertRaises(UnusableError, use)
                self.assertEqual(str(error), f"{self.path}: {reason}")
            if not self.path.exists():
                os.mkfifo(self.path)
        error = self.assertRaises(UnusableError, PasswdStore("/nowhere/passwd").add, "a", NEW, {})
        self.assertEqual(
            str(error),
            "/nowhere: no such directory; make it, for popd's group to read:"
            " install -d -m 750 -g GROUP /nowhere",
        )

    def test_locked(self) -> None:
        """Whoever waits in vain for another popctl is told so."""
        self.write("a:{PLAIN}1\n")
        naps: list[float] = []
        with editfile.locked(self.path):
            error = self.assertRaises(
                UnusableError, editfile.locked(self.path, naps.append).__enter__
            )
        self.assertIn("another popctl has held this lock for 10 seconds", str(error))
        self.assertAlmostEqual(sum(naps), 10.0)
        self.store.delete("a")
