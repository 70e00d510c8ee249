"""Others at the same mailbox: deliveries, IMAP clients, and the lock."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need, same, wire
from popcheck.client import shown, unstuffed
from popcheck.rule import MUST, ROBUST, SHOULD, Failed, Silent, Skipped, rule, rules

if TYPE_CHECKING:
    from pathlib import Path

    from popcheck.check import Check
    from popcheck.client import Connection

_LONG: Final = MAIL + b"x" * 70 + b"\n"
_BIG: Final = MAIL + (b"y" * 70 + b"\n") * 110_000


def _move(check: Check, file: Path, flags: str = "S") -> None:
    check.maildir.flag(file, flags)


def _remove(check: Check, file: Path) -> None:
    current = check.maildir.current(file)
    if current is None:
        raise Failed("the file of a message is gone")
    current.unlink()


@rule("lock.exclusive", "1939 4")
def exclusive(check: Check) -> None:
    """While a session has the maildrop another log-in is refused.

    RFC 1939 wants an exclusive lock, so that numbers and deletions are one client's.  With two at a
    time one deletes what the other is fetching.
    """
    check.log_in()
    check.refused(check.open())


@rule("lock.code", "2449 8.1.2", SHOULD)
def in_use(check: Check) -> None:
    """A log-in that is refused because of another session says [IN-USE], if RESP-CODES is
    announced.

    A client that hears a plain -ERR asks its user for another password.
    """
    check.capability(b"RESP-CODES")
    check.log_in()
    said = check.refused(check.open())
    need(said.upper().startswith(b"[IN-USE]"), f"it was answered with -ERR {shown(said)}")


@rule("lock.at-once", "2449 8.1.2", ROBUST)
def in_use_at_once(check: Check) -> None:
    """That another session has the maildrop is said within three seconds.

    Clients on phones give up, and try again, and are in their own way.
    """
    check.log_in()
    connection = check.open()
    begin = time.monotonic()
    if check.target.try_log_in(connection).startswith(b"+OK"):
        raise Skipped("there is no lock")
    seconds = time.monotonic() - begin
    need(seconds < 3, f"it took {seconds:.1f} seconds")  # noqa: PLR2004


@rule("lock.first-undisturbed", "1939 4", mail=True)
def first_undisturbed(check: Check) -> None:
    """A session notices nothing of another log-in that is tried meanwhile.

    The lock is its own.
    """
    session = check.log_in(MAIL)
    check.target.try_log_in(check.open())
    need(session.stat()[0] == 1, "the message is gone")
    same(session.message(b"RETR 1"), wire(MAIL))


@rules(
    "lock.released",
    {"quit": "after QUIT", "fin": "when the client closes", "reset": "when the client is cut off"},
    "1939 6",
    MUST,
    summary="The maildrop is free again {}",
)
def released(check: Check, member: str) -> None:
    """A lock that stays behind locks its owner out: for a quarter of an hour where servers wait for
    a time-out.  Here it may take two seconds, and none after QUIT.
    """
    session = check.log_in()
    {"quit": session.quit, "fin": session.close, "reset": session.reset}[member]()
    limit = min(2.0, check.target.timeout)
    begin = time.monotonic()
    while not check.target.try_log_in(check.open()).startswith(b"+OK"):
        seconds = time.monotonic() - begin
        if seconds > limit:
            raise Failed(f"it is still locked after {seconds:.1f} seconds")
        time.sleep(0.02)


@rule("lock.refused-holds-nothing", "1939 4")
def refused_holds_nothing(check: Check) -> None:
    """A log-in that was refused holds no lock.

    RFC 1939: the lock is released before -ERR is said.
    """
    session = check.log_in()
    other = check.open()
    check.target.try_log_in(other)
    session.quit()
    if check.target.try_log_in(check.open()).startswith(b"-ERR"):
        raise Failed("it is locked after both")


@rule("change.delivered", "1939 4", mail=True)
def delivered(check: Check) -> None:
    """Mail that arrives during a session is not seen in it, and is there in the next.

    A session's numbers do not change; a client has fetched its list already.
    """
    session = check.log_in(MAIL)
    before = session.stat()
    check.stage(MAIL * 2)
    need(session.stat() == before, f"STAT was {before} and is {session.stat()}")
    need(set(session.sizes()) == {1}, "LIST has a message more")
    session.quit()
    need(check.log_in().stat()[0] == 2, "it is not there in the next session")  # noqa: PLR2004


@rule("change.delivered-not-deleted", "1939 6", mail=True)
def delivered_not_deleted(check: Check) -> None:
    """Mail that arrives during a session is not deleted by it.

    A client that deletes all that it has seen has not seen this one.
    """
    session = check.log_in(MAIL)
    session.ok(b"DELE 1")
    new = check.stage(MAIL)
    session.quit()
    need(check.maildir.current(new) is not None, "it was deleted")


@rules(
    "change.renamed",
    {"retr": "fetched", "dele": "deleted", "top": "looked at"},
    "1939 5",
    ROBUST,
    mail=True,
    summary="A message whose file an IMAP client renames during the session can be {}",
)
def renamed(check: Check, member: str) -> None:
    """A flag is part of a file's name in a Maildir.  Who looks for the old name says that the
    message is gone, or does not delete it and says that it did.
    """
    first, second = check.stage(MAIL), check.stage(MAIL * 2)
    session = check.log_in()
    session.sizes()
    _move(check, first, "S")
    _move(check, second, "FS")
    if member == "dele":
        session.ok(b"DELE 2")
        _move(check, second, "FRS")
        session.quit()
        need(check.maildir.current(second) is None, "it is still there")
        need(check.maildir.current(first) is not None, "the other one is gone")
    else:
        if member == "top":
            check.capability(b"TOP")
        command = b"RETR 2" if member == "retr" else b"TOP 2 1000"
        same(session.message(command), wire(MAIL * 2))


def _refused(session: Connection, command: bytes, whole: bytes = b"") -> bool:
    """Return whether a message was refused, or the connection closed, or *whole* was sent."""
    try:
        reply = session.ask(command)
        if reply.startswith(b"-ERR"):
            return True
        got = unstuffed(session.body())
    except (Failed, OSError):
        return True
    return bool(whole) and got == whole


@rule("change.removed", "1939 5", ROBUST, mail=True)
def removed(check: Check) -> None:
    """A message whose file somebody else removed is refused, and the numbers of the others stay.

    An empty or shortened message instead would be stored by the client in the place of the right
    one.
    """
    check.stage(MAIL)
    second = check.stage(MAIL * 2)
    check.stage(MAIL * 3)
    session = check.log_in()
    session.sizes()
    _remove(check, second)
    need(_refused(session, b"RETR 2", wire(MAIL * 2)), "another message was sent")
    try:
        session.ok(b"NOOP")
    except (Failed, OSError):
        return  # that it closed is allowed
    same(session.message(b"RETR 3"), wire(MAIL * 3))


@rule("change.cut", "1939 5", ROBUST, mail=True)
def cut(check: Check) -> None:
    """A message whose file is shorter than it was at log-in is not sent as if it were whole.

    A disk that lost the end of it may find it again; the client that has taken the rest for all
    deletes it.
    """
    file = check.stage(MAIL * 20)
    session = check.log_in()
    session.sizes()
    current = check.maildir.current(file)
    if current is None:
        raise Failed("the file of a message is gone")
    os.truncate(current, len(MAIL))
    need(_refused(session, b"RETR 1"), "the rest was sent as if it were all")


@rule("change.cut-while-sent", "1939 5", ROBUST, mail=True)
def cut_while_sent(check: Check) -> None:
    """A message whose file is cut while it is sent is not ended as if it were whole.

    The connection has to be closed, without the dot: then the client fetches it again.
    """
    file = check.stage(_BIG)
    session = check.log_in()
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    session.ok(b"RETR 1")
    current = check.maildir.current(file)
    if current is None:
        raise Failed("the file of a message is gone")
    os.truncate(current, len(MAIL))
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    try:
        got = session.body()
    except Silent:
        raise
    except (Failed, OSError):
        return
    if len(got) == len(wire(_BIG)):
        raise Skipped("the server had sent all of it already")
    raise Failed(
        f"{len(got)} octets of {len(wire(_BIG))} were sent, and the dot that says that this is all"
    )


@rules(
    "maildir",
    {
        "tmp": "in tmp",
        "dot-file": "that begins with a dot",
        "directory": "that is a directory",
        "fifo": "that is a FIFO",
        "link": "that is a symbolic link to a file elsewhere",
    },
    "1939 8",
    ROBUST,
    mail=True,
    summary="What is {} is no mail, and the mail beside it can be read",
)
def no_mail(check: Check, member: str) -> None:
    """What is in tmp is not delivered yet.  A link leads to a file that is not the user's, and a
    server that may read more than he does sends it to him; a FIFO keeps who opens it waiting for
    ever.
    """
    good = check.stage(MAIL)
    name = check.maildir.name()
    new = check.maildir.path / "new"
    if member == "tmp":
        check.stage(_LONG, at="tmp")
    elif member == "dot-file":
        check.stage(_LONG, name="." + name)
    elif member == "directory":
        (new / name).mkdir()
    elif member == "fifo":
        os.mkfifo(new / name)
    else:
        (new / name).symlink_to("/etc/hostname")
    if member in ("directory", "fifo", "link"):
        check.maildir.own(new / name)
        check.maildir.note(new / name)
    session = check.log_in()
    sizes = session.sizes()
    need(len(wire(_LONG)) not in sizes.values(), "it is listed")
    right = [number for number, size in sizes.items() if size == len(wire(MAIL))]
    need(len(right) == 1, f"{good.name} is not listed: {sizes}")
    same(session.message(b"RETR %d" % right[0]), wire(MAIL))
    for number in sizes:
        if number != right[0]:
            need(_refused(session, b"RETR %d" % number), "it is sent")


@rule("maildir.new-and-cur", "1939 5", mail=True)
def new_and_cur(check: Check) -> None:
    """Mail in cur is listed as mail in new is.

    What somebody has seen elsewhere is mail all the same.
    """
    check.stage(MAIL)
    check.maildir.flag(check.stage(MAIL * 2), "S")
    check.maildir.flag(check.stage(MAIL * 3), "")
    stat = check.log_in().stat()
    need(stat[0] == 3, f"{stat[0]} of 3 are listed")  # noqa: PLR2004


@rule("maildir.order-stays", "1939 5", SHOULD, mail=True)
def order_stays(check: Check) -> None:
    """Messages keep their order when some of them are seen elsewhere.

    A client that remembers by number, and there are some, takes one for another.
    """
    files = [check.stage(MAIL * (number + 1)) for number in range(4)]
    session = check.log_in()
    sizes = session.sizes()
    session.quit()
    _move(check, files[2])
    _move(check, files[0], "RS")
    again = check.log_in().sizes()
    need(sizes == again, f"LIST was {sizes} and is {again}")


@rule("maildir.wrong-size-in-name", "1939 11", ROBUST, mail=True)
def wrong_size_in_name(check: Check) -> None:
    """A size in a file's name that is not true is not believed.

    ``S=`` and ``W=`` were right when the message was delivered; a filter that changed it later did
    not rename it.  The client gets other octets than it was told.
    """
    name = f"{check.maildir.name()},S={len(MAIL) + 7},W={len(MAIL) + 20}"
    check.stage(MAIL, name=name)
    session = check.log_in()
    sizes = session.sizes()
    sent = len(session.message(b"RETR 1"))
    need(sizes[1] == sent == len(wire(MAIL)), f"LIST says {sizes[1]} octets, RETR sends {sent}")
