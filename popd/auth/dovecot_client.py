"""Dovecot's authentication protocol, version 1, as a client speaks it.

See https://doc.dovecot.org, "Dovecot Authentication Protocol".
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineOnlyReceiver

from popd.auth.interfaces import AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from popd.auth.account import Client

__all__ = ["MAX_REQUESTS", "AuthClient", "Reply"]

MAX_REQUESTS: Final = 1000
"""How many passwords may be with Dovecot at once, from each process."""

_FIRST_LINES: Final = 100
"""So many lines may come before DONE."""

_ESCAPES: Final = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"l": b"\n"}


class Reply(NamedTuple):
    """What Dovecot says of a password.

    :param right: whether it is right.
    :param fields: what it says besides, a bare name with an empty text.
    """

    right: bool
    fields: dict[str, str]


class AuthClient(LineOnlyReceiver):
    """The client's end of a connection to Dovecot's auth process.

    :param clock: the reactor.
    :param patience: seconds without an answer after which Dovecot is `silent`.
    """

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = 16_384

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._begun = False
        self._first: list[list[bytes]] = []
        self._last_id = 0
        self._pending: dict[bytes, Deferred[Reply]] = {}
        self._heard = 0.0
        self.on_lost: Callable[[], object] = lambda: None
        self.ready: Deferred[AuthClient] = Deferred(self._abandon)

    def connectionMade(self) -> None:
        """Say who is here.

        The number has to differ from every other client's.  A process id may not, from another
        container.
        """
        self.sendLine(b"VERSION\t1\t1")
        self.sendLine(b"CPID\t%d" % (secrets.randbelow((1 << 31) - 1) + 1))

    def lineReceived(self, line: bytes) -> None:
        """Take what Dovecot says."""
        self._heard = self._clock.seconds()
        words = line.split(b"\t")
        if not self._begun:
            self._introduction(words)
        elif words[0] in {b"OK", b"FAIL", b"CONT"} and len(words) > 1:
            waiting = self._pending.pop(words[1], None)
            if waiting is None:
                return  # it came too late
            if words[0] == b"CONT":
                waiting.errback(AuthUncertainError("Dovecot wants more than a password"))
            else:
                waiting.callback(Reply(words[0] == b"OK", _fields(words[2:])))

    def _introduction(self, words: list[bytes]) -> None:
        self._first.append(words)
        if self._first[0][:2] != [b"VERSION", b"1"]:
            self._give_up("it speaks another version of its protocol, or it is no auth socket")
        elif words[0] == b"DONE":
            if not any(first[:2] == [b"MECH", b"PLAIN"] for first in self._first):
                self._give_up("its auth_mechanisms lack plain")
                return
            self._begun = True
            self._first.clear()
            self.ready.callback(self)
        elif len(self._first) > _FIRST_LINES:
            self._give_up("it does not come to the point")

    def _abandon(self, _: object) -> None:
        self._begun = True
        self.abort()

    def _give_up(self, why: str) -> None:
        self._begun = True
        self.abort()
        self.ready.errback(AuthUncertainError(f"Dovecot cannot be asked: {why}"))

    def abort(self) -> None:
        """Break the connection off."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Let everybody know who waits for an answer."""
        self.on_lost()
        if not self._begun:
            self._begun = True
            self.ready.errback(AuthUncertainError("Dovecot ends the connection at once"))
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.errback(AuthUncertainError("Dovecot ended the connection"))

    def ask(self, username: bytes, password: bytes, client: Client) -> Deferred[Reply]:
        """Ask whether a password is right; fails with `AuthUncertainError`.

        To cancel it leaves Dovecot's answer to nobody.
        """
        if len(self._pending) >= MAX_REQUESTS:
            raise AuthUncertainError("Dovecot has more log-ins to deal with than popd asks it for")
        if not self._pending:
            self._heard = self._clock.seconds()
        self._last_id += 1
        number = b"%d" % (self._last_id % (1 << 31))
        waiting: Deferred[Reply] = Deferred(lambda _: self._forget(number))
        self._pending[number] = waiting
        words = [b"AUTH", number, b"PLAIN", b"service=pop3", b"nologin", b"no-penalty"]
        if client.ip is not None:
            words.append(b"rip=" + str(client.ip).partition("%")[0].encode("ascii"))
        if client.tls or client.ip is None or client.ip.is_loopback:
            words.append(b"secured")
        words.append(b"resp=" + b64encode(b"\0%b\0%b" % (username, password)))  # the last of all
        self.sendLine(b"\t".join(words))
        return waiting

    def _forget(self, number: bytes) -> None:
        self._pending.pop(number, None)

    @property
    def silent(self) -> bool:
        """Whether Dovecot owed answers and gave none for as long as one may take."""
        return self._clock.seconds() - self._heard >= self._patience


def _fields(words: list[bytes]) -> dict[str, str]:
    pairs = (word.decode("utf-8", "replace").partition("=") for word in map(_unescaped, words))
    return {name: value for name, _, value in pairs}


def _unescaped(word: bytes) -> bytes:
    return re.sub(b"\1(.)", lambda match: _ESCAPES.get(match[1], match[1]), word, flags=re.DOTALL)
