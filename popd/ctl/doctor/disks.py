"""Whether there is room, and whether the mail is what its names say."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from popd.ctl.doctor.finding import fine, problem, warning
from popd.maildrop.files import open_regular
from popd.maildrop.interfaces import MaildropError
from popd.maildrop.look import look
from popd.maildrop.names import claimed_sizes
from popd.maildrop.template import MaildirStore
from popd.protocol.message import OctetCounter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.ctl.doctor.finding import Finding, Patient
    from popd.maildrop.stock import Stock

__all__ = ["check_mail", "check_room"]

_LITTLE: Final = 0.05
_NOTHING: Final = 0.01
_ENOUGH: Final = 10 << 30
"""Octets that are enough, however large the disk is."""

_CHUNK: Final = 1 << 18
_SHOWN: Final = 5
"""How many messages are named at most."""


def check_room(patient: Patient) -> Iterator[Finding]:
    """The disks with the mail and with popd's own files have room, and inodes."""
    settings = patient.settings
    paths = {
        "disk of the mail": MaildirStore.from_template(settings.maildrop).fixed,
        "disk of the state directory": settings.state_directory,
    }
    for what, path in paths.items():
        name = f"{what} {path}"
        try:
            status = os.statvfs(path)
        except OSError as error:
            yield problem(name, error.strerror or str(error), "is the disk mounted?")
            continue
        yield _judged(name, "room", status.f_bavail, status.f_blocks, status.f_frsize)
        if status.f_files:
            yield _judged(name, "inodes", status.f_favail, status.f_files)


def _judged(name: str, what: str, free: int, total: int, size: int = 0) -> Finding:
    share = free / max(total, 1)
    text = f"{share:.0%} of its {what} left"
    if size and free * size >= _ENOUGH:
        return fine(name, text)
    if share < _NOTHING:
        return problem(name, text, "no mail is delivered any more soon: remove something")
    if share < _LITTLE:
        return warning(name, text, "make room before it is full")
    return fine(name, text)


def check_mail(patient: Patient) -> Iterator[Finding]:
    """Sizes in names are right, unique-ids unique, and no file comes from the future."""
    seen = _Seen()
    for user, root in patient.maildirs:
        if not patient.in_time:
            break
        if Path(os.fsdecode(root)).exists():
            seen.look_at(patient, user, root)
    yield from seen.findings(len(patient.maildirs))


class _Seen:
    """What was seen in maildrops."""

    def __init__(self) -> None:
        self.maildrops = self.messages = self.named = 0
        self.wrong: list[Finding] = []
        self._counts: dict[str, int] = {}

    def look_at(self, patient: Patient, user: str, root: bytes) -> None:
        """Look at one maildrop."""
        self.maildrops += 1
        name = f"maildrop of {user}"
        try:
            stock = look(root)
        except MaildropError as error:
            self._add("readable", problem(name, str(error), "nobody can log in there: mend it"))
            return
        self.named += 1
        uids = stock.snapshot.uids
        if len(set(uids)) < len(uids):
            self._add("uid", problem(name, "two messages have one unique-id", "report this bug"))
        if stock.twins:
            text = f"{len(stock.twins)} files have a base name that another has"
            self._add("twins", warning(name, text, "something delivers or copies mail wrongly"))
        now = time.time_ns() + int(max(patient.settings.clock_skew, 1.0) * 1e9)
        for index in range(len(stock)):
            if not patient.in_time:
                return
            self.messages += 1
            self._message(name, root, stock, index, now)

    def _message(self, name: str, root: bytes, stock: Stock, index: int, now: int) -> None:
        path = root + stock.locate(index)[0]
        shown = os.fsdecode(path)
        facts = stock.facts(index)
        if facts.modified > now:
            text = f"{shown} is from the future"
            self._add("future", warning(name, text, "set the clock; touch such files"))
        stored, wire = claimed_sizes(stock.base(index))
        if stored is not None and stored != facts.size:
            text = f"{shown} has {facts.size} octets, not S={stored}"
            self._add("stored", warning(name, text, "rename it without ,S= and ,W="))
        if wire is not None:
            octets = _octets(path)
            if octets not in {wire, None}:
                text = f"{shown} has {octets} octets on the wire, not W={wire}"
                self._add("wire", problem(name, text, "rename it without ,S= and ,W="))

    def _add(self, kind: str, finding: Finding) -> None:
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        if count <= _SHOWN:
            self.wrong.append(finding)

    def findings(self, maildrops: int) -> Iterator[Finding]:
        """Yield what is to be said about it all."""
        yield from self.wrong
        more = sum(max(0, count - _SHOWN) for count in self._counts.values())
        if more:
            yield warning("maildrops", f"and {more} more like that", "see the lines above")
        text = f"{self.messages} messages in {self.maildrops} maildrops looked at"
        if self.maildrops < maildrops:
            text += f"; for the other {maildrops - self.maildrops} there was no time, or no Maildir"
        yield fine("maildrops", text)


def _octets(path: bytes) -> int | None:
    """Return a message's octets on the wire, counted; None if it is gone."""
    counter: Any = OctetCounter()
    try:
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK):
                counter.feed(chunk)
    except OSError:
        return None
    return int(counter.octets())
