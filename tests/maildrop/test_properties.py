"""A Maildir against a model of it, over whatever sessions and other programs do to it by turns."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop import facts
from popd.maildrop.interfaces import MessageGoneError
from popd.maildrop.maildir import Maildir
from popd.maildrop.snapshots import SnapshotCache
from popd.protocol.message import OctetCounter
from tests.maildrop.helpers import LONG_AGO, later, read_all

OWN = {"popd-lock", "popd-uidl", "popd-cache", "popd-cache-new"}
PICK = st.integers(0, 10**6)
DIRECTORY = st.sampled_from(["new", "cur"])
ENDING = st.sampled_from([b"", b"\n", b"\r\n", b"\r", b"\n\n.\r\n.", b" " * 9])


@dataclass(eq=False)
class File:
    """A message file as the model knows it; no two have the same content."""

    base: str
    content: bytes
    path: Path
    uid: bytes = b""


class MaildirMachine(RuleBasedStateMachine):
    """Sessions list, read and delete; other programs deliver, copy, rename and remove."""

    cache_sizes: ClassVar[tuple[int, ...]] = (0,)
    """How many octets each of the processes that serve may remember."""

    def __init__(self) -> None:
        super().__init__()
        self.ground = Path(tempfile.mkdtemp())
        for directory in ("new", "cur"):
            (self.ground / directory).mkdir()
        self.files: list[File] = []
        self.listed: list[File] = []
        self.bases: list[str] = []
        self.given: dict[bytes, bytes] = {}
        self.counter = 0
        self.caches = [SnapshotCache(size, now=later) for size in self.cache_sizes]
        self.session = Maildir(os.fsencode(self.ground))
        self.log_in()

    def tick(self) -> None:
        """Let time pass, so that what changed in the directories can be seen by their times."""
        self.counter += 1
        for directory in ("new", "cur"):
            os.utime(self.ground / directory, (LONG_AGO + self.counter, LONG_AGO + self.counter))

    def teardown(self) -> None:
        """Remove all traces."""
        self.session.release()
        shutil.rmtree(self.ground)

    def place(self, base: str, directory: str) -> Path:
        """Return a path that no file has had."""
        self.counter += 1
        return self.ground / directory / f"{base}:2,{self.counter}"

    def write(self, base: str, ending: bytes, directory: str) -> None:
        """Deliver a message of its own content, with a later mtime than any before."""
        path = self.place(base, directory)
        content = b"%d\n%b" % (self.counter, ending)
        path.write_bytes(content)
        os.utime(path, (LONG_AGO + self.counter, LONG_AGO + self.counter))
        self.files.append(File(base, content, path))
        self.tick()

    @rule(pick=PICK)
    def log_in(self, pick: int = 0) -> None:
        """A new session lists every file once, rightly, by the id that it has always had."""
        self.session.release()
        cache = self.caches[pick % len(self.caches)]
        self.session = Maildir(os.fsencode(self.ground), cache=cache)
        snapshot = self.session.open_promptly()
        if snapshot is None:
            snapshot = self.session.open()
        by_content = {file.content: file for file in self.files}
        self.listed = []
        for index, (size, uid) in enumerate(zip(snapshot.sizes, snapshot.uids, strict=True)):
            content = read_all(self.session.message(index))
            counter = OctetCounter()
            counter.feed(content)
            file = by_content.pop(content)
            assert counter.octets() == size
            assert file.uid in {b"", uid}, "an id changed"
            assert self.given.setdefault(uid, content) == content, "an id was used again"
            file.uid = uid
            self.listed.append(file)
        assert not by_content, "a message is missing"

    @rule(ending=ENDING, name=st.sampled_from(["", ".M5", " ", "\u00e9", ",S=2,W=3", "x" * 80]))
    def deliver(self, ending: bytes, name: str) -> None:
        """Deliver a message with a name of its own."""
        self.write(f"{self.counter}{name}.host", ending, "new")

    @precondition(lambda self: self.files or self.bases)
    @rule(pick=PICK, ending=ENDING, directory=DIRECTORY)
    def collide(self, pick: int, ending: bytes, directory: str) -> None:
        """Deliver a message with another's name, and have sessions before and after see that."""
        self.log_in()
        bases = self.bases + [file.base for file in self.files]
        self.bases.append(bases[pick % len(bases)])
        self.write(self.bases[-1], ending, directory)
        self.log_in()

    @precondition(lambda self: self.files)
    @rule(pick=PICK, directory=DIRECTORY)
    def move(self, pick: int, directory: str) -> None:
        """Change the flags of a message, or the directory that it is in."""
        file = self.files[pick % len(self.files)]
        file.path = file.path.rename(self.place(file.base, directory))
        self.tick()

    @precondition(lambda self: self.files)
    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        """Remove a message."""
        self.files.pop(pick % len(self.files)).path.unlink()
        self.tick()

    @precondition(lambda self: self.listed)
    @rule(pick=PICK)
    def read(self, pick: int) -> None:
        """A message of the session reads as ever, or is gone if it was removed."""
        index = pick % len(self.listed)
        try:
            content = read_all(self.session.message(index))
        except MessageGoneError:
            assert self.listed[index] not in self.files
        else:
            assert self.listed[index] in self.files
            assert content == self.listed[index].content

    @rule(picks=st.sets(PICK, max_size=4))
    def delete(self, picks: set[int]) -> None:
        """Delete some messages of the session; the invariant tells that no others went."""
        marked = {pick % len(self.listed) for pick in picks if self.listed}
        assert not self.session.commit(marked)
        self.tick()
        gone = {self.listed[index].content for index in marked}
        self.files = [file for file in self.files if file.content not in gone]

    @rule(name=st.sampled_from(["popd-cache", "popd-cache-new"]), content=st.binary(max_size=9))
    def damage(self, name: str, content: bytes) -> None:
        """Have a file of the cache vanish, or be damaged."""
        (self.ground / name).unlink(missing_ok=True)
        if content:
            (self.ground / name).write_bytes(content)

    @invariant()
    def nothing_else_happened(self) -> None:
        """On the disk is what the model knows, and no more than popd's own files beside it."""
        there = {path for path in self.ground.rglob("*") if path.is_file()}
        own = {path for path in there if path.parent == self.ground}
        assert there - own == {file.path for file in self.files}
        assert {path.name for path in own} <= OWN


class WarmMachine(MaildirMachine):
    """The same with two processes that remember what they opened."""

    cache_sizes: ClassVar[tuple[int, ...]] = (10**6, 10**6)


class ModelTests(SynchronousTestCase):
    """Nothing is lost, nothing is shown twice, nothing is deleted that was not meant."""

    def run_model(self, machine: type[MaildirMachine]) -> None:
        """Let the Maildir and the model agree after every step."""
        logger = logging.getLogger("popd.maildrop")
        silence = logging.NullHandler()
        logger.addHandler(silence)
        self.addCleanup(logger.removeHandler, silence)
        few = mock.patch.object(facts, "_FEW", 2)
        local = mock.patch("popd.maildrop.maildir.is_local", return_value=True)
        with few, local:
            run_state_machine_as_test(
                machine,
                settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
            )

    def test_cold(self) -> None:
        """Each session knows no more than what is on the disk."""
        self.run_model(MaildirMachine)

    def test_warm(self) -> None:
        """Sessions know what two processes that serve by turns remember."""
        self.run_model(WarmMachine)
