"""Targets that hold a conversation: whole sessions, and the SASL mechanisms beneath them.

The first two octets of an input say what kind of session it is, and how it is cut in pieces.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from typing import Final

from popd.protocol.channel import Channel
from popd.protocol.events import CloseReason, Problem
from popd.protocol.lines import LINE_LIMIT
from popd.protocol.offer import WAYS, Offer
from popd.protocol.sasl.exchange import Ask, Challenge, Done, Failed
from popd.protocol.sasl.mechanisms import MECHANISMS
from tests.fuzz.target import CANARY, Target
from tests.protocol.helpers import MAIL, World
from tests.protocol.scram import ScramClient, derive

__all__ = ["SASL", "SESSION"]

_OFFER: Final = Offer.of(WAYS, lambda: b"1@x")
_CHANNELS: Final = (
    Channel(tls=True),
    Channel(stls=True),
    Channel(tls=True, offer=_OFFER, bindings=lambda _: b"binding", certificate=True),
    Channel(stls=True, cleartext_login=True, offer=_OFFER),
    Channel(stls=True, xclient=True),
    Channel(),
)
_KEYS: Final = derive(b"pencil", b"salt", 1)
_CUTS: Final = (0, 1, 2, 3, 7, 64, 1_000)
_TROUBLES: Final = (None, None, None, Problem.TEMPORARY, Problem.GONE)
_LOGIN: Final = b"USER joe\r\nPASS secret\r\n"

_LINE: Final = 510
"""Octets of a reply without its CRLF (RFC 1939 section 3); challenges of SASL may have more."""
_CHALLENGE: Final = 1_024

_STATUS: Final = re.compile(rb"(?:\+OK|-ERR|\+)(?: [\x20-\x7e]*)?")
_MAIL_LINES: Final = frozenset(
    b"." + line if line.startswith(b".") else line
    for message in MAIL
    for line in message.replace(b"\r\n", b"\n").split(b"\n")
)
_ROW: Final = re.compile(rb"[1-3] (?:[0-9]{1,3}|uid-[1-3])")
_NAMES: Final = frozenset(
    line
    for channel in (*_CHANNELS, *(Channel(tls=True, offer=one.offer) for one in _CHANNELS))
    for line in channel.capabilities().split(b"\r\n")
) | {name.encode() for name in MECHANISMS}
"""What may stand in the lists that CAPA and AUTH send."""


def _expected(stream: bytes) -> int:
    """Return how many answers the octets of a client ask for."""
    return stream.count(b"\n") + (len(stream) - stream.rfind(b"\n") > LINE_LIMIT)


def _answers(output: bytes) -> int:
    """Return how many replies there are in what a session said, and look at each line of it."""
    assert output.endswith(b"\r\n"), output[-99:]
    count = 0
    for line in output[:-2].split(b"\r\n"):
        if _STATUS.fullmatch(line):
            limit = _CHALLENGE if line.startswith(b"+ ") else _LINE
            assert len(line) <= limit, (len(line), line[:80])
            assert CANARY not in line, line
            count += 1
        else:
            known = line in _MAIL_LINES or line in _NAMES or line == b"."
            assert known or _ROW.fullmatch(line), line
    return count


def _session(data: bytes) -> None:
    """Every command has its answer, and all that is said is known beforehand."""
    kind, cut, stream = data[0:1] or b"\0", data[1:2] or b"\0", data[2:]
    kind_number, cut_number = kind[0], cut[0]
    channel = _CHANNELS[kind_number % len(_CHANNELS)]
    world = World(
        channel=channel,
        keys=_KEYS if kind_number & 64 else None,
        lookup_problem=Problem.CREDENTIALS,
        message_problem=_TROUBLES[cut_number % len(_TROUBLES)],
        commit_failures=cut_number & 1,
    )
    if kind_number & 64:
        world.lookup_problem = None
    if kind_number & 128 and channel.login_allowed and not channel.xclient:
        world.say([_LOGIN])
        assert world.session.logged_in
    greeted = _answers(world.output)
    size = _CUTS[cut_number % len(_CUTS)] or len(stream) or 1
    if len(stream) > 200 * size:  # it takes long, and says nothing new
        size = len(stream)
    for end in range(size, len(stream) + size, size):
        world.say([stream[end - size : end]])
        got, wanted = _answers(world.output) - greeted, _expected(stream[:end])
        if world.closed is not None:
            assert 0 < got <= wanted, (got, wanted)
            assert isinstance(world.closed, CloseReason)
            break
        assert got == wanted, (got, wanted, world.output[-200:])
        assert world.session.buffered <= LINE_LIMIT


_VERBS: Final = (
    *(b"USER joe", b"PASS secret", b"AUTH PLAIN", b"AUTH LOGIN", b"APOP joe ", b"CAPA", b"STLS"),
    *(b"STAT", b"LIST", b"UIDL", b"RETR 1", b"TOP 2 1", b"DELE 3", b"RSET", b"NOOP", b"QUIT"),
    *(b"AUTH SCRAM-SHA-256", b"AUTH OAUTHBEARER", b"AUTH XOAUTH2", b"AUTH CRAM-MD5", b"AUTH"),
    *(b"XCLIENT ADDR=192.0.2.1 PORT=1", b"GET / HTTP/1.1", b"AUTH EXTERNAL =", b"USER joe x"),
)
_SCRAM: Final = ScramClient(nonce=b"rOprNGfwEbeRWgbNEkqO" + CANARY)
_SERVER_FIRST: Final = b"r=%b1@x,s=%b,i=1" % (_SCRAM.nonce, b64encode(b"salt"))
_RESPONSES: Final = (
    *(b"\0joe\0secret", b"joe", b"secret", b"\0joe\0" + CANARY, b"a\0b\0c", CANARY),
    *(_SCRAM.first, _SCRAM.final(_SERVER_FIRST), b"p=tls-exporter,,n=joe,r=" + CANARY),
    *(b"n,a=joe,\1auth=Bearer good" + CANARY + b"\1\1", b"user=joe\1auth=Bearer bad\1\1"),
    *(b"joe " + b"0" * 32, b"n,,n=joe,r=" + b"x" * 256, b"\xff\xfe"),
)
_NUMBERS: Final = (
    *(b"0", b"1", b"-1", b"+1", b"01", b"4", b"1_0", b"4294967297", b"18446744073709551617"),
    *(b"\xd9\xa1", b"\xef\xbc\x91", b"\xc2\xb2", b"0x1", b"1e0", b"1\0", b"\t1\x0b", b"9" * 5_000),
)
_STREAMS: Final = (
    b"\r\n".join(_VERBS[7:15]) + b"\r\n",
    b"AUTH PLAIN " + b64encode(b"\0joe\0secret") + b"\r\nSTAT\r\nDELE 1\r\nRETR 2\r\nQUIT\r\n",
    b"USER joe\r\nPASS secret\r\nLIST\r\nUIDL 2\r\nTOP 3 0\r\nDELE 1\r\nLIST\r\nRSET\r\nUIDL\r\n",
    b"CAPA\r\nAUTH\r\nSTLS\r\n",
    b"AUTH SCRAM-SHA-256\r\n%b\r\n%b\r\n\r\nSTAT\r\n"
    % (b64encode(_SCRAM.first), b64encode(_SCRAM.final(_SERVER_FIRST))),
    b"AUTH LOGIN\r\n%b\r\n%b\r\nSTAT\r\n" % (b64encode(b"joe"), b64encode(b"secret")),
    b"AUTH OAUTHBEARER\r\n%b\r\nAQ==\r\n" % b64encode(_RESPONSES[9]),
    b"AUTH CRAM-MD5\r\n*\r\nAUTH EXTERNAL\r\n=\r\nXCLIENT ADDR=192.0.2.1 PORT=1\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSTAT\r\n",
)
_KINDS: Final = bytes(range(len(_CHANNELS)))

SESSION: Final = Target(
    _session,
    tuple(
        bytes([kind | flags, 0]) + stream
        for kind in _KINDS
        for flags in (0, 64, 128, 192)
        for stream in _STREAMS
    ),
    (
        *(verb + b"\r\n" for verb in _VERBS),
        *(b64encode(response) + b"\r\n" for response in _RESPONSES),
        *(b" " + number for number in _NUMBERS),
        *(b"\r\n", b"\n", b"\r", b" ", b"*\r\n", b"=\r\n", b"\0", b"\x1b[2J", CANARY, CANARY),
        *(CANARY + b"\r\n", b"USER " + CANARY, b"RETR " + CANARY, b"AUTH " + CANARY),
        *(b" " * 300, b"x" * LINE_LIMIT, b"x" * (LINE_LIMIT - 1) + b"\n", b"AUTH PLAIN "),
    ),
)


def _sasl(data: bytes) -> None:
    """A mechanism ends with credentials or a failure, and says no more than it has to."""
    kind, flags = (data[:2] + b"\0\0")[:2]
    name = tuple(MECHANISMS)[kind % len(MECHANISMS)]
    exchange = MECHANISMS[name](_CHANNELS[2])
    responses: list[bytes | None] = list(data[2:].split(b"\n"))
    if flags & 1:
        responses.insert(0, None)
    for response in responses:
        outcome = exchange.step(response)
        if isinstance(outcome, Ask):
            assert outcome.mechanism in MECHANISMS
            outcome.username.decode()
            outcome = exchange.found(_KEYS)  # type: ignore[attr-defined]
        match outcome:
            case Challenge(said):
                assert len(said) <= _LINE
                assert re.fullmatch(rb"[\x20-\x7e]*", said), said
            case Failed(text):
                assert CANARY.decode() not in text
                assert re.fullmatch(r"[\x20-\x7e]{1,200}", text)
                return
            case Done(credentials, regret):
                assert CANARY not in regret
                assert not getattr(credentials, "proven", False) or name.startswith("SCRAM")
                return


def _proven(name: bytes, digest: str) -> bytes:
    """Return the messages of a client that knows the password."""
    client = ScramClient(digest=digest, name=name)
    keys = b"r=%b1@x,s=%b,i=1" % (client.nonce, b64encode(b"salt"))
    return client.first + b"\n" + client.final(keys) + b"\n"


SASL: Final = Target(
    _sasl,
    tuple(
        bytes([kind, flag]) + said
        for kind in range(len(MECHANISMS))
        for flag in (0, 1)
        for said in (*_RESPONSES, _proven(b"user", "sha256"), b"joe\nsecret")
    ),
    (
        *_RESPONSES,
        *(b"\n", b"\0", b",", b"=", b"\1", b"n,,", b"y,,", b"p=tls-exporter,,", b"a=joe", CANARY),
        *(b",m=x", b"=2C", b"=3D", b"auth=Bearer ", b"user=", b"\xc3\xa4", b"\xff", b"r=", b"p="),
        *(b"x" * 5_000, hashlib.sha256(b"x").hexdigest().encode()),
    ),
)
