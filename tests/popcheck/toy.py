"""A POP3 server that does everything right, in as few lines as that takes, so that mutants are
easily made.

A mutant overrides a method of `Session`, or one of the values that stand on top of it.  What a
method returns is what is sent; nothing here waits, limits or logs, and one user has an account.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any

from tests.popcheck.maildrop import OK, Maildrop, Quit, Refused

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PASSWORD", "USER", "Session", "Toy"]

USER = b"Ada"
PASSWORD = b"Secret12"

_SALT = b"0123456789abcdef"
_ITERATIONS = 4096


class Toy(socketserver.ThreadingTCPServer):
    """The server: ``port``, and ``tls_port`` if it has a context.

    :param session: what a session does.
    :param maildir: the user's Maildir.
    :param context: TLS, or None.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, session: type[Session], maildir: Path, context: ssl.SSLContext | None = None
    ) -> None:
        self.session, self.maildir, self.context = session, maildir, context
        self.lock = threading.Lock()
        """Whoever holds it has the maildrop."""
        self.memory: dict[str, Any] = {}
        """Where mutants remember things."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.port: int = self.server_address[1]
        self.tls_port = 0
        self._beside: Toy | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.process_request(*self.socket.accept())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Some mutants stumble: that is how they fail."""

    def with_tls(self) -> Toy:
        """Serve a port for TLS, too."""
        assert self.context is not None
        beside = Toy(self.session, self.maildir, self.context)
        beside.lock, beside.memory, beside.implicit = self.lock, self.memory, True
        self._beside, self.tls_port = beside, beside.port
        return self

    implicit = False
    """Whether it speaks TLS from the first octet."""

    def end(self) -> None:
        """Stop."""
        if self._beside is not None:
            self._beside.end()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Handler(socketserver.BaseRequestHandler):
    """A connection."""

    server: Toy

    def handle(self) -> None:
        """Serve it."""
        session = self.server.session(self.server, self.request)
        with contextlib.suppress(OSError):
            session.run(implicit=self.server.implicit)
        session.leave()
        with contextlib.suppress(OSError):
            session.socket.close()


class Session(Maildrop):
    """One session.  A verb that is in ``before`` or ``after`` is carried out by ``do_VERB``."""

    capabilities: tuple[bytes, ...] = (
        *(b"TOP", b"UIDL", b"USER", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"),
        *(b"SASL PLAIN LOGIN SCRAM-SHA-256", b"EXPIRE NEVER", b"LOGIN-DELAY 0"),
        *(b"IMPLEMENTATION toy", b"UTF8", b"LANG"),
    )
    before: tuple[str, ...] = (
        *("USER", "PASS", "APOP", "AUTH", "CAPA", "STLS", "UTF8", "LANG", "QUIT"),
    )
    after: tuple[str, ...] = (
        *("STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET", "NOOP", "CAPA", "LANG", "QUIT"),
    )
    stls = False
    limit = 16_384
    apop = True
    bad = 50

    def __init__(self, server: Toy, connection: socket.socket) -> None:
        super().__init__(server)
        self.socket = connection
        self.tls = False
        self.buffer = b""
        self.user: bytes | None = None
        self.errors = 0
        self.stamp = b"<%s@toy>" % secrets.token_hex(8).encode() if self.apop else b""

    # The connection.

    def run(self, *, implicit: bool) -> None:
        """Greet, and answer line by line."""
        if implicit:
            self.secure()
        self.send(self.greeting())
        try:
            while (line := self.line()) is not None:
                self.send(self.answer(line))
        except Quit as last:
            self.send(last.args[0])

    def greeting(self) -> bytes:
        """Say hello."""
        return b"+OK toy %s\r\n" % self.stamp if self.stamp else b"+OK toy\r\n"

    def secure(self) -> None:
        """Start TLS."""
        assert self.server.context is not None
        self.socket = self.server.context.wrap_socket(self.socket, server_side=True)
        self.tls = True

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """Return what comes; nothing at the end."""
        return self.socket.recv(65_536)

    def line(self) -> bytes | None:
        """Return the next line, without its end; None at the end of the connection."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > self.limit:
                raise Quit(b"-ERR line too long\r\n")
            data = self.receive()
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        if len(line) > self.limit:
            raise Quit(b"-ERR line too long\r\n")
        return line.removesuffix(b"\r")

    def answer(self, line: bytes) -> bytes:
        """Return the reply to a line."""
        try:
            return self.carry_out(*self.split(line))
        except Refused as error:
            self.errors += 1
            if self.errors > self.bad:
                raise Quit(b"-ERR too many errors\r\n") from None
            return self.refuse(str(error), line)

    def carry_out(self, verb: str, argument: bytes) -> bytes:
        """Return what is said to a command."""
        if verb not in (self.before if self.files is None else self.after):
            raise Refused("unknown command")
        handler: Callable[[bytes], bytes] = getattr(self, f"do_{verb}")
        return handler(argument)

    def split(self, line: bytes) -> tuple[str, bytes]:
        """Return the verb, in upper case, and what stands behind it."""
        verb, _, argument = line.partition(b" ")
        return verb.upper().decode("ascii", "replace"), argument

    def refuse(self, text: str, line: bytes) -> bytes:
        """Return -ERR, with a text."""
        return b"-ERR " + text.encode() + b"\r\n"

    # Logging in.

    def do_CAPA(self, argument: bytes) -> bytes:
        """List what there is."""
        self.none(argument)
        return self.multi(self.capa())

    def capa(self) -> list[bytes]:
        """Return the lines of CAPA."""
        return [*self.capabilities, *([b"STLS"] if self.stls and not self.tls else [])]

    def do_USER(self, argument: bytes) -> bytes:
        """Take a name."""
        self.user = argument.strip(b" ") or None
        if self.user is None:
            raise Refused("who?")
        return OK

    def do_PASS(self, argument: bytes) -> bytes:
        """Take a password."""
        user, self.user = self.user, None
        if user is None or not argument:
            raise Refused("USER and a password")
        return self.let_in(self.right(user, argument))

    def right(self, user: bytes, password: bytes) -> bool:
        """Return whether this is the user's password."""
        return user == USER and password == PASSWORD

    def let_in(self, right: bool) -> bytes:
        """Open the maildrop, if log-in was right."""
        if not right:
            raise Refused(self.wrong)
        if not self.take():
            raise Refused("[IN-USE] another session")
        self.open()
        return OK

    wrong = "[AUTH] wrong"

    def do_APOP(self, argument: bytes) -> bytes:
        """Log in by MD5."""
        name, _, digest = argument.partition(b" ")
        if not self.stamp or not digest:
            raise Refused("no")
        right = hashlib.md5(self.stamp + PASSWORD, usedforsecurity=False).hexdigest()
        return self.let_in(name == USER and digest.decode("latin-1") == right)

    def do_STLS(self, argument: bytes) -> bytes:
        """Start TLS; what was sent in plaintext behind it ends the connection."""
        self.none(argument)
        if self.tls or not self.stls:
            raise Refused("no")
        if self.buffer:
            raise Quit(b"-ERR not yet\r\n")
        self.send(OK)
        self.secure()
        self.user = None
        return b""

    def do_UTF8(self, argument: bytes) -> bytes:
        """Let mail have UTF-8 in its header."""
        self.none(argument)
        self.utf8 = True
        return OK

    def do_LANG(self, argument: bytes) -> bytes:
        """List languages, or take one."""
        if not argument:
            return self.multi([b"en English"])
        if argument.lower() not in (b"en", b"*"):
            raise Refused("no such language")
        return b"+OK en\r\n"

    def do_AUTH(self, argument: bytes) -> bytes:
        """Log in by SASL."""
        name, _, initial = argument.strip(b" ").partition(b" ")
        if not name:
            return self.multi([b"PLAIN", b"LOGIN", b"SCRAM-SHA-256"])
        mechanism: Callable[[bytes | None], bytes] | None = {
            b"PLAIN": self.plain,
            b"LOGIN": self.login,
            b"SCRAM-SHA-256": self.scram,
        }.get(self.mechanism(name))
        if mechanism is None:
            raise Refused("unknown mechanism")
        return mechanism(self.decode(initial) if initial else None)

    def mechanism(self, name: bytes) -> bytes:
        """Return the name of a mechanism as it is registered."""
        return name.upper()

    def challenge(self, data: bytes) -> bytes:
        """Send a challenge; return the response, decoded."""
        self.send(b"+ " + base64.b64encode(data) + b"\r\n")
        line = self.line()
        if line is None or line == b"*":
            raise Refused("cancelled")
        return self.decode(line)

    def decode(self, data: bytes) -> bytes:
        """Return what base64 stands for."""
        try:
            decoded = b"" if data == b"=" else base64.b64decode(data, validate=True)
        except ValueError:
            raise Refused("no base64") from None
        if data != b"=" and base64.b64encode(decoded) != data:
            raise Refused("no base64")
        return decoded

    def plain(self, initial: bytes | None) -> bytes:
        """PLAIN."""
        response = self.challenge(b"") if initial is None else initial
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise Refused("malformed")
        authzid, user, password = parts
        if not password or authzid not in (b"", user):
            raise Refused(self.wrong)
        return self.let_in(self.right(user, password))

    def login(self, initial: bytes | None) -> bytes:
        """LOGIN."""
        user = self.challenge(b"Username:") if initial is None else initial
        return self.let_in(self.right(user, self.challenge(b"Password:")))

    iterations = _ITERATIONS

    def scram(self, initial: bytes | None) -> bytes:
        """SCRAM-SHA-256."""

        def mac(key: bytes, data: bytes) -> bytes:
            return hmac.digest(key, data, "sha256")

        bare = (self.challenge(b"") if initial is None else initial).removeprefix(b"n,,")
        nonce = bare.rpartition(b"r=")[2] + secrets.token_hex(8).encode()
        salt = base64.b64encode(_SALT)
        first = b"r=%s,s=%s,i=%d" % (nonce, salt, self.iterations)
        final = self.challenge(first)
        without, _, proof = final.rpartition(b",p=")
        signed = b",".join([bare, first, without])
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD, _SALT, self.iterations)
        key = mac(salted, b"Client Key")
        mask = mac(hashlib.sha256(key).digest(), signed)
        right = bytes(one ^ two for one, two in zip(key, mask, strict=True))
        if not self.proved(base64.b64decode(proof) == right):
            raise Refused(self.wrong)
        self.challenge(self.last_word(mac(mac(salted, b"Server Key"), signed)))
        return self.let_in(right=True)

    def proved(self, right: bool) -> bool:
        """Return whether a proof is taken."""
        return right

    def last_word(self, signature: bytes) -> bytes:
        """Return what the server says last."""
        return b"v=" + base64.b64encode(signature)
