"""Sessions on a real Maildir in which somebody else is at work, beside a model of both.

A client logs in, lists, fetches, marks, takes marks back, says QUIT or vanishes, by turns and by
chance; an adversary delivers, renames, unlinks and truncates messages, and makes links, FIFOs and
directories, at any time.  After each step the two agree: every reply is about the message that the
client means, nothing is fetched that is not whole, and nothing is gone that was not marked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from popd.maildrop.interfaces import MaildropError
from popd.maildrop.maildir import Maildir
from popd.maildrop.snapshots import SnapshotCache
from popd.protocol.channel import Channel
from popd.protocol.events import (
    Authenticate,
    Close,
    Commit,
    Problem,
    Reply,
    Send,
    Signal,
    StartTLS,
    Stream,
)
from popd.protocol.session import Session
from popd.server.transfer import Transfer

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

__all__ = ["Adversary"]

SECRET: Final = b"the secret of somebody else\n"
_CHANNEL: Final = Channel(tls=True)
_FEW, _MANY = 2, 12
_DIRECTORIES: Final = ("new", "cur")


@dataclass(eq=False)
class File:
    """A message as the model knows it.

    :param content: what is stored.
    :param path: where; None if it is gone.
    :param cut: how often it was truncated.
    :param moved: how often it was renamed.
    :param unsure: whether its size was not found out since.
    """

    content: bytes
    path: Path | None
    cut: int = 0
    moved: int = 0
    unsure: bool = False


def on_the_wire(content: bytes) -> bytes:
    """Return what RETR has to send behind its first line; here each line ends in LF alone."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines) + b".\r\n"


def octets(content: bytes) -> int:
    """Return the size that LIST has to give."""
    unfinished = bool(content) and not content.endswith(b"\n")
    return len(content) + content.count(b"\n") + 2 * unfinished


class Adversary:
    """The Maildir, both who work in it, and the model.

    :param ground: an empty directory.
    :param seed: by what chance goes.
    :param done: counts what was done.
    """

    def __init__(self, ground: Path, seed: int, done: Counter[str]) -> None:
        self.maildir = ground / "Maildir"
        for directory in (*_DIRECTORIES, "tmp"):
            (self.maildir / directory).mkdir(parents=True)
        self.secret = ground / "secret"
        self.secret.write_bytes(SECRET)
        self.chance = Random(seed)  # noqa: S311 - to be the same again is the point
        self.done = done
        self.cache = SnapshotCache(10**6)
        self.serial = 0
        self.files: dict[bytes, File] = {}
        self.others: list[Path] = []
        self.given: dict[bytes, int] = {}
        self.session: Session | None = None
        self.client = (
            *(self.retr, self.retr, self.top, self.dele, self.dele, self.listing, self.rset),
            *(self.stat, self.quit, self.vanish, self.nonsense),
        )
        self.work = (
            *(self.deliver, self.deliver, self.rename, self.unlink, self.truncate, self.hard_link),
            *(self.soft_link, self.swap, self.clutter, self.sweep),
        )

    def step(self) -> None:
        """Have one of them do one thing."""
        if self.chance.random() < 0.4:
            act = self.chance.choice(self.work)
        elif self.session is None:
            act = self.log_in
        else:
            act = self.chance.choice(self.client)
        act()
        self.done[act.__name__] += 1

    # The adversary.

    def any(self) -> tuple[bytes, File] | None:
        """Choose a message that is there."""
        there = [(base, file) for base, file in self.files.items() if file.path is not None]
        return self.chance.choice(there) if there else None

    def name(self) -> str:
        """Return a base name that none has had."""
        self.serial += 1
        return f"{1_700_000_000 + self.serial}.P{self.serial}.host"

    def add(self, base: str, path: Path, content: bytes) -> None:
        """Have the model know a message."""
        self.files[base.encode()] = File(content, path)

    def deliver(self) -> None:
        """Deliver a message like no other."""
        if len(self.files) > _MANY and self.chance.random() < 0.7:
            return
        base = self.name()
        lines = [b"Subject: %d" % self.serial, b"", b".dot", b"x" * self.chance.randrange(300)]
        content = b"\n".join(lines * self.chance.choice((1, 1, 1, 200))) + b"\n"
        path = self.maildir / "tmp" / base
        path.write_bytes(content)
        self.add(base, path.rename(self.maildir / "new" / base), content)

    def rename(self) -> None:
        """Change flags, and perhaps the directory."""
        if found := self.any():
            base, file = found
            self.serial += 1
            flags = "".join(sorted(self.chance.sample("DFRST", 2)))
            name = f"{base.decode()}:2,{flags}"
            assert file.path is not None
            file.moved += 1
            file.path = file.path.rename(self.maildir / self.chance.choice(_DIRECTORIES) / name)

    def unlink(self) -> None:
        """Remove a message."""
        if found := self.any():
            base, file = found
            assert file.path is not None
            file.path.unlink()
            file.path = None
            del self.files[base]

    def truncate(self) -> None:
        """Cut a message short in its place, which no mail program does."""
        found = self.any()
        if found is None or found[1].path is None or self.chance.random() < 0.5:
            return
        path = found[1].path
        kept = found[1].content[: self.chance.randrange(len(found[1].content) + 1)]
        if kept == found[1].content:
            return
        os.truncate(path, len(kept))
        inode = path.stat().st_ino
        for file in self.files.values():  # and all links to it
            if file.path is not None and file.path.stat().st_ino == inode:
                file.content, file.cut, file.unsure = kept, file.cut + 1, True

    def hard_link(self) -> None:
        """Give a message another name, which makes it two."""
        found = self.any()
        if found is None or len(self.files) > _MANY:
            return
        file = found[1]
        assert file.path is not None
        base = self.name()
        path = self.maildir / "new" / base
        os.link(file.path, path)
        self.files[base.encode()] = File(file.content, path, unsure=file.unsure)

    def soft_link(self) -> None:
        """Link to what is somebody else's, or to a message, or to nothing."""
        if len(self.others) < _FEW:
            found = self.any()
            targets = [self.secret, self.maildir / "nothing"]
            if found is not None and found[1].path is not None:
                targets.append(found[1].path)
            path = self.maildir / self.chance.choice(_DIRECTORIES) / self.name()
            path.symlink_to(self.chance.choice(targets))
            self.others.append(path)

    def swap(self) -> None:
        """Put a link in the place of a message, to something as long that is not for this user."""
        if len(self.others) < _FEW and (found := self.any()):
            base, file = found
            assert file.path is not None
            target = self.secret.with_name("as long")
            target.write_bytes((SECRET * len(file.content))[: len(file.content)])
            self.others.append(file.path)
            file.path.unlink()
            file.path.symlink_to(target)
            file.path = None
            del self.files[base]

    def clutter(self) -> None:
        """Make a FIFO or a directory where messages are."""
        if len(self.others) < _FEW:
            path = self.maildir / self.chance.choice(_DIRECTORIES) / self.name()
            if self.chance.random() < 0.5:
                os.mkfifo(path)
            else:
                path.mkdir()
            self.others.append(path)

    def sweep(self) -> None:
        """Remove what is no message."""
        if self.others:
            path = self.others.pop()
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    # The client.

    def log_in(self) -> None:
        """Log in; every message is listed, once and by its own id, and nothing else."""
        self.maildrop = Maildir(os.fsencode(self.maildir), cache=self.cache)
        self.snapshot = self.maildrop.open_promptly() or self.maildrop.open()
        self.session = Session(_CHANNEL)
        self.broken = False
        self.marked: set[int] = set()
        assert self.ask(b"USER joe") == b"+OK send PASS\r\n"
        assert self.ask(b"PASS x").startswith(b"+OK")
        uids = list(self.snapshot.uids)
        assert sorted(uids) == sorted(self.files), "the listing is wrong"
        files = [self.files[uid] for uid in uids]
        self.listed = [(file, file.cut, file.moved, file.content) for file in files]
        for size, (file, *_, content) in zip(self.snapshot.sizes, self.listed, strict=True):
            assert file.unsure or size == octets(content), "a size is wrong"

    def ask(self, command: bytes) -> bytes:
        """Say a command; return the reply, which breaks off if a message cannot be read."""
        assert self.session is not None
        self.session.feed(command + b"\r\n")
        output = b""
        while True:
            event = self.session.next_event()
            match event:
                case Reply(data):
                    output += data
                case Authenticate():
                    self.session.authenticated(self.snapshot)
                case Send():
                    output += self.send(event)
                    if self.broken:
                        return output
                case Stream(pieces):
                    output += b"".join(pieces)
                    self.session.sent()
                case Commit(deleted):
                    self.stuck = set(self.maildrop.commit(deleted))
                    self.maildrop.release()
                    self.session.committed(len(self.stuck))
                case Close(reply, _):
                    return output + reply
                case Signal.NEED_DATA | Signal.PAUSED:
                    assert SECRET not in output
                    return output
                case StartTLS() | _:
                    raise AssertionError(event)

    def send(self, send: Send) -> bytes:
        """Send a message as the server does."""
        assert self.session is not None
        try:
            transfer, output = Transfer.begin(self.maildrop, send)
        except MaildropError:
            self.session.unsent(Problem.GONE)
            return b""
        try:
            while not transfer.done:
                if self.chance.random() < 0.3:
                    self.truncate()
                output += transfer.next()
        except MaildropError:
            self.broken = True
        else:
            self.session.sent()
        return output

    def number(self) -> int:
        """Choose a message, one too many included."""
        return self.chance.randrange(len(self.listed) + 1) + 1

    def alive(self, number: int) -> bool:
        """Tell whether the client may ask for this message."""
        return number <= len(self.listed) and number - 1 not in self.marked

    def retr(self) -> None:
        """A message comes whole and is the one that was listed, or does not come."""
        self.fetch(None)

    def top(self) -> None:
        """So does the top of one."""
        self.fetch(self.chance.randrange(4))

    def fetch(self, lines: int | None) -> None:
        """Fetch a message, or so many lines of its body."""
        number = self.number()
        index = min(number, len(self.listed)) - 1
        same = bool(self.listed) and self.same(index)
        reply = self.ask(b"RETR %d" % number if lines is None else b"TOP %d %d" % (number, lines))
        if not self.alive(number):
            assert reply == b"-ERR no such message\r\n", reply
            return
        file, *_, content = self.listed[index]
        if reply.startswith(b"+OK") and not self.broken:
            wanted = on_the_wire(content)
            if lines is not None:
                head, blank, body = wanted.partition(b"\r\n\r\n")
                rows = body.removesuffix(b".\r\n").splitlines(keepends=True)[:lines]
                wanted = head + blank + b"".join(rows) + b".\r\n" if blank else wanted
            assert reply.partition(b"\r\n")[2] == wanted, "another message, or a part of it"
            assert same, "a message that is not there"
        else:
            assert not same or file.unsure or not self.same(index), (reply[:99], file)
            if self.same(index):  # its size was that from before it was cut
                file.unsure = False
        if self.broken:
            self.vanish()

    def same(self, index: int) -> bool:
        """Tell whether a message is still what was listed."""
        file, cut, *_ = self.listed[index]
        return file.path is not None and file.cut == cut

    def dele(self) -> None:
        """A message that is there is marked."""
        number = self.number()
        reply = self.ask(b"DELE %d" % number)
        assert reply.startswith(b"+OK" if self.alive(number) else b"-ERR"), reply
        if self.alive(number):
            self.marked.add(number - 1)

    def rset(self) -> None:
        """All marks are taken away."""
        assert self.ask(b"RSET") == b"+OK\r\n"
        self.marked.clear()

    def left(self) -> list[int]:
        """Return what is not marked."""
        return [index for index in range(len(self.listed)) if index not in self.marked]

    def stat(self) -> None:
        """What is not marked is counted."""
        octets = sum(self.snapshot.sizes[index] for index in self.left())
        assert self.ask(b"STAT") == b"+OK %d %d\r\n" % (len(self.left()), octets)

    def listing(self) -> None:
        """It is listed, too."""
        uids = self.snapshot.uids
        rows = b"".join(b"%d %b\r\n" % (index + 1, uids[index]) for index in self.left())
        assert self.ask(b"UIDL") == b"+OK\r\n" + rows + b".\r\n"

    def nonsense(self) -> None:
        """What is no number marks nothing."""
        word = self.chance.choice((b"0", b"-1", b"+1", b"01", b"1 1", b"1\0", b"\xd9\xa1", b"1_0"))
        assert self.ask(b"DELE " + word).startswith(b"-ERR")
        if self.chance.random() < 0.1:
            self.vanish()

    def quit(self) -> None:
        """What was marked goes, as far as it still is what was listed; nothing else does."""
        reply = self.ask(b"QUIT")
        for index, (file, cut, moved, _) in enumerate(self.listed):
            if file.path is None:
                continue
            there = file.path.exists()
            if index not in self.marked:
                assert there, "deleted, and was not marked"
            elif not there:
                assert index not in self.stuck, "removed, and said to be stuck"
                file.path = None
            else:
                assert file.cut != cut or file.unsure, "it could have been removed"
                # Cut and renamed, it is none of those that were listed, which is gone.
                another = file.cut != cut and file.moved != moved
                assert index in self.stuck or another, "QUIT did not tell that it stayed"
        assert reply.startswith(b"-ERR" if self.stuck else b"+OK"), reply
        self.files = {base: file for base, file in self.files.items() if file.path is not None}
        self.session = None
        self.check()

    def vanish(self) -> None:
        """A client that leaves without QUIT deletes nothing."""
        self.maildrop.release()
        self.session = None
        self.check()

    def check(self) -> None:
        """On the disk is what the model knows."""
        there = {path for name in _DIRECTORIES for path in (self.maildir / name).iterdir()}
        known = {file.path for file in self.files.values() if file.path is not None}
        assert there == known | set(self.others), "something is gone, or came"
        assert self.secret.read_bytes() == SECRET
