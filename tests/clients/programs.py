"""Programs that fetch mail: what they are told, and what they make of it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.clients.contract import PopClient
from tests.e2e.server import LIMIT, stored

if TYPE_CHECKING:
    from tests.clients.contract import Errand

__all__ = ["PROGRAMS", "Curl", "Fdm", "Fetchmail", "Getmail", "Inc", "Movemail", "Mpop", "Pop3test"]

SASL: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN", "USER")


def private(path: Path, text: str) -> Path:
    """Write a file that nobody else may read."""
    path.touch(0o600)
    path.write_text(text, encoding="ascii")
    return path


def unboxed(box: bytes) -> list[bytes]:
    """Return the messages in an mbox file."""
    parts = re.split(rb"^From .*\n", box, flags=re.MULTILINE)[1:]
    return [part.removesuffix(b"\n") for part in parts]


def as_nobody(home: Path) -> dict[str, Any]:
    """Return how to run a program as nobody, whose *home* is then, if this is root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (home, *home.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Curl(PopClient):
    """A session for each command; what it has is remembered for it."""

    name, language, packages, program = "curl", "C", ("curl",), "curl"
    mechanisms = ("CRAM-MD5", "APOP", "PLAIN", "LOGIN")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._known: set[bytes] = set()

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        url = f"{'pop3s' if errand.implicit else 'pop3'}://localhost:{errand.port}/"
        common = ["-q", "--silent", "--show-error", "--max-time", f"{LIMIT:.0f}", "--ssl-reqd"]
        common += ["--cacert", str(errand.ca), "--user", f"{errand.user}:{errand.password}"]
        if errand.mechanism:
            mark = "+" if errand.mechanism == "APOP" else ""
            common += ["--login-options", f"AUTH={mark}{errand.mechanism}"]
        uids = [line.split()[1] for line in self.run(*common, "-X", "UIDL", url).splitlines()]
        messages = [
            self.run(*common, f"{url}{number}")
            for number, uid in enumerate(uids, 1)
            if uid not in self._known
        ]
        self._known.update(uids)
        for _ in () if errand.keep else uids:
            self.run(*common, "--head", "-X", "DELE", url + "1")
        return messages

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`: it is what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


class Fetchmail(PopClient):
    """Hands mail to a program, and remembers unique-ids."""

    name, language, packages, program = "fetchmail", "C", ("fetchmail",), "fetchmail"
    mechanisms = ("CRAM-MD5", "APOP", "USER")

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        mode = "ssl" if errand.implicit else 'sslproto "tls1.2+"'  # STLS or nothing
        protocol = "apop" if errand.mechanism == "APOP" else "pop3"
        auth = {"CRAM-MD5": "auth cram-md5", "": ""}.get(errand.mechanism, "auth password")
        configuration = private(
            self.home / "fetchmailrc",
            f'set idfile "{self.home}/ids"\n'
            f"poll localhost service {errand.port} protocol {protocol} uidl {auth}\n"
            f'  user "{errand.user}@example.org" password "{errand.password}"\n'
            f'  {mode} sslcertck sslcertfile "{errand.ca}"\n'
            f"  no rewrite {'keep' if errand.keep else 'no keep'}\n"
            f'  mda "cat >$(mktemp {self.inbox}/XXXXXX)"\n',
        )
        nothing_new = 1
        self.run(
            *("-f", str(configuration), "--pidfile", f"{self.home}/pid", "--nosyslog", "-v"),
            good=(0, nothing_new),
        )
        return self.new_files(self.inbox)

    def seen(self, message: bytes) -> Any:
        """See `PopClient.seen`: fetchmail adds to the header."""
        header, _, body = message.partition(b"\n\n")
        lines = [line for line in header.splitlines() if line.startswith((b"Subject:", b"Mess"))]
        return lines, body

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`."""
        return self.seen(stored(message))


class Mpop(PopClient):
    """Sends several commands at a time."""

    name, language, packages, program = "mpop", "C", ("mpop",), "mpop"
    mechanisms = (*SASL, "APOP")

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        (self.home / "mpoprc").touch(0o600)
        self.run(
            *("--host=localhost", f"--port={errand.port}"),
            *(f"--user={errand.user}", f"--passwordeval=echo {errand.password}"),
            f"--auth={errand.mechanism.lower() or 'on'}",
            *("--tls=on", f"--tls-starttls={'off' if errand.implicit else 'on'}"),
            *(f"--tls-trust-file={errand.ca}", f"--uidls-file={self.home}/uidls"),
            *(f"--keep={'on' if errand.keep else 'off'}", "--only-new=on", "--received-header=off"),
            *(f"--delivery=maildir,{self.inbox}", "--pipelining=on"),
        )
        return self.new_files(self.inbox / "new")


class Getmail(PopClient):
    """Is nobody's, if it is root's: for root it stores no mail."""

    name, language, packages, program = "getmail6", "Python", ("getmail6",), "getmail"
    ways = (True,)
    remark = "knows no STLS"

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        (self.home / "getmailrc").write_text(
            f"[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\n"
            f"port = {errand.port}\nca_certs = {errand.ca}\n"
            f"username = {errand.user}\npassword = {errand.password}\n"
            f"[destination]\ntype = Maildir\npath = {self.inbox}/\n"
            "[options]\nread_all = false\ndelivered_to = false\nreceived = false\n"
            f"delete = {str(not errand.keep).lower()}\n",
            encoding="ascii",
        )
        self.run(
            *("--getmaildir", str(self.home), "--rcfile", str(self.home / "getmailrc")),
            **as_nobody(self.home),
        )
        return self.new_files(self.inbox / "new")

    def seen(self, message: bytes) -> Any:
        """See `PopClient.seen`: getmail adds a Return-Path."""
        first, _, rest = message.partition(b"\n")
        return rest if first.startswith(b"Return-Path:") else message


class Pop3test(PopClient):
    """The Cyrus project's: logs in, and then says what it is told."""

    name, language = "pop3test (Cyrus)", "C"
    packages, program = ("cyrus-clients", "libsasl2-modules"), "/usr/lib/cyrus/bin/pop3test"
    mechanisms = SASL
    remembers = False

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`: one session to see what there is, another to fetch it."""
        listing = self._said(errand, "LIST")
        count = len(re.findall(rb"^\d+ \d+\r?$", listing, re.MULTILINE))
        numbers = range(1, count + 1)
        commands = [f"RETR {number}" for number in numbers]
        commands += [] if errand.keep else [f"DELE {number}" for number in numbers]
        said = self._said(errand, *commands)
        bodies = re.findall(rb"^\+OK \d+ octets\r\n(.*?\r\n)\.\r\n", said, re.DOTALL | re.MULTILINE)
        return [re.sub(rb"^\.", b"", body, flags=re.MULTILINE) for body in bodies]

    def _said(self, errand: Errand, *commands: str) -> bytes:
        script = "".join(f"{command}\r\n" for command in (*commands, "QUIT"))
        tls = ("-s",) if errand.implicit else ("-t", "")
        return self.run(
            *("-p", str(errand.port), *tls, "-m", errand.mechanism or "PLAIN"),
            *("-a", errand.user, "-w", errand.password, "localhost"),
            stdin=script.encode(),
        )

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`: it is what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


class Fdm(PopClient):
    """Fetches and sorts."""

    name, language, packages, program = "fdm", "C", ("fdm",), "fdm"
    ways = (True,)
    remark = "this version knows no STLS"

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        keep = "keep" if errand.keep else ""
        configuration = private(
            self.home / "fdm.conf",
            f'set no-received\nset lock-file "{self.home}/lock"\n'
            f'account "popd" pop3s server "localhost" port {errand.port}'
            f' user "{errand.user}" pass "{errand.password}"'
            f' new-only cache "{self.home}/cache" {keep}\n'
            f'action "store" maildir "{self.inbox}"\nmatch all action "store"\n',
        )
        self.run(
            *("-f", str(configuration), "-v", "fetch"),
            environment={"SSL_CERT_FILE": str(errand.ca)},
            **as_nobody(self.home),
        )
        return self.new_files(self.inbox / "new")


class Movemail(PopClient):
    """GNU mailutils, which has TLS of GnuTLS."""

    name, language = "movemail (GNU mailutils)", "C"
    packages, program = ("mailutils",), "movemail.mailutils"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._count = 0

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`: what is new is at the end of its file."""
        scheme = "pops" if errand.implicit else "pop"
        box = self.home / "box"
        box.touch()
        self.run(
            *("--no-config", "--set", f"tls.ssl-ca-file={errand.ca}", "--uidl"),
            *(("--preserve",) if errand.keep else ()),
            f"{scheme}://{errand.user}:{errand.password}@localhost:{errand.port}",
            f"mbox:{box}",
        )
        messages = unboxed(box.read_bytes())[self._count :]
        self._count += len(messages)
        return messages

    def seen(self, message: bytes) -> Any:
        """See `PopClient.seen`: it adds to the header."""
        return re.sub(rb"^X-(?:UIDL|IMAPbase|UID): .*\n", b"", message, flags=re.MULTILINE)


class Inc(PopClient):
    """nmh's, the oldest of them."""

    name, language, packages, program = (
        "inc (nmh)",
        "C",
        ("nmh", "libsasl2-modules"),
        "/usr/bin/mh/inc",
    )
    mechanisms = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "USER")
    remembers = False

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        folder = self.home / "Mail"
        (folder / "inbox").mkdir(parents=True, exist_ok=True)
        line = f"machine localhost\nlogin {errand.user}\npassword {errand.password}\n"
        credentials = private(self.home / "credentials", line)
        settings = f"Path: {folder}\ncredentials: file:{credentials}\n"
        profile = private(self.home / "profile", settings)
        sasl = ("-sasl", "-saslmech", errand.mechanism)
        self.run(
            *("-host", "localhost", "-port", str(errand.port), "-user", errand.user, "-silent"),
            *("-initialtls" if errand.implicit else "-tls", "-certverify"),
            *(sasl if errand.mechanism not in {"", "USER"} else ()),
            "-notruncate" if errand.keep else "-truncate",
            environment={"MH": str(profile), "SSL_CERT_FILE": str(errand.ca)},
        )
        return self.new_files(folder / "inbox")


class CsPop3(PopClient):
    """A downloader from PyPI, which sends many commands at a time."""

    name, language, program = "cs-pop3", "Python", "pop3"
    wheels = ("cs-pop3",)
    ways = (True,)
    remembers = False
    remark = "knows no STLS"

    def version(self) -> str:
        """See `PopClient.version`: it is in the name of a directory beside it."""
        root = Path(str(shutil.which(self.program))).parent.parent
        (found,) = root.glob("lib/*/site-packages/cs_pop3-*.dist-info")
        return found.name.removeprefix("cs_pop3-").removesuffix(".dist-info")

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`: without ``-n`` it deletes what it has."""
        where = f"{errand.user}@localhost:{errand.port}"
        private(self.home / ".netrc", f"machine {where} login - password {errand.password}\n")
        self.run(
            *("dl", *(("-n",) if errand.keep else ()), f"ssl:{where}", str(self.inbox)),
            environment={"SSL_CERT_FILE": str(errand.ca)},
        )
        return self.new_files(self.inbox / "new") + self.new_files(self.inbox / "cur")


PROGRAMS: Final = (Curl, Fetchmail, Mpop, Getmail, Pop3test, Fdm, Movemail, Inc, CsPop3)
