"""What popd adds to Twisted: ``twistd popd`` and ``--auth popd-passwd:FILE``."""
# ruff: noqa: INP001 - an __init__.py would replace Twisted's own

from twisted.application.service import ServiceMaker

from popd.auth.certificates import CertificateCheckerFactory
from popd.auth.checkers import PasswdCheckerFactory
from popd.auth.sql import SqlCheckerFactory

__all__ = ["certificate_checker", "passwd_checker", "popd", "sql_checker"]

popd = ServiceMaker("popd", "popd.tap", "A POP3 server", "popd")
passwd_checker = PasswdCheckerFactory()
certificate_checker = CertificateCheckerFactory()
sql_checker = SqlCheckerFactory()
