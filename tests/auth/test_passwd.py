"""Tests of the password file."""

from __future__ import annotations

import logging
import os
import threading
from base64 import b64decode
from ipaddress import ip_network
from pathlib import Path
from time import time_ns

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.auth import passwd, reread, schemes
from popd.auth.account import Account
from popd.auth.passwd import PasswordFile
from popd.auth.passwdline import Entry
from popd.auth.schemes import StoredPassword

SECOND = 1_000_000_000

# doveadm pw -s SCRAM-SHA-256 -p secret (Dovecot 2.3.19)
KEYS = (
    "{SCRAM-SHA-256}4096,KwUqHCscn9GjLHr17NUrFA==,OudE9XfNZUXLIdnRM5ZTuext3Blnb60sUezJG1MM1qE=,"
    "t8coLzc/BmzgSXQoZpLiDysGZHVbVi9iGHxP8TBocLM="
)
SALT = b64decode("KwUqHCscn9GjLHr17NUrFA==")


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(f"{record.levelname} {record.getMessage()}")

    def take(self) -> list[str]:
        """Return what was logged since this was asked last."""
        taken, self.lines = self.lines, []
        return taken


class PasswordFileTestCase(SynchronousTestCase):
    """A password file to write into, and its log."""

    def setUp(self) -> None:
        """Listen to the log, and keep it from the terminal."""
        self.path = Path(self.mktemp()).absolute()
        self.log = Records()
        reread._log.addHandler(self.log)
        self.addCleanup(reread._log.removeHandler, self.log)
        self.patch(reread._log, "propagate", False)

    def file(self, *lines: str, age: int = 0) -> PasswordFile:
        """Return a password file of these lines, read as if *age* seconds after it was written."""
        self.write(*lines)
        return PasswordFile(self.path, now=lambda: time_ns() + age * SECOND)

    def write(self, *lines: str) -> None:
        """Write these lines into the file."""
        self.path.write_bytes("".join(line + "\n" for line in lines).encode())


class Lines(PasswordFileTestCase):
    """What the lines of a password file mean."""

    def assertProblems(self, file: PasswordFile, *expected: str) -> None:
        """Assert that these and no other problems are known and logged."""
        texts = [f"{self.path}:{text}" for text in expected]
        self.assertEqual(list(file.problems), texts)
        self.assertEqual(self.log.take(), [f"WARNING {text}" for text in texts])

    def test_fields(self) -> None:
        """Of the fields the first two matter, and all others may be missing."""
        file = self.file(
            "a:{PLAIN}1",
            "b:{PLAIN}2:",
            "c:{PLAIN}3:5000:5000:C. C.:/home/c:/bin/sh:userdb_quota_rule=*:bytes=1G nodelay=y",
            "d@example.org:{PLAIN}4::::::",
        )
        for name, password in (("a", b"1"), ("b", b"2"), ("c", b"3"), ("d@example.org", b"4")):
            self.assertTrue(file.verify(name, password))
            self.assertFalse(file.verify(name, b"5"))
        self.assertFalse(file.verify("d", b"4"))
        self.assertProblems(file)

    def test_skipped(self) -> None:
        """Comments and blank lines mean nothing, and CRLF ends a line as well."""
        file = self.file("# a:{PLAIN}1", "", "  ", "\r", "b:{PLAIN}2\r", "#")
        self.assertTrue(file.verify("b", b"2"))
        self.assertFalse(file.verify("# a", b"1"))
        self.assertProblems(file)

    def test_no_final_newline(self) -> None:
        """The last line needs no newline."""
        self.path.write_bytes(b"a:{PLAIN}1")
        self.assertTrue(PasswordFile(str(self.path)).verify("a", b"1"))

    def test_canonical_names(self) -> None:
        """Users are known by their canonical names, however the file spells them."""
        file = self.file("Älice@EXAMPLE.org:{PLAIN}1")
        self.assertTrue(file.verify("älice@example.org", b"1"))
        self.assertFalse(file.verify("Älice@EXAMPLE.org", b"1"))

    def test_empty_password(self) -> None:
        """A user without a password cannot log in, and nothing is wrong with that."""
        file = self.file("a:", "b::1:1", "c:{PLAIN}3")
        for name in "ab":
            for password in (b"", b"3", b"x"):
                self.assertFalse(file.verify(name, password))
        self.assertProblems(file)

    def test_duplicates(self) -> None:
        """Of two lines for one user the first counts and the second is reported."""
        file = self.file("a:{PLAIN}1", "b:{PLAIN}2", "A:{PLAIN}3", "c:", "c:{PLAIN}4")
        self.assertTrue(file.verify("a", b"1"))
        self.assertFalse(file.verify("a", b"3"))
        self.assertFalse(file.verify("c", b"4"))
        why = "this user has an earlier line, which is the one that counts"
        self.assertProblems(file, f"3: {why}", f"5: {why}")

    def test_broken_lines(self) -> None:
        """Broken lines are reported by number, and the others work."""
        self.path.write_bytes(
            b"a:{PLAIN}1\n"
            b"SECRET\n"
            b"\xffSECRET:{PLAIN}SECRET\n"
            b"../SECRET:{PLAIN}SECRET\n"
            b":{PLAIN}SECRET\n"
            b"b:{PLAIN.hex}SECRET\n"
            b"c:SECRET\n"
            b"d:{SECRET}SECRET\n"
            b"b:{PLAIN}2\n"
        )
        file = PasswordFile(self.path)
        self.assertTrue(file.verify("a", b"1"))
        self.assertTrue(file.verify("b", b"2"))
        reasons = [problem.removeprefix(f"{self.path}:") for problem in file.problems]
        self.assertEqual(
            [reason.split(" ")[0] for reason in reasons], ["2:", "3:", "4:", "5:", "6:", "7:", "8:"]
        )
        self.assertNotIn("SECRET", "".join(reasons))
        self.assertProblems(file, *reasons)

    def test_many_broken_lines(self) -> None:
        """After a hundred broken lines the rest are only counted."""
        file = self.file(*["broken"] * 110, "a:{PLAIN}1")
        self.assertTrue(file.verify("a", b"1"))
        self.assertEqual(len(file.problems), 101)
        self.assertEqual(file.problems[-1], f"{self.path}: 10 more lines are wrong")

    def test_restrictions(self) -> None:
        """Whom a field restricts that popd does not know stays out, and later lines let none in."""
        file = self.file(
            "a:{PLAIN}1::::::login_user=x",
            "b:{PLAIN}1::::::userdb_x=y Allow_Real_Nets=10.0.0.0/8,fe80::/64 proxy=y",
            "c:{PLAIN}1:::::: PROXY=no",
            "d:{PLAIN}1::::::userdb_proxy=y note=proxy",
            "a:{PLAIN}1",
        )
        for name in "abc":
            self.assertIsNone(file.verify(name, b"1"))
            self.assertIsNone(file.find(name))
        self.assertTrue(file.verify("d", b"1"))
        self.assertProblems(
            file,
            "1: this user cannot log in: popd does not enforce login_user",
            "2: this user cannot log in: popd does not enforce allow_real_nets, proxy",
            "3: this user cannot log in: popd does not enforce proxy",
            "5: this user has an earlier line, which is the one that counts",
        )

    def test_account(self) -> None:
        """The extra fields that popd knows make the account."""
        file = self.file(
            "a:{PLAIN}1::::::userdb_x=y allow_nets=10.0.0.0/8,2001:db8::/32 quota=2k require_tls",
            "b:{PLAIN}1:5:5:B:/home/b:/bin/sh:Maildrop=maildir:/srv/b master=yes",
            "c:{PLAIN}1::::::nologin=no disabled=no",
            "d:{PLAIN}1::::::disabled",
            "e:{PLAIN}1::::::expires=2020-01-01",
        )
        networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
        accounts = (
            Account("a", networks=networks, quota=2048, require_tls=True),
            Account("b", maildrop="maildir:/srv/b", master=True),
            Account("c", disabled=True),  # Dovecot heeds nologin whatever its value
            Account("d", disabled=True),
            Account("e", expires=1577836800.0),
        )
        for account in accounts:
            self.assertEqual(file.verify(account.name, b"1"), account)
            self.assertIsNone(file.verify(account.name, b"2"))
        self.assertEqual(file.verify("d@example.org", b"1", "d"), Account("d@example.org", True))
        self.assertProblems(file)

    def test_senseless_fields(self) -> None:
        """Whose field means nothing stays out; the report names the field and not its value."""
        file = self.file(
            "a:{PLAIN}1::::::quota=SECRET",
            "b:{PLAIN}1::::::allow_nets=",
            f"c:{{PLAIN}}1::::::scram_sha_256={KEYS[:-1]}",
            f"d:{{PLAIN}}1::::::scram_sha_1={KEYS}",
        )
        for name in "abcd":
            self.assertIsNone(file.verify(name, b"1"))
        why = "this user cannot log in:"
        self.assertProblems(
            file,
            f"1: {why} the field quota has a value that means nothing",
            f"2: {why} the field allow_nets has a value that means nothing",
            f"3: {why} in the field scram_sha_256, the SCRAM-SHA-256 data is malformed",
            f"4: {why} the field scram_sha_1 has keys of another scheme",
        )

    def test_scram_keys(self) -> None:
        """SCRAM keys are the password itself, or stand beside it; without one they do not count."""
        file = self.file(
            f"a:{KEYS}",
            f"b:{{PLAIN}}secret::::::quota=1k scram_sha_256={KEYS}",
            "c:{PLAIN}secret",
            f"d:::::::scram_sha_256={KEYS}",
        )
        for name, has_keys in (("a", True), ("b", True), ("c", False), ("d", False)):
            entry = file.find(name)
            keys = entry and entry.scram_keys("SCRAM-SHA-256")
            self.assertEqual(
                keys and (keys.iterations, keys.salt), (4096, SALT) if has_keys else None
            )
            self.assertIsNone(entry and entry.scram_keys("SCRAM-SHA-1"))
            self.assertEqual(bool(file.verify(name, b"secret")), name != "d")
        self.assertEqual(file.schemes, {"PLAIN", "SCRAM-SHA-256"})
        self.assertProblems(file)

    def test_schemes(self) -> None:
        """Which schemes are in use is known, by one name each."""
        file = self.file("a:{clear.b64}eA==", "b:$6$saltsalt$" + "x" * 86, "c:")
        self.assertEqual(file.schemes, {"PLAIN", "CRYPT"})
        self.write("c:")
        file.find("c")
        self.assertEqual(file.schemes, set())

    def test_comment_in_latin_1(self) -> None:
        """A comment may be in any encoding."""
        self.path.write_bytes(b"# J\xfcrgen\nalice:{PLAIN}x\n")
        file = PasswordFile(self.path)
        self.assertEqual(file.problems, ())
        self.assertEqual(list(file._file._table.users), ["alice"])

    _pieces = st.sampled_from(["a", "B", "{PLAIN}", "{SSHA}", "$6$", ":", "::::::", "nologin", "#"])

    @given(st.lists(st.binary() | st.lists(_pieces).map(lambda p: "".join(p).encode())))
    def test_anything(self, lines: list[bytes]) -> None:
        """Whatever the lines are, each means a user or nothing, or is reported; nothing raises."""
        content = b"\n".join(lines)
        self.path.write_bytes(content)
        file = PasswordFile(self.path)
        meaningful = [
            line for line in content.split(b"\n") if not line.startswith(b"#") and line.strip()
        ]
        self.assertLessEqual(len(file._file._table.users), len(meaningful))
        self.assertLessEqual(len(file.problems), len(meaningful))
        for name in file._file._table.users:
            entry = file.find(name)
            self.assertTrue(entry is None or entry.check() or not entry.password)


class SameWork(PasswordFileTestCase):
    """Whoever tries to log in costs one verification."""

    def setUp(self) -> None:
        """Note which password fields are verified, with never a match but for 'right'."""
        super().setUp()
        self.verified: list[str] = []

        def parse(field: str) -> StoredPassword:
            def check(password: bytes) -> bool:
                self.verified.append(field)
                return password == b"right"

            return StoredPassword("TEST", check)

        self.patch(schemes, "parse", parse)

    def test_one_each(self) -> None:
        """Known, unknown, locked and nameless users cost one verification each."""
        file = self.file("a:1", "b:2", "locked:", "restricted:3::::::proxy")
        for name in ("a", "b", "c", "locked", "restricted", "", "..", "\ud800", "x" * 1000):
            for password in (b"right", b"wrong", b"", b"\0", b"x" * 2000):
                self.verified.clear()
                accepted = file.verify(name, password)
                right = name in {"a", "b"} and password == b"right"
                self.assertEqual(accepted, Account(name) if right else None)
                self.assertEqual(len(self.verified), 1)
                self.assertIn(self.verified[0], {"a": ["1"], "b": ["2"]}.get(name, ["1", "2"]))

    def whom(self, file: PasswordFile, names: list[str]) -> list[str]:
        """Return against whose password each of *names* is verified."""
        self.verified.clear()
        for name in names:
            file.verify(name, b"wrong")
        return list(self.verified)

    def test_unknown_users_resemble_known_ones(self) -> None:
        """An unknown user resembles always the same known one, and all of them have their like."""
        lines = [f"user{n}:{n}" for n in range(4)]
        unknown = [f"unknown{n}" for n in range(100)]
        self.write(*lines)
        file = PasswordFile(self.path, key=b"one")
        resembled = self.whom(file, unknown)
        self.assertEqual(set(resembled), {"0", "1", "2", "3"})
        self.assertEqual(self.whom(file, unknown), resembled)
        self.assertEqual(self.whom(PasswordFile(self.path, key=b"one"), unknown), resembled)
        self.assertNotEqual(self.whom(PasswordFile(self.path, key=b"two"), unknown), resembled)
        self.assertNotEqual(self.whom(PasswordFile(self.path), unknown), resembled)

    def test_nobody(self) -> None:
        """In a file without users, work is done on a hash that is nobody's."""
        file = self.file("locked:", "# nobody")
        self.assertFalse(file.verify("a", b"right"))
        self.assertFalse(file.verify("locked", b"right"))
        self.assertEqual(self.verified, [passwd._DUMMY] * 2)


class Dummy(PasswordFileTestCase):
    """The hash that is nobody's."""

    def test_real(self) -> None:
        """It is one that can be verified."""
        self.assertFalse(self.file().verify("a", b"password"))
        self.assertEqual(schemes.parse(passwd._DUMMY).scheme, "ARGON2ID")


class Changes(PasswordFileTestCase):
    """A changed file counts without anybody being told."""

    def count_reads(self, file: PasswordFile) -> list[None]:
        """Return a list that grows with every reading of *file*."""
        reads: list[None] = []
        read = file._file._read

        def counted() -> None:
            reads.append(None)
            read()

        self.patch(file._file, "_read", counted)
        return reads

    def test_rewritten(self) -> None:
        """New users get in and removed ones do not, from the next log-in on."""
        for age in (0, 10):
            file = self.file("a:{PLAIN}1", age=age)
            self.assertTrue(file.verify("a", b"1"))
            self.write("a:{PLAIN}12", "b:{PLAIN}3")
            self.assertTrue(file.verify("b", b"3"))
            self.assertFalse(file.verify("a", b"1"))
            self.write("b:{PLAIN}3")
            self.assertFalse(file.verify("a", b"12"))

    def test_replaced(self) -> None:
        """A file that another of the same size and time was renamed over is read."""
        file = self.file("a:{PLAIN}1", age=10)
        times = self.path.stat()
        other = self.path.with_suffix(".new")
        other.write_text("a:{PLAIN}2\n", "utf-8")
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        other.replace(self.path)
        self.assertTrue(file.verify("a", b"2"))

    def test_unchanged(self) -> None:
        """An unchanged file is not read again."""
        file = self.file("a:{PLAIN}1", age=10)
        reads = self.count_reads(file)
        for _ in range(5):
            self.assertTrue(file.verify("a", b"1"))
        self.assertEqual(reads, [])

    def test_racily_clean(self) -> None:
        """A file that was fresh when read is read again, as its next change may not show."""
        file = self.file("a:{PLAIN}1", age=1)
        self.patch(reread, "_fingerprint", lambda _status: "as ever")
        self.write("a:{PLAIN}2")
        self.assertTrue(file.verify("a", b"2"))

    def test_not_fresh(self) -> None:
        """A file that was old when read need not be read again while it looks the same."""
        self.patch(reread, "_fingerprint", lambda _status: "as ever")
        file = self.file("a:{PLAIN}1", age=3)
        self.write("a:{PLAIN}2")
        self.assertTrue(file.verify("a", b"1"))

    def test_unchanged_lines(self) -> None:
        """What a line said before is neither checked nor kept anew; what bars a user is."""
        file = self.file("a:{PLAIN}1::::::quota=1k", "b:{PLAIN}2", "c:{PLAIN}3::::::proxy")
        kept = dict(file._file._table.users)
        checked: list[str] = []
        check = Entry.check

        def noted(entry: Entry) -> object:
            checked.append(entry.name)
            return check(entry)

        self.patch(Entry, "check", noted)
        self.write("a:{PLAIN}1::::::quota=1k", "b:{PLAIN}4", "c:{PLAIN}3::::::proxy", "d:{PLAIN}5")
        self.assertTrue(file.verify("b", b"4"))
        self.assertEqual(checked, ["b", "c", "d"])
        self.assertIs(file._file._table.users["a"], kept["a"])
        self.assertIsNone(file.verify("c", b"3"))
        self.assertEqual(len(file.problems), 1)
        self.write("c:*", "c:{PLAIN}3")  # which looks like what is kept of who is barred
        self.assertTrue(file.verify("c", b"3"))

    def test_quiet(self) -> None:
        """Reading the same content again, or the same broken lines, reports nothing anew."""
        file = self.file("a:{PLAIN}1", "broken")
        reads = self.count_reads(file)
        self.log.take()
        table = file._file._table
        for _ in range(5):
            self.assertTrue(file.verify("a", b"1"))
        self.path.touch()
        self.assertTrue(file.verify("a", b"1"))
        self.assertEqual(len(reads), 6)
        self.assertIs(file._file._table, table)
        self.assertEqual(self.log.take(), [])

    def test_problems(self) -> None:
        """After a change the problems are those of the new file."""
        file = self.file("broken")
        self.write("a:{PLAIN}1")
        self.assertTrue(file.verify("a", b"1"))
        self.assertEqual(file.problems, ())


class Losses(PasswordFileTestCase):
    """A file that cannot be read any more leaves the users as they were."""

    def test_vanished(self) -> None:
        """The users read last remain; that the file is gone, and back, is logged once."""
        file = self.file("a:{PLAIN}1")
        self.path.unlink()
        for _ in range(3):
            self.assertTrue(file.verify("a", b"1"))
            self.assertFalse(file.verify("b", b"2"))
        (line,) = self.log.take()
        self.assertTrue(line.startswith("ERROR "))
        self.assertIn(f"{self.path}: No such file or directory; what was read before remains", line)
        self.write("b:{PLAIN}2")
        self.assertTrue(file.verify("b", b"2"))
        self.assertFalse(file.verify("a", b"1"))
        self.assertEqual(self.log.take(), [f"WARNING {self.path}: can be read again"])
        self.path.unlink()
        self.assertTrue(file.verify("b", b"2"))
        self.assertEqual(len(self.log.take()), 1)

    def test_no_file_any_more(self) -> None:
        """Something else in the file's place is as bad, a FIFO without a writer not excepted."""
        file = self.file("a:{PLAIN}1")
        for make in (os.mkdir, os.mkfifo):
            self.path.unlink()
            make(self.path)
            self.assertTrue(file.verify("a", b"1"))
            self.assertEqual(len(self.log.take()), 1)
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()
            self.write("a:{PLAIN}1")
            self.assertTrue(file.verify("a", b"1"))
            self.log.take()


class Beginnings(PasswordFileTestCase):
    """A file that cannot be read to begin with is an error in one clear line."""

    def assertRefused(self, error: type[Exception], reason: str) -> None:
        """Assert that the file is refused for *reason*, and that the text names it."""
        text = str(self.assertRaises(error, PasswordFile, self.path))
        self.assertIn(str(self.path), text)
        self.assertIn(reason, text)
        self.assertNotIn("\n", text)

    def test_missing(self) -> None:
        """A missing file is an OSError."""
        self.assertRefused(FileNotFoundError, "No such file or directory")

    def test_directory(self) -> None:
        """A directory is an OSError."""
        self.path.mkdir()
        self.assertRefused(IsADirectoryError, "Is a directory")

    def test_fifo(self) -> None:
        """A FIFO is a ValueError, at once."""
        os.mkfifo(self.path)
        self.assertRefused(ValueError, "not a regular file")


class Threads(PasswordFileTestCase):
    """A password file serves several threads at once."""

    def test_nobody_waits(self) -> None:
        """While one thread reads the file, the others go by the users read before."""
        file = self.file("a:{PLAIN}1")
        self.write("a:{PLAIN}2")
        with file._file._lock:
            self.assertTrue(file.verify("a", b"1"))
        self.assertTrue(file.verify("a", b"2"))

    def test_whole_tables(self) -> None:
        """While the file changes all the time, who is in every version always gets in."""
        versions = [["a:{PLAIN}1"], [*(f"user{n}:{{PLAIN}}{n}" for n in range(200)), "a:{PLAIN}1"]]
        file = self.file(*versions[0])
        answers: list[bool] = []

        def log_in() -> None:
            answers.extend(bool(file.verify("a", b"1")) for _ in range(100))

        threads = [threading.Thread(target=log_in) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(50):
            other = self.path.with_suffix(".new")
            other.write_text("\n".join(versions[number % 2]), "utf-8")
            other.replace(self.path)
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [True] * 400)
