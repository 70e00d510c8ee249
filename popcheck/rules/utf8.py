"""UTF8 and LANG (RFC 6856), where they are announced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import need, same, wire
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, Skipped, rule

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection

_MAIL: Final = "From: a\nSubject: Gr\u00fc\u00dfe\n\nbody\n".encode()


def _utf8(check: Check, *contents: bytes) -> Connection:
    """Deliver messages and log in, after UTF8."""
    check.capability(b"UTF8")
    check.target.free()
    for content in contents:
        check.stage(content)
    connection = check.open()
    connection.ok(b"UTF8")
    check.target.log_in(connection)
    return connection


@rule("utf8.command", "6856 2.1")
def command(check: Check) -> None:
    """UTF8 before log-in is answered by +OK, and one can log in then.

    A client that can show such mail says so this way.
    """
    _utf8(check).ok(b"STAT")


@rule("utf8.after-log-in", "6856 2.1")
def after_log_in(check: Check) -> None:
    """UTF8 does not exist after log-in.

    Sizes were told already.
    """
    check.capability(b"UTF8")
    check.log_in().err(b"UTF8")


@rule("utf8.argument", "6856 2.1")
def argument(check: Check) -> None:
    """UTF8 takes no argument.

    What is wrong in its syntax is answered by -ERR.
    """
    check.capability(b"UTF8")
    check.open().err(b"UTF8 x")


@rule("utf8.as-it-is", "6856 2.1", mail=True)
def as_it_is(check: Check) -> None:
    """After UTF8 a message with UTF-8 in its header arrives as it is.

    That is what the client asked for.
    """
    same(_utf8(check, _MAIL).message(b"RETR 1"), wire(_MAIL))


@rule("utf8.size", "6856 4", mail=True)
def size(check: Check) -> None:
    """After UTF8 the size is that of what RETR sends.

    As without.
    """
    session = _utf8(check, _MAIL)
    sizes = session.sizes()
    need(sizes[1] == len(session.message(b"RETR 1")), f"LIST says {sizes[1]}")


@rule("utf8.not-without", "6856 4", mail=True)
def not_without(check: Check) -> None:
    """Without UTF8 a header has no octets that are not ASCII: it is rewritten, or refused with
    [UTF8].

    RFC 6856 demands it of servers that announce UTF8.
    """
    check.capability(b"UTF8")
    session = check.log_in(_MAIL)
    reply = session.ask(b"RETR 1")
    if reply.startswith(b"+OK"):
        head = session.body().partition(b"\r\n\r\n")[0]
        need(head.isascii(), "the header has UTF-8")
    else:
        need(reply.upper().startswith(b"-ERR [UTF8]"), f"RETR was answered with {shown(reply)}")


@rule("utf8.capability", "6856 2")
def capability(check: Check) -> None:
    """UTF8 in CAPA has USER behind it at most.

    That means UTF-8 in names and passwords.
    """
    values = check.capability(b"UTF8")
    need([value.upper() for value in values] in ([], [b"USER"]), f"it has {values}")


@rule("utf8.unannounced", "1939 3", ROBUST)
def unannounced(check: Check) -> None:
    """Where UTF8 is not announced there is no UTF8.

    A client that hears +OK expects what a server like that does not do.
    """
    if b"UTF8" in check.target.announced:
        raise Skipped("UTF8 is announced")
    check.open().err(b"UTF8")


@rule("lang.list", "6856 3.1")
def lang_list(check: Check) -> None:
    """LANG without an argument lists languages, each with its name.

    A client shows them to its user.
    """
    check.capability(b"LANG")
    lines = check.open().listing(b"LANG")
    need(lines, "there is none")
    for line in lines:
        need(re.match(rb"[A-Za-z0-9-]+( |\Z)", line), f"a line is {shown(line)}")


@rule("lang.chosen", "6856 3.1", MUST)
def lang_chosen(check: Check) -> None:
    """LANG with a language that is listed is answered by +OK and its tag; so is LANG *.

    From then on error texts are in it.
    """
    check.capability(b"LANG")
    connection = check.open()
    tag = connection.listing(b"LANG")[0].split(b" ")[0]
    text = connection.ok(b"LANG " + tag)
    need(text.lower().startswith(tag.lower()), f"LANG was answered with +OK {shown(text)}")
    connection.ok(b"LANG *")


@rule("lang.unknown", "6856 3.1")
def lang_unknown(check: Check) -> None:
    """LANG with a language that is not listed is answered by -ERR.

    Not by another language.
    """
    check.capability(b"LANG")
    connection = check.open()
    connection.err(b"LANG x-popcheck")
    connection.ok(b"QUIT")


@rule("lang.unannounced", "1939 3", ROBUST)
def lang_unannounced(check: Check) -> None:
    """Where LANG is not announced there is no LANG.

    A client that hears +OK expects a list.
    """
    if b"LANG" in check.target.announced:
        raise Skipped("LANG is announced")
    check.open().err(b"LANG *")
