"""Tests of the checkers that come with popd."""

from __future__ import annotations

import hmac
import logging
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import (
    CramMD5Credentials,
    IUsernameHashedPassword,
    UsernamePassword,
)
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth import schemes
from popd.auth.account import Account
from popd.auth.apppass import digest
from popd.auth.checkers import PasswdCheckerFactory, PasswordFileChecker
from popd.auth.interfaces import IAccounts, IScramKeyring, IVersioned
from popd.auth.passwd import PasswordFile

# doveadm pw -s SCRAM-SHA-256 -p secret (Dovecot 2.3.19)
KEYS = (
    "{SCRAM-SHA-256}4096,KwUqHCscn9GjLHr17NUrFA==,OudE9XfNZUXLIdnRM5ZTuext3Blnb60sUezJG1MM1qE=,"
    "t8coLzc/BmzgSXQoZpLiDysGZHVbVi9iGHxP8TBocLM="
)
APP = b"%bbcd-efgh-ijkl-mnop-qrst-uvwx-yz23"
USERS = ("alice", "bob", "carol", "dave", "erin", "frank")

if TYPE_CHECKING:
    from collections.abc import Callable


class FilesTestCase(SynchronousTestCase):
    """A password file with one user."""

    def setUp(self) -> None:
        """Write the file."""
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text("alice@example.org:{PLAIN}wonderland\n", "utf-8")
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)


class Checking(FilesTestCase):
    """A checker verifies passwords with a password file."""

    def setUp(self) -> None:
        """Make a checker that does its work at once."""
        super().setUp()
        self.deferred: list[Callable[..., bytes]] = []

        def at_once(work: Callable[..., bytes], *args: Any) -> Deferred[Any]:
            self.deferred.append(work)
            return maybeDeferred(work, *args)

        self.checker = PasswordFileChecker(PasswordFile(self.path), at_once)

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self) -> None:
        """The right password is answered with the account."""
        for name in (b"alice@example.org", b"Alice@EXAMPLE.ORG"):
            credentials = UsernamePassword(name, b"wonderland")
            account = self.successResultOf(self.checker.requestAvatarId(credentials))
            self.assertEqual(account, Account("alice@example.org"))

    def test_wrong(self) -> None:
        """Anything else is refused, after work in the same place."""
        attempts = (
            (b"alice@example.org", b"Wonderland"),
            (b"alice@example.org", b""),
            (b"bob@example.org", b"wonderland"),
            (b"alice", b"wonderland"),
            (b"../alice@example.org", b"wonderland"),
            (b"\xff", b"wonderland"),
            (b"", b""),
        )
        for name, password in attempts:
            credentials = UsernamePassword(name, password)
            self.failureResultOf(self.checker.requestAvatarId(credentials), UnauthorizedLogin)
        self.assertEqual(len(self.deferred), len(attempts))

    def test_unread_changes(self) -> None:
        """What needs no hash is answered at once, and elsewhere if the file is read for it."""
        self.checker.account(b"alice@example.org", b"")
        self.deferred.clear()
        self.patch(self.checker._file, "is_current", lambda: True)
        self.successResultOf(self.checker.account(b"alice@example.org", b""))
        self.assertEqual(self.deferred, [])
        self.patch(self.checker._file, "is_current", lambda: False)
        self.successResultOf(self.checker.account(b"alice@example.org", b""))
        self.successResultOf(self.checker.scram_keys(b"alice@example.org", b"", "SCRAM-SHA-256"))
        self.assertEqual(len(self.deferred), 2)

    def test_default(self) -> None:
        """Unless told otherwise the work is done in a thread."""
        self.assertIs(PasswordFileChecker(PasswordFile(self.path))._defer, deferToThread)


class Knowing(FilesTestCase):
    """Besides verifying passwords, a checker knows what is in the file."""

    def setUp(self) -> None:
        """Write a file with all kinds of users, and one with app passwords."""
        super().setUp()
        self.path.write_text(
            f"alice:{KEYS}::::::quota=1k\n"
            f"bob:{{PLAIN}}builder::::::scram_sha_256={KEYS} allow_nets=192.0.2.0/24 master\n"
            "carol:{PLAIN}x::::::disabled\n"
            "dave:\n"
            "erin:{PLAIN}x::::::proxy\n",
            "utf-8",
        )
        self.apps = self.path.with_name(self.path.name + ".apppass")
        lines = (
            f"{user}:{digest(APP % user[0].encode())}::::::app=tv no_delete\n" for user in USERS
        )
        self.apps.write_text("".join(lines), "utf-8")
        self.checker = PasswdCheckerFactory().generateChecker(str(self.path))
        self.checker._defer = maybeDeferred

    def test_interfaces(self) -> None:
        """It is all that it says."""
        for interface in (IAccounts, IScramKeyring, IVersioned):
            verifyObject(interface, self.checker)

    def test_account(self) -> None:
        """A user is known without his password, by the complete name or the bare one."""
        for name, bare, account in (
            (b"alice", b"", Account("alice", quota=1024)),
            (b"alice@example.org", b"alice", Account("alice@example.org", quota=1024)),
            (b"Carol", b"", Account("carol", disabled=True)),
            (b"dave", b"", Account("dave")),
            (b"erin", b"", None),
            (b"nobody", b"", None),
            (b"alice@example.org", b"", None),
            (b"../alice", b"", None),
        ):
            self.assertEqual(self.successResultOf(self.checker.account(name, bare)), account)

    def test_scram(self) -> None:
        """There are SCRAM keys of who has some, and the owner is the account."""
        for name, has_keys in ((b"alice", True), (b"bob", True), (b"carol", False), (b"x", False)):
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
                keys = self.successResultOf(self.checker.scram_keys(name, b"", mechanism))
                self.assertEqual(keys is not None, has_keys and mechanism == "SCRAM-SHA-256")
                if keys is not None:
                    account = self.successResultOf(self.checker.account(name, b""))
                    self.assertEqual((keys.owner, keys.iterations), (account, 4096))

    def offers(self, content: str) -> tuple[bool, frozenset[str]]:
        """Return whether digests, and which kinds of SCRAM, can be verified with such a file."""
        self.path.write_text(content, "utf-8")
        self.successResultOf(self.checker.account(b"x", b""))
        digests = IUsernameHashedPassword in self.checker.credentialInterfaces
        return digests, self.checker.scram_mechanisms

    def test_offers(self) -> None:
        """What nobody in the file can do is not offered, unless there is nobody at all yet."""
        hashed = "{SSHA}jYOvdVbsQapbOhcPclmtjbzIJ433JMyK"
        self.assertEqual(self.offers(f"a:{KEYS}\n"), (False, {"SCRAM-SHA-256"}))
        self.assertEqual(self.offers("a:{PLAIN}x\n"), (True, set()))
        self.assertEqual(self.offers(f"a:{hashed}\n"), (False, set()))
        for nobody in ("", "a:\n"):
            self.assertEqual(self.offers(nobody), (True, {"SCRAM-SHA-256"}))

    def digest(self, username: bytes, password: bytes) -> Any:
        """Return what becomes of a CRAM-MD5 with *password*, and count the work that it costs."""
        compared: list[bytes] = []

        class Digest(CramMD5Credentials):
            def checkPassword(self, password: bytes) -> bool:
                compared.append(password)
                return super().checkPassword(password)  # type: ignore[no-any-return]

        credentials = Digest(b"example.org")
        challenge = credentials.getChallenge()
        credentials.username = username
        credentials.response = hmac.new(password, challenge, "md5").hexdigest().encode()
        answer = self.checker.requestAvatarId(credentials)
        self.assertEqual(len(compared), 1)
        return answer

    def test_digests(self) -> None:
        """Who has a plain password can prove that he knows it; all others cost as much."""
        account = self.successResultOf(self.digest(b"bob", b"builder"))
        self.assertEqual((account.name, account.master), ("bob", True))
        for name in (b"bob", b"alice", b"dave", b"erin", b"nobody", b"../x"):
            for password in (b"x", b"", b"nobody's"):
                self.failureResultOf(self.digest(name, password), UnauthorizedLogin)

    def log_in(self, username: bytes, password: bytes) -> Any:
        """Return what becomes of a log-in with a password."""
        return self.checker.requestAvatarId(UsernamePassword(username, password))

    def test_app_passwords(self) -> None:
        """An app password is its user's, does what both lines allow, and costs no hash."""
        self.patch(schemes, "parse", None)
        account = self.successResultOf(self.log_in(b"bob", APP % b"b"))
        networks = (ip_network("192.0.2.0/24"),)
        self.assertEqual(account, Account("bob", networks=networks, program="tv", no_delete=True))
        account = self.successResultOf(self.log_in(b"carol", APP % b"c"))
        self.assertEqual((account.disabled, account.program), (True, "tv"))

    def test_no_app_passwords(self) -> None:
        """One lets in nobody else, nor who has no password, is barred or is gone."""
        for name, letter in ((b"bob", b"a"), (b"dave", b"d"), (b"erin", b"e"), (b"frank", b"f")):
            self.failureResultOf(self.log_in(name, APP % letter), UnauthorizedLogin)

    def test_bare_app_passwords(self) -> None:
        """The file may have the bare name."""
        credentials = UsernamePassword(b"alice@example.org", APP % b"a")
        credentials.bare = b"alice"  # type: ignore[attr-defined]
        account = self.successResultOf(self.checker.requestAvatarId(credentials))
        self.assertEqual((account.name, account.program), ("alice@example.org", "tv"))

    def test_revoked(self) -> None:
        """A change of either file is another version, and counts at once."""
        for file in (self.path, self.apps):
            version = self.checker.version()
            content = file.read_text("utf-8")
            file.write_text(content.replace("alice", "x"))
            self.assertNotEqual(self.checker.version(), version)
            self.failureResultOf(self.log_in(b"alice", APP % b"a"), UnauthorizedLogin)
            file.write_text(content)
            self.successResultOf(self.log_in(b"alice", APP % b"a"))


class Making(FilesTestCase):
    """The factory makes checkers from the argument of --auth."""

    factory = PasswdCheckerFactory()

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)
        self.assertEqual(self.factory.authType, "popd-passwd")

    def test_file(self) -> None:
        """The name of a password file is all that it needs."""
        checker = self.factory.generateChecker(str(self.path))
        account = checker._verify(("alice@example.org", ""), b"wonderland")
        self.assertEqual(account, Account("alice@example.org"))

    def assertRefused(self, argument: str, reason: str) -> None:
        """Assert that *argument* is refused for *reason*, in one line."""
        error = self.assertRaises(InvalidAuthArgumentString, self.factory.generateChecker, argument)
        self.assertEqual(str(error), f"popd-passwd{reason}")

    def test_no_argument(self) -> None:
        """Without a file, the error says how to name one."""
        self.assertRefused("", " needs a file: popd-passwd:FILE")

    def test_unusable(self) -> None:
        """The error names the file and what is wrong with it."""
        missing = f"{self.path}/missing"
        self.assertRefused(missing, f": {missing}: Not a directory")
        self.assertRefused("/dev/null", ": /dev/null: not a regular file")
        self.assertRefused("a\0b", ": embedded null byte")

    def test_light(self) -> None:
        """To import the factory brings in neither hashing libraries nor the reactor."""
        code = (
            "import sys, popd.auth.checkers\n"
            "heavy = {'argon2', 'bcrypt', 'passlib', 'twisted.internet.reactor'}\n"
            "print(sorted(heavy.intersection(sys.modules)))\n"
        )
        output = subprocess.check_output(
            [sys.executable, "-c", code], text=True, env={"PYTHONPATH": ":".join(sys.path)}
        )
        self.assertEqual(output, "[]\n")
