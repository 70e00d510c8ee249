"""Message numbers: digits and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need
from popcheck.client import shown
from popcheck.rule import MUST, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check

_NUMBERS: Final = {
    "zero": (b"0", b"00"),
    "minus": (b"-1", b"-0"),
    "plus": (b"+1",),
    "beyond": (b"12", b"13", b"99"),
    "letters": (b"one", b"x"),
    "letters-behind": (b"1a", b"1;"),
    "underscore": (b"1_0", b"0_1"),
    "hexadecimal": (b"0x1", b"1h"),
    "exponent": (b"1e0", b"10e-1"),
    "fraction": (b"1.0", b"1."),
    "wraps-at-2-32": (b"4294967297", b"4294967296"),
    "wraps-at-2-64": (b"18446744073709551617", b"36893488147419103233"),
    "wraps-at-2-31": (b"2147483649", b"-2147483647"),
    "very-long": (b"1" * 200, b"9" * 230),
    "superscript": ("\u00b9".encode(), "\u00b2".encode(), b"\xb9"),
    "arabic-digit": ("\u0661".encode(),),
    "full-width-digit": ("\uff11".encode(),),
    "nul-behind": (b"1\0", b"1\0junk"),
    "tab-behind": (b"1\t", b"\t1"),
    "vertical-tab": (b"\x0b1", b"1\x0c"),
    "no-break-space": (b"\xa01", b"\xc2\xa01"),
    "carriage-return-behind": (b"1\r", b"1\r2"),
    "list": (b"1,2", b"1-2", b"1:2"),
    "wild-card": (b"*", b"$", b"%"),
    "quoted": (b'"1"', b"(1)", b"'1'"),
}


@rules(
    "number",
    {
        "zero": "0",
        "minus": "A negative number",
        "plus": "A number with a plus sign",
        "beyond": "A number higher than there are messages",
        "letters": "A word",
        "letters-behind": "A number with a letter behind it",
        "underscore": "A number with an underscore, as Python reads them,",
        "hexadecimal": "A hexadecimal number",
        "exponent": "A number with an exponent",
        "fraction": "A number with a decimal point",
        "wraps-at-2-32": "A number that is one of a message modulo 2^32",
        "wraps-at-2-64": "A number that is one of a message modulo 2^64",
        "wraps-at-2-31": "A number that is negative in 32 bits",
        "very-long": "A number of 200 digits",
        "superscript": "A superscript digit",
        "arabic-digit": "An Arabic-Indic digit",
        "full-width-digit": "A full-width digit",
        "nul-behind": "A number with a NUL behind it",
        "tab-behind": "A number with a tab",
        "vertical-tab": "A number with a vertical tab or form feed",
        "no-break-space": "A number with a no-break space",
        "carriage-return-behind": "A number with a CR behind it",
        "list": "A list or range of numbers",
        "wild-card": "A wild card",
        "quoted": "A number in quotes or brackets",
    },
    "1939 3",
    MUST,
    mail=True,
    summary="{} stands for no message: -ERR, and nothing is marked",
)
def number(check: Check, member: str) -> None:
    """Numbers go through whatever a program's language takes for one.  With DELE a number that is
    read as another deletes a mail that nobody wanted to lose.
    """
    session = check.log_in(*[MAIL] * 11)
    before = session.stat()
    verbs = [b"DELE", b"RETR", b"LIST"] + [b"UIDL"] * (b"UIDL" in check.target.announced)
    for word in _NUMBERS[member]:
        for verb in verbs:
            reply = session.ask(verb + b" " + word)
            need(reply.startswith(b"-ERR"), f"{shown(verb + b' ' + word)}: {shown(reply)}")
    need(session.stat() == before, "a message was marked as deleted")


_LINES: Final = {
    "missing": (b"",),
    "minus": (b"-1",),
    "plus": (b"+1",),
    "letters": (b"x", b"1a"),
    "fraction": (b"1.5", b"1e1"),
}


@rules(
    "top.lines",
    {
        "missing": "nothing",
        "minus": "a negative number",
        "plus": "a number with a plus sign",
        "letters": "letters",
        "fraction": "a fraction",
    },
    "1939 7",
    MUST,
    mail=True,
    summary="TOP with {} for the number of lines is answered by -ERR",
)
def lines(check: Check, member: str) -> None:
    """RFC 1939 has a number that is not negative.  What a server makes of something else, a client
    can not know.
    """
    check.capability(b"TOP")
    session = check.log_in(MAIL)
    for word in _LINES[member]:
        session.err(b"TOP 1 " + word)
    session.ok(b"NOOP")


@rule("number.of-none", "1939 3", MUST, mail=True)
def empty_maildrop(check: Check) -> None:
    """In an empty maildrop there is no message 1.

    Counting from 0 beneath, some servers find one in front of the first.
    """
    session = check.log_in()
    for command in (b"RETR 1", b"DELE 1", b"LIST 1", b"RETR 0"):
        session.err(command)
