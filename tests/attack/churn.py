"""Connections that come and go, and what is left of them: nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from tests.attack.footprint import KB, MB, descriptors, memory
from tests.e2e.server import Client
from tests.e2e.test_tls import hello

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tests.e2e.server import RunningServer

__all__ = ["OPTIONS", "WAYS", "Left", "churn", "random_names"]

OPTIONS: Final = (
    *("--cleartext-login", "always", "--max-sessions", "0", "--max-sessions-per-ip", "0"),
    *("--control", "none"),
)

_WARM: Final = 0.3
"""The part of the connections after which memory must not grow any more."""


_FIRST: Final = 400
"""Connections after which what is made once is made."""


@dataclass(frozen=True)
class Left:
    """What so many connections have left behind.

    :param connections: how many there were, those before the first look included.
    :param octets: by how much the memory grew between the two looks.
    :param files: how many more files are open.
    """

    connections: int
    octets: int
    files: int

    def __str__(self) -> str:
        """Return a line about it."""
        return (
            f"{self.connections} connections: {self.octets / KB:+.0f} KB of memory,"
            f" {self.files:+d} descriptors"
        )


def _talk(server: RunningServer, _: ssl.SSLContext) -> None:
    with Client(server.port) as client:
        client.send(b"USER bob\r\nPASS secret-of-bob\r\nLIST\r\nQUIT\r\n")
        client.rest()


def _talk_tls(server: RunningServer, context: ssl.SSLContext) -> None:
    with Client(server.tls_port, context) as client:
        client.send(b"USER carol\r\nPASS secret-of-carol\r\nUIDL\r\nQUIT\r\n")
        client.rest()


def _stls(server: RunningServer, context: ssl.SSLContext) -> None:
    with Client(server.port) as client:
        client.stls(context)
        client.expect(b"CAPA")


def _silent(server: RunningServer, _: ssl.SSLContext) -> None:
    Client(server.port, greeted=False).close()


def _reset(server: RunningServer, _: ssl.SSLContext) -> None:
    client = Client(server.tls_port, greeted=False)
    client.send(b"\x16\x03\x01")
    client.reset()


def _half_a_hello(server: RunningServer, context: ssl.SSLContext) -> None:
    with Client(server.tls_port, greeted=False) as client:
        client.send(hello(context)[:100])


def _unread(server: RunningServer, _: ssl.SSLContext) -> None:
    client = Client(server.port)
    client.send(b"CAPA\r\n" * 200)
    client.reset()


def _exchange(server: RunningServer, _: ssl.SSLContext) -> None:
    with Client(server.port) as client:
        client.expect(b"AUTH PLAIN", b"+ ")


def _wrong(server: RunningServer, _: ssl.SSLContext) -> None:
    with Client(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.rest()


WAYS: Final[tuple[Callable[[RunningServer, ssl.SSLContext], None], ...]] = (
    *(_talk, _talk_tls, _stls, _silent, _reset, _half_a_hello, _unread, _exchange, _wrong),
)
"""How to come and go."""


def churn(server: RunningServer, count: int) -> Left:
    """Come and go so often, in all ways by turns."""
    context = server.site.client_context()

    def once(number: int) -> None:
        WAYS[number % len(WAYS)](server, context)

    return _measured(server, count, once)


def random_names(server: RunningServer, count: int) -> Left:
    """Ask so often for the certificate of a host that nobody has heard of (SNI)."""
    chance = Random(count)  # noqa: S311 - any names will do
    context = server.site.client_context()
    context.check_hostname = False

    def once(_: int) -> None:
        name = (
            f"{chance.randbytes(chance.randrange(1, 31)).hex()}.{chance.randrange(10**9)}.example"
        )
        client = Client(server.tls_port, greeted=False)
        client.socket = context.wrap_socket(client.socket, server_hostname=name)
        client.line()
        client.close()

    return _measured(server, count, once)


def _measured(server: RunningServer, count: int, once: Callable[[int], None]) -> Left:
    warm = max(_FIRST, int(count * _WARM))
    for number in range(warm):
        once(number)
    files, octets = _look(server)
    for number in range(warm, count):
        once(number)
    more_files, more_octets = _look(server)
    return Left(count, more_octets - octets, more_files - files)


def _look(server: RunningServer) -> tuple[int, int]:
    """Return descriptors and memory, when the server has noticed that clients are gone."""
    files = descriptors(server)
    for _ in range(100):
        time.sleep(0.1)
        before, files = files, descriptors(server)
        if files == before:
            break
    return files, memory(server)


GROWTH: Final = MB
"""By how much the memory may grow."""
