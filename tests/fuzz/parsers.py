"""Targets that read: what proxies say, names of files, lines of password files, the configuration.

Beside what each of them may never do, what it says is compared with a second way to find it out.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from popd.auth.account import FIELDS, Account
from popd.auth.appfile import check_app
from popd.auth.passwdline import SCRAM_FIELDS, Entry
from popd.config import DEFAULTS, ConfigError, read_file, settle
from popd.maildrop.names import claimed_sizes, time_digits
from popd.maildrop.uidl import unique_id
from popd.protocol.commands import BadCommandError
from popd.protocol.proxy import MAX_BODY, BadHeaderError, Header, Introduction
from popd.protocol.xclient import parse as parse_xclient
from tests.auth.test_passwd import KEYS
from tests.fuzz.target import CANARY, Target, no_echo
from tests.protocol.test_proxy import FOUR, LINE, SIX, record, tls, version2

__all__ = ["APP", "CONFIG", "NAMES", "PASSWD", "PROXY", "XCLIENT"]

_PORTS: Final = 65_536
_ASCII: Final = re.compile(r"[\x20-\x7e]*")
_UID: Final = re.compile(rb"[\x21-\x7e]{1,70}")


def _introduced(introduction: Introduction) -> None:
    """Look at what a proxy has said."""
    assert 0 <= introduction.port < _PORTS
    if introduction.address:
        assert str(ip_address(introduction.address)) == introduction.address
        assert "%" not in introduction.address
    assert _ASCII.fullmatch(introduction.authority + introduction.cipher)


def _read(data: bytes, most: int) -> tuple[Introduction | str, int]:
    """Return what a header says, or why it is none, and how many octets it took."""
    header, at = Header(), 0
    try:
        while at < len(data) and header.missing:
            piece = data[at : at + min(header.missing, most)]
            taken = header.feed(piece)
            assert taken == len(piece) or not header.missing
            at += taken
    except BadHeaderError as error:
        no_echo(error)
        return str(error), -1
    assert at <= 16 + MAX_BODY
    return header.introduction or "unfinished", at


def _proxy(data: bytes) -> None:
    """A header says the same however it is cut, and takes nothing of what is behind it."""
    said, taken = _read(data, len(data) + 1)
    if isinstance(said, Introduction):
        _introduced(said)
        assert _read(data[:taken], 1) == (said, taken)
        assert not isinstance(_read(data[: taken - 1], 1)[0], Introduction)
    else:
        assert not isinstance(_read(data, 1)[0], Introduction)


PROXY: Final = Target(
    _proxy,
    (
        *(LINE, LINE + b"USER joe\r\n", b"PROXY UNKNOWN\r\n", version2() + b"CAPA\r\n"),
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
        *(version2(SIX, family=0x21), version2(b"", command=0x20), version2(b"x" * 216, family=49)),
        version2(FOUR + tls(1, record(0x21, b"TLSv1.3"), record(0x23, b"X")) + record(2, CANARY)),
        version2(FOUR + record(2, b"a" * 300), family=0x11),
    ),
    (
        *(
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN ",
            b" 65535",
            b" 65536",
            b" 007",
            b"\r\n",
            b"\n",
        ),
        *(b"::ffff:192.0.2.1", b"fe80::1%eth0", b"1.2.3", CANARY, b"\0", b"\xff", b" ", b"\x20"),
        *(
            record(2, b"x"),
            record(2, b"\r\n\x1b"),
            tls(0),
            record(0x20, b""),
            FOUR,
            SIX,
            b"x" * 200,
        ),
    ),
)


def _xclient(data: bytes) -> None:
    """The arguments say an address, or are refused."""
    try:
        introduction = parse_xclient(data)
    except BadCommandError as error:
        no_echo(error)
    else:
        assert introduction.address
        _introduced(introduction)


XCLIENT: Final = Target(
    _xclient,
    (
        b"ADDR=192.0.2.1 PORT=1234 SESSION=x TTL=4",
        b"addr=2001:db8::1 PORT=0 CLIENT-TRANSPORT=TLS FORWARD=" + CANARY,
        b"ADDR=::ffff:192.0.2.1",
    ),
    (
        *(
            b"ADDR=",
            b" ADDR=",
            b"PORT=",
            b"CLIENT-TRANSPORT=",
            b"%eth0",
            b"::",
            b"65536",
            b"=",
            b" ",
        ),
        *(CANARY, b"\xd9\xa1", b"\xb2", b"127.1", b"0177.0.0.1", b"9" * 5_000, b"\0", b"[::1]"),
    ),
)


def _names(base: bytes) -> None:
    """Every name has one valid id; sizes are those that a plain reading finds."""
    base = base.partition(b":")[0].replace(b"/", b"").replace(b"\0", b"")
    uid = unique_id(base)
    assert _UID.fullmatch(uid), uid
    assert uid in {base, sha256(base).hexdigest().encode()}
    identity = sha256(b"x").hexdigest().encode()
    again = unique_id(base, identity, 1)
    assert _UID.fullmatch(again)
    assert again not in {uid, unique_id(base, identity, 2)}
    assert unique_id(uid) != uid or uid == base  # nobody takes another's id for a name
    sizes = claimed_sizes(base)
    assert sizes == (_claimed(base, b"S="), _claimed(base, b"W=")), sizes
    digits = time_digits(base)
    if digits is not None:
        seconds, _, rest = base.partition(b".")
        assert seconds.endswith(digits[0])
        assert digits[1] == b"0" or b"M" + digits[1] in rest
        assert all(re.fullmatch(rb"[0-9]{1,12}", number) for number in digits)


def _claimed(base: bytes, key: bytes) -> int | None:
    for part in base.split(b",")[1:]:
        number = part.removeprefix(key)
        if number != part and re.fullmatch(rb"[0-9]{1,15}", number):
            return int(number)
    return None


NAMES: Final = Target(
    _names,
    (
        b"1700000000.M123456P7.mx.example.org,S=1234,W=1300:2,S",
        b"1700000000.V801I2M3.host,S=10",
        b"x" * 71,
        sha256(b"x").hexdigest().encode(),
        b"1.2,W=1,S=2,S=3",
    ),
    (
        *(b",S=", b",W=", b",", b"=", b":2,", b".", b"M", b"M999999", b"9" * 16, b"\xff", b" "),
        *(b"\n", b"\xd9\xa1", b"-1", b"+1", b"1_0", b"\t", b"x" * 64, b"S=1", b",S=5,", CANARY),
    ),
)


def _line(data: bytes) -> Entry | None:
    """Return what a line of a password file says, if it says anything."""
    try:
        return Entry.parse(data.decode())
    except UnicodeDecodeError:
        return None  # which `Table` says in other words
    except ValueError as error:
        no_echo(error)
        return None


def _passwd(data: bytes) -> None:
    """A line is an account with a password that means something, or is refused without a quote."""
    entry = _line(data)
    if entry is None:
        return
    try:
        for stored in entry.check():
            assert stored.scheme.isascii()
            assert CANARY.decode() not in repr(stored)
        for mechanism in SCRAM_FIELDS.values():
            keys = entry.scram_keys(mechanism)
            assert keys is None or 4_096 <= keys.iterations <= 1_000_000
        if entry.plain is not None:
            assert "PLAIN" in entry.password.upper() or "CLEAR" in entry.password.upper()
        _account(entry.account(entry.name))
    except ValueError as error:
        no_echo(error)
    assert ":" not in entry.name
    assert not entry.name.startswith((".", "/"))


def _account(account: Account) -> None:
    assert account.interval >= 0
    assert account.quota is None or account.quota >= 0
    assert not account.maildrop or account.maildrop.startswith("maildir:/")


_BCRYPT: Final = "{BLF-CRYPT}$2b$04$abcdefghijklmnopqrstuuN4ipbWoY7hSd5BxSr6/jZY8v0cdSoCm"
_SHA: Final = (
    "{SHA512-CRYPT}$6$saltsalt$"
    "oUmtolOFa2Ej1Fj0wbMBFOXTnYUPeOSvZVkjVMuuku2.sY2OGm0Q/uG7Ytvi8mzn0Sv6NmCSdJOqhuGrLhASU."
)
_ARGON: Final = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$" + "A" * 43
_STORED: Final = (_BCRYPT, _SHA, _ARGON, KEYS, "{PLAIN}secret", "{PLAIN.hex}736563", "")
_EXTRAS: Final = (
    "nologin disabled=no allow_nets=192.0.2.0/24,2001:db8::/32 require_tls",
    "expires=2027-01-01 quota=10M interval=60 no_delete maildrop=maildir:/x master",
    f"scram_sha_256={KEYS}",
)

PASSWD: Final = Target(
    _passwd,
    tuple(
        f"user@example.org:{stored}:1000:1000::/home::{extras}".encode()
        for stored in _STORED
        for extras in ("", *_EXTRAS)
    ),
    (
        *(b":", b"::::::", b" ", b"=", b"{", b"}", b"$", b"{CRYPT}", b"{SSHA}", b"{SHA256.b64}"),
        *(field.encode() + b"=" for field in FIELDS),
        *(b" " + field.encode() for field in FIELDS),
        *(b"proxy", b"host=x", b"scram_sha_1=", b"{SCRAM-SHA-1}", b"{SCRAM-SHA-256}", b"4096,"),
        *(b"1,", b"2147483648,", b"rounds=999999999$", b"$2b$31$", b"m=4294967295", b"t=0", b"p=0"),
        *(CANARY, CANARY, b"\xef\xbc\x8e", b"..", b"/", b"\0", b"%u", b"\xff", b"'", b"*)("),
        *(b"9" * 5_000, b"\xd9\xa1", b"\xc2\xb2", b"-1", b"1e999", b"nan", b"inf", b"=="),
    ),
)


def _app(data: bytes) -> None:
    """So is a line of app passwords."""
    entry = _line(data)
    if entry is None:
        return
    try:
        check_app(entry)
        _account(entry.account(entry.name))
    except ValueError as error:
        no_echo(error)


_DIGEST: Final = "{SHA256}" + b64encode(sha256(b"x").digest()).decode()

APP: Final = Target(
    _app,
    tuple(
        f"user:{_DIGEST}::::::app={extras}".encode()
        for extras in (
            *("phone", "x expires=2027-01-01 allow_nets=192.0.2.0/24 no_delete", "y interval=60"),
            *(CANARY.decode(), "x interval=0.5 no_delete=no"),
        )
    ),
    (*PASSWD.words, b"app=", b" app=", b"{SHA256}", b"expires=", b"2027-02-30", b"interval="),
)


@cache
def _memory() -> int:
    return os.memfd_create("config")


def _config(data: bytes) -> None:
    """A configuration file is taken, or refused with a line that says what is wrong."""
    file = _memory()
    os.ftruncate(file, 0)
    os.pwrite(file, data, 0)
    try:
        settle(read_file(f"/proc/self/fd/{file}"))
    except ConfigError as error:
        assert "\n" not in str(error), str(error)


CONFIG: Final = Target(
    _config,
    (
        b"auth = 'popd-passwd:/x'\nmaildrop = 'maildir:/x'\ncertificate = ['a', 'b']\n",
        b'listen = "none"\nworkers = 4\nlogin-timeout = 1.5\napop = true\nxclient = "::/0"\n',
        b"max-sessions = 10\ndefault-domain = 'example.org'\nlog-format = 'json'\n",
    ),
    (
        *(key.encode() + b" = " for key in DEFAULTS),
        *(
            b"'x'\n",
            b'"\\n"\n',
            b"[",
            b"]",
            b"[]\n",
            b"1e400",
            b"9" * 400,
            b"nan",
            b"true",
            b"=",
            b"#",
        ),
        *(
            b"'none'\n",
            b"['none', 'x']\n",
            b"-1\n",
            b"'\xd9\xa1'\n",
            b"1979-05-27",
            b"[x]\n",
            b"\xff",
        ),
    ),
)
