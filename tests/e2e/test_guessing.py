"""Real tools guess passwords at the real server, and real owners get in meanwhile."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SkipTest

from popd.auth.penalties import forgive, penalties
from popd.auth.scramkeys import written
from popd.auth.tablefile import GuessTable
from tests.e2e.server import LIMIT, Client, RunningServer, ServerCase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS: Final = 14
"""How long a tool may guess."""

SOON: Final = 4
"""Seconds after which it is slow."""

FREE: Final = 60
"""Guesses that may be made before it is."""

_CHECKED: Final = re.compile(r"^(\S+) .*log-in refused: ", re.MULTILINE)


class GuessingCase(ServerCase):
    """Log-ins in cleartext, from this machine's addresses."""

    options: tuple[str, ...] = ("--cleartext-login", "local")

    def come(self, source: str, server: RunningServer | None = None) -> Client:
        """Connect from one of this machine's addresses."""
        client = Client((server or self.server).port, source=source)
        self.addCleanup(client.close)
        return client

    def log_in(self, source: str, user: str) -> float:
        """Log in once; return how many seconds it took."""
        begin = time.monotonic()
        client = self.come(source)
        client.log_in(user)
        client.expect(b"QUIT")
        return time.monotonic() - begin

    def checked(self) -> list[float]:
        """Return when passwords were found wrong, in whole seconds since 1970."""
        return [datetime.fromisoformat(at).timestamp() for at in _CHECKED.findall(self.server.log)]


class ToolTests(GuessingCase):
    """Tools that guess passwords, each with sixteen connections."""

    def attack(self, package: str, arguments: Sequence[str]) -> None:
        """Let a tool guess for some time, and look at how that goes.

        :param arguments: of the tool; WORDS and PORT in them are replaced.
        """
        if shutil.which(package) is None:
            raise SkipTest(f"needs {package}: apt-get install {package}")
        self.log_in("127.0.0.1", "bob")
        words = self.site.root / "words"
        words.write_text("".join(f"guess{number}\n" for number in range(20_000)), encoding="ascii")
        begin = time.time()
        tool = subprocess.Popen(
            [
                package,
                *(
                    argument.replace("WORDS", str(words)).replace("PORT", str(self.server.port))
                    for argument in arguments
                ),
            ],
            cwd=self.site.root,  # where hydra writes what it needs to go on later
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.watch(tool, begin)
        finally:
            tool.kill()
            tool.wait(LIMIT)

    def watch(self, tool: subprocess.Popen[bytes], begin: float) -> None:
        """See guesses become slow, and owners get in."""
        time.sleep(SOON)
        for _ in range(3):
            for source, user in (
                ("127.0.0.2", "alice"),  # whose password is being guessed
                ("127.0.0.3", "carol"),
                ("127.0.0.1", "bob"),  # who was there before
            ):
                self.assertLess(self.log_in(source, user), 1, (source, user))
            time.sleep(1)
        time.sleep(max(0.0, begin + SECONDS - time.time()))
        self.assertIsNone(tool.poll(), "it gave up")
        checked = self.checked()
        early = [at for at in checked if at < begin + SOON]
        late = checked[len(early) :]
        self.assertGreaterEqual(len(early), 10)
        self.assertLessEqual(len(early), FREE)
        self.assertLess(len(late) / (SECONDS - SOON), 0.5)

    def test_hydra(self) -> None:
        """Hydra gets some guesses at once, then far less than one a second."""
        self.attack(
            "hydra",
            ("-I", "-l", "alice", "-P", "WORDS", "-t", "16", "-s", "PORT", "127.0.0.1", "pop3"),
        )

    def test_ncrack(self) -> None:
        """So does Ncrack, with as many connections as it wants."""
        self.attack(
            "ncrack",
            ("-v", "--user", "alice", "-P", "WORDS", "-g", "cl=16,CL=64", "pop3://127.0.0.1:PORT"),
        )

    def test_same_address(self) -> None:
        """Who was never at the attacker's address waits for a turn, once the attack is over."""
        for number in range(12):
            client = self.come("127.0.0.1")
            client.expect(b"USER alice")
            client.expect(b"PASS guess%d" % number, b"-ERR [AUTH]")
            client.close()
        self.assertLess(self.log_in("127.0.0.1", "carol"), 5)
        self.assertLess(self.log_in("127.0.0.1", "carol"), 1)


class HonestTests(GuessingCase):
    """What honest programs do."""

    def test_thunderbird(self) -> None:
        """A wrong password, tried in three ways again and again, makes nobody wait."""
        begin = time.monotonic()
        plain = base64.b64encode(b"\0alice\0wrong")
        for _ in range(5):
            client = self.come("127.0.0.1")
            client.expect(b"AUTH PLAIN", b"+")
            client.expect(plain, b"-ERR [AUTH]")
            client.expect(b"AUTH LOGIN", b"+")
            client.expect(base64.b64encode(b"alice"), b"+")
            client.expect(base64.b64encode(b"wrong"), b"-ERR [AUTH]")
            client.expect(b"USER alice")
            client.expect(b"PASS wrong", b"-ERR [AUTH]")
            client.close()
        self.log_in("127.0.0.1", "alice")
        self.assertLess(time.monotonic() - begin, 2)


class ScramTests(GuessingCase):
    """Guesses of which the server never sees the password."""

    def start(self, *options: str) -> RunningServer:
        """Start a server that has a user with SCRAM keys."""
        with self.site.passwords.open("a", encoding="ascii") as file:
            file.write(f"sam@example.org:{written('SCRAM-SHA-256', b'secret', 4096)}\n")
        return super().start(*options)

    def guess(self, user: bytes) -> float:
        """Go through an exchange with a proof that is wrong; return how many seconds it took."""
        begin = time.monotonic()
        client = self.come("127.0.0.1")
        first = base64.b64encode(b"n,,n=%b,r=rOprNGfwEbeRWgbNEkqO" % user)
        challenge = client.expect(b"AUTH SCRAM-SHA-256 " + first, b"+ ")[2:]
        nonce = base64.b64decode(challenge).partition(b",")[0]
        final = b"c=biws,%b,p=%b" % (nonce, base64.b64encode(bytes(32)))
        client.expect(base64.b64encode(final), b"-ERR [AUTH]")
        client.close()
        return time.monotonic() - begin

    def test_known_and_unknown(self) -> None:
        """Those at a user and those at nobody are slowed down alike, and no others are."""
        for user in (b"sam", b"nosuch"):
            seconds = [self.guess(user) for _ in range(9)]
            for took, least in zip(seconds, [0.0] * 7 + [0.4, 0.9], strict=True):
                self.assertTrue(least <= took < least + 2, (user, seconds))
        self.assertLess(self.log_in("127.0.0.1", "alice"), 1)


class FileTests(GuessingCase):
    """What is known is kept in a file, for all workers and for the next popd."""

    def start(self, *options: str) -> RunningServer:
        """Start a server with two workers and the file."""
        return super().start(*options, "--workers", "2", "--guess-table", str(self.file))

    @property
    def file(self) -> Path:
        """Where the table is."""
        return self.site.root / "guesses"

    def guess(self, count: int) -> float:
        """Guess, each time on a new connection; return the seconds that the last one took."""
        begin = 0.0
        for _ in range(count):
            begin = time.monotonic()
            client = self.come("127.0.0.1")
            client.expect(b"USER alice")
            client.expect(b"PASS %f" % begin, b"-ERR")
            client.close()
        return time.monotonic() - begin

    def test_kept(self) -> None:
        """A restart does not help an attacker; an administrator can, while popd runs."""
        self.guess(13)
        self.server.stop()
        self.server = self.start(*self.options)
        self.guess(1)
        self.assertGreater(self.guess(1), 1.5)
        table = GuessTable.existing(self.file)
        self.addCleanup(table.close)
        worst = penalties(table, time.time(), ["alice@example.org"])
        self.assertEqual(
            [(p.kind, p.subject, p.guesses) for p in worst],
            [("network", "127.0.0.1", 15), ("account", "alice@example.org", 10)],
        )
        self.assertEqual(forgive(table, "127.0.0.1"), 1)
        self.assertLess(self.guess(1), 1)
