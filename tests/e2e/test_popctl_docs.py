"""``docs/popctl.rst``: each command that it shows is run, and it shows each that there is."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from popd.ctl.main import main
from tests.e2e.server import LIMIT, Client, ServerCase, until

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS: Final = Path(__file__).parents[2] / "docs" / "popctl.rst"

OTHERWISE: Final = {"doctor": {0, 1}, "reload": {0, 1}}
"""Exit statuses of commands that may have something to say."""


def shown() -> list[str]:
    """Return the commands in the documentation."""
    return re.findall(r"^    \$ (popctl .*)$", DOCS.read_text("utf-8"), re.MULTILINE)


def commands(command: click.Command = main, *names: str) -> Iterator[str]:
    """Yield the names of all commands of popctl."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands(one, *names, name)
    else:
        yield " ".join(names)


class PopctlDocs(ServerCase):
    """A site, and a popd that runs, as in the documentation."""

    def setUp(self) -> None:
        """Have a session of the user that is spoken of."""
        super().setUp()
        self.server.stop()
        root = self.site.root
        self.site.add_user("ada")
        self.site.deliver("ada", b"Subject: x\n\nx\n")
        (root / "password").write_text("ada\n")
        (root / "state").mkdir()
        self.config = root / "popd.toml"
        self.config.write_text(
            f'control = "{root}/control"\nauth = "popd-passwd:{self.site.passwords}"\n'
            f'maildrop = "maildir:{self.site.mail}/{{domain}}/{{local}}/Maildir"\n'
            f'certificate = "{self.site.certificate}"\nprivate-key = "{self.site.private_key}"\n'
            f'default-domain = "example.org"\nstate-directory = "{root}/state"\n'
        )
        self.server = self.start(
            "--control", f"{root}/control", "--state-directory", f"{root}/state"
        )
        until(lambda: "popctl is answered" in self.server.log, "no control socket")

    def run_one(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command; what has no end is interrupted once it has begun."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=self.site.root,
            env={**os.environ, "PATH": path, "POPCTL_CONFIG": str(self.config)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.kill)
        begun = ""
        if "popctl trace" in command:
            assert process.stderr is not None
            begun = process.stderr.readline()
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=2 * LIMIT)
        return subprocess.CompletedProcess(command, process.returncode, out, begun + err)

    def test_all_shown(self) -> None:
        """Each command has an example."""
        for name in commands():
            self.assertTrue(any(f"popctl {name} " in f"{line} " for line in shown()), name)

    def test_all_run(self) -> None:
        """Each example works."""
        lines = shown()
        lines.sort(key="popctl drain".__eq__)  # which comes last, with nobody there to ask any more
        clients: list[Client] = []
        for line in lines:
            if line == "popctl drain":  # which would wait for them
                for client in clients:
                    client.close()
            words = shlex.split(line)
            command = line
            if words[1] in {"who", "kick", "explain"}:
                client = self.tls_client()
                clients.append(client)
                client.expect(b"USER ada")
                client.expect(b"PASS wrong", b"-ERR [AUTH]")
                client.expect(b"USER ada")
                reply = client.ask(b"PASS ada")
                ident = self.run_one("popctl who").stdout.rsplit("\n", 2)[-2].split()[0]
                command = line.replace("tp1q3l0-17", ident)
                self.assertTrue(reply.startswith((b"+OK", b"-ERR [IN-USE]")), reply)
            ran = self.run_one(command)
            self.assertIn(ran.returncode, OTHERWISE.get(words[1], {0}), (line, ran.stderr))
            self.assertNotIn("Traceback", ran.stderr)
            if words[1] == "explain":
                self.assertIn("'ada' from 127.0.0.1", ran.stdout)
        self.assertEqual(self.server.process.wait(LIMIT), 0)
