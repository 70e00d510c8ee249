"""An ``--auth`` that does what somebody would who had taken over the process that serves.

With each log-in it tries what the file ``attempts`` asks for, and writes what became of that beside
it, in the directory of the mail.  It says that it needs nothing, as the password file would that
is all it is let to reach.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from popd.auth.account import Account
from popd.auth.interfaces import INeeds, Needs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Intruder", "IntruderFactory", "attempt"]


def _execute(path: str) -> None:
    """Become another program, in a process of its own."""
    pid = os.fork()
    if not pid:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno or 1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, os.strerror(code))


def _connect(port: int) -> None:
    with socket.socket() as end:
        end.connect(("127.0.0.1", port))


def _bind(port: int) -> None:
    with socket.socket() as end:
        end.bind(("127.0.0.1", port))


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"")


def _import(name: str) -> None:
    __import__(name)


_WAYS: dict[str, Callable[[Any], object]] = {
    "read": _read,
    "list": os.listdir,
    "append": _append,
    "make": lambda path: Path(path).touch(),
    "remove": os.unlink,
    "directory": os.mkdir,
    "link": lambda path: os.symlink("elsewhere", path),
    "execute": _execute,
    "connect": _connect,
    "bind": _bind,
    "signal": lambda pid: os.kill(pid, 0),
    "become": os.setuid,
    "import": _import,
}
"""What can be tried."""


def attempt(way: str, what: object) -> str:
    """Try something; return what is in the way, in a word, or nothing."""
    try:
        _WAYS[way](what)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


@implementer(ICredentialsChecker, INeeds)
class Intruder:
    """Lets everybody in, after it has tried what it can.

    :param mail: the directory of the mail.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, mail: str) -> None:
        self._mail = Path(mail)

    def needs(self) -> Needs:
        """See `INeeds`."""
        return Needs()

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[Any]:
        """See `ICredentialsChecker`."""
        attempts = json.loads((self._mail / "attempts").read_text())
        results = [attempt(way, what) for way, what in attempts]
        (self._mail / "results").write_text(json.dumps(results))
        return succeed(Account(credentials.username.decode()))


@implementer(ICheckerFactory, IPlugin)
class IntruderFactory:
    """Makes one of ``--auth intruder:DIRECTORY``."""

    authType = "intruder"
    argStringFormat = "The directory of the mail."
    authHelp = "For tests."
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> Intruder:
        """See `ICheckerFactory`."""
        return Intruder(argstring)
