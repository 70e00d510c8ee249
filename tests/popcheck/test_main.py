"""The command line of ``popcheck``."""

from __future__ import annotations

import contextlib
import io
import json
import ssl
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popcheck.main import main
from popcheck.rules import load
from tests.popcheck.mutants import MUTANTS
from tests.popcheck.toy import PASSWORD, USER, Session, Toy

ACCOUNT = ("--user", USER.decode(), "--password", PASSWORD.decode())


class CommandTests(SynchronousTestCase):
    """What it writes, and how it ends."""

    def popcheck(self, *arguments: str) -> tuple[int, str, str]:
        """Run it; return the exit status and what it wrote to stdout and stderr."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return status, output.getvalue(), errors.getvalue()

    def maildir(self) -> Path:
        """Make a Maildir."""
        path = Path(self.mktemp())
        for name in ("tmp", "new", "cur"):
            (path / name).mkdir(parents=True)
        return path

    def serve(self, session: type[Session], maildir: Path) -> str:
        """Start a toy; return where it listens."""
        toy = Toy(session, maildir, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.addCleanup(toy.end)
        return f"127.0.0.1:{toy.port}"

    def test_list(self) -> None:
        """``--list`` has a line for each rule, with the RFC's section, and says which need mail."""
        status, output, _ = self.popcheck("--list")
        lines = output.splitlines()
        self.assertEqual((status, len(lines)), (0, len(load())))
        self.assertGreaterEqual(len(lines), 150)
        for line in lines:
            self.assertRegex(
                line, r"^[a-z0-9.-]+ +RFC \d{4} section [0-9.]+ +(MUST|SHOULD|robust) +\S"
            )
        (line,) = (line for line in lines if line.startswith("retr.dot-first "))
        self.assertTrue(line.endswith("(mail)"), line)

    def test_rfcs(self) -> None:
        """There are rules of all the RFCs that a POP3 server is made of."""
        sources = {rule.source.split()[1] for rule in load().values()}
        self.assertLessEqual({"1939", "2449", "2595", "3206", "5034", "6856"}, sources)

    def test_explain(self) -> None:
        """``--explain`` says of each rule what it is and why."""
        for name, rule in load().items():
            self.assertGreater(len(rule.explanation), 10, name)
            self.assertNotIn("\n", rule.summary)
        status, output, _ = self.popcheck("--explain", "edge.dot.16384")
        self.assertEqual(status, 0)
        self.assertTrue(output.startswith("edge.dot.16384: A line that begins with a dot"), output)
        self.assertIn("RFC 1939 section 3, MUST", output)
        self.assertIn("It puts mail into the Maildir.", output)

    def test_no_such_rule(self) -> None:
        """A rule that does not exist is an error of the command line."""
        self.assertEqual(self.popcheck("--explain", "no.such")[0], 2)
        maildir = self.maildir()
        server = self.serve(Session, maildir)
        status, _, errors = self.popcheck(server, *ACCOUNT, "--only", "no.such")
        self.assertEqual((status, errors), (2, "popcheck: there is no such rule\n"))

    def test_broken_rule(self) -> None:
        """A rule that is broken is a line that says how, and exit status 1."""
        server = self.serve(MUTANTS["noop.ok"], self.maildir())
        status, output, errors = self.popcheck(server, *ACCOUNT, "--only", "noop.ok", "--failed")
        self.assertEqual((status, errors), (1, ""))
        first, last = output.splitlines()
        self.assertRegex(first, r"^FAIL noop\.ok .*: 'NOOP' was answered with '-ERR'$")
        self.assertEqual(last, "0 passed, 1 failed, 0 skipped")

    def test_json(self) -> None:
        """``--json`` has the server, and for each rule what became of it."""
        maildir = self.maildir()
        server = self.serve(Session, maildir)
        status, output, _ = self.popcheck(
            server, *ACCOUNT, "--maildir", str(maildir), "--only", "retr.dot-*", "--json"
        )
        report = json.loads(output)
        self.assertEqual(status, 0)
        self.assertEqual(report["server"]["implementation"], "toy")
        self.assertEqual({one["outcome"] for one in report["results"]}, {"PASS"})
        self.assertEqual(len(report["results"]), 5)

    def test_without_maildir(self) -> None:
        """Without a Maildir much can be seen; a line each says what, and the last one how much."""
        only = ("--only", "stat.*", "--only", "noop.*")
        status, output, errors = self.popcheck(self.serve(Session, self.maildir()), *ACCOUNT, *only)
        lines = output.splitlines()
        self.assertEqual((status, errors, len(lines)), (0, "", 7))
        self.assertRegex(lines[0], r"^PASS noop\.ok +RFC 1939 section 5 +MUST +NOOP is answered")
        self.assertRegex(lines[1], r"^SKIP stat\.empty .*: needs --maildir$")
        self.assertEqual(lines[-1], "2 passed, 0 failed, 4 skipped")

    def test_mail_in_the_way(self) -> None:
        """A Maildir that holds mail is left alone, until it is said that the mail may go."""
        maildir = self.maildir()
        (maildir / "cur" / "1.mine:2,S").write_bytes(b"mine\n")
        server = self.serve(Session, maildir)
        arguments = (server, *ACCOUNT, "--maildir", str(maildir), "--only", "stat.empty")
        status, _, errors = self.popcheck(*arguments)
        self.assertEqual(status, 2)
        self.assertIn("holds 1 messages", errors)
        self.assertEqual(len(list((maildir / "cur").iterdir())), 1)
        status, _, errors = self.popcheck(*arguments, "--erase-maildir")
        self.assertEqual((status, errors), (0, ""))
        self.assertEqual(list((maildir / "cur").iterdir()), [])

    def test_another_maildir(self) -> None:
        """A Maildir that is not the user's is noticed before anything is put there."""
        maildir = self.maildir()
        (maildir / "new" / "1.mine").write_bytes(b"mine\n")
        server = self.serve(Session, maildir)
        status, _, errors = self.popcheck(server, *ACCOUNT, "--maildir", str(self.maildir()))
        self.assertEqual(status, 2)
        self.assertIn("not where the user's mail is", errors)

    def test_password_file(self) -> None:
        """The password may be in a file, which other users of the machine do not see."""
        password = Path(self.mktemp())
        password.write_bytes(PASSWORD + b"\n")
        server = self.serve(Session, self.maildir())
        arguments = (server, "--user", USER.decode(), "--password-file", str(password))
        self.assertEqual(self.popcheck(*arguments, "--only", "noop.ok")[0], 0)
        password.unlink()
        self.assertEqual(self.popcheck(*arguments)[0], 2)

    def test_unusable(self) -> None:
        """What cannot be used is said in a line."""
        maildir = self.maildir()
        server = self.serve(Session, maildir)
        for arguments, said in (
            ((server, *ACCOUNT[:2], "--password", "wrong"), "cannot log in: log-in was refused"),
            (("127.0.0.1:1", *ACCOUNT), "cannot log in: "),
            (("127.0.0.1:pop", *ACCOUNT), "pop is no port"),
            ((server, *ACCOUNT, "--maildir", str(maildir / "cur")), "is no Maildir that can be"),
            ((server, *ACCOUNT, "--cafile", str(maildir / "none")), "none: "),
        ):
            status, _, errors = self.popcheck(*arguments)
            self.assertEqual(status, 2)
            self.assertIn(said, errors)
            self.assertEqual(errors.count("\n"), 1)

    def test_command_line(self) -> None:
        """Without a server, a user or a password there is nothing to do."""
        for arguments in ((), ("localhost",), ("localhost", "--user", "x")):
            status, _, errors = self.popcheck(*arguments)
            self.assertEqual(status, 2)
            self.assertIn("needed", errors)
