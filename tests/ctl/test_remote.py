"""Tests of `popd.ctl.remote`, and of commands that need a popd that runs."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

from popd.ctl.remote import Remote
from popd.ctl.store import RefusedError, UnusableError
from tests.ctl.test_main import CommandTestCase


class RemoteCase(CommandTestCase):
    """Somebody answers at a control socket."""

    def setUp(self) -> None:
        """Have a socket; their paths are short."""
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "control")
        self.asked: list[dict[str, object]] = []

    def answer(self, *answers: bytes) -> None:
        """Answer one question after the other so, and close the connection each time."""
        server = socket.socket(socket.AF_UNIX)
        server.bind(self.path)
        server.listen(5)

        def serve() -> None:
            with server:
                for answer in answers:
                    connection, _ = server.accept()
                    with connection, connection.makefile("rb") as file:
                        self.asked.append(json.loads(file.readline()))
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join, 10)


class Remotes(RemoteCase):
    """Who answers, and who does not."""

    def unusable(self, timeout: float = 5.0) -> str:
        """Return why there is no answer."""
        return str(self.assertRaises(UnusableError, Remote(self.path).ask, "who", timeout))

    def test_nobody(self) -> None:
        """If there is no socket, or nobody behind it, that is said."""
        start = f"popd does not run, or listens on no control socket at {self.path}: "
        self.assertEqual(self.unusable(), start + "there is no such socket")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.assertEqual(self.unusable(), start + "nobody listens there any more")

    def test_answers(self) -> None:
        """An answer is one, an error is one, and there may be several."""
        self.answer(b'{"answer": [1]}\n', b'{"error": "no"}\n', b'{"answer": 1}\n{"answer": 2}\n')
        remote = Remote(self.path)
        self.assertEqual(remote.ask("x", subject="joe"), [1])
        self.assertEqual(self.asked, [{"ask": "x", "about": {"subject": "joe"}}])
        self.assertEqual(str(self.assertRaises(RefusedError, remote.ask, "x")), "no")
        self.assertEqual(list(remote.listen("x")), [1, 2])

    def test_no_popd(self) -> None:
        """What is no answer is not taken for one."""
        wrong = (b"220 smtp\r\n", b"[]\n", b"{}\n", b"1\n", b"\xff\n", b"")
        self.answer(*wrong)
        for answer in wrong:
            expected = "no popd" if answer else "without an answer"
            self.assertIn(expected, self.unusable())

    def test_slow(self) -> None:
        """Who does not answer in time is given up."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(self.path)
            server.listen(1)
            self.assertIn("did not answer within 0.05 seconds", self.unusable(0.05))


class Explanations(RemoteCase):
    """popctl explain, where popd does not run any more."""

    def setUp(self) -> None:
        """Have a log, and a place for programs."""
        super().setUp()
        self.patch(os, "environ", {**os.environ, "PATH": str(self.directory)})
        self.log = self.directory / "popd.log"
        self.log.write_text("a b-1 x\nb-12\nc b-1\x1b\n" + "b-7\n" * 999)

    def explain(self, *arguments: str, status: int = 0) -> str:
        """Explain something."""
        return self.popctl("--control", self.path, "explain", *arguments, status=status)

    def test_log(self) -> None:
        """The log may know, and is shown so that it plays no tricks; not all of it."""
        said = self.explain("b-1", "--log", str(self.log))
        self.assertEqual(said, "a b-1 x\nc b-1\N{REPLACEMENT CHARACTER}\n")
        self.assertEqual(len(self.explain("b-7", "--log", str(self.log)).splitlines()), 200)
        self.assertIn("No such file", self.explain("b-7", "--log", "/nowhere", status=5))

    def test_nobody(self) -> None:
        """If neither popd nor a log is there, that is said."""
        self.assertIn("popd does not run", self.explain("b-1", status=5))
        self.assertIn("popd does not run", self.explain("b-3", "--log", str(self.log), status=5))

    def test_journal(self) -> None:
        """Journald is asked, in a way that nothing in an id can change."""
        program = self.directory / "journalctl"
        program.write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
        program.chmod(0o755)
        self.assertEqual(self.explain("b-1"), "--grep=b-1\n")
        self.assertIn("popd does not run", self.explain("b$(id)", status=5))
        program.write_text("#!/nowhere\n")
        self.assertIn("popd does not run", self.explain("b-1", status=5))


class Commands(RemoteCase):
    """Commands that ask."""

    def ask(self, answer: object, *arguments: str, status: int = 0) -> str:
        """Run popctl, which is answered so."""
        self.answer(json.dumps({"answer": answer}).encode() + b"\n")
        return self.popctl("--control", self.path, *arguments, status=status)

    def test_reload(self) -> None:
        """A reload that is refused says what is wrong, and is a failure."""
        said = self.ask("/etc/x.toml: no good", "reload", status=1)
        self.assertEqual(said, "popctl: /etc/x.toml: no good\n")
        Path(self.path).unlink()
        self.ask("", "reload")

    def test_status(self) -> None:
        """Certificates that expire are pointed out; the last reload is told."""
        now = time.time()
        process = {"pid": 7, "since": now - 600, "sessions": 3, "logged_in": 1, "connections": 50}
        answer = {
            "version": "1.0",
            "pid": 6,
            "since": now - 90_061,
            "processes": [process],
            "certificates": [
                {"names": ["a.example.org"], "path": "/a.pem", "not_after": now + 86_400 * 3.5},
                {"names": [], "path": "/b.pem", "not_after": now - 1},
                {"names": ["c.example.org"], "path": "/c.pem", "not_after": now + 86_400 * 60.5},
            ],
            "reloaded": [now, "/etc/x.toml: no good"],
        }
        screen = self.ask(answer, "status")
        for text in (
            *("popd 1.0", "1 d 1 h 1 min", "5.0 connections a minute", "process 7", "50 so far"),
            *("a.example.org: 3 days left; RENEW IT (/a.pem)", "no name: -1 days left; it has EXP"),
            *("c.example.org: 60 days left (/c.pem)", ": /etc/x.toml: no good"),
        ):
            self.assertIn(text, screen)

    def test_tricks(self) -> None:
        """Nothing that somebody is called can play tricks on a terminal."""
        line = {"time": 1, "ident": "a-1", "peer": "", "way": "<", "text": "\x1b[2J"}
        self.answer(json.dumps({"answer": {"lines": [line], "lost": 3}}).encode() + b"\n")
        ran = self.run_popctl("--control", self.path, "trace", "joe")
        self.assertIn("a-1 < \N{REPLACEMENT CHARACTER}[2J", ran.stdout)
        self.assertIn("3 lines were lost", ran.stderr)
        self.assertIn("popd has ended", ran.stderr)
        self.assertEqual(ran.exit_code, 5)

    def test_told_none(self) -> None:
        """Where popd is told to have no control socket, that is said."""
        with self.config.open("a") as file:
            file.write('control = "none"\n')
        self.assertIn("no control socket", self.popctl("who", status=5))
        self.assertIn("No such file", self.popctl("--config", "/x", "who", status=5))
