"""AUTH: logging in by SASL, and what is no base64."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from popcheck import scram
from popcheck.check import need
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, SHOULD, Failed, rule, rules
from popcheck.target import WRONG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from popcheck.check import Check
    from popcheck.client import Connection


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data)


def _right(check: Check, authzid: bytes = b"") -> bytes:
    """Return PLAIN's response with the right password."""
    return _encode(b"%s\0%s\0%s" % (authzid, check.target.user, check.target.password))


def _challenged(connection: Connection, command: bytes) -> bytes:
    """Send a command that is answered by a challenge; return that, decoded."""
    reply = connection.ask(command)
    need(reply.startswith(b"+ "), f"{shown(command)} was answered with {shown(reply)}")
    try:
        return base64.b64decode(reply[2:], validate=True)
    except ValueError:
        raise Failed(f"the challenge is no base64: {shown(reply)}") from None


@rule("sasl.plain-initial", "5034 4")
def plain_initial(check: Check) -> None:
    """PLAIN with the response in the command line logs in.

    It saves a round trip, and many clients do it so.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ok(b"AUTH PLAIN " + _right(check))
    connection.ok(b"STAT")


@rule("sasl.plain", "5034 4")
def plain(check: Check) -> None:
    """PLAIN with the response on a line of its own logs in.

    Thunderbird does it so.
    """
    connection = check.mechanism(b"PLAIN")
    _challenged(connection, b"AUTH PLAIN")
    connection.ok(_right(check))
    connection.ok(b"STAT")


@rule("sasl.empty-challenge", "5034 4")
def empty_challenge(check: Check) -> None:
    """The empty challenge of PLAIN is a plus and a space, and nothing more.

    RFC 5034 has the space.  Clients wait for it; a text behind it is decoded, and fails.
    """
    reply = check.mechanism(b"PLAIN").ask(b"AUTH PLAIN")
    need(reply == b"+ ", f"it is {shown(reply)}")


@rule("sasl.lower-case", "5034 4", SHOULD)
def lower_case(check: Check) -> None:
    """The name of a mechanism may be in lower case.

    Clients write it as their users do.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ok(b"AUTH plain " + _right(check))


@rule("sasl.cancel", "5034 4")
def cancel(check: Check) -> None:
    """``*`` cancels: -ERR, and the session goes on.

    A client that has no password for this mechanism tries another.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ask(b"AUTH PLAIN")
    connection.err(b"*")
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.unknown", "5034 4")
def unknown(check: Check) -> None:
    """A mechanism that does not exist is answered by -ERR.

    Then a client tries another.
    """
    connection = check.mechanism(b"PLAIN")
    connection.err(b"AUTH POPCHECK")
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.not-announced", "5034 4")
def not_announced(check: Check) -> None:
    """Mechanisms that are not announced do not exist.

    ANONYMOUS least of all.
    """
    announced = check.capability(b"SASL")
    for name in {b"ANONYMOUS", b"GSSAPI", b"NTLM"} - set(announced):
        connection = check.open()
        reply = connection.ask(b"AUTH " + name)
        need(reply.startswith(b"-ERR"), f"{shown(name)} was answered with {shown(reply)}")
        connection.close()


def _padding(right: bytes) -> int:
    return len(right) - len(right.rstrip(b"="))


_NO_BASE64: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "junk-characters": lambda right: right[:5] + b"!$" + right[5:],
    "junk-at-the-end": lambda right: right + b"!",
    "missing-padding": lambda right: right.rstrip(b"=") if _padding(right) else right[:-1],
    "data-behind-padding": lambda right: right + b"=" * (4 - _padding(right)) + b"AAAA",
    "too-much-padding": lambda right: right + b"=",
    "url-alphabet": lambda right: right[:4] + b"-_" + right[4:],
    "spaces": lambda right: right[:4] + b" " + right[4:],
    "nothing-of-it": lambda _: b"!!!!",
}


@rules(
    "sasl.base64",
    {
        "junk-characters": "with characters that are none of its alphabet",
        "junk-at-the-end": "with such a character at the end",
        "missing-padding": "without its padding",
        "data-behind-padding": "with more behind its padding",
        "too-much-padding": "with too much padding",
        "url-alphabet": "in the alphabet for URLs",
        "spaces": "with a space in it",
        "nothing-of-it": "in no way",
    },
    "5034 4",
    MUST,
    summary="A response that is base64 {} is answered by -ERR",
)
def no_base64(check: Check, member: str) -> None:
    """RFC 5034: what is no base64 is rejected, not repaired.  Two programs that repair it
    differently see two different users.
    """
    connection = check.mechanism(b"PLAIN")
    response = _NO_BASE64[member](_right(check))
    _challenged(connection, b"AUTH PLAIN")
    connection.err(response)
    connection.ok(b"AUTH PLAIN " + _right(check))


_MALFORMED: Final = {
    "empty": b"=",
    "no-nul": _encode(b"popcheck"),
    "one-nul": _encode(b"\0popcheck"),
    "three-nul": _encode(b"\0popcheck\0x\0y"),
    "no-name": _encode(b"\0\0secret"),
    "no-password": _encode(b"\0popcheck\0"),
    "8-bit": _encode(b"\0\xff\xfe\0\xc3\x28"),
}


@rules(
    "sasl.plain",
    {
        "empty": "that is empty",
        "no-nul": "without NUL",
        "one-nul": "with one NUL",
        "three-nul": "with three NUL",
        "no-name": "without a name",
        "no-password": "without a password",
        "8-bit": "that is not UTF-8",
    },
    "4616 2",
    MUST,
    summary="A PLAIN response {} is answered by -ERR, and the session goes on",
)
def malformed(check: Check, member: str) -> None:
    """Nobody is let in by half a response, and nobody else is harmed by one."""
    connection = check.mechanism(b"PLAIN")
    connection.err(b"AUTH PLAIN " + _MALFORMED[member])
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.wrong-password", "5034 4")
def wrong_password(check: Check) -> None:
    """A wrong password is answered by -ERR, and one may try again.

    Nobody gets in who should not.
    """
    connection = check.mechanism(b"PLAIN")
    connection.err(b"AUTH PLAIN " + _encode(b"\0%s\0%s" % (check.target.user, WRONG)))
    connection.err(b"STAT")
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.authzid-of-another", "4616 2")
def authzid_of_another(check: Check) -> None:
    """Who asks to act as somebody else (authzid) is refused.

    One user's password must not open another's mail.
    """
    connection = check.mechanism(b"PLAIN")
    connection.err(b"AUTH PLAIN " + _right(check, b"popcheck-nobody"))
    connection.err(b"STAT")


@rule("sasl.authzid-own", "4616 2", SHOULD)
def authzid_own(check: Check) -> None:
    """Who asks to act as himself (authzid) is let in.

    Some clients send the name twice.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ok(b"AUTH PLAIN " + _right(check, check.target.user))


@rule("sasl.pass-behind-failure", "5034 4")
def pass_behind_failure(check: Check) -> None:
    """A failed AUTH leaves nothing behind: PASS without USER is answered by -ERR.

    The name in the response is not that of USER.
    """
    connection = check.mechanism(b"PLAIN")
    connection.err(b"AUTH PLAIN " + _encode(b"\0%s\0%s" % (check.target.user, WRONG)))
    connection.err(b"PASS " + check.target.password)


@rule("sasl.not-a-command", "5034 4")
def not_a_command(check: Check) -> None:
    """A line behind a challenge is the response, whatever it says: QUIT ends nothing there.

    A client and a server that disagree on what a line is are a reply apart from then on.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ask(b"AUTH PLAIN")
    connection.err(b"QUIT")
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.long-response", "5034 4", ROBUST)
def long_response(check: Check) -> None:
    """A response of 6,000 octets that lets nobody in is answered by -ERR, and one may try again.

    Tokens are that long (RFC 7628); RFC 5034 has no limit for a line behind a challenge.
    """
    connection = check.mechanism(b"PLAIN")
    connection.ask(b"AUTH PLAIN")
    connection.err(_encode(b"\0popcheck-nobody\0" + b"x" * 4_500))
    connection.ok(b"AUTH PLAIN " + _right(check))


@rule("sasl.bare-auth", "5034 4", ROBUST)
def bare_auth(check: Check) -> None:
    """AUTH without a mechanism is answered, by -ERR or by the list of mechanisms.

    Outlook asks so for the list.
    """
    names = check.capability(b"SASL")
    connection = check.open()
    if connection.ask(b"AUTH").startswith(b"+OK"):
        listed = connection.body().split(b"\r\n")[:-1]
        need(set(listed) == set(names), f"AUTH lists {listed}, CAPA {names}")
    connection.ok(b"CAPA")


@rule("sasl.login", "5034 4", ROBUST)
def login(check: Check) -> None:
    """LOGIN, where it is announced, asks for the name, then for the password, and logs in.

    Outlook knows nothing else.
    """
    connection = check.mechanism(b"LOGIN")
    _challenged(connection, b"AUTH LOGIN")
    _challenged(connection, _encode(check.target.user))
    connection.ok(_encode(check.target.password))
    connection.ok(b"STAT")


def _scram(check: Check, password: bytes) -> tuple[scram.Client, bytes, Connection]:
    """Go through SCRAM up to the reply to the proof; return who did it, and that."""
    connection = check.mechanism(b"SCRAM-SHA-256")
    client = scram.Client(check.target.user, password)
    first = _challenged(connection, b"AUTH SCRAM-SHA-256 " + _encode(client.first))
    try:
        final = client.final(first)
    except ValueError as error:
        raise Failed(str(error)) from None
    return client, connection.ask(_encode(final)), connection


@rule("sasl.scram", "5802 5")
def scram_logs_in(check: Check) -> None:
    """SCRAM-SHA-256, where it is announced, logs in.

    The server's last word comes as a challenge, and the client's answer to it is empty.
    """
    _, reply, connection = _scram(check, check.target.password)
    need(reply.startswith(b"+ "), f"the proof was answered with {shown(reply)}")
    connection.ok(b"")
    connection.ok(b"STAT")


@rule("sasl.scram-signature", "5802 5")
def scram_signature(check: Check) -> None:
    """With SCRAM-SHA-256 the server proves that it knows the password, too.

    Otherwise anybody could be the server.
    """
    client, reply, _ = _scram(check, check.target.password)
    last = base64.b64decode(reply[2:]) if reply.startswith(b"+ ") else b""
    need(last == client.signature, f"it says {shown(last)} instead of {shown(client.signature)}")


@rule("sasl.scram-wrong", "5802 5")
def scram_wrong(check: Check) -> None:
    """With SCRAM-SHA-256 a wrong password is refused.

    Nobody gets in who should not.
    """
    _, reply, connection = _scram(check, WRONG)
    if reply.startswith(b"+ "):
        reply = connection.ask(b"")
    need(reply.startswith(b"-ERR"), f"the proof was answered with {shown(reply)}")


@rule("sasl.scram-iterations", "5802 5.1", SHOULD)
def scram_iterations(check: Check) -> None:
    """With SCRAM-SHA-256 a password is hashed 4,096 times at least.

    With fewer, who steals the keys finds the password.
    """
    client, _, _ = _scram(check, check.target.password)
    need(client.iterations >= 4096, f"it is {client.iterations} times")  # noqa: PLR2004
