"""The checkers that come with popd, and their factories for ``--auth``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.interfaces import (
    IAccounts,
    IKnowsBareNames,
    INeeds,
    IScramKeyring,
    IVersioned,
    Needs,
)
from popd.maildrop.user import UserName

if TYPE_CHECKING:
    from collections.abc import Callable

    from zope.interface import Interface

    from popd.auth.account import Account
    from popd.auth.appfile import AppPasswordFile
    from popd.auth.passwd import PasswordFile
    from popd.auth.passwdline import Entry
    from popd.protocol.credentials import ScramKeys

    _Find = Callable[[str, str], Entry | None]

__all__ = ["PasswdCheckerFactory", "PasswordFileChecker"]

_SCRAM: Final = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-1"})


@implementer(ICredentialsChecker, IVersioned, IKnowsBareNames, IAccounts, IScramKeyring, INeeds)
class PasswordFileChecker:
    """Checks credentials against a password file, and the app passwords beside it.

    What needs no hash is answered at once, unless the file has to be read again for it.

    :param file: the password file.
    :param defer: calls a function with arguments where it may take its time, as `deferToThread`
        does, which is the default: hashing a password is work for a thread.
    :param apps: the app passwords, if there can be any.
    """

    def __init__(
        self,
        file: PasswordFile,
        defer: Callable[..., Deferred[Any]] = deferToThread,
        apps: AppPasswordFile | None = None,
    ) -> None:
        self._file = file
        self._apps = apps
        self._defer = defer

    @property
    def credentialInterfaces(self) -> tuple[type[Interface], ...]:
        """Passwords; and digests of them if any password is stored plainly, or none at all yet."""
        if not self._file.schemes or "PLAIN" in self._file.schemes:
            return (IUsernamePassword, IUsernameHashedPassword)
        return (IUsernamePassword,)

    @property
    def scram_mechanisms(self) -> frozenset[str]:
        """For which there are keys; where there are no users yet, for which popctl makes them."""
        if not self._file.schemes:
            return frozenset({"SCRAM-SHA-256"})
        return self._file.schemes & _SCRAM

    def requestAvatarId(
        self, credentials: IUsernamePassword | IUsernameHashedPassword
    ) -> Deferred[Any]:
        """Return the `Account`, later; fails with UnauthorizedLogin."""
        names = _names(credentials.username, getattr(credentials, "bare", b""))
        if IUsernamePassword.providedBy(credentials):
            return self._defer(self._verify, names, credentials.password)
        return self._soon(self._compare, names, credentials.checkPassword)

    def account(self, username: bytes, bare: bytes) -> Deferred[Account | None]:
        """See `IAccounts`."""
        return self._soon(self._account, _names(username, bare))

    def scram_keys(
        self, username: bytes, bare: bytes, mechanism: str
    ) -> Deferred[ScramKeys | None]:
        """See `IScramKeyring`."""
        return self._soon(self._scram_keys, _names(username, bare), mechanism)

    def version(self) -> object:
        """See `IVersioned`: the versions of the files."""
        return self._file.version(), self._apps and self._apps.version()

    def needs(self) -> Needs:
        """See `INeeds`: the files."""
        return Needs((self._file.path, *((self._apps.path,) if self._apps else ())))

    def _soon(self, function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        """Call a function with what finds users, where the file may be read if it has to be."""
        if self._file.is_current():
            return maybeDeferred(function, self._file.recall, *arguments)
        return self._defer(function, self._file.find, *arguments)

    def _verify(self, names: tuple[str, str], password: bytes) -> Account:
        """Do the work, in whichever thread."""
        name, bare = names
        account = self._verify_app(names, password) or self._file.verify(name, password, bare)
        if account is None:
            raise UnauthorizedLogin
        return account

    def _verify_app(self, names: tuple[str, str], password: bytes) -> Account | None:
        """Return what a user may do with an app password, if this is one of his."""
        app = self._apps and self._apps.find(password)
        entry = self._file.find(*names) if app else None
        if not app or not entry or not entry.password or app.user != entry.name:
            return None
        from popd.auth.apppass import limited  # noqa: PLC0415 - not for whoever has no app passwords

        return limited(entry.account(names[0]), app.account)

    @staticmethod
    def _compare(find: _Find, names: tuple[str, str], check: Callable[[bytes], bool]) -> Account:
        entry = find(*names)
        plain = entry.plain if entry else None
        # Whoever has no plain password costs as much as one who has.
        if not check(plain or b"nobody's") or not entry or not plain:
            raise UnauthorizedLogin
        return entry.account(names[0])

    @staticmethod
    def _account(find: _Find, names: tuple[str, str]) -> Account | None:
        entry = find(*names)
        return entry.account(names[0]) if entry else None

    @staticmethod
    def _scram_keys(find: _Find, names: tuple[str, str], mechanism: str) -> ScramKeys | None:
        entry = find(*names)
        keys = entry and entry.scram_keys(mechanism)
        return replace(keys, owner=entry.account(names[0])) if entry and keys else None


def _names(username: bytes, bare: bytes) -> tuple[str, str]:
    """Return the canonical name and the bare one; a user who cannot be is called ``""``."""
    user = UserName.parse(username)
    return "" if user is None else str(user), bare.decode()


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
SCRAM-SHA-256, SCRAM-SHA-1, PLAIN.  "popctl user add" makes such lines; so does
"doveadm pw -s ARGON2ID", and "mkpasswd -m sha512crypt", whose output needs no
{SCHEME}.

Extra fields, separated by spaces: disabled (or nologin), require_tls,
allow_nets=NET,..., maildrop=maildir:/PATH, quota=1G, master, expires=2027-01-01,
scram_sha_256={SCRAM-SHA-256}...

App passwords, which "popctl apppass add" makes, are in FILE.apppass, if there is
one.  A changed file is read again at the next log-in.
"""
    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def generateChecker(self, argstring: str) -> PasswordFileChecker:
        """Return a checker for the password file *argstring*.

        :raises InvalidAuthArgumentString: there is no such file, or it cannot be read.
        """
        # These bring in the hashing libraries.
        from popd.auth.appfile import SUFFIX, AppPasswordFile  # noqa: PLC0415
        from popd.auth.passwd import PasswordFile  # noqa: PLC0415

        if not argstring:
            raise InvalidAuthArgumentString(f"{self.authType} needs a file: {self.authType}:FILE")
        try:
            file, apps = PasswordFile(argstring), AppPasswordFile(argstring + SUFFIX)
        except OSError as error:
            hint = "; popctl user add makes it" if isinstance(error, FileNotFoundError) else ""
            reason = f"{self.authType}: {error.filename}: {error.strerror}{hint}"
            raise InvalidAuthArgumentString(reason) from error
        except ValueError as error:
            raise InvalidAuthArgumentString(f"{self.authType}: {error}") from error
        return PasswordFileChecker(file, apps=apps)
