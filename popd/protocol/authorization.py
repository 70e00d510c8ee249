"""The AUTHORIZATION state: who are you? (RFC 1939 section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from popd.protocol.commands import BadCommandError, Command, execute, no_arguments, table
from popd.protocol.credentials import PasswordCredentials
from popd.protocol.events import Authenticate, Close, CloseReason, Event, Reply, StartTLS
from popd.protocol.message import TERMINATOR
from popd.protocol.sasl import MECHANISMS, Challenge, Done, Mechanism, decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popd.protocol.channel import Channel

__all__ = ["Authorization"]

_SEND_PASS: Final = Reply(b"+OK send PASS\r\n")
"""The same for every name (RFC 1939 section 13)."""

_NEEDS_TLS: Final = "[AUTH] log-in needs TLS: send STLS first"  # RFC 3206 section 5


class Authorization:
    """A session before log-in.

    :param channel: the connection beneath it.
    """

    max_errors: ClassVar = 10
    """How many bad commands and refused log-ins together end the session."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._username: bytes | None = None
        self._exchange: Mechanism | None = None

    def execute(self, line: bytes) -> Event:
        """Carry out a command line, or take a response in a SASL exchange."""
        if self._exchange is not None:
            return self._respond(self._exchange, line)
        return execute(self, self.commands, line)

    def give_up_exchange(self) -> None:
        """Forget a SASL exchange that is under way."""
        self._exchange = None

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

    def _auth(self, arguments: bytes) -> Event:
        """RFC 5034 section 4; without an argument, the list of mechanisms that Outlook asks for."""
        name, _, initial = arguments.strip(b" ").partition(b" ")
        if not name:
            offered = MECHANISMS if self._channel.login_allowed else ()
            return Reply(b"\r\n".join([b"+OK", *offered, TERMINATOR]))
        mechanism = MECHANISMS.get(name.upper())
        if mechanism is None:
            raise BadCommandError("unknown authentication mechanism")
        self._need_login_allowed()
        self._username = None
        return self._step(mechanism(), initial or None)

    def _respond(self, exchange: Mechanism, line: bytes) -> Event:
        self._exchange = None
        if line == b"*":
            return Reply(b"-ERR authentication cancelled\r\n")
        return self._step(exchange, line)

    def _step(self, exchange: Mechanism, response: bytes | None) -> Event:
        try:
            outcome = exchange.step(None if response is None else decode(response))
        except ValueError:
            raise BadCommandError("that is not base64") from None
        match outcome:
            case Challenge(data):
                self._exchange = exchange
                return Reply(b"+ " + encode(data) + b"\r\n")
            case Done(credentials):
                return Authenticate(credentials)
            case _:
                raise BadCommandError("[AUTH] malformed credentials")

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

    commands: ClassVar[Mapping[bytes, Command[Authorization]]] = table(
        Command("CAPA", "", _capa, "RFC 2449 §5", "list what the server can do"),
        Command("USER", "name", _user, "RFC 1939 §7", "give the user name"),
        Command("PASS", "password", _pass, "RFC 1939 §7", "give the password, log in"),
        Command("AUTH", "[mechanism [response]]", _auth, "RFC 5034 §4", "log in by SASL"),
        Command("STLS", "", _stls, "RFC 2595 §4", "start TLS"),
        Command("QUIT", "", _quit, "RFC 1939 §4", "end the session"),
    )
