"""What popd adds to Twisted: ``twistd popd``, and checkers for ``--auth``."""
# ruff: noqa: INP001 - an __init__.py would replace Twisted's own

from twisted.application.service import ServiceMaker

from popd.auth.checkers import PasswdCheckerFactory
from popd.auth.dovecot import DovecotCheckerFactory
from popd.auth.ldap import LdapCheckerFactory
from popd.auth.oauth2.checker import OAuth2CheckerFactory
from popd.auth.pam import PamCheckerFactory

popd = ServiceMaker("popd", "popd.tap", "A POP3 server", "popd")
passwd, oauth2 = PasswdCheckerFactory(), OAuth2CheckerFactory()
dovecot, ldap, pam = DovecotCheckerFactory(), LdapCheckerFactory(), PamCheckerFactory()
