"""What every client of others has to manage with popd, and what a client is here."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.e2e.server import LIMIT, PASSWORDS, stored, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.e2e.server import RunningServer, Site

__all__ = ["LATE", "MAIL", "Errand", "PopClient", "Scenario"]

HEAD: Final = b"From: a@example.org\nTo: b@example.org\n"
LATIN_1: Final = (
    b"MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n"
    b"Content-Transfer-Encoding: 8bit\n"
)
DOTS: Final = b"Message-ID: <1@example.org>\nSubject: dots\n\n.\n..\n.leading\nnot. one\n.\n"
CRLF: Final = b"Message-ID: <2@example.org>\nSubject: CRLF\n\n.crlf\n\nlast\n"
MAIL: Final = (
    HEAD + DOTS,
    (HEAD + CRLF).replace(b"\n", b"\r\n"),
    HEAD + LATIN_1 + b"Message-ID: <3@example.org>\nSubject: 8 bit\n\nGr\xfc\xdfe \xc2\x80\xff\n",
    HEAD + b"Message-ID: <4@example.org>\nSubject: no end\n\nno final newline",
)
LATE: Final = HEAD + b"Message-ID: <5@example.org>\nSubject: late\n\nlate\n"


class Errand(NamedTuple):
    """What a client is to do: fetch all mail that it does not have.

    :param port: where; the host is ``localhost``.
    :param implicit: whether to use implicit TLS, and not STLS.
    :param ca: the file with the authority to trust.
    :param user: whose mail.
    :param password: the user's.
    :param keep: whether to leave the mail on the server.
    :param mechanism: how to log in, as popd names it; empty for what the client likes best.
    :param mistyped: a wrong password that somebody typed first, see `PopClient.mistypes`.
    """

    port: int
    implicit: bool
    ca: Path
    user: str
    password: str
    keep: bool
    mechanism: str = ""
    mistyped: str = ""


class PopClient:
    """A client, and how it is run.

    :param home: a directory of its own, in which it may leave what it has to remember.
    """

    name: str
    language: str
    """What it is written in."""

    packages: tuple[str, ...] = ()
    """The Debian packages with it."""

    wheels: tuple[str, ...] = ()
    """What of it is to be had from PyPI."""

    modules: tuple[str, ...] = ()
    """What of it is to be had from npm."""

    program: str
    """The program to run."""

    ways: tuple[bool, ...] = (False, True)
    """Which it knows, as `Errand.implicit`."""

    mechanisms: tuple[str, ...] = ()
    """How it can be told to log in."""

    remembers = True
    """Whether it knows what it has fetched already."""

    mistypes = False
    """Whether somebody can mistype a password, and is asked again."""

    remark = ""
    """What is to be said about it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inbox = home / "inbox"
        for directory in (self.inbox, *(self.inbox / name for name in ("tmp", "new", "cur"))):
            directory.mkdir(parents=True)

    @classmethod
    def missing(cls) -> str:
        """Return what it needs and is not there; empty if all is."""
        return "" if shutil.which(cls.program) else cls.program

    def version(self) -> str:
        """Return the version that is there: of the Debian package, if nothing better is known."""
        query = ["dpkg-query", "--show", "--showformat=${Version}", self.packages[0]]
        found = subprocess.run(query, capture_output=True, text=True, check=False).stdout
        return found.split(":")[-1].split("-")[0].split("+")[0] or "unknown"

    def fetch(self, errand: Errand) -> list[bytes]:
        """Go on an errand; return the messages that are new to the client."""
        raise NotImplementedError

    def kept(self, message: bytes) -> Any:
        """Return what the client should have of a message that was stored like this."""
        return stored(message)

    def seen(self, message: bytes) -> Any:
        """Return that of a message which the client fetched."""
        return message

    def environment(self) -> dict[str, str]:
        """Return the environment that a client has."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"}

    def run(
        self,
        *arguments: str,
        good: tuple[int, ...] = (0,),
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        **options: Any,
    ) -> bytes:
        """Run the program with a time limit and return what it writes.

        :raises AssertionError: its exit status is none of *good*.
        """
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.home,
            env=self.environment() | dict(environment or {}),
            input=stdin,
            capture_output=True,
            timeout=3 * LIMIT,
            check=False,
            **options,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode in good, f"{self.program}: {done.returncode}: {said[-2000:]}"
        output: bytes = done.stdout
        return output

    def new_files(self, directory: Path) -> list[bytes]:
        """Return, and remove, the messages that the client has put into *directory*."""
        found = []
        for path in sorted(directory.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                found.append(path.read_bytes())
                path.unlink()
        return found


class Scenario:
    """A client's life with popd.

    :param kind: the client.
    :param site: the mail.
    :param server: who serves it.
    :param user: whose; the maildrop is empty.
    """

    _serial = itertools.count(1)

    def __init__(
        self, kind: type[PopClient], site: Site, server: RunningServer, user: str = "alice"
    ) -> None:
        self.kind, self.site, self.server, self.user = kind, site, server, user

    def client(self) -> PopClient:
        """Return a client that knows nothing yet."""
        return self.kind(self.site.root / f"home-{next(self._serial)}")

    def errand(self, *, implicit: bool, keep: bool, mechanism: str = "") -> Errand:
        """Return what to do for the user."""
        port = self.server.tls_port if implicit else self.server.port
        password = PASSWORDS.get(self.user, self.user)
        return Errand(port, implicit, self.site.ca, self.user, password, keep, mechanism)

    def fetch_keep_delete(self, *, implicit: bool) -> None:
        """Fetch mail and leave it, more than once; then fetch and delete it.

        :raises AssertionError: a message is not there, or not whole, or there twice; or the server
            has not the mail that it should have.
        """
        client, keep = self.client(), self.errand(implicit=implicit, keep=True)
        paths = [self.site.deliver(self.user, message) for message in MAIL]
        self._check(client, client.fetch(keep), *MAIL)
        assert [path.read_bytes() for path in self._left(len(MAIL))] == list(MAIL), paths
        again: tuple[bytes, ...] = () if client.remembers else MAIL
        for _ in ("new to cur", "other flags"):
            self._move_about()
            self._check(client, client.fetch(keep), *again)
        self.site.deliver(self.user, LATE)
        self._check(client, client.fetch(keep), *again, LATE)
        assert [path.read_bytes() for path in self._left(len(MAIL) + 1)] == [*MAIL, LATE]
        other = self.client()
        found = other.fetch(self.errand(implicit=implicit, keep=False))
        self._check(other, found, *MAIL, LATE)
        self._left(0)

    def log_in(self, mechanism: str) -> None:
        """Fetch and delete a message, logged in by *mechanism*.

        :raises AssertionError: that does not work, or it logged in otherwise.
        """
        client = self.client()
        self.site.deliver(self.user, LATE)
        before = len(self.server.log)
        errand = self.errand(implicit=client.ways[-1], keep=False, mechanism=mechanism)
        self._check(client, client.fetch(errand), LATE)
        self._left(0)
        known = f", mechanism {mechanism}, retrieved "  # as is said when a session has ended
        until(lambda: known in self.server.log[before:], f"a log-in by {mechanism}")

    def mistype(self) -> None:
        """Fetch and delete mail, with a wrong password first.

        :raises AssertionError: that does not work, or no wrong password was tried.
        """
        client = self.client()
        self.site.deliver(self.user, LATE)
        before = len(self.server.log)
        errand = self.errand(implicit=client.ways[-1], keep=False)
        self._check(client, client.fetch(errand._replace(mistyped="wrong")), LATE)
        self._left(0)
        said = self.server.log[before:]
        assert f"log-in refused: user {self.user}, " in said, said

    def _left(self, count: int) -> list[Path]:
        """Wait until the server has so many messages: a client need not wait for all of QUIT."""

        def settled() -> bool:
            return len(self.site.messages(self.user)) == count

        until(settled, f"{count} messages on the server")
        return sorted(self.site.messages(self.user), key=lambda path: path.name)

    def _move_about(self) -> None:
        """Do to the Maildir what an IMAP server does: new mail is seen, seen mail gets flags."""
        current = self.site.maildir(self.user) / "cur"
        for path in self.site.messages(self.user):
            base, flagged, _ = path.name.partition(":2,")
            path.rename(current / f"{base}:2,{'FRS' if flagged else 'S'}")

    def _check(self, client: PopClient, messages: list[bytes], *expected: bytes) -> None:
        """Check that the client has these messages, and each of them once."""
        found = sorted(map(client.seen, messages))
        wanted = sorted(client.kept(message) for message in expected)
        assert found == wanted, f"{client.name} has {found!r}, and should have {wanted!r}"
