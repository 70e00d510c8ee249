"""Mutants that delete wrongly, and do not expect anybody else at the mailbox."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING, Any

from tests.popcheck.maildrop import OK, Quit, Refused
from tests.popcheck.mutate import mutant
from tests.popcheck.toy import Session

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MUTANTS", "Streaming"]


def _at_once(self: Session, argument: bytes) -> bytes:
    self.remove(self.number(argument))
    return Session.do_DELE(self, argument)


def _again(self: Session, argument: bytes) -> bytes:
    marks, self.deleted = self.deleted, set()
    reply = Session.do_DELE(self, argument)
    self.deleted |= marks
    return reply


def _last_instead(self: Session, argument: bytes) -> bytes:
    self.deleted.add(min(int(argument), len(self.sizes)) - 1)
    return OK


def _moving_up(self: Any, argument: bytes) -> bytes:
    at = self.number(argument)
    assert self.files is not None
    self.gone = [*self.gone, self.files.pop(at)]
    del self.sizes[at], self.uids[at]
    return OK


def _commit_gone(self: Any, marked: list[int]) -> None:
    for path in self.gone:
        path.unlink()


def _commit_at_the_end(self: Session) -> None:
    self.commit(sorted(self.deleted))
    Session.leave(self)


def _reset_for_good(self: Session, argument: bytes) -> bytes:
    self.commit = lambda marked: None  # type: ignore[method-assign]
    return Session.do_RSET(self, argument)


def _needs_marks(self: Session, argument: bytes) -> bytes:
    if not self.deleted:
        raise Refused("nothing to reset")
    return Session.do_RSET(self, argument)


def _sizes_grow(self: Session, argument: bytes) -> bytes:
    self.sizes = [size + 1 for size in self.sizes]
    return Session.do_RSET(self, argument)


def _if_somebody_listens(self: Session, marked: list[int]) -> None:
    self.socket.settimeout(0.05)
    try:
        if not self.socket.recv(1, socket.MSG_PEEK):
            return
    except TimeoutError:
        pass
    Session.commit(self, marked)


def _said_first(self: Session, argument: bytes) -> bytes:
    self.send(b"+OK bye\r\n")
    self.socket.recv(1)
    self.commit(sorted(self.deleted))
    self.leave()
    raise Quit(b"")


def _goes_on(self: Session, argument: bytes) -> bytes:
    return b"+OK bye\r\n"


def _stops(self: Session, marked: list[int]) -> None:
    assert self.files is not None
    for at in marked:
        if self.find(self.files[at]) is None:
            return
        self.remove(at)


DELETING: dict[str, Any] = {
    "dele.and-quit": mutant(commit=lambda *_: None),
    "dele.all": mutant(commit=lambda self, marked: Session.commit(self, marked[:-1])),
    "dele.not-before-quit": mutant(do_DELE=_at_once),
    "dele.twice": mutant(do_DELE=_again),
    "dele.no-such": mutant(do_DELE=_last_instead),
    "dele.numbers-stay": mutant(do_DELE=_moving_up, commit=_commit_gone, gone=[]),
    **{
        f"dele.without-quit.{how}": mutant(leave=_commit_at_the_end)
        for how in ("fin", "reset", "half")
    },
    "dele.gone-next-time": mutant(commit=lambda *_: None),
    "rset.takes-marks-away": mutant(do_RSET=lambda *_: OK),
    "rset.then-dele": mutant(do_RSET=_reset_for_good),
    "rset.nothing": mutant(do_RSET=_needs_marks),
    "rset.lists": mutant(do_RSET=_sizes_grow),
    "quit.at-once": mutant(commit=_if_somebody_listens),
    "quit.done-when-said": mutant(do_QUIT=_said_first),
    "quit.nothing-behind": mutant(do_QUIT=_goes_on),
    "quit.file-gone-already": mutant(commit=_stops),
}


def _in_words(self: Session, right: bool) -> bytes:
    try:
        return Session.let_in(self, right)
    except Refused as error:
        raise Refused(str(error).replace("[IN-USE] ", "")) from None


def _waiting(self: Session) -> bool:
    self.locked = self.server.lock.acquire(timeout=2)
    return self.locked


def _in_the_way(self: Session) -> bool:
    """Take from who is there."""
    memory = self.server.memory
    if Session.take(self):
        memory["session"] = self
        return True
    memory["session"].deleted.update(range(len(memory["session"].sizes)))
    return False


def _forgotten(self: Session) -> None:
    """Never let go."""


def _refused_holds(self: Session) -> bool:
    memory = self.server.memory
    if memory.get("refused") or not Session.take(self):
        memory["refused"] = True
        return False
    return True


LOCK: dict[str, Any] = {
    "lock.exclusive": mutant(take=lambda _: True),
    "lock.code": mutant(let_in=_in_words),
    "lock.at-once": mutant(take=_waiting),
    "lock.first-undisturbed": mutant(take=_in_the_way),
    **{f"lock.released.{how}": mutant(leave=_forgotten) for how in ("quit", "fin", "reset")},
    "lock.refused-holds-nothing": mutant(take=_refused_holds),
}


def _looking_again(self: Session, argument: bytes) -> bytes:
    self.open()
    return Session.do_STAT(self, argument)


def _everything(self: Session, marked: list[int]) -> None:
    for path in self.scan() if marked else []:
        path.unlink()


def _by_its_old_name(self: Session, path: Path) -> Path | None:
    return path if path.exists() else None


def _gone_is_empty(self: Session, at: int) -> bytes:
    try:
        return Session.whole(self, at)
    except Refused:
        return b""


def _as_it_is_now(self: Session, at: int) -> bytes:
    return self.wire(self.read(at))


class Streaming(Session):
    """Reads a message while it is sent, and looks at the end whether that was all."""

    careful = True

    def do_RETR(self, argument: bytes) -> bytes:
        """Send a message."""
        at = self.number(argument)
        assert self.files is not None
        path = self.find(self.files[at])
        if path is None:
            raise Refused("gone")
        self.send(b"+OK %d octets\r\n" % self.sizes[at])
        sent = 0
        with path.open("rb") as file:
            for line in file:
                sent += len(line) + 1
                self.send(line.replace(b"\n", b"\r\n"))
        if self.careful and sent != self.sizes[at]:
            raise Quit(b"")
        return b".\r\n"


def _and_tmp(self: Session) -> list[Path]:
    return [*Session.scan(self), *(self.server.maildir / "tmp").iterdir()]


def _any_name(_: Session, path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _any_kind(_: Session, path: Path) -> bool:
    return True


def _fifo_is_empty(self: Session) -> None:
    """List FIFOs, and find nothing in them."""
    self.files = sorted(self.scan(), key=self.sort_key)
    self.sizes = [self.size(p.read_bytes()) if p.is_file() else 0 for p in self.files]
    self.uids = [self.uid(path) for path in self.files]


def _empty_fifo(self: Session, at: int) -> bytes:
    assert self.files is not None
    path = self.find(self.files[at])
    return path.read_bytes() if path and path.is_file() else b""


def _links(_: Session, path: Path) -> bool:
    return not path.name.startswith(".") and stat.S_ISREG(path.stat().st_mode)


def _new_only(self: Session) -> list[Path]:
    return list((self.server.maildir / "new").iterdir())


def _where_it_is(_: Session, path: Path) -> tuple[str, str]:
    return path.parent.name, path.name


def _believing(self: Session) -> None:
    Session.open(self)
    assert self.files is not None
    for at, path in enumerate(self.files):
        _, found, size = path.name.partition(",W=")
        if found:
            self.sizes[at] = int(size)


OTHERS: dict[str, Any] = {
    "change.delivered": mutant(do_STAT=_looking_again),
    "change.delivered-not-deleted": mutant(commit=_everything),
    **{f"change.renamed.{how}": mutant(find=_by_its_old_name) for how in ("retr", "dele", "top")},
    "change.removed": mutant(whole=_gone_is_empty),
    "change.cut": mutant(whole=_as_it_is_now),
    "change.cut-while-sent": type("Mutant", (Streaming,), {"careful": False}),
    "maildir.tmp": mutant(scan=_and_tmp),
    "maildir.dot-file": mutant(is_mail=_any_name),
    "maildir.directory": mutant(is_mail=_any_kind),
    "maildir.fifo": mutant(is_mail=_any_kind, open=_fifo_is_empty, read=_empty_fifo),
    "maildir.link": mutant(is_mail=_links),
    "maildir.new-and-cur": mutant(scan=_new_only),
    "maildir.order-stays": mutant(sort_key=_where_it_is),
    "maildir.wrong-size-in-name": mutant(open=_believing, whole=_as_it_is_now),
}

MUTANTS: dict[str, Any] = {**DELETING, **LOCK, **OTHERS}
