"""Commands in plaintext behind STLS, cut in every way (CVE-2011-0411 and its heirs), with real TLS.

Here each piece is read by itself; ``tests/e2e/test_tls.py`` sends the same to a real server.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import trustme
from twisted.internet.testing import MemoryReactor

from popd.server.tls import load_context
from popd.server.transport import PromptServer
from tests.server.helpers import ServerCase

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INJECTION", "splits"]

ISSUED = trustme.CA().issue_cert("mail.example.org")
INJECTION = b"STLS\r\nCAPA\r\n"
GREETING = b"+OK POP3 server ready\r\n"
REFUSED = b"-ERR nothing may follow STLS\r\n"
BEGIN = b"+OK begin TLS\r\n"
ALERT = b"\x15\x03"
LONGEST_ALERT = 7
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def splits(said: bytes) -> Iterator[list[bytes]]:
    """Yield what is said as a whole, and cut in two and in three in every way."""
    for pieces in (1, 2, 3):
        for cuts in combinations(range(1, len(said)), pieces - 1):
            edges = [0, *cuts, len(said)]
            yield [said[a:b] for a, b in pairwise(edges)]


class InjectionTests(ServerCase):
    """What is behind STLS in plaintext is neither answered nor part of the session under TLS."""

    cleartext_login = "never"

    def setUp(self) -> None:
        """Have TLS."""
        path = self.mktemp()
        Path(path).write_bytes(ISSUED.private_key_and_cert_chain_pem.bytes())
        self.tls = load_context([path])
        super().setUp()

    def client(self, version: ssl.TLSVersion) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """Return the client's end of TLS, what it hears and what it says."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        return context.wrap_bio(heard, said), heard, said

    def converse(self, pieces: list[bytes], version: ssl.TLSVersion) -> bytes:
        """Say these pieces, then shake hands; return all that comes back."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            mine = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        with mine, theirs:
            mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            mine.settimeout(10)
            theirs.setblocking(False)
            reactor: Any = MemoryReactor()
            protocol = self.factory.buildProtocol(None)
            transport: Any = PromptServer(theirs, protocol, ("192.0.2.1", 1), None, 0, reactor)
            protocol.makeConnection(transport)
            end, heard, said = self.client(version)
            got = b""
            for piece in pieces:
                with contextlib.suppress(OSError):  # it may have closed already
                    mine.send(piece)
                self.turn(transport)
            for _ in range(4):  # as long as hands are shaken
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    break
                if said.pending and transport.connected:
                    with contextlib.suppress(OSError):
                        mine.send(said.read())
                    self.turn(transport)
                mine.setblocking(False)
                try:
                    more = mine.recv(65_536)
                except OSError:
                    more = b""
                mine.settimeout(10)
                got += more
                heard.write(more.removeprefix(GREETING + BEGIN).removeprefix(BEGIN))
            protocol.connectionLost(mock.Mock())
            return got

    def turn(self, transport: Any) -> None:
        """Let the server read once, as its reactor does."""
        if transport.connected and not transport.disconnecting:
            why = transport.doRead()
            if why is not None:
                transport.connected = False

    def test_all_splits(self) -> None:
        """Cut anywhere: an error and the end, or TLS that finds no handshake and ends."""
        ends = set()
        for version in VERSIONS:
            for pieces in splits(INJECTION):
                got = self.converse(pieces, version).removeprefix(GREETING)
                if got != REFUSED:
                    self.assertTrue(got.startswith(BEGIN), (pieces, got))
                    alert = got.removeprefix(BEGIN)
                    self.assertTrue(not alert or alert.startswith(ALERT), (pieces, got))
                    self.assertLessEqual(len(alert), LONGEST_ALERT, (pieces, got))
                ends.add(got == REFUSED)
        self.assertEqual(ends, {True, False})

    def test_honest(self) -> None:
        """So it would be seen if there were more: without injection hands are shaken."""
        for version in VERSIONS:
            got = self.converse([b"STLS\r\n"], version)
            self.assertTrue(got.startswith(GREETING + BEGIN + b"\x16\x03"), got[:80])
