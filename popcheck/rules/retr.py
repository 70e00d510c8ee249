"""RETR: the message, all of the message, and nothing but the message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, same, wire
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check

_CONTENTS: Final = {
    "plain": MAIL,
    "dot-first": b".first\n" + MAIL,
    "dot-only-first": b".\n" + MAIL,
    "dot-lines": MAIL + b".\n.x\n..\n...\n. \n" * 3 + b"end\n",
    "dot-last": MAIL + b".\n",
    "dot-inside": MAIL + b"a.\n.\n" + b"b.b\n",
    "only-a-dot": b".\n",
    "bait": MAIL + b".\n+OK 1 99999\n.\n-ERR\n",
    "bait-crlf": wire(MAIL + b".\n+OK 1 99999\n.\n-ERR\n"),
    "header-only": b"From: a\nSubject: b\n",
    "blank-line-only": b"\n",
    "8-bit": MAIL + bytes(range(128, 256)) * 30 + b"\n",
    "long-line": MAIL + b"x" * 1_000_000 + b"\n",
    "many-lines": MAIL + b"\n" * 20_000 + b"x\n" * 20_000,
}


@rules(
    "retr",
    {
        "plain": "of three header lines and two others",
        "dot-first": "that begins with a dot",
        "dot-only-first": "whose first line is a dot",
        "dot-lines": "with lines that begin with dots",
        "dot-last": "whose last line is a dot",
        "dot-inside": "with dots in lines",
        "only-a-dot": "of nothing but a dot",
        "bait": "that pretends to end",
        "bait-crlf": "that pretends to end, stored with CRLF",
        "header-only": "without a body",
        "blank-line-only": "of nothing but an empty line",
        "8-bit": "with octets that are not ASCII",
        "long-line": "with a line of a million octets",
        "many-lines": "of 40,000 lines",
    },
    "1939 3",
    MUST,
    mail=True,
    summary="A message {} arrives as it is, octet by octet",
)
def content(check: Check, member: str) -> None:
    """A line that begins with a dot gets another in front (byte-stuffing).  Where one is forgotten
    a message ends too early, the rest of it is taken for replies, and whoever wrote the message can
    write replies.  Where one is added too many, signatures break.
    """
    stored = _CONTENTS[member]
    session = check.log_in(stored)
    got = session.message(b"RETR 1")
    same(got, stored if b"\r\n" in stored else wire(stored))
    session.ok(b"NOOP")


@rule("retr.no-final-newline", "1939 3", mail=True)
def no_final_newline(check: Check) -> None:
    """A message whose last line has no end is whole, and ended by CRLF.

    Without the CRLF the dot behind it is no line of its own: the client waits for ever.
    """
    same(check.fetched(MAIL + b"no end"), wire(MAIL) + b"no end\r\n")


@rule("retr.no-final-newline-dot", "1939 3", mail=True)
def no_final_newline_dot(check: Check) -> None:
    """A message whose last line is a dot without an end is whole.

    Two rules that meet: the dot is stuffed, and the line gets an end.
    """
    same(check.fetched(MAIL + b"."), wire(MAIL) + b".\r\n")


@rule("retr.empty", "1939 5", mail=True)
def empty(check: Check) -> None:
    """A message of no octets is sent as one.

    A file of that kind is left behind by a full disk.  It can be looked at and deleted like any
    other.
    """
    session = check.log_in(b"", MAIL)
    got = session.message(b"RETR 1")
    need(got in (b"", b"\r\n"), f"it is {shown(got)}")
    session.ok(b"DELE 1")


@rule("retr.crlf", "1939 3", mail=True)
def crlf(check: Check) -> None:
    """A message that is stored with CRLF arrives as it is.

    Not with CR CR LF, which some clients show as empty lines between all lines.
    """
    same(check.fetched(wire(MAIL)), wire(MAIL))


@rule("retr.mixed-line-ends", "1939 3", mail=True)
def mixed_line_ends(check: Check) -> None:
    """A message with LF and CRLF mixed arrives with CRLF.

    Programs that add header lines to mail with CRLF make such files.
    """
    stored = b"A: b\nC: d\r\n\r\nx\n\ny\r\n\n\r\n.\n.\r\nend\r\n"
    same(check.fetched(stored), stored.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


@rule("retr.line-ends-are-crlf", "1939 3", mail=True)
def line_ends(check: Check) -> None:
    """There is no LF without a CR in front of it.

    Lines end in CRLF in POP3; strict clients stop at another.
    """
    got = check.fetched(MAIL + b"a\n\n\nb\n" + b"x" * 4095 + b"\n\n")
    need(re.search(rb"(?<!\r)\n", got) is None, "there is an LF without a CR")


@rule("retr.bare-carriage-return", "1939 3", ROBUST, mail=True)
def bare_carriage_return(check: Check) -> None:
    """A CR that ends no line does not end the message, and nothing around it is lost.

    ``CR . CR`` is no end: whoever reads it as one lets a mail write replies.
    """
    stored = MAIL + b"a\rb\r.\rc\n"
    got = check.fetched(stored)
    allowed = (wire(stored), wire(MAIL) + b"a\r\nb\r\n.\r\nc\r\n")
    need(got in allowed, f"the end is {got[-24:]!r}")


@rule("retr.nul", "1939 3", ROBUST, mail=True)
def nul(check: Check) -> None:
    """A NUL in a message does not end it.

    Where one does, a mail with one is cut, and virus scanners see another than the user.
    """
    stored = MAIL + b"before\0after\n" + MAIL
    got = check.fetched(stored)
    need(len(got) == len(wire(stored)), f"{len(got)} octets of {len(wire(stored))}")
    need(got.endswith(wire(MAIL)), "what stands behind it is missing")


@rule("retr.size-in-reply", "1939 5", ROBUST, mail=True)
def size_in_reply(check: Check) -> None:
    """If the reply to RETR says how many octets come, so many come.

    There are clients that read so many.
    """
    session = check.log_in(MAIL + b".\n" * 100)
    match = re.search(rb"([0-9]+) octets", session.ok(b"RETR 1"))
    got = session.body().replace(b"\r\n..", b"\r\n.")
    need(match is None or int(match[1]) == len(got), f"{match and match[1]!r}, and {len(got)} come")


@rule("retr.twice", "1939 5", mail=True)
def twice(check: Check) -> None:
    """A message may be fetched twice, and is the same.

    A client that was interrupted does it.
    """
    session = check.log_in(MAIL, MAIL * 2)
    first = session.message(b"RETR 2")
    same(session.message(b"RETR 2"), first)


@rule("retr.each-its-own", "1939 5", mail=True)
def each_its_own(check: Check) -> None:
    """Each number stands for the message that LIST has at that number.

    In whatever order they are fetched.
    """
    stored = [MAIL + b"%d\n" % number * number for number in range(1, 7)]
    session = check.log_in(*stored)
    sizes = session.sizes()
    for number in (3, 1, 6, 2, 5, 4):
        got = session.message(b"RETR %d" % number)
        need(len(got) == sizes[number], f"message {number} has {len(got)} octets")
        same(got, wire(stored[number - 1]), f"message {number}")


@rule("retr.keeps", "1939 5", mail=True)
def keeps(check: Check) -> None:
    """A message that was fetched and not deleted is there in the next session.

    Unless EXPIRE says otherwise (RFC 2449 section 6.7), nothing goes but by DELE.
    """
    session = check.log_in(MAIL, MAIL * 2)
    session.message(b"RETR 1")
    session.quit()
    need(check.log_in().stat()[0] == 2, "it is gone")  # noqa: PLR2004


@rule("retr.deleted", "1939 5", mail=True)
def deleted(check: Check) -> None:
    """RETR of a message that is marked as deleted is answered by -ERR.

    A reference to it is an error until RSET (RFC 1939 section 5, DELE).
    """
    session = check.log_in(MAIL, MAIL)
    session.ok(b"DELE 1")
    session.err(b"RETR 1")
    session.message(b"RETR 2")


_EDGES: Final = (1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


@rules(
    "edge.dot",
    {str(size): f"around octet {size:,}" for size in _EDGES},
    "1939 3",
    MUST,
    mail=True,
    summary="A line that begins with a dot {} is stuffed, wherever exactly it begins",
)
def edge_dot(check: Check, member: str) -> None:
    """Servers read messages in pieces.  One that forgets between two pieces that a line has just
    begun does not stuff a dot there: whoever knows its pieces writes a mail that ends early for its
    reader, with replies behind it.
    """
    size = int(member)
    stored = [b"x" * (size + shift - 1) + b"\n.\nforged\n" for shift in range(-3, 4)]
    stored.append(
        b"xxxx\n" * (size // 5) + b"y" * (size % 5 - 1) + b"\n" * (size % 5 > 0) + b".\n" * 20
    )
    session = check.log_in(*stored)
    for number, message in enumerate(stored, 1):
        same(session.message(b"RETR %d" % number), wire(message), f"message {number}")


_MANY: Final = 300_000
"""So many lines that a server surely reads them in pieces."""


@rule("edge.dot.anywhere", "1939 3", mail=True)
def edge_dot_anywhere(check: Check) -> None:
    """Every line of a long message that is a dot is stuffed, whatever pieces the server reads it
    in.

    As around the sizes that are usual: at the beginning of each piece there is a dot.
    """
    for first in (b"x\n", b"\n"):
        stored = first + b".\n" * _MANY
        session = check.log_in(stored)
        same(session.message(b"RETR 1"), wire(stored))
        session.ok(b"DELE 1")
        session.quit()


@rule("edge.crlf.anywhere", "1939 3", mail=True)
def edge_crlf_anywhere(check: Check) -> None:
    """Every CRLF of a long message is one line end, whatever pieces the server reads it in.

    As around the sizes that are usual: some piece ends between CR and LF.
    """
    for first in (b"", b"x"):
        stored = first + b"\r\n" * _MANY
        session = check.log_in(stored)
        size = session.sizes()[1]
        same(session.message(b"RETR 1"), stored)
        need(size == len(stored), f"LIST says {size} of {len(stored)} octets")
        session.ok(b"DELE 1")
        session.quit()


@rules(
    "edge.crlf",
    {str(size): f"around octet {size:,}" for size in _EDGES},
    "1939 3",
    MUST,
    mail=True,
    summary="CRLF that is stored {} is one line end, wherever exactly it is",
)
def edge_crlf(check: Check, member: str) -> None:
    """Where a piece ends between CR and LF, a server that looks at each piece by itself makes CR CR
    LF of it, or loses one; the size is wrong then, too.
    """
    size = int(member)
    stored = [b"x" * (size + shift) + b"\r\n.\r\nend\r\n" for shift in range(-3, 3)]
    session = check.log_in(*stored)
    sizes = session.sizes()
    for number, message in enumerate(stored, 1):
        same(session.message(b"RETR %d" % number), message, f"message {number}")
        need(sizes[number] == len(message), f"LIST says {sizes[number]} of {len(message)} octets")


@rules(
    "edge.end",
    {str(size): f"has {size:,} octets" for size in _EDGES},
    "1939 3",
    MUST,
    mail=True,
    summary="A message that {}, or one more or less, is whole and ends once",
)
def edge_end(check: Check, member: str) -> None:
    """A server that finds out at the end of a piece that there is no more may forget the last
    line's end, or the dot behind it.
    """
    size = int(member)
    stored = [
        b"x" * (size + shift - len(end)) + end for shift in (-1, 0, 1) for end in (b"\n", b"")
    ]
    session = check.log_in(*stored)
    for number, message in enumerate(stored, 1):
        got = session.message(b"RETR %d" % number)
        same(got, message.removesuffix(b"\n") + b"\r\n", f"message {number}")
    session.ok(b"NOOP")
