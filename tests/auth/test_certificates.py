"""Tests of who certificates say that somebody is."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth.account import Account
from popd.auth.certificates import CertificateChecker
from popd.auth.credentials import ClientCertificate

if TYPE_CHECKING:
    from datetime import datetime

AUTHORITY = trustme.CA()


def issue(*identities: str, common_name: str | None = None) -> x509.Certificate:
    """Return a certificate for these."""
    leaf = AUTHORITY.issue_cert(*identities, common_name=common_name)
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


class Names(SynchronousTestCase):
    """A certificate names one user, or nobody."""

    def named(self, rule: str, certificate: x509.Certificate) -> str:
        """Return whom a certificate names, ``""`` for nobody."""
        login = CertificateChecker(rule).requestAvatarId(ClientCertificate(b"", certificate))
        login.addErrback(lambda failure: Account("") if failure.check(UnauthorizedLogin) else None)
        return self.successResultOf(login).name

    def test_rules(self) -> None:
        """The name is where the rule says, and nowhere else."""
        joe = issue("joe@example.org", common_name="Joe Doe")
        for rule, certificate, name in (
            ("san-email", joe, "joe@example.org"),
            ("cn", joe, "Joe Doe"),
            ("san-email", issue("joe@example.org", "jane@example.org"), ""),
            (
                "san-email",
                issue("joe@example.org", "joe@example.org", "x.example"),
                "joe@example.org",
            ),
            ("san-email", issue("example.org", common_name="joe@example.org"), ""),
            ("cn", issue("joe@example.org"), ""),
        ):
            self.assertEqual(self.named(rule, certificate), name)

    def test_expired(self) -> None:
        """A certificate counts while it is valid, though the session be resumed later."""
        certificate = issue("joe@example.org")
        end, second = certificate.not_valid_after_utc, timedelta(seconds=1)

        def login(now: datetime) -> bool:
            checker = CertificateChecker("san-email", lambda: now)
            found: list[object] = []
            answer = checker.requestAvatarId(ClientCertificate(b"", certificate))
            answer.addCallbacks(found.append, lambda failure: failure.trap(UnauthorizedLogin))
            return bool(found)

        start = certificate.not_valid_before_utc
        times = (start - second, start, end, end + second)
        self.assertEqual([login(time) for time in times], [False, True, True, False])

    def test_option(self) -> None:
        """It is an --auth plugin, whose argument is the rule."""
        verifyObject(ICredentialsChecker, makeChecker("popd-certificate:cn"))
        for argument in ("popd-certificate", "popd-certificate:dn"):
            error = self.assertRaises(InvalidAuthArgumentString, makeChecker, argument)
            self.assertIn("popd-certificate:san-email or :cn", str(error))
