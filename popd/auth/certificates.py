"""Who a TLS client certificate says that somebody is (EXTERNAL)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.account import Account
from popd.auth.interfaces import IClientCertificate, INeeds, Needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate

__all__ = ["CertificateChecker", "CertificateCheckerFactory"]


def _emails(certificate: Certificate) -> list[str]:
    """Return the rfc822Names of the subject (RFC 5280 section 4.2.1.6)."""
    from cryptography import x509  # noqa: PLC0415 - which a plugin must not bring in

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.RFC822Name)


def _common_names(certificate: Certificate) -> list[str]:
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - likewise

    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [str(attribute.value) for attribute in attributes]


_RULES: Final[dict[str, Callable[[Certificate], list[str]]]] = {
    "san-email": _emails,
    "cn": _common_names,
}
"""Where in a certificate a user's name is."""


@implementer(ICredentialsChecker, INeeds)
class CertificateChecker:
    """Takes the word of whoever issued a certificate for who its owner is.

    A certificate that names nobody, or more than one user, lets nobody in.

    :param rule: where in the certificate the name is: ``san-email`` or ``cn``.
    :param now: tells the time, with its zone.
    :raises KeyError: there is no such rule.
    """

    credentialInterfaces = (IClientCertificate,)

    def __init__(self, rule: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._names = _RULES[rule]
        self._now = now

    def requestAvatarId(  # type: ignore[override]  # any object can be an avatar id
        self, credentials: Any
    ) -> Deferred[Account]:
        """Return the account of whom the certificate names; fails with UnauthorizedLogin."""
        certificate: Certificate = credentials.certificate
        try:
            names = set(self._names(certificate))
        except ValueError:  # an extension that is not what the standard says
            names = set()
        # It may have expired since the session began that is resumed now.
        valid = certificate.not_valid_before_utc <= self._now() <= certificate.not_valid_after_utc
        if len(names) != 1 or not valid:
            return fail(UnauthorizedLogin())
        return succeed(Account(names.pop()))

    def needs(self) -> Needs:
        """See `INeeds`: nothing."""
        return Needs()


@implementer(ICheckerFactory, IPlugin)
class CertificateCheckerFactory:
    """Makes a `CertificateChecker` of ``--auth popd-certificate:RULE``."""

    authType = "popd-certificate"
    argStringFormat = "san-email or cn: where in a certificate the user's name is."
    authHelp = """
Clients log in with TLS certificates (SASL EXTERNAL).  --client-ca says which
authorities vouch for them.  The user's name is

    popd-certificate:san-email   the e-mail address among the subject's
                                 alternative names
    popd-certificate:cn          the subject's common name

and is completed with --default-domain if it has no domain.  A certificate with
no such name, or with several, lets nobody in.
"""
    credentialInterfaces = CertificateChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> CertificateChecker:
        """Return a checker that goes by the rule *argstring*.

        :raises InvalidAuthArgumentString: there is no such rule.
        """
        try:
            return CertificateChecker(argstring)
        except KeyError:
            raise InvalidAuthArgumentString(
                f"{self.authType}: say where the name is: {self.authType}:{' or :'.join(_RULES)}"
            ) from None
