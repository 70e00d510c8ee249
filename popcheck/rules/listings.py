"""STAT and LIST: what is there, and how long it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, wire
from popcheck.client import shown
from popcheck.rule import MUST, SHOULD, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check

_BODIES: Final = (MAIL, MAIL * 2, MAIL * 3)


@rule("stat.format", "1939 5", mail=True)
def stat_format(check: Check) -> None:
    """STAT is answered by +OK, the number of messages and the number of octets, a space each
    between.

    Clients read the two numbers and nothing else.
    """
    reply = check.log_in(*_BODIES).ask(b"STAT")
    need(re.match(rb"\+OK 3 [1-9][0-9]*(?![0-9])", reply), f"the reply is {shown(reply)}")


@rule("stat.nothing-more", "1939 5", SHOULD)
def stat_nothing_more(check: Check) -> None:
    """Nothing stands behind STAT's two numbers.

    RFC 1939 strongly discourages more; some clients take all that is there for the number.
    """
    reply = check.log_in().ask(b"STAT")
    need(re.fullmatch(rb"\+OK [0-9]+ [0-9]+", reply), f"the reply is {shown(reply)}")


@rule("stat.empty", "1939 5", mail=True)
def stat_empty(check: Check) -> None:
    """In an empty maildrop STAT says 0 0.

    A client forgets what it knows of a maildrop that is empty, so this has to be right.
    """
    stat = check.log_in().stat()
    need(stat == (0, 0), f"it says {stat}")


@rule("stat.sum", "1939 5", mail=True)
def stat_sum(check: Check) -> None:
    """STAT's octets are the sum of LIST's.

    Clients show how much is to come, and stop there.
    """
    session = check.log_in(*_BODIES)
    count, size = session.stat()
    sizes = session.sizes()
    need((count, size) == (len(sizes), sum(sizes.values())), f"STAT {count} {size}, LIST {sizes}")


@rule("stat.without-deleted", "1939 5", mail=True)
def stat_without_deleted(check: Check) -> None:
    """STAT leaves out what is marked as deleted, in both numbers.

    Otherwise a client waits for mail that does not come.
    """
    session = check.log_in(*_BODIES)
    sizes = session.sizes()
    session.ok(b"DELE 2")
    stat = session.stat()
    need(stat == (2, sizes[1] + sizes[3]), f"it says {stat}")


@rule("list.format", "1939 5", mail=True)
def list_format(check: Check) -> None:
    """LIST has a line for each message: its number, a space, its size.

    Clients read two numbers of each line.
    """
    lines = check.log_in(*_BODIES).listing(b"LIST")
    for line in lines:
        need(re.match(rb"[1-9][0-9]* [0-9]+(?![0-9])", line), f"a line is {shown(line)}")
    need(len(lines) == len(_BODIES), f"it has {len(lines)} lines for {len(_BODIES)} messages")


@rule("list.nothing-more", "1939 5", SHOULD, mail=True)
def list_nothing_more(check: Check) -> None:
    """Nothing stands behind the size in LIST.

    RFC 1939 strongly discourages more; there are clients that fail on it.
    """
    session = check.log_in(MAIL)
    for line in [*session.listing(b"LIST"), session.ok(b"LIST 1")]:
        need(re.fullmatch(rb"[0-9]+ [0-9]+", line), f"a line is {shown(line)}")


@rule("list.one", "1939 5", mail=True)
def list_one(check: Check) -> None:
    """LIST with a number is answered by one line: +OK, the number, the size that LIST without has.

    A client that waits for more lines waits for ever.
    """
    session = check.log_in(*_BODIES)
    sizes = session.sizes()
    one = session.numbers(b"LIST 2", session.ok(b"LIST 2"))
    need(one == (2, sizes[2]), f"LIST 2 says {one}, LIST {sizes}")
    session.ok(b"NOOP")


@rule("list.empty", "1939 5", mail=True)
def list_empty(check: Check) -> None:
    """In an empty maildrop LIST is +OK and the dot, and nothing between.

    Clients wait for the dot.
    """
    lines = check.log_in().listing(b"LIST")
    need(not lines, f"it has the lines {lines}")


@rule("list.in-order", "1939 5", SHOULD, mail=True)
def list_in_order(check: Check) -> None:
    """Messages are numbered from 1 without gaps, and listed in order.

    Clients count along, and ask for message 1 to n when STAT says n.
    """
    session = check.log_in(*[MAIL] * 12)
    numbers = [session.numbers(b"LIST", line)[0] for line in session.listing(b"LIST")]
    need(numbers == list(range(1, 13)), f"the numbers are {numbers}")


@rule("list.oldest-first", "1939 5", SHOULD, mail=True)
def list_oldest_first(check: Check) -> None:
    """Messages are numbered as they came.

    Clients fetch from the front, show what is new at the end, and some remember the highest number.
    """
    sizes = check.log_in(*_BODIES).sizes()
    need(sizes[1] < sizes[2] < sizes[3], f"the sizes are {sizes}")


@rule("list.without-deleted", "1939 5", mail=True)
def list_without_deleted(check: Check) -> None:
    """LIST leaves out what is marked as deleted.

    A client would fetch it again.
    """
    session = check.log_in(*_BODIES)
    session.ok(b"DELE 2")
    sizes = session.sizes()
    need(set(sizes) == {1, 3}, f"it has {sizes}")


@rule("list.one-deleted", "1939 5", mail=True)
def list_one_deleted(check: Check) -> None:
    """LIST with the number of a message that is marked as deleted is answered by -ERR.

    It is not to be seen until RSET.
    """
    session = check.log_in(*_BODIES)
    session.ok(b"DELE 2")
    session.err(b"LIST 2")
    session.ok(b"LIST 3")


@rule("list.many", "1939 5", mail=True)
def list_many(check: Check) -> None:
    """A list of a thousand messages is whole.

    It is longer than a buffer or two; who cuts it there makes clients think that the rest was
    deleted.
    """
    session = check.log_in(*[MAIL] * 1000)
    sizes = session.sizes()
    need(len(sizes) == len(set(sizes)) == session.stat()[0] == 1000, f"LIST has {len(sizes)}")  # noqa: PLR2004
    need(set(sizes.values()) == {len(wire(MAIL))}, "sizes differ")


_SIZES: Final = {
    "lf": MAIL,
    "crlf": wire(MAIL),
    "mixed": MAIL.replace(b"\n", b"\r\n", 3),
    "no-final-newline": MAIL.rstrip(b"\n"),
    "no-final-newline-crlf": wire(MAIL)[:-2],
    "dots": MAIL + b".\n..\n.x\n" * 100,
    "bare-carriage-returns": MAIL + b"a\rb\r\rc\n\r\r\n",
    "empty": b"",
    "only-newlines": b"\n" * 50,
    "8-bit-and-nul": MAIL + bytes(range(256)) + b"\n",
    "long-line": MAIL + b"x" * 100_000 + b"\n",
    "trailing-cr": MAIL + b"end\r",
}


@rules(
    "size",
    {
        "lf": "stored with LF",
        "crlf": "stored with CRLF",
        "mixed": "stored with LF and CRLF mixed",
        "no-final-newline": "whose last line has no end",
        "no-final-newline-crlf": "with CRLF, whose last line has no end,",
        "dots": "with lines that begin with dots",
        "bare-carriage-returns": "with CRs that end no line",
        "empty": "of no octets",
        "only-newlines": "of nothing but line ends",
        "8-bit-and-nul": "of all octets",
        "long-line": "with a very long line",
        "trailing-cr": "that ends with CR",
    },
    "1939 11",
    MUST,
    mail=True,
    summary="The size of a message {} is the number of octets that RETR sends",
)
def size(check: Check, member: str) -> None:
    """LIST, LIST with a number and STAT count the octets of what RETR sends, each line end as two,
    and the dots of byte-stuffing not at all.  Clients reserve so much, and show progress by it;
    there are clients that wait for ever when less comes, or take the rest of the message for
    replies when more does.
    """
    session = check.log_in(_SIZES[member], MAIL)
    sent = len(session.message(b"RETR 1"))
    stat, sizes = session.stat(), session.sizes()
    one = session.numbers(b"LIST 1", session.ok(b"LIST 1"))[1]
    need(sizes[1] == sent, f"LIST says {sizes[1]} octets, RETR sends {sent}")
    need(one == sent, f"LIST 1 says {one} octets, RETR sends {sent}")
    need(stat[1] == sum(sizes.values()), f"STAT says {stat[1]} octets, LIST {sizes}")
