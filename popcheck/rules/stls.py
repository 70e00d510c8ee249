"""STLS, and the port for TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from typing import TYPE_CHECKING, Final

from popcheck.check import need
from popcheck.client import Connection, shown
from popcheck.rule import MUST, ROBUST, Failed, Skipped, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check


def _start(check: Check) -> Connection:
    """Return a connection with TLS by STLS."""
    connection = check.stls()
    connection.ok(b"STLS")
    connection.secure(check.target.context)
    return connection


@rule("stls.starts", "2595 4")
def starts(check: Check) -> None:
    """Where STLS is announced it is answered by +OK, and TLS starts.

    A client that asked for TLS has no other way.
    """
    _start(check).ok(b"CAPA")


@rule("stls.log-in", "2595 4")
def log_in(check: Check) -> None:
    """One can log in behind STLS.

    That is what it is for.
    """
    check.target.free()
    connection = _start(check)
    check.target.log_in(connection)
    connection.ok(b"STAT")


@rule("stls.no-second-greeting", "2595 4")
def no_second_greeting(check: Check) -> None:
    """No greeting comes behind the handshake.

    A client would take it for the reply to its first command, and each reply for the one of the
    command before.
    """
    unasked = _start(check).quiet()
    need(not unasked, f"unasked came {shown(unasked)}")


@rule("stls.no-longer-announced", "2595 4", ROBUST)
def no_longer_announced(check: Check) -> None:
    """Under TLS CAPA has no STLS.

    There is nothing left to start.
    """
    need(b"STLS" not in check.capabilities(_start(check)), "it has")


@rule("stls.twice", "2595 4")
def twice(check: Check) -> None:
    """STLS under TLS is answered by -ERR.

    RFC 2595 says so.
    """
    connection = _start(check)
    connection.err(b"STLS")
    connection.ok(b"CAPA")


@rule("stls.lower-case", "2595 4")
def lower_case(check: Check) -> None:
    """STLS may be written in lower case.

    As every command.
    """
    connection = check.stls()
    connection.ok(b"stls")
    connection.secure(check.target.context)


@rule("stls.argument", "2595 4")
def argument(check: Check) -> None:
    """STLS with an argument starts no TLS.

    Somebody may have put it there, in front of what the client says.
    """
    connection = check.stls()
    connection.send(b"STLS x\r\n")
    said = connection.line()
    need(said.startswith(b"-ERR"), f"it was answered with {shown(said)}")


@rule("stls.user-forgotten", "2595 4", ROBUST)
def user_forgotten(check: Check) -> None:
    """What was said before STLS is forgotten: PASS behind it, without USER, is answered by -ERR.

    Otherwise somebody on the line could have said who logs in.
    """
    connection = check.stls()
    connection.ask(b"USER " + check.target.user)
    connection.ok(b"STLS")
    connection.secure(check.target.context)
    reply = connection.ask(b"PASS " + check.target.password)
    need(reply.startswith(b"-ERR"), f"PASS was answered with {shown(reply)}")


_INJECTED: Final = {
    "capa": b"CAPA\r\n",
    "user": b"USER popcheck-nobody\r\n",
    "quit": b"QUIT\r\n",
    "half-a-line": b"XX",
}


@rules(
    "stls.injected",
    {
        "capa": "CAPA",
        "user": "USER",
        "quit": "QUIT",
        "half-a-line": "Half a command",
    },
    "2595 4",
    MUST,
    summary="{} in plaintext behind STLS, in the same segment, has no effect under TLS",
)
def injected(check: Check, member: str) -> None:
    """Whoever sits on the line can put commands behind a client's STLS.  A server that carries them
    out under TLS takes them for the client's: mail goes to who logged in first, or passwords to who
    reads them (CVE-2011-0411, CVE-2021-33515, CVE-2021-38084).
    """
    _inject(check, [b"STLS\r\n" + _INJECTED[member]], whole=member != "half-a-line")


@rule("stls.injected.later", "2595 4")
def injected_later(check: Check) -> None:
    """A command in plaintext in the segment behind STLS has no effect under TLS.

    As in the same segment.
    """
    _inject(check, [b"STLS\r\n", b"CAPA\r\n"])


@rule("stls.injected.split", "2595 4")
def injected_split(check: Check) -> None:
    """A command in plaintext behind STLS has no effect under TLS, wherever the segments are cut.

    As in the same segment.
    """
    data = b"STLS\r\nCAPA\r\n"
    for at in (1, 4, 5, 7, 11):
        _inject(check, [data[:at], data[at:]])


def _inject(check: Check, pieces: list[bytes], *, whole: bool = True) -> None:
    """Send plaintext, then make a handshake; fail if something comes of the plaintext under TLS.

    :param whole: whether there is a whole command behind STLS.
    """
    connection = check.stls()
    with contextlib.closing(connection):
        for piece in pieces:
            connection.send(piece)
        try:
            reply = connection.line()
            if not reply.startswith(b"+OK"):
                return
            connection.secure(check.target.context)
            unasked = connection.quiet(0.1)
            need(not unasked, f"under TLS came {shown(unasked)}")
            reply = connection.ask(b"NOOPE" if whole else b"CAPA")
        except (OSError, ssl.SSLError):
            return  # the server closed: nothing can come of it
        except Failed as failure:
            if "closed" in str(failure):
                return
            raise
        expected = b"-ERR" if whole else b"+OK"
        need(reply.startswith(expected), f"under TLS the first reply is {shown(reply)}")


@rule("stls.plaintext-instead", "2595 4")
def plaintext_instead(check: Check) -> None:
    """A command in plaintext instead of a TLS handshake is not carried out.

    There is no way back from STLS.
    """
    connection = check.stls()
    connection.ok(b"STLS")
    connection.send(b"CAPA\r\n")
    said = connection.quiet(0.15)
    need(b"+OK" not in said, f"it was answered with {shown(said)}")


def _tls(check: Check) -> Connection:
    """Connect to the port for TLS."""
    return check.connect(tls=True)


@rule("tls.greeting", "8314 3.1")
def greeting(check: Check) -> None:
    """On the port for TLS the greeting comes behind the handshake.

    The server speaks first there, too.
    """
    said = _tls(check).greeting
    need(said.startswith(b"+OK"), f"it is {shown(said)}")


@rule("tls.log-in", "8314 3.1")
def tls_log_in(check: Check) -> None:
    """One can log in on the port for TLS.

    That is what clients take first.
    """
    check.target.free()
    connection = _tls(check)
    check.target.log_in(connection)
    connection.ok(b"STAT")


@rule("tls.no-stls", "2595 4")
def tls_no_stls(check: Check) -> None:
    """STLS is answered by -ERR on the port for TLS.

    TLS is active already.
    """
    _tls(check).err(b"STLS")


@rule("tls.not-announced", "2595 4", ROBUST)
def tls_not_announced(check: Check) -> None:
    """CAPA has no STLS on the port for TLS.

    A client that sees it may ask for it.
    """
    need(b"STLS" not in check.capabilities(_tls(check)), "it has")


@rule("tls.plaintext", "8314 3.1", ROBUST)
def tls_plaintext(check: Check) -> None:
    """A command in plaintext on the port for TLS is not answered.

    Nobody is served there without TLS.
    """
    target = check.target
    if not target.tls_port:
        raise Skipped("needs the port for TLS")
    with socket.create_connection((target.host, target.tls_port), target.timeout) as plain:
        plain.sendall(b"CAPA\r\n")
        plain.settimeout(0.3)
        try:
            said = plain.recv(1000)
        except OSError:
            return
    need(b"+OK" not in said, f"it was answered with {shown(said)}")


@rules("tls.refuses", {"1-0": "TLS 1.0"}, "8996 4", summary="{} is refused")
@rules("tls.refuses", {"1-1": "TLS 1.1"}, "8996 5", summary="{} is refused")
def refuses(check: Check, member: str) -> None:
    """RFC 8996: old versions must not be used.  Whoever sits on the line could make two that know
    better speak them.
    """
    if not check.target.tls_port:
        raise Skipped("needs the port for TLS")
    version = {"1-0": ssl.TLSVersion.TLSv1, "1-1": ssl.TLSVersion.TLSv1_1}[member]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
    except ssl.SSLError:
        raise Skipped("this machine's TLS does not know so old a version") from None
    address = check.target.host, check.target.tls_port
    try:
        Connection(address, check.target.timeout, context).close()
    except (OSError, Failed):
        return
    raise Failed("the handshake succeeded")
