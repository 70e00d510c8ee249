"""What real delivery agents put into a Maildir is what a client gets."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT, ServerCase, stored

if TYPE_CHECKING:
    from pathlib import Path

MAIL = (
    b"From: a@example.org\nTo: alice@example.org\nSubject: one\n\n.leading dot\nGr\xfc\xdfe\n",
    b"From: a@example.org\nTo: alice@example.org\nSubject: two\n\n" + 9_000 * b"0123456789\n",
    b"From: a@example.org\nTo: alice@example.org\nSubject: three\n\nno final newline",
)


class DeliveryTests(ServerCase):
    """Mail is delivered by other programs."""

    def _deliver(self, program: str, rules: str, message: bytes) -> None:
        """Let *program*, which reads its *rules* from a file, deliver a message."""
        if shutil.which(program) is None:
            raise SkipTest(f"needs {program}: apt-get install {program}")
        file = self.site.root / f"{program}rc"
        file.write_text(rules, encoding="ascii")
        file.chmod(0o600)
        subprocess.run(
            [program, str(file)],
            input=message,
            cwd=self.site.root,
            env={"PATH": os.environ["PATH"], "HOME": str(self.site.root)},
            timeout=LIMIT,
            check=True,
        )

    def _fetch_all(self, maildir: Path) -> None:
        """Check that a client gets what was delivered, and can delete it."""
        files = list((maildir / "new").iterdir())
        self.assertEqual(len(files), len(MAIL))
        with self.logged_in() as client:
            client.expect(b"LIST")
            sizes = [int(line.split()[1]) for line in client.body().splitlines()]
            fetched = [client.fetch(number) for number in range(1, len(MAIL) + 1)]
            self.assertEqual([len(message) for message in fetched], sizes)
            # An agent may add to the header.
            self.assertEqual(
                sorted(message.partition(b"\r\n\r\n")[2] for message in fetched),
                sorted(_body(message) for message in MAIL),
            )
            self.assertEqual(
                sorted(fetched),
                sorted(stored(path.read_bytes()).replace(b"\n", b"\r\n") for path in files),
            )
            for number in range(1, len(MAIL) + 1):
                client.expect(b"DELE %d" % number)
            client.expect(b"QUIT")
        self.assertEqual(self.site.messages("alice"), [])

    def test_maildrop(self) -> None:
        """Mail that maildrop delivered is fetched with the size that was listed, and deleted."""
        maildir = self.site.maildir("alice")
        for message in MAIL:
            self._deliver("maildrop", f'to "{maildir}"\n', message)
        self._fetch_all(maildir)

    def test_procmail(self) -> None:
        """Mail that procmail delivered is fetched with the size that was listed, and deleted."""
        maildir = self.site.maildir("alice")
        for message in MAIL:
            self._deliver("procmail", f":0\n{maildir}/\n", message)
        self._fetch_all(maildir)


def _body(message: bytes) -> bytes:
    return stored(message).replace(b"\n", b"\r\n").partition(b"\r\n\r\n")[2]
