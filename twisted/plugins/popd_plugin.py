"""What popd adds to Twisted: ``twistd popd``, and checkers for ``--auth``."""
# ruff: noqa: INP001 - an __init__.py would replace Twisted's own

from twisted.application.service import ServiceMaker

from popd.auth import certificates, checkers, dovecot, ldap, pam
from popd.auth.oauth2.checker import OAuth2CheckerFactory

popd = ServiceMaker("popd", "popd.tap", "A POP3 server", "popd")
certificate_checker = certificates.CertificateCheckerFactory()
dovecot_checker = dovecot.DovecotCheckerFactory()
ldap_checker = ldap.LdapCheckerFactory()
oauth2_checker = OAuth2CheckerFactory()
pam_checker = pam.PamCheckerFactory()
passwd_checker = checkers.PasswdCheckerFactory()
