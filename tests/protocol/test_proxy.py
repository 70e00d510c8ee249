"""Tests of `popd.protocol.proxy`."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.proxy import (
    MAX_BODY,
    MAX_LINE,
    UNKNOWN,
    BadHeaderError,
    Header,
    Introduction,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 110\r\n"
FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 110)
SIX = (
    ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed + struct.pack("!HH", 7, 995)
)


def version2(body: bytes = FOUR, *, command: int = 0x21, family: int = 0x11) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def record(kind: int, value: bytes) -> bytes:
    """Return one of the records behind the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


def tls(client: int, *details: bytes) -> bytes:
    """Return the record about TLS."""
    return record(0x20, struct.pack("!BI", client, 0) + b"".join(details))


def read(data: bytes, cut: Callable[[int], int] = lambda missing: missing) -> tuple[Header, bytes]:
    """Return what has read a header, and what it left.

    :param cut: how many octets come at once, of those that could.
    """
    header = Header()
    while data and header.missing:
        piece = data[: cut(header.missing)]
        taken = header.feed(piece)
        assert taken == len(piece) or not header.missing
        data = data[taken:]
    return header, data


def introduction(data: bytes) -> Introduction | None:
    """Return what a header says, be it read as a whole or octet by octet."""
    header, rest = read(data + b"\x16\x03\x01 behind it")
    assert rest == b"\x16\x03\x01 behind it"
    assert read(data, lambda _: 1)[0].introduction == header.introduction
    return header.introduction


HEADERS = (
    (LINE, Introduction("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:DB8:0::1 ::1 0 65535\r\n", Introduction("2001:db8::1", 0)),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 1\r\n",
        Introduction("255.255.255.255", 65535),
    ),
    (b"PROXY UNKNOWN\r\n", UNKNOWN),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", UNKNOWN),
    (version2(), Introduction("192.0.2.1", 56324)),
    (version2(SIX, family=0x21), Introduction("2001:db8::1", 7)),
    (version2(b"", command=0x20, family=0), UNKNOWN),
    (version2(b"whatever", command=0x20), UNKNOWN),
    (version2(b"", family=0), UNKNOWN),
    (version2(bytes(216), family=0x31), UNKNOWN),
    (version2(FOUR + tls(0)), Introduction("192.0.2.1", 56324, tls=False)),
    (
        version2(FOUR + record(0x04, b"pad") + record(0x02, b"mail.example.org") + tls(1)),
        Introduction("192.0.2.1", 56324, tls=True, authority="mail.example.org"),
    ),
    (
        version2(
            SIX + tls(7, record(0x21, b"TLSv1.3"), record(0x23, b"TLS_AES_128_GCM_SHA256")),
            family=0x21,
        ),
        Introduction("2001:db8::1", 7, tls=True, cipher="TLSv1.3 TLS_AES_128_GCM_SHA256"),
    ),
    (
        version2(FOUR + tls(1, record(0x21, b"TLS\r\n\xff"))),
        Introduction("192.0.2.1", 56324, tls=True, cipher=r"TLS\r\n\xff"),
    ),
    (
        version2(FOUR + record(0x05, bytes(MAX_BODY - len(FOUR) - 3))),
        Introduction("192.0.2.1", 56324),
    ),
)
BAD = (
    b"USER joe\r\n",
    b"PASS x\r\n",
    b"PROXYTCP4 1.2.3.4\r\n",
    b"proxy tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 000002\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN ".ljust(MAX_LINE, b"x") + b"\r\n",
    b"\x16\x03\x01",
    SIGNATURE[:-1] + b"\r",
    version2(command=0x11),
    version2(command=0x22),
    version2(family=0x12),
    version2(family=0x41),
    version2(FOUR[:-1]),
    version2(SIX[:-1], family=0x21),
    version2(bytes(MAX_BODY + 1)),
    version2(FOUR + b"\x04\x00"),
    version2(FOUR + b"\x04\x00\x02x"),
    version2(FOUR + record(0x20, bytes(4))),
    version2(FOUR + tls(1, b"\x21")),
)


class HeaderTests(SynchronousTestCase):
    """`Header` reads what proxies send."""

    def test_good(self) -> None:
        """It understands headers, and leaves what is behind them where it is."""
        for data, meant in HEADERS:
            self.assertEqual(introduction(data), meant, data)

    def test_bad(self) -> None:
        """It refuses what is none, however that is cut."""
        for data in BAD:
            self.assertRaises(BadHeaderError, read, data)
            self.assertRaises(BadHeaderError, read, data, lambda _: 1)

    def test_long_line(self) -> None:
        """A line may have 107 octets."""
        data = b"PROXY UNKNOWN ".ljust(MAX_LINE - 2, b"x") + b"\r\n"
        self.assertEqual(introduction(data), UNKNOWN)

    def test_unfinished(self) -> None:
        """As long as something is missing it says nothing, and says how much to look at."""
        for data, _ in HEADERS:
            for end in range(len(data)):
                header = read(data[:end])[0]
                self.assertIsNone(header.introduction)
                self.assertTrue(0 < header.missing <= 16 + MAX_BODY)

    @given(st.sampled_from(HEADERS), st.lists(st.integers(1, 40), min_size=1))
    def test_any_cut(self, sample: tuple[bytes, Introduction], cuts: list[int]) -> None:
        """It makes no difference how a header is cut."""
        data, meant = sample
        sizes = iter(cuts * (len(data) + 1))
        header, rest = read(data + b"USER joe\r\n", lambda missing: min(missing, next(sizes)))
        self.assertEqual((header.introduction, rest), (meant, b"USER joe\r\n"))

    @given(
        st.one_of(
            st.binary(max_size=200),
            st.binary(max_size=100).map(lambda data: b"PROXY TCP4 " + data + b"\r\n"),
            st.binary(max_size=100).map(lambda data: SIGNATURE + data),
            st.builds(
                version2,
                st.binary(max_size=100),
                command=st.sampled_from([0x20, 0x21]),
                family=st.sampled_from([0, 0x11, 0x21, 0x31]),
            ),
        )
    )
    def test_garbage(self, data: bytes) -> None:
        """Whatever comes, it is a header with an address in it, or unfinished, or refused."""
        try:
            header, rest = read(data)
        except BadHeaderError as error:
            self.assertTrue(str(error).isascii())
            return
        if header.introduction is None:
            self.assertEqual(rest, b"")
        elif header.introduction.address:
            ip_address(header.introduction.address)
