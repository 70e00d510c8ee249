"""Each rule fails on the server that breaks it, and passes on the one that breaks none.

The servers are toys in threads of this process; nothing of popd is in it.
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from twisted.trial.unittest import SynchronousTestCase

from popcheck.maildir import Maildir
from popcheck.rules import load
from popcheck.runner import FAIL, PASS, SKIP, carry_out
from popcheck.target import Target
from tests.popcheck.mutants import MUTANTS
from tests.popcheck.mutants_store import Streaming
from tests.popcheck.toy import PASSWORD, USER, Session, Toy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from popcheck.runner import Result

PATIENCE = 0.4
"""Seconds that a mutant has for a reply; some never give one."""


class Plain(Session):
    """The toy without what is in it for few rules."""

    stls = True
    apop = False
    capabilities = Session.capabilities[:-2]
    before = ("USER", "PASS", "APOP", "AUTH", "CAPA", "STLS", "QUIT")


class RuleTests(SynchronousTestCase):
    """Rules, and servers that keep or break them."""

    def setUp(self) -> None:
        """Make a Maildir and certificates."""
        self.home = Path(tempfile.mkdtemp(prefix="popcheck-"))
        self.addCleanup(shutil.rmtree, self.home)
        self.path = self.maildir()
        authority = trustme.CA()
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server_context)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
        self.old_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.old_context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.old_context.minimum_version = ssl.TLSVersion.TLSv1
        self.old_context.set_ciphers("ALL:@SECLEVEL=0")

    def maildir(self) -> Path:
        """Make a Maildir."""
        path = Path(tempfile.mkdtemp(dir=self.home))
        for name in ("tmp", "new", "cur"):
            (path / name).mkdir()
        return path

    def run_rules(
        self,
        session: type[Session],
        *names: str,
        tls: bool = False,
        old: bool = False,
        patience: float = 20.0,
        path: Path | None = None,
    ) -> list[Result]:
        """Check rules with a server; return what became of them."""
        path = path or self.path
        toy = Toy(session, path, self.old_context if old else self.server_context)
        try:
            if tls:
                toy.with_tls()
            target = Target(
                host="127.0.0.1",
                port=toy.port,
                tls_port=toy.tls_port,
                user=USER,
                password=PASSWORD,
                context=self.client_context,
                maildir=Maildir(path),
                timeout=patience,
                idle=0.3,
            )
            rules = load()
            return [carry_out(rules[name], target) for name in names or rules]
        finally:
            toy.end()

    def test_every_rule_has_a_mutant(self) -> None:
        """There is no rule that no server could break."""
        self.assertEqual(set(MUTANTS), set(load()))

    def test_correct(self) -> None:
        """A server that does everything right passes, and each rule finds a server to pass on."""
        results = self.run_rules(Session)
        skipped = [one.rule.name for one in results if one.outcome == SKIP]
        results += self.run_rules(Plain, *skipped, tls=True)
        results += self.run_rules(Streaming, "change.cut-while-sent")
        failed = [(one.rule.name, one.detail) for one in results if one.outcome == FAIL]
        self.assertEqual(failed, [])
        passed = {one.rule.name for one in results if one.outcome == PASS}
        self.assertEqual(set(load()) - passed, set())
        left = [path for at in ("new", "cur", "tmp") for path in (self.path / at).iterdir()]
        self.assertEqual(left, [])

    def survives(self, name: str) -> bool:
        """Return whether a rule does not fail on its mutant."""
        old = name.startswith("tls.refuses")
        tls = name.startswith("tls.")
        (result,) = self.run_rules(
            MUTANTS[name], name, tls=tls, old=old, patience=PATIENCE, path=self.maildir()
        )
        return result.outcome != FAIL

    def survivors(self, names: Iterable[str]) -> list[str]:
        """Return those of the rules that do not fail on their mutants; most of it is waiting."""
        names = list(names)
        with ThreadPoolExecutor(4) as pool:
            return [
                name
                for name, alive in zip(names, pool.map(self.survives, names), strict=True)
                if alive
            ]

    def test_mutants(self) -> None:
        """Each rule fails on its mutant; one that is too slow to be seen gets two more chances."""
        survivors = self.survivors(self.survivors(self.survivors(MUTANTS)))
        self.assertEqual(survivors, [])

    def test_without_maildir(self) -> None:
        """Without a Maildir rules that need one are skipped, and the user's mail is left alone."""
        mine = self.path / "new" / "1.mine"
        mine.write_bytes(b"Subject: mine\n\ntext\n")
        toy = Toy(Session, self.path)
        self.addCleanup(toy.end)
        target = Target("127.0.0.1", toy.port, 0, USER, PASSWORD, self.client_context)
        for rule in load().values():
            result = carry_out(rule, target)
            if rule.needs_mail:
                self.assertEqual(result.outcome, SKIP)
            else:
                self.assertNotEqual(result.outcome, FAIL, f"{rule.name}: {result.detail}")
        self.assertTrue(mine.exists())
