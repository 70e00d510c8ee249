"""Tests of asking each link of a chain."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import LoginDenied
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Account
from popd.auth.checkers import PasswordFileChecker
from popd.auth.interfaces import AuthTemporaryError
from popd.auth.passwd import PasswordFile
from popd.ctl.asking import ask
from tests.auth.fakes import FakeChecker


class Asking(SynchronousTestCase):
    """What a checker says is told as it is."""

    def says(self, checker: Any, name: str = "ada", password: bytes = b"x", bare: str = "") -> Any:
        """Return what *checker* says."""
        return self.successResultOf(
            Deferred.fromCoroutine(ask(Clock(), checker, name, password, bare))
        )

    def test_password_file(self) -> None:
        """A password file can tell a wrong password from an unknown user."""
        path = Path(self.mktemp())
        path.write_text(
            "ada:{PLAIN}x::::::require_tls interval=9 allow_nets=10.0.0.0/8 no_delete master\n"
            "bob:{PLAIN}x::::::nologin\n"
            "cyd:{PLAIN}x::::::expires=2020-01-01\n"
            "dan:\n"
            "eve:{PLAIN}x::::::proxy\n"
        )
        self.addCleanup(logging.getLogger("popd").setLevel, logging.NOTSET)
        logging.getLogger("popd").setLevel(logging.CRITICAL)
        checker = PasswordFileChecker(PasswordFile(path), maybeDeferred)
        limits = "by TLS only, from 10.0.0.0/8, may delete nothing, once in 9 s, a master user"
        for name, said in (
            ("ada", ("accepted", f"as ada, {limits}")),
            ("bob", ("disabled", "the account is disabled")),
            ("cyd", ("disabled", "it has expired")),
            ("dan", ("wrong password", "")),
            ("eve", ("unknown user", "")),
            ("fay", ("unknown user", "")),
        ):
            self.assertEqual(self.says(checker, name), said)
        self.assertEqual(self.says(checker, "ada", b"y"), ("wrong password", ""))
        said = self.says(checker, "ada@example.org", bare="ada")
        self.assertEqual(said, ("accepted", f"as ada@example.org, {limits}"))

    def test_others(self) -> None:
        """Other checkers say less, and are asked for the bare name as well."""
        networks = (ip_network("10.0.0.0/8"),)
        for answer, said in (
            (b"ada", ("accepted", "")),
            ((), ("refused", "")),
            (LoginDenied(), ("refused", "wrong password or unknown user")),
            (OSError("no route to host"), ("cannot answer", "no route to host")),
            (AuthTemporaryError(), ("cannot answer", "AuthTemporaryError")),
            (Deferred(), None),
        ):
            checker = FakeChecker(answer)
            if said is None:
                self.assertTimesOut(checker)
            else:
                self.assertEqual(self.says(checker), said)
        checker = FakeChecker(lambda: Account("a", networks=networks, program="p"))
        said = self.says(checker)
        self.assertEqual(said, ("accepted", "as a, by the app password p, from 10.0.0.0/8"))
        checker = FakeChecker(LoginDenied())
        self.says(checker, "ada@example.org", bare="ada")
        self.assertEqual([name for name, _ in checker.asked], [b"ada@example.org", b"ada"])

    def assertTimesOut(self, checker: FakeChecker) -> None:
        """Assert that a checker that says nothing is waited for 30 seconds."""
        clock = Clock()
        asked = Deferred.fromCoroutine(ask(clock, checker, "ada", b"x"))
        clock.advance(29)
        self.assertNoResult(asked)
        clock.advance(2)
        said, why = self.successResultOf(asked)
        self.assertEqual(said, "cannot answer")
        self.assertIn("30", why)

    def test_no_passwords(self) -> None:
        """A checker that takes no passwords is not asked."""
        checker = FakeChecker(b"ada")
        self.patch(checker, "credentialInterfaces", (IUsernameHashedPassword,))
        self.assertEqual(self.says(checker), ("not asked", "it takes no passwords"))
