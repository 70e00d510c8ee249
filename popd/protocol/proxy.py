"""Who a connection is really from, where a proxy says so: the PROXY protocol, versions 1 and 2.

A proxy that may be believed puts one header before all that the client says; see HAProxy's
``proxy-protocol.txt``.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BODY", "MAX_LINE", "UNKNOWN", "BadHeaderError", "Header", "Introduction"]

MAX_LINE: Final = 107
"""Octets of a header of version 1 at most, its CRLF included."""

MAX_BODY: Final = 2_048
"""Octets behind the first 16 of a header of version 2 at most: addresses take up to 216, and what
else there may be is short, but for a client's certificate, which no proxy sends unasked."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD: Final = Struct("!12sBBH")
_TLV: Final = Struct("!BH")
_TLS: Final = Struct("!BI")

_VERSION, _LOCAL, _PROXY = 2, 0, 1
_STREAM = 1
_FAMILIES: Final = {1: (IPv4Address, Struct("!4s4sHH")), 2: (IPv6Address, Struct("!16s16sHH"))}
_OTHER_FAMILIES: Final = {0: 0, 3: 216}
"""Families without an IP address, and how many octets they have in its place: none, UNIX."""

_AUTHORITY, _SSL, _SSL_VERSION, _SSL_CIPHER = 0x02, 0x20, 0x21, 0x23
_CLIENT_SSL: Final = 0x01

_MAX_PORT: Final = 65_535
_MAX_DIGITS: Final = 5
_MAX_NAME: Final = 255
_LINES: Final = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}


class BadHeaderError(ValueError):
    """What was sent is no header.  The text says why, and holds nothing of what was sent."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a client is, by what a proxy says.

    :param address: its IP address; empty if that is not said, as when the proxy looks by itself
        whether the server is well.
    :param port: its port.
    :param tls: whether it speaks TLS with the proxy; None if that is not said.
    :param cipher: TLS version and cipher, as ``TLSv1.3 TLS_AES_256_GCM_SHA384``, as far as known.
    :param authority: which host the client wanted (SNI), if that is known.
    """

    address: str = ""
    port: int = 0
    tls: bool | None = None
    cipher: str = ""
    authority: str = ""


UNKNOWN: Final = Introduction()
"""A proxy that speaks for nobody but itself."""


class Header:
    """Reads a header, however it is cut in pieces.

    Of octets that may not belong to it none is taken, so that they can be left where they are.
    """

    def __init__(self) -> None:
        self._data = b""
        self._end = len(_SIGNATURE)  # up to where there is something to look at; no header is less
        self.introduction: Introduction | None = None
        """What the header says, once it is complete."""

    @property
    def missing(self) -> int:
        """How many octets to look at next; 0 once the header is complete."""
        return 0 if self.introduction is not None else self._end - len(self._data)

    def feed(self, data: bytes) -> int:
        """Take what comes next; return how many octets were: all, until the header is complete.

        :param data: no more than `missing` octets.
        :raises BadHeaderError: this is no header.
        """
        self._data += data
        if self._data.startswith(b"P"):
            return len(data) - self._feed_line()
        if not self._data.startswith(_SIGNATURE[: len(self._data)]):
            raise BadHeaderError("it begins like none")
        if len(self._data) == self._end:
            if self._end == len(_SIGNATURE):
                self._end = _HEAD.size
            elif self._end == _HEAD.size:
                self._end += _body_length(self._data)
            if len(self._data) == self._end:
                self.introduction = _parse_body(self._data)
        return len(data)

    def _feed_line(self) -> int:
        """Look for the end of the line; return how many octets there are behind it."""
        self._end = MAX_LINE
        if not b"PROXY ".startswith(self._data[:6]):
            raise BadHeaderError("it begins like none")
        line, end, rest = self._data.partition(b"\n")
        if end:
            self.introduction = _parse_line(line)
        elif len(line) >= MAX_LINE:
            raise BadHeaderError("its line does not end")
        return len(rest)


def _body_length(head: bytes) -> int:
    """Return how many octets follow the first ones of version 2."""
    _, version, _, length = _HEAD.unpack(head)
    if version >> 4 != _VERSION or version & 15 not in {_LOCAL, _PROXY}:
        raise BadHeaderError("its version or command is not known")
    if length > MAX_BODY:
        raise BadHeaderError("it is too long")
    return int(length)


def _parse_body(data: bytes) -> Introduction:
    """Return what a header of version 2 says."""
    _, version, family, _ = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if version & 15 == _LOCAL:
        return UNKNOWN
    kind, transport = family >> 4, family & 15
    if kind in _OTHER_FAMILIES:
        return _with_extras("", 0, body[_OTHER_FAMILIES[kind] :])
    if kind not in _FAMILIES or transport != _STREAM:
        raise BadHeaderError("it is about no TCP connection")
    address_type, form = _FAMILIES[kind]
    if len(body) < form.size:
        raise BadHeaderError("its addresses are cut short")
    source, _, port, _ = form.unpack_from(body)
    return _with_extras(str(address_type(source)), port, body[form.size :])


def _parse_line(line: bytes) -> Introduction:
    """Return what a header of version 1 says."""
    if not line.endswith(b"\r"):
        raise BadHeaderError("its line does not end in CRLF")
    match line[:-1].split(b" "):
        case [_, b"UNKNOWN", *_]:
            return UNKNOWN
        case [_, protocol, source, destination, port, other_port] if protocol in _LINES:
            parse = _LINES[protocol]
            try:
                addresses = [parse(text.decode("ascii")) for text in (source, destination)]
            except ValueError:
                raise BadHeaderError("its addresses are none") from None
            if b"%" in source + destination or not (_is_port(port) and _is_port(other_port)):
                raise BadHeaderError("its ports are none")
            return Introduction(str(addresses[0]), int(port))
    raise BadHeaderError("its line makes no sense")


def _is_port(text: bytes) -> bool:
    return (
        text.isdigit()
        and len(text) <= _MAX_DIGITS
        and int(text) <= _MAX_PORT
        and (text == b"0" or not text.startswith(b"0"))
    )


def _with_extras(address: str, port: int, data: bytes) -> Introduction:
    """Return an introduction with what else the header says."""
    extras = dict(_records(data))
    authority = _name(extras.get(_AUTHORITY, b""))
    tls, cipher = None, ""
    if _SSL in extras:
        value = extras[_SSL]
        if len(value) < _TLS.size:
            raise BadHeaderError("what it says of TLS is cut short")
        tls = bool(value[0] & _CLIENT_SSL)
        details = dict(_records(value[_TLS.size :]))
        names = (_name(details.get(kind, b"")) for kind in (_SSL_VERSION, _SSL_CIPHER))
        cipher = " ".join(filter(None, names))
    return Introduction(address, port, tls, cipher, authority)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the types and values that follow the addresses."""
    at = 0
    while at < len(data):
        if at + _TLV.size > len(data):
            raise BadHeaderError("a record in it is cut short")
        kind, length = _TLV.unpack_from(data, at)
        at += _TLV.size + length
        if at > len(data):
            raise BadHeaderError("a record in it is cut short")
        yield kind, data[at - length : at]


def _name(value: bytes) -> str:
    """Return a name as text in which nothing can forge a line of the log."""
    return ascii(value[:_MAX_NAME])[2:-1]
