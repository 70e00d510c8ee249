"""The AUTHORIZATION state: who are you? (RFC 1939 section 4)."""

from __future__ import annotations

import enum
import re
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Final, Literal, assert_never, cast

from popd.protocol import xclient
from popd.protocol.commands import (
    BadCommandError,
    Command,
    UnknownCommandError,
    execute,
    no_arguments,
    table,
)
from popd.protocol.credentials import PasswordCredentials
from popd.protocol.events import (
    Authenticate,
    Close,
    CloseReason,
    Event,
    Introduce,
    Lookup,
    Problem,
    Reply,
    StartTLS,
)
from popd.protocol.message import TERMINATOR
from popd.protocol.sasl.digests import read_digest
from popd.protocol.sasl.exchange import Ask, Challenge, Done, Failed, Mechanism
from popd.protocol.sasl.framing import decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.protocol.channel import Channel
    from popd.protocol.credentials import ScramKeys
    from popd.protocol.sasl.scram import Scram

__all__ = ["Authorization"]

_SEND_PASS: Final = Reply(b"+OK send PASS\r\n")
"""The same for every name (RFC 1939 section 13)."""

_NEEDS_TLS: Final = "[AUTH] log-in needs TLS: send STLS first"  # RFC 3206 section 5

_DENIED: Final = Problem.CREDENTIALS.value[len(b"-ERR ") :].strip().decode("ascii")


_HTTP: Final = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) .*|.* HTTP/[0-9.]+", re.DOTALL
)
"""A request line (RFC 9112 section 3); of a method that a script may name as it likes, its end."""

_NO_HTTP: Final = Close(b"-ERR this is no web server\r\n", CloseReason.HTTP)


class _Told(enum.Enum):
    TOLD = enum.auto()


_TOLD: Final = _Told.TOLD
"""In place of an exchange: the client was told why it failed, and has yet to say that it heard."""


class Authorization:
    """A session before log-in.

    :param channel: the connection beneath it.
    :param challenge: what the greeting asked of APOP's clients; empty if there is no APOP.
    """

    max_errors: ClassVar = 10
    """How many bad commands and refused log-ins together end the session."""

    _regret = b""
    """What a client is told with more words than a reply has, if it is not let in."""

    def __init__(self, channel: Channel, challenge: bytes = b"") -> None:
        self._channel = channel
        self._challenge = challenge
        self._username: bytes | None = None
        self._exchange: Mechanism | Literal[_Told.TOLD] | None = None
        self._commands = _commands(channel.offer.user, bool(challenge), channel.xclient)

    def execute(self, line: bytes) -> Event:
        """Carry out a command line, or take a response in a SASL exchange."""
        if self._exchange is not None:
            return self._respond(line)
        try:
            return execute(self, self._commands, line)
        except UnknownCommandError:
            # What follows may be commands that a web page had a browser send (ALPACA).
            if _HTTP.fullmatch(line):
                return _NO_HTTP
            raise

    def give_up_exchange(self) -> None:
        """Forget a SASL exchange that is under way."""
        self._exchange = None

    def found(self, keys: ScramKeys) -> Event:
        """Go on with the exchange that asked for these keys."""
        challenge = cast("Scram", self._exchange).found(keys)
        return Reply(_line(challenge.data))

    def refused(self, problem: Problem) -> Event | None:
        """Give up the log-in that was refused; return what is to be said before *problem* is."""
        regret, self._regret, self._exchange = self._regret, b"", None
        if not regret or problem is not Problem.CREDENTIALS:
            return None
        self._exchange = _TOLD
        return Reply(_line(regret))

    def _capa(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        return Reply(self._channel.capabilities())

    def _user(self, arguments: bytes) -> Event:
        self._need_login_allowed()
        self._username = arguments.strip(b" ") or None
        if self._username is None:
            raise BadCommandError("a user name is needed")
        return _SEND_PASS

    def _pass(self, arguments: bytes) -> Event:
        self._need_login_allowed()
        username, self._username = self._username, None
        if username is None:
            raise BadCommandError("send USER first")
        if not arguments:
            raise BadCommandError("a password is needed")
        # Spaces belong to the password (RFC 1939 section 7), in front and behind as well.
        return Authenticate(PasswordCredentials(username, arguments))

    def _apop(self, arguments: bytes) -> Event:
        """RFC 1939 section 7."""
        self._need_login_allowed()
        self._username = None
        credentials = read_digest(arguments.strip(b" "), self._challenge, "APOP")
        if credentials is None:
            raise BadCommandError("a user name and a digest are needed")
        return Authenticate(credentials)

    def _auth(self, arguments: bytes) -> Event:
        """RFC 5034 section 4; without an argument, the list of mechanisms that Outlook asks for."""
        name, _, initial = arguments.strip(b" ").partition(b" ")
        mechanisms = self._channel.mechanisms
        if not name:
            return Reply(b"\r\n".join([b"+OK", *mechanisms, TERMINATOR]))
        self._need_login_allowed()
        begin = mechanisms.get(name.upper())
        if begin is None:
            raise BadCommandError("unknown authentication mechanism")
        self._username = None
        return self._step(begin(self._channel), initial or None)

    def _respond(self, line: bytes) -> Event:
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange is _TOLD:
            raise BadCommandError(_DENIED)  # whatever it says to that (RFC 7628 section 3.2.3)
        if line == b"*":
            return Reply(b"-ERR authentication cancelled\r\n")
        return self._step(exchange, line)

    def _step(self, exchange: Mechanism, response: bytes | None) -> Event:
        try:
            decoded = None if response is None else decode(response)
        except ValueError:
            raise BadCommandError("that is not base64") from None
        outcome = exchange.step(decoded)
        match outcome:
            case Challenge(data):
                self._exchange = exchange
                return Reply(_line(data))
            case Ask(username, mechanism):
                self._exchange = exchange
                return Lookup(username, mechanism)
            case Done(credentials, regret):
                self._regret = regret
                return Authenticate(credentials)
            case Failed(text):
                raise BadCommandError(text)
            case _:
                assert_never(outcome)

    def _stls(self, arguments: bytes) -> Event:
        """RFC 2595 section 4."""
        no_arguments(arguments)
        if self._channel.tls:
            raise BadCommandError("TLS is active already")
        if not self._channel.stls:
            raise BadCommandError("TLS is not available")
        return StartTLS(b"+OK begin TLS\r\n")

    def _quit(self, arguments: bytes) -> Event:
        no_arguments(arguments)
        return Close(b"+OK bye\r\n", CloseReason.QUIT)

    def _need_login_allowed(self) -> None:
        if not self._channel.login_allowed:
            raise BadCommandError(_NEEDS_TLS)
        if self._channel.xclient:  # whoever begins to log in speaks for himself
            self._commands = _commands(self._channel.offer.user, bool(self._challenge), False)

    def _xclient(self, arguments: bytes) -> Event:
        return Introduce(xclient.parse(arguments))

    commands: ClassVar[Mapping[bytes, Command[Authorization]]] = table(
        Command("CAPA", "", _capa, "RFC 2449 §5", "list what the server can do"),
        Command("USER", "name", _user, "RFC 1939 §7", "give the user name"),
        Command("PASS", "password", _pass, "RFC 1939 §7", "give the password, log in"),
        Command("APOP", "name digest", _apop, "RFC 1939 §7", "log in by MD5, where it is on"),
        Command("AUTH", "[mechanism [response]]", _auth, "RFC 5034 §4", "log in by SASL"),
        Command("STLS", "", _stls, "RFC 2595 §4", "start TLS"),
        Command("XCLIENT", "ADDR=... PORT=...", _xclient, "Dovecot", "name a proxy's client"),
        Command("QUIT", "", _quit, "RFC 1939 §4", "end the session"),
    )


@cache
def _commands(user: bool, apop: bool, proxy: bool) -> Mapping[bytes, Command[Authorization]]:
    """Return the commands that exist; one that is not on offer does not."""
    offered = {b"USER": user, b"PASS": user, b"APOP": apop, b"XCLIENT": proxy}
    every = Authorization.commands.items()
    return {verb: command for verb, command in every if offered.get(verb, True)}


def _line(challenge: bytes) -> bytes:
    return b"+ " + encode(challenge) + b"\r\n"
