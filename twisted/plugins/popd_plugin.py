"""What popd adds to Twisted: ``twistd popd``, and the types of ``--auth``."""

from twisted.application.service import ServiceMaker

from popd.auth import certificates, checkers, dovecot, ldap, pam, sql
from popd.auth.oauth2.checker import OAuth2CheckerFactory

popd = ServiceMaker("popd", "popd.tap", "A POP3 server", "popd")
certificate_checker = certificates.CertificateCheckerFactory()
dovecot_checker = dovecot.DovecotCheckerFactory()
ldap_checker = ldap.LdapCheckerFactory()
oauth2_checker = OAuth2CheckerFactory()
pam_checker = pam.PamCheckerFactory()
passwd_checker = checkers.PasswdCheckerFactory()
sql_checker = sql.SqlCheckerFactory()
