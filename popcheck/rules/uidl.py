"""Unique-ids, which are why no mail is downloaded twice and none is skipped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, wire
from popcheck.client import shown
from popcheck.rule import MUST, ROBUST, SHOULD, rule, rules

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection

_BODIES: Final = (MAIL, MAIL * 2, MAIL * 3)


def _session(check: Check, *contents: bytes) -> Connection:
    check.capability(b"UIDL")
    return check.log_in(*contents)


def _again(check: Check, session: Connection) -> dict[int, bytes]:
    """End the session, and return the unique-ids that the next one has."""
    session.quit()
    return check.log_in().uids()


@rule("uidl.format", "1939 7", mail=True)
def uidl_format(check: Check) -> None:
    """UIDL has a line for each message: its number, one space, its unique-id, and nothing more.

    There are clients that break at a second space.
    """
    for line in _session(check, *_BODIES).listing(b"UIDL"):
        need(re.fullmatch(rb"[1-9][0-9]* [!-~]+", line), f"a line is {shown(line)}")


@rule("uidl.one", "1939 7", mail=True)
def uidl_one(check: Check) -> None:
    """UIDL with a number is answered by one line: +OK, the number, the unique-id that UIDL without
    has.

    A server that leaves the number out, or sends a list, has clients without ids.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    one = session.uid(session.ok(b"UIDL 2"))
    need(one == (2, uids[2]), f"UIDL 2 says {one}, UIDL {uids}")
    session.ok(b"NOOP")


@rule("uidl.empty", "1939 7", mail=True)
def uidl_empty(check: Check) -> None:
    """In an empty maildrop UIDL is +OK and the dot, and nothing between.

    Clients wait for the dot.
    """
    lines = _session(check).listing(b"UIDL")
    need(not lines, f"it has the lines {lines}")


@rule("uidl.all", "1939 7", mail=True)
def uidl_all(check: Check) -> None:
    """UIDL has the messages that LIST has, in the same order.

    A client that finds no id for a message forgets that it has had it.
    """
    session = _session(check, *[MAIL] * 300)
    numbers = [session.uid(line)[0] for line in session.listing(b"UIDL")]
    need(numbers == list(session.sizes()), "UIDL and LIST have different messages")


@rule("uidl.without-deleted", "1939 7", mail=True)
def uidl_without_deleted(check: Check) -> None:
    """UIDL leaves out what is marked as deleted.

    A client would take it for there.
    """
    session = _session(check, *_BODIES)
    session.ok(b"DELE 2")
    uids = session.uids()
    need(set(uids) == {1, 3}, f"it has {uids}")


@rule("uidl.one-deleted", "1939 7", mail=True)
def uidl_one_deleted(check: Check) -> None:
    """UIDL with the number of a message that is marked as deleted is answered by -ERR.

    It is not to be seen until RSET.
    """
    session = _session(check, *_BODIES)
    session.ok(b"DELE 2")
    session.err(b"UIDL 2")
    session.ok(b"UIDL 3")


_NAMES: Final = {
    "usual": "",
    "long-name": "1700000000.M1P1." + "x" * 150,
    "name-with-space": "1700000000.M2P1.mx example",
    "name-with-8-bit": "1700000000.M3P1.m\u00e4x",
    "name-with-size": f"1700000000.M4P1.mx,S={len(MAIL)},W={len(wire(MAIL))}",
    "name-with-control-character": "1700000000.M5P1.m\x01x\x7f",
}


@rules(
    "uidl.characters",
    {
        "usual": "the usual name",
        "long-name": "a long name",
        "name-with-space": "a space in its name",
        "name-with-8-bit": "letters that are not ASCII in its name",
        "name-with-size": "its size in its name",
        "name-with-control-character": "control characters in its name",
    },
    "1939 7",
    MUST,
    mail=True,
    summary="The unique-id of a file with {} is 1 to 70 characters from 0x21 to 0x7E, and stays",
)
def characters(check: Check, member: str) -> None:
    """Maildirs let names be longer and have other characters.  A client cuts such an id where it
    likes, takes two for one, and does not fetch one of them.
    """
    check.capability(b"UIDL")
    check.stage(MAIL, name=_NAMES[member])
    session = check.log_in()
    lines = session.listing(b"UIDL")
    need(len(lines) == 1, f"there are {len(lines)} messages")
    uid = lines[0].partition(b" ")[2]
    need(re.fullmatch(rb"[!-~]{1,70}", uid), f"it is {shown(uid, 200)}, {len(uid)} octets")
    need(_again(check, session) == {1: uid}, "it is another one in the next session")


@rule("uidl.distinct", "1939 7", mail=True)
def distinct(check: Check) -> None:
    """Messages have different unique-ids.

    Of two with the same one a client fetches one.
    """
    uids = _session(check, *[MAIL + b"%d\n" % n for n in range(50)]).uids()
    need(len(set(uids.values())) == len(uids), "two messages have the same unique-id")


@rule("uidl.distinct-copies", "1939 7", SHOULD, mail=True)
def distinct_copies(check: Check) -> None:
    """Two messages with the same content have different unique-ids.

    RFC 1939 lets them have the same; then a client fetches one, and deletes it twice or never.
    """
    uids = _session(check, MAIL, MAIL).uids()
    need(uids[1] != uids[2], f"both have {uids[1]!r}")


@rule("uidl.same-name-twice", "1939 7", ROBUST, mail=True)
def same_name_twice(check: Check) -> None:
    """Two files with the same name, in new and in cur, have different unique-ids.

    That happens when a backup is put back, or folders are put together.
    """
    check.capability(b"UIDL")
    first = check.stage(MAIL)
    check.maildir.flag(first)
    check.stage(MAIL * 2, name=first.name)
    uids = check.log_in().uids()
    if len(uids) > 1:
        need(uids[1] != uids[2], f"both have {uids[1]!r}")


@rule("uidl.stays", "1939 7", mail=True)
def stays(check: Check) -> None:
    """Unique-ids are the same in the next session, after QUIT.

    With other ids clients download all of their mail again.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    again = _again(check, session)
    need(uids == again, f"they were {uids} and are {again}")


@rule("uidl.stays-without-quit", "1939 7", mail=True)
def stays_without_quit(check: Check) -> None:
    """Unique-ids are the same in the next session if the last one was cut off.

    RFC 1939 demands that; phones lose connections all the time.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    session.reset()
    again = check.log_in().uids()
    need(uids == again, f"they were {uids} and are {again}")


@rule("uidl.stays-when-seen", "1939 7", mail=True)
def stays_when_seen(check: Check) -> None:
    """A message keeps its unique-id when it is moved from new to cur and gets a flag.

    An IMAP client that looks at the same mailbox does that all the time; ids made of file names
    with flags in them change then, and everything is downloaded again.
    """
    check.capability(b"UIDL")
    file = check.stage(MAIL)
    session = check.log_in()
    uids = session.uids()
    session.quit()
    check.maildir.flag(file, "S")
    session = check.log_in()
    seen = session.uids()
    session.quit()
    check.maildir.flag(file, "FRS")
    flagged = check.log_in().uids()
    need(uids == seen, f"it was {uids} and is {seen}")
    need(uids == flagged, f"it was {uids} and is {flagged} with more flags")


@rule("uidl.stays-when-others-go", "1939 7", mail=True)
def stays_when_others_go(check: Check) -> None:
    """A message keeps its unique-id when messages before it are deleted and others arrive.

    An id made of the number is another one then.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    session.ok(b"DELE 1")
    session.quit()
    check.stage(MAIL * 4)
    again = list(check.log_in().uids().values())
    kept = [uids[2], uids[3]]
    need(again[:2] == kept, f"they were {kept} and are {again[:2]}")
    need(again[2] not in uids.values(), f"they were {uids}, are {again}, and one of them is new")


@rule("uidl.stays-when-fetched", "1939 7", mail=True)
def stays_when_fetched(check: Check) -> None:
    """A message keeps its unique-id when it is fetched.

    Otherwise leaving mail on the server means to fetch it each time.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    session.message(b"RETR 2")
    need(session.uids() == uids, "it is another one after RETR")
    again = _again(check, session)
    need(uids == again, f"they were {uids} and are {again}")


@rule("uidl.not-used-again", "1939 7", mail=True)
def not_used_again(check: Check) -> None:
    """The unique-id of a message that was deleted is not given to a new one, even with the same
    content.

    A client that remembers the id does not fetch the new one, and nobody knows that it is there.
    """
    session = _session(check, MAIL)
    old = session.uids()[1]
    session.ok(b"DELE 1")
    session.quit()
    check.stage(MAIL)
    new = check.log_in().uids()[1]
    need(old != new, f"both have {old!r}")


@rule("uidl.same-after-rset", "1939 7", mail=True)
def same_after_rset(check: Check) -> None:
    """After DELE and RSET UIDL says what it said before.

    A client that changed its mind goes on with the same messages.
    """
    session = _session(check, *_BODIES)
    uids = session.uids()
    session.ok(b"DELE 1")
    session.ok(b"RSET")
    need(session.uids() == uids, "UIDL is another one")
