"""What popd adds to Twisted: ``twistd popd`` and ``--auth popd-passwd:FILE``."""
# ruff: noqa: INP001 - an __init__.py would replace Twisted's own

from twisted.application.service import ServiceMaker

from popd.auth.checkers import PasswdCheckerFactory
from popd.auth.dovecot import DovecotCheckerFactory
from popd.auth.ldap import LdapCheckerFactory
from popd.auth.oauth2.checker import OAuth2CheckerFactory

__all__ = ["dovecot_checker", "ldap_checker", "oauth2_checker", "passwd_checker", "popd"]

popd = ServiceMaker("popd", "popd.tap", "A POP3 server", "popd")
passwd_checker = PasswdCheckerFactory()
dovecot_checker = DovecotCheckerFactory()
ldap_checker = LdapCheckerFactory()
oauth2_checker = OAuth2CheckerFactory()
