"""The mail that is measured with: Maildirs, and the password file, that both servers serve.

File names have no sizes in them (``S=``, ``W=``), as Postfix delivers; that is the harder case.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PASSWORD: Final = "secret"  # noqa: S105 - it protects made-up mail for a minute

NOBODY: Final = 65534
"""Who owns the mail if the benchmark runs as root: Dovecot refuses to serve root's."""

_AGE: Final = 86_400
_LINKS: Final = 10_000
_HEADER: Final = (
    "Return-Path: <sender@example.org>\n"
    "Received: from mx.example.org by mail.example.com with ESMTPS id {number:08x}\n"
    "From: A Sender <sender@example.org>\n"
    "To: A Reader <reader@example.com>\n"
    "Subject: Message number {number}\n"
    "Date: Mon, 5 Jan 2026 10:00:00 +0000\n"
    "Message-ID: <{number}.{set}@example.org>\n"
    "\n"
    ".A line that begins with a dot, so that there is something to stuff\n"
)
_LINE: Final = "The quick brown fox jumps over the lazy dog, and nobody knows why it does.\n"


@dataclass(frozen=True)
class Mailset:
    """Some users with the same number of messages of the same size.

    :param name: what the users' names begin with; a number follows.
    :param users: how many users.
    :param messages: how many messages each has.
    :param stored: octets of a message in the file, with LF line ends.
    :param distinct: how many different files there are, the others are hard links; None is all
        of the first user's.
    """

    name: str
    users: int
    messages: int
    stored: int
    distinct: int | None = None

    def message(self, number: int) -> bytes:
        """Return message *number* as it is stored."""
        text = _HEADER.format(number=number % 10**8, set=self.name)
        # One length for all, so that the sizes say everything.
        longest = len(_HEADER.format(number=10**8 - 1, set=self.name))
        text += "x" * (longest - len(text)) + "\n"
        lines, rest = divmod(max(2, self.stored - len(text)), len(_LINE))
        return (text + _LINE * lines + "y" * max(0, rest - 1) + "\n").encode()

    @property
    def octets(self) -> int:
        """How many octets a message has for a client, without stuffed dots."""
        message = self.message(0)
        return len(message) + message.count(b"\n")

    @property
    def wire(self) -> int:
        """The same with stuffed dots."""
        return self.octets + self.message(0).count(b"\n.")

    def names(self) -> list[str]:
        """Return the users' names."""
        return [f"{self.name}{number}" for number in range(self.users)]


def make(root: Path, mailset: Mailset) -> None:
    """Make the Maildirs of *mailset* in *root*.  What is there already stays."""
    first: list[Path] = []
    for name in mailset.names():
        maildir = root / name
        if maildir.exists():
            continue
        current = maildir / "cur"
        for directory in (current, maildir / "new", maildir / "tmp"):
            directory.mkdir(parents=True)
        sources = _fill(mailset, current, first)
        first = first or sources
        hand_over(maildir)
        _age(maildir)


def _fill(mailset: Mailset, current: Path, first: list[Path]) -> list[Path]:
    """Make one user's messages; return the files to make links to for the next one."""
    distinct = mailset.messages if mailset.distinct is None else mailset.distinct
    # Small sets are real copies for everybody; large ones share their files between users.
    copy = mailset.messages * mailset.users <= _LINKS and mailset.distinct is None
    sources = [] if copy else list(first)
    begun = int(time.time()) - _AGE - mailset.messages
    for number in range(mailset.messages):
        path = current / f"{begun + number}.M{number:06d}P1Q{number}.bench:2,S"
        if number < len(sources) or len(sources) >= distinct:
            path.hardlink_to(sources[number % len(sources)])
        else:
            path.write_bytes(mailset.message(number))
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
            sources.append(path)
    return sources


def hand_over(directory: Path) -> None:
    """Give a directory and those in it to the mail user."""
    if os.geteuid() == 0:
        for path in (directory, *filter(Path.is_dir, directory.iterdir())):
            os.chown(path, NOBODY, NOBODY)


def _age(maildir: Path) -> None:
    """Make the directories look as if nothing happened lately, as is usual between two polls."""
    then = time.time() - _AGE
    for directory in (maildir / "cur", maildir / "new", maildir):
        os.utime(directory, (then, then))


def forget(root: Path, mailset: Mailset) -> None:
    """Remove what servers know about the Maildirs: caches, indexes, lists of unique-ids."""
    for name in mailset.names():
        for path in (root / name).iterdir():
            if path.name.startswith(("popd-", "dovecot")):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def undeliver(root: Path, mailset: Mailset) -> None:
    """Remove what was delivered while measuring."""
    for name in mailset.names():
        for directory in ("new", "cur"):
            with os.scandir(root / name / directory) as entries:
                for path in [entry.path for entry in entries if ".bench-new" in entry.name]:
                    Path(path).unlink()


def write_passwords(path: Path, users: list[str], scheme: str = "{PLAIN}" + PASSWORD) -> None:
    """Write the password file of both servers."""
    path.write_text("".join(f"{user}:{scheme}::::::\n" for user in users), encoding="ascii")
    path.chmod(0o644)
