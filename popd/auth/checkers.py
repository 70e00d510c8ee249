"""The checkers that come with popd, and their factories for ``--auth``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.interfaces import IKnowsBareNames, IVersioned
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from popd.auth.passwd import PasswordFile

__all__ = ["PasswdCheckerFactory", "PasswordFileChecker"]


@implementer(ICredentialsChecker, IVersioned, IKnowsBareNames)
class PasswordFileChecker:
    """Checks passwords against a password file; an avatar id is a user's canonical name in UTF-8.

    :param file: the password file.
    :param defer: calls a function with arguments where it may take its time, as `deferToThread`
        does, which is the default: hashing a password is work for a thread.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self, file: PasswordFile, defer: Callable[..., Deferred[bytes | tuple[()]]] = deferToThread
    ) -> None:
        self._file = file
        self._defer = defer

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Return the user's canonical name, later; fails with UnauthorizedLogin."""
        bare = getattr(credentials, "bare", b"")
        return self._defer(self._verify, credentials.username, credentials.password, bare)

    def version(self) -> object:
        """See `IVersioned`: the version of the file."""
        return self._file.version()

    def _verify(self, username: bytes, password: bytes, bare: bytes = b"") -> bytes:
        """Do the work, in whichever thread."""
        user = UserName.parse(username)
        name = "" if user is None else str(user)  # nobody is called "": an unknown user's work
        if not self._file.verify(name, password, bare.decode()):
            raise UnauthorizedLogin
        return name.encode()


@implementer(ICheckerFactory, IPlugin)
class PasswdCheckerFactory:
    """Makes a `PasswordFileChecker` of ``--auth popd-passwd:FILE``."""

    authType = "popd-passwd"
    argStringFormat = "Location of a password file in Dovecot's passwd-file format."
    authHelp = """
A password file as Dovecot has it, one user a line:

    user:{SCHEME}password:uid:gid:gecos:home:shell:extra

Only the user name and the password are needed, the other fields may be left
out.  Empty lines and lines that begin with # are skipped.

Schemes: ARGON2ID (recommended), ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT,
CRYPT (any of the crypts, and yescrypt where the system has it), SSHA512, SSHA,
PLAIN.  "doveadm pw -s ARGON2ID" makes such passwords, and so does
"mkpasswd -m sha512crypt", whose output needs no {SCHEME}.

A changed file is read again at the next log-in.
"""
    credentialInterfaces = PasswordFileChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> PasswordFileChecker:
        """Return a checker for the password file *argstring*.

        :raises InvalidAuthArgumentString: there is no such file, or it cannot be read.
        """
        from popd.auth.passwd import PasswordFile  # noqa: PLC0415 - brings in the hashing libraries

        if not argstring:
            raise InvalidAuthArgumentString(f"{self.authType} needs a file: {self.authType}:FILE")
        try:
            return PasswordFileChecker(PasswordFile(argstring))
        except OSError as error:
            reason = f"{self.authType}: {argstring}: {error.strerror}"
            raise InvalidAuthArgumentString(reason) from error
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {error}") from error
