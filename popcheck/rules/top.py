"""TOP: a header and a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, same, wire
from popcheck.rule import MUST, ROBUST, Skipped, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection

_HEAD: Final = b"From: a\nSubject: b\n"
_BODY: Final = b"1\n2\n\n4\n5\n"
_STORED: Final = _HEAD + b"\n" + _BODY


def _session(check: Check, *contents: bytes) -> Connection:
    if b"TOP" not in check.target.announced:
        raise Skipped("TOP is not announced")
    return check.log_in(*contents)


@rules(
    "top",
    {
        "0": "0 lines",
        "1": "1 line",
        "3": "3 lines, of which one is empty,",
        "all": "as many lines as there are",
        "more": "more lines than there are",
        "very-many": "2,000,000,000 lines",
    },
    "1939 7",
    MUST,
    mail=True,
    summary="TOP of {} is the header, the empty line and so many lines of the body",
)
def some(check: Check, member: str) -> None:
    """Clients show subjects with it.  One that gets the body with 0 lines downloads everything to
    show a list; one that gets no empty line does not know where the header ends.
    """
    count = {"all": 5, "more": 6, "very-many": 2_000_000_000}.get(member) or int(member)
    lines = _BODY.split(b"\n")[:-1][:count]
    got = _session(check, _STORED).message(b"TOP 1 %d" % count)
    same(got, wire(_HEAD + b"\n" + b"".join(line + b"\n" for line in lines)))


@rule("top.crlf", "1939 7", mail=True)
def crlf(check: Check) -> None:
    """TOP of a message that is stored with CRLF is the same.

    A server that looks for LF LF finds no end of the header.
    """
    got = _session(check, wire(_STORED)).message(b"TOP 1 1")
    same(got, wire(_HEAD + b"\n1\n"))


@rule("top.no-body", "1939 7", mail=True)
def no_body(check: Check) -> None:
    """TOP of a message that is a header and nothing else is the header.

    An empty line may follow.
    """
    got = _session(check, _HEAD).message(b"TOP 1 5")
    need(got in (wire(_HEAD), wire(_HEAD) + b"\r\n"), f"it is {got!r}")


@rule("top.no-header", "1939 7", mail=True)
def no_header(check: Check) -> None:
    """TOP of a message that begins with the empty line is that and the lines.

    The header is what stands before the first empty line, even if that is nothing.
    """
    same(_session(check, b"\n" + _BODY).message(b"TOP 1 2"), b"\r\n1\r\n2\r\n")


@rule("top.empty", "1939 7", mail=True)
def empty(check: Check) -> None:
    """TOP of a message of no octets is an empty reply.

    Nobody has to be cut off for it.
    """
    session = _session(check, b"", MAIL)
    got = session.message(b"TOP 1 3")
    need(got in (b"", b"\r\n"), f"it is {got!r}")
    session.ok(b"NOOP")


@rule("top.dots", "1939 3", mail=True)
def dots(check: Check) -> None:
    """TOP stuffs lines that begin with a dot, in the header and in the body.

    It is a multi-line reply like RETR's.
    """
    stored = b".x: y\n.\n" + _HEAD + b"\n.\n..\n.z\nmore\n"
    got = _session(check, stored).message(b"TOP 1 3")
    same(got, wire(stored.removesuffix(b"more\n")))


@rule("top.first-of-retr", "1939 7", mail=True)
def first_of_retr(check: Check) -> None:
    """What TOP sends is how RETR begins.

    Clients put the two together.
    """
    session = _session(check, MAIL * 30)
    whole = session.message(b"RETR 1")
    for count in (0, 1, 7, 50):
        got = session.message(b"TOP 1 %d" % count)
        need(whole.startswith(got), f"TOP 1 {count} is not how RETR 1 begins")


@rule("top.no-final-newline", "1939 7", mail=True)
def no_final_newline(check: Check) -> None:
    """TOP has the last line also if it has no end, and ends it.

    It is a line all the same.
    """
    got = _session(check, _HEAD + b"\n1\n2").message(b"TOP 1 9")
    same(got, wire(_HEAD) + b"\r\n1\r\n2\r\n")


@rule("top.deleted", "1939 7", mail=True)
def deleted(check: Check) -> None:
    """TOP of a message that is marked as deleted is answered by -ERR.

    It is not to be seen until RSET.
    """
    session = _session(check, MAIL, MAIL)
    session.ok(b"DELE 1")
    session.err(b"TOP 1 0")
    session.message(b"TOP 2 0")


@rule("top.no-such", "1939 7", mail=True)
def no_such(check: Check) -> None:
    """TOP of a message that does not exist is answered by -ERR.

    With 0 for a number, too.
    """
    session = _session(check, MAIL)
    session.err(b"TOP 2 0")
    session.err(b"TOP 0 0")
    session.ok(b"NOOP")


@rule("top.keeps", "1939 7", mail=True)
def keeps(check: Check) -> None:
    """TOP does not delete, and changes no size.

    To look at a list of subjects is not to take the mail.
    """
    session = _session(check, MAIL, MAIL * 2)
    before = session.stat()
    session.message(b"TOP 1 1")
    need(session.stat() == before, "STAT is another one")
    session.quit()
    need(check.log_in().stat() == before, "STAT is another one in the next session")


_EDGES: Final = (4096, 8192, 16_384, 65_536)


@rules(
    "edge.header",
    {str(size): f"around octet {size:,}" for size in _EDGES},
    "1939 7",
    MUST,
    mail=True,
    summary="TOP finds the end of a header {}, wherever exactly it is",
)
def edge_header(check: Check, member: str) -> None:
    """Servers read messages in pieces.  One that looks for the empty line in each by itself misses
    it between two, and sends the whole message for a header.
    """
    size = int(member)
    heads = [b"a: " + b"x" * (size + shift - 3) + b"\n" for shift in range(-3, 3)]
    session = _session(check, *[head + b"\nbody\nmore\n" for head in heads])
    for number, head in enumerate(heads, 1):
        got = session.message(b"TOP %d 1" % number)
        same(got, wire(head) + b"\r\nbody\r\n", f"message {number}")


@rule("top.each-its-own", "1939 7", ROBUST, mail=True)
def many(check: Check) -> None:
    """Fifty TOP in a row are answered, each with its message.

    That is how a client shows a list.
    """
    stored = [MAIL.replace(b"a message", b"number %d" % number) for number in range(50)]
    session = _session(check, *stored)
    for number, message in enumerate(stored, 1):
        got = session.message(b"TOP %d 0" % number)
        same(got, wire(message.partition(b"\n\n")[0] + b"\n\n"), f"message {number}")
