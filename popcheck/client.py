"""A POP3 client that says what a rule says, and takes no reply for another."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import time
from typing import Final

from popcheck.rule import Failed, Silent

__all__ = ["Connection", "shown", "unstuffed"]

_LISTING_LIMIT: Final = 64 << 20
"""Octets that a server may send before it comes to the end of something."""


def shown(data: bytes | bytearray, limit: int = 60) -> str:
    """Return octets as they are shown to people, at most *limit* of them."""
    return repr(bytes(data[:limit]))[1:] + ("..." if len(data) > limit else "")


def unstuffed(body: bytes) -> bytes:
    """Return the octets that a multi-line reply stands for (RFC 1939 section 3)."""
    return re.sub(rb"(?:(?<=\n)|\A)\.", b"", body)


class Connection:
    """A connection, from the greeting on.

    :param address: where the server listens, a host and a port.
    :param timeout: how many seconds a reply may take.
    :param tls: how to speak TLS from the first octet, or None.
    """

    def __init__(
        self, address: tuple[str, int], timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host = address[0]
        self.timeout = timeout
        self._buffer = bytearray()
        self.socket = socket.create_connection(address, timeout)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.secure(tls)
            self.greeting = self.line()
        except BaseException:
            self.close()
            raise

    def secure(self, context: ssl.SSLContext) -> None:
        """Start TLS.  Octets that came before it and were not read are a failure."""
        if self._buffer:
            raise Failed(f"plaintext before the TLS handshake: {shown(self._buffer)}")
        self.socket = context.wrap_socket(self.socket, server_hostname=self.host)

    def send(self, data: bytes) -> None:
        """Send octets.  That the server has closed shows when its reply is read."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.socket.sendall(data)

    def _receive(self) -> bool:
        """Read what there is, wait if there is nothing; return whether there may be more."""
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise Silent(f"no reply within {self.timeout:g} seconds") from None
        except (ConnectionError, ssl.SSLError):
            return False
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            if len(self._buffer) > _LISTING_LIMIT:
                raise Failed("a reply has no end")
            if not self._receive():
                rest = f" after {shown(self._buffer[-60:])}" if self._buffer else ""
                raise Failed(f"the server closed the connection{rest}")
        found = bytes(self._buffer[: end + len(mark)])
        del self._buffer[: end + len(mark)]
        return found

    def line(self) -> bytes:
        """Return the next line, without its CRLF."""
        line = self._until(b"\n")
        if not line.endswith(b"\r\n"):
            raise Failed(f"a line ends without CRLF: {shown(line)}")
        return line[:-2]

    def ask(self, command: bytes) -> bytes:
        """Send a command and return the first line of the reply, which is one or a challenge."""
        self.send(command + b"\r\n")
        return self.reply(command)

    def reply(self, command: bytes) -> bytes:
        """Return the first line of the reply to a command that was sent."""
        try:
            line = self.line()
        except Failed as failure:
            raise Failed(f"{shown(command)}: {failure}") from None
        if re.match(rb"(\+OK|-ERR)( |\Z)|\+( |\Z)", line) is None:
            raise Failed(f"{shown(command)} was answered with {shown(line)}")
        return line

    def ok(self, command: bytes) -> bytes:
        """Send a command that has to succeed; return what stands behind ``+OK``."""
        reply = self.ask(command)
        if not reply.startswith(b"+OK"):
            raise Failed(f"{shown(command)} was answered with {shown(reply)}")
        return reply[4:]

    def err(self, command: bytes) -> bytes:
        """Send a command that must not succeed; return what stands behind ``-ERR``."""
        reply = self.ask(command)
        if not reply.startswith(b"-ERR"):
            raise Failed(f"{shown(command)} was answered with {shown(reply)}")
        return reply[5:]

    def body(self) -> bytes:
        """Return the rest of a multi-line reply as it was sent, without the last line."""
        self._buffer[:0] = b"\r\n"  # the end of the status line
        return self._until(b"\r\n.\r\n")[2:-3]

    def listing(self, command: bytes) -> list[bytes]:
        """Send a command with a multi-line reply, and return its lines as they are meant."""
        self.ok(command)
        body = unstuffed(self.body())
        return body.split(b"\r\n")[:-1]

    def message(self, command: bytes) -> bytes:
        """Send RETR or TOP; return the message."""
        self.ok(command)
        return unstuffed(self.body())

    def stat(self) -> tuple[int, int]:
        """Return how many messages there are, and how many octets."""
        count, size = self.numbers(b"STAT", self.ok(b"STAT"))
        return count, size

    def numbers(self, command: bytes, text: bytes) -> tuple[int, int]:
        """Return the two numbers that a reply begins with."""
        match = re.match(rb"([0-9]+) ([0-9]+)(?![0-9])", text)
        if match is None:
            raise Failed(f"{shown(command)} was answered with {shown(text)}, not with two numbers")
        return int(match[1]), int(match[2])

    def sizes(self) -> dict[int, int]:
        """Return the sizes of all messages, as LIST has them."""
        return dict(self.numbers(b"LIST", line) for line in self.listing(b"LIST"))

    def uids(self) -> dict[int, bytes]:
        """Return the unique-ids of all messages."""
        return dict(self.uid(line) for line in self.listing(b"UIDL"))

    def uid(self, line: bytes) -> tuple[int, bytes]:
        """Return the message's number and its unique-id, of a line of UIDL."""
        match = re.match(rb"([0-9]+) ([!-~]+)(?![!-~])", line)
        if match is None:
            raise Failed(f"UIDL has the line {shown(line)}")
        return int(match[1]), match[2]

    def quiet(self, seconds: float = 0.15) -> bytes:
        """Return what comes unasked within so many seconds."""
        end = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                self.socket.settimeout(left)
                try:
                    data = self.socket.recv(1 << 16)
                except (ConnectionError, ssl.SSLError):
                    break
                if not data:
                    break
                self._buffer += data
        self.socket.settimeout(self.timeout)
        unasked = bytes(self._buffer)
        self._buffer.clear()
        return unasked

    def rest(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        while self._receive():
            pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def quit(self) -> None:
        """End the session as it should be ended, and the connection with it."""
        self.ok(b"QUIT")
        self.rest()
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
