"""Real clients fetch and delete real mail, over STLS and over TLS."""

from __future__ import annotations

import base64
import contextlib
import os
import poplib
import pwd
import select
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT, PASSWORDS, Client, ServerCase, stored

if TYPE_CHECKING:
    from pathlib import Path

    Base = ServerCase
else:
    Base = object

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
COMMAND_LIMIT: Final = 3 * LIMIT


class ClientContract(Base):
    """What every client has to manage.  A case for each says how it is run."""

    user: str
    """Who fetches mail: each client is another user, whose password has another scheme."""

    program = ""
    """The program to run, if it is one."""

    package = ""
    """The Debian package with the program."""

    def setUp(self) -> None:
        """Deliver mail, and make a home for the client."""
        if self.program and shutil.which(self.program) is None:
            raise SkipTest(f"needs {self.program}: apt-get install {self.package}")
        super().setUp()
        for message in MAIL:
            self.site.deliver(self.user, message)
        self.home = self.site.root / "home"
        self.inbox = self.home / "inbox"
        for directory in (self.inbox, *(self.inbox / name for name in ("tmp", "new", "cur"))):
            directory.mkdir(parents=True)

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """Let the client fetch mail; return the messages that are new to it.

        :param implicit: whether to use implicit TLS, and not STLS.
        :param keep: whether to leave the mail on the server.
        """
        raise NotImplementedError

    def kept(self, message: bytes) -> Any:
        """Return what the client should have of a message that was stored like this."""
        return stored(message)

    def seen(self, message: bytes) -> Any:
        """Return that of a message which the client fetched."""
        return message

    def command(self, *arguments: str, good: tuple[int, ...] = (0,), **options: Any) -> bytes:
        """Run the program with a time limit and return what it writes."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C"}
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_LIMIT,
            check=False,
            **options,
        )
        self.assertIn(done.returncode, good, (done.stdout + done.stderr).decode(errors="replace"))
        output: bytes = done.stdout
        return output

    def port(self, *, implicit: bool) -> int:
        """Return the port to use."""
        return self.server.tls_port if implicit else self.server.port

    def new_files(self, directory: Path) -> list[bytes]:
        """Return, and remove, the messages that a client has stored."""
        found = []
        for path in sorted(directory.iterdir()):
            if path.is_file():
                found.append(path.read_bytes())
                path.unlink()
        return found

    def assert_fetched(self, messages: list[bytes], *expected: bytes) -> None:
        """Check that the client has these messages, and each of them once."""
        self.assertEqual(
            sorted(map(self.seen, messages)), sorted(self.kept(message) for message in expected)
        )

    def _move_about(self) -> None:
        """Do to the Maildir what an IMAP server does: new mail is seen, seen mail gets flags."""
        current = self.site.maildir(self.user) / "cur"
        for path in self.site.messages(self.user):
            base, flagged, _ = path.name.partition(":2,")
            path.rename(current / f"{base}:2,{'FRS' if flagged else 'S'}")

    def _fetch_and_delete(self, *, implicit: bool) -> None:
        self.assert_fetched(self.fetch(implicit=implicit, keep=False), *MAIL)
        self.assertEqual(self.site.messages(self.user), [])

    def _keep(self, *, implicit: bool) -> None:
        self.assert_fetched(self.fetch(implicit=implicit, keep=True), *MAIL)
        self.assertEqual(len(self.site.messages(self.user)), len(MAIL))
        for _ in ("new to cur", "other flags"):
            self._move_about()
            self.assert_fetched(self.fetch(implicit=implicit, keep=True))
        self.site.deliver(self.user, LATE)
        self.assert_fetched(self.fetch(implicit=implicit, keep=True), LATE)
        self.assertEqual(len(self.site.messages(self.user)), len(MAIL) + 1)

    def test_stls(self) -> None:
        """Over STLS the client gets every message whole, and the Maildir is empty."""
        self._fetch_and_delete(implicit=False)

    def test_tls(self) -> None:
        """Over implicit TLS the client gets every message whole, and the Maildir is empty."""
        self._fetch_and_delete(implicit=True)

    def test_keep_stls(self) -> None:
        """Over STLS mail that is kept is not fetched twice, whatever its file is renamed to."""
        self._keep(implicit=False)

    def test_keep_tls(self) -> None:
        """Over implicit TLS mail that is kept is not fetched twice, whatever happens to it."""
        self._keep(implicit=True)


class PoplibTests(ClientContract, ServerCase):
    """Python's own client."""

    user = "alice"

    def setUp(self) -> None:
        """Know no message yet."""
        super().setUp()
        self.known: set[bytes] = set()

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """See `ClientContract.fetch`."""
        context, port = self.site.client_context(), self.port(implicit=implicit)
        client: poplib.POP3
        if implicit:
            client = poplib.POP3_SSL("localhost", port, timeout=LIMIT, context=context)
        else:
            client = poplib.POP3("localhost", port, timeout=LIMIT)
            client.stls(context)
        self.addCleanup(client.close)
        client.user(self.user)
        client.pass_(PASSWORDS[self.user])
        messages = []
        for item in client.uidl()[1]:
            number, uid = item.split(b" ")
            if uid not in self.known:
                self.known.add(uid)
                _, lines, octets = client.retr(int(number))
                message = b"".join(line + b"\r\n" for line in lines)
                self.assertEqual(len(message), octets)
                self.assertEqual(client.list(int(number)), b"+OK %s %d" % (number, len(message)))
                messages.append(message)
            if not keep:
                client.dele(int(number))
        self.assertEqual(client.quit(), b"+OK bye")
        return messages

    def kept(self, message: bytes) -> Any:
        """See `ClientContract.kept`: it is what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


class CurlTests(ClientContract, ServerCase):
    """curl, a session for each command; the test remembers the unique-ids for it."""

    user = "bob"
    program = package = "curl"

    def setUp(self) -> None:
        """Know no message yet."""
        super().setUp()
        self.known: set[bytes] = set()

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """See `ClientContract.fetch`."""
        url = f"{'pop3s' if implicit else 'pop3'}://localhost:{self.port(implicit=implicit)}/"
        common = ["-q", "--silent", "--show-error", "--max-time", f"{LIMIT:.0f}", "--ssl-reqd"]
        common += ["--cacert", str(self.site.ca), "--user", f"{self.user}:{PASSWORDS[self.user]}"]
        listing = self.command(*common, "-X", "UIDL", url)
        messages = []
        for line in listing.splitlines():
            number, uid = line.split()
            if uid not in self.known:
                self.known.add(uid)
                messages.append(self.command(*common, url + number.decode()))
        if not keep:
            for _ in listing.splitlines():
                self.command(*common, "--head", "-X", "DELE", url + "1")
        return messages

    def kept(self, message: bytes) -> Any:
        """See `ClientContract.kept`: it is what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


class FetchmailTests(ClientContract, ServerCase):
    """fetchmail, which delivers with a program of its own."""

    user = "carol"
    program = package = "fetchmail"

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """See `ClientContract.fetch`."""
        mode = "ssl" if implicit else 'sslproto "tls1.2+"'  # STLS or nothing
        configuration = self.home / "fetchmailrc"
        configuration.touch(0o600)
        configuration.write_text(
            f'set idfile "{self.home}/ids"\n'
            f"poll localhost service {self.port(implicit=implicit)} protocol pop3 uidl\n"
            f'  user "{self.user}@example.org" password "{PASSWORDS[self.user]}"\n'
            f'  {mode} sslcertck sslcertfile "{self.site.ca}"\n'
            f"  no rewrite {'keep' if keep else 'no keep'}\n"
            f'  mda "cat >$(mktemp {self.inbox}/XXXXXX)"\n',
            encoding="ascii",
        )
        nothing_new = 1
        self.command(
            *("-f", str(configuration), "--pidfile", f"{self.home}/pid", "--nosyslog", "-v"),
            good=(0, nothing_new),
        )
        return self.new_files(self.inbox)

    def seen(self, message: bytes) -> Any:
        """See `ClientContract.seen`: fetchmail adds to the header."""
        header, _, body = message.partition(b"\n\n")
        lines = [line for line in header.splitlines() if line.startswith((b"Subject:", b"Mess"))]
        return lines, body

    def kept(self, message: bytes) -> Any:
        """See `ClientContract.kept`."""
        return self.seen(stored(message))


class MpopTests(ClientContract, ServerCase):
    """mpop, which sends several commands at a time."""

    user = "dave"
    program = package = "mpop"

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """See `ClientContract.fetch`."""
        (self.home / "mpoprc").touch(0o600)
        self.command(
            *("--host=localhost", f"--port={self.port(implicit=implicit)}"),
            *(f"--user={self.user}", f"--passwordeval=echo {PASSWORDS[self.user]}"),
            *("--tls=on", f"--tls-starttls={'off' if implicit else 'on'}"),
            *(f"--tls-trust-file={self.site.ca}", f"--uidls-file={self.home}/uidls"),
            *(f"--keep={'on' if keep else 'off'}", "--only-new=on", "--received-header=off"),
            *(f"--delivery=maildir,{self.inbox}", "--pipelining=on"),
        )
        return self.new_files(self.inbox / "new")


class GetmailTests(ClientContract, ServerCase):
    """getmail, which knows no STLS: there a relay on this machine speaks it on its behalf."""

    user = "erin"
    program, package = "getmail", "getmail6"

    def setUp(self) -> None:
        """Start the relay."""
        super().setUp()
        self.relay = Relay(self.server.port, self.site.client_context())
        self.addCleanup(self.relay.stop)

    def fetch(self, *, implicit: bool, keep: bool) -> list[bytes]:
        """See `ClientContract.fetch`."""
        if implicit:
            retriever = f"SimplePOP3SSLRetriever\nport = {self.server.tls_port}"
            retriever += f"\nca_certs = {self.site.ca}"
        else:
            retriever = f"SimplePOP3Retriever\nport = {self.relay.port}"
        (self.home / "getmailrc").write_text(
            f"[retriever]\ntype = {retriever}\nserver = localhost\n"
            f"username = {self.user}\npassword = {PASSWORDS[self.user]}\n"
            f"[destination]\ntype = Maildir\npath = {self.inbox}/\n"
            "[options]\nread_all = false\ndelivered_to = false\nreceived = false\n"
            f"delete = {str(not keep).lower()}\n",
            encoding="ascii",
        )
        self.command(
            *("--getmaildir", str(self.home), "--rcfile", str(self.home / "getmailrc")),
            **self._nobody(),
        )
        return self.new_files(self.inbox / "new")

    def _nobody(self) -> dict[str, Any]:
        """Return how to run it if this is root, for whom getmail stores no mail."""
        if os.geteuid():
            return {}
        nobody = pwd.getpwnam("nobody")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def seen(self, message: bytes) -> Any:
        """See `ClientContract.seen`: getmail adds a Return-Path."""
        first, _, rest = message.partition(b"\n")
        return rest if first.startswith(b"Return-Path:") else message


class Relay:
    """Takes cleartext connections, one after the other, and passes them on with STLS.

    :param port: where the server is.
    :param context: how to speak TLS.
    """

    def __init__(self, port: int, context: Any) -> None:
        self._server, self._context = port, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:  # stopped
                return
            with contextlib.suppress(OSError), inner, Client(self._server) as outer:
                inner.settimeout(LIMIT)
                outer.stls(self._context)
                inner.sendall(outer.greeting + b"\r\n")
                _carry(inner, outer.socket)

    def stop(self) -> None:
        """Close everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(COMMAND_LIMIT)


def _carry(inner: socket.socket, outer: socket.socket) -> None:
    """Carry octets to and fro until one end closes, or nothing comes for too long."""
    while ready := select.select([inner, outer], [], [], LIMIT)[0]:
        for source in ready:
            target = outer if source is inner else inner
            source.settimeout(0)  # what has come over TLS may be less than an octet
            with contextlib.suppress(ssl.SSLWantReadError):
                while data := source.recv(65536):
                    target.settimeout(LIMIT)
                    target.sendall(data)
                    if source is inner:
                        break
                else:
                    return


class ThunderbirdTests(ServerCase):
    """The commands that Thunderbird sends, as it sends them."""

    def setUp(self) -> None:
        """Deliver mail."""
        super().setUp()
        for message in MAIL:
            self.site.deliver("alice", message)

    def _plain(self, password: str) -> bytes:
        return base64.b64encode(b"\0alice\0" + password.encode())

    def _download(self, client: Client) -> None:
        """Fetch and delete everything, say QUIT, and close without waiting for the reply."""
        count = len(MAIL)
        octets = sum(len(stored(message).replace(b"\n", b"\r\n")) for message in MAIL)
        self.assertEqual(client.ask(b"STAT"), b"+OK %d %d" % (count, octets))
        client.expect(b"LIST")
        self.assertEqual(len(client.body().splitlines()), count)
        client.expect(b"UIDL")
        self.assertEqual(len(set(client.body().splitlines())), count)
        for number, message in enumerate(MAIL, 1):
            client.expect(b"LIST %d" % number)
            self.assertEqual(stored(client.fetch(number)), stored(message))
        for number in range(1, count + 1):
            client.expect(b"DELE %d" % number)
        client.send(b"QUIT\r\n")
        client.close()

    def _assert_deleted(self) -> None:
        self.log_in_when_free()
        self.assertEqual(self.site.messages("alice"), [])

    def test_download(self) -> None:
        """It gets and deletes all mail, though it never reads the reply to QUIT."""
        client = self.client()
        client.expect(b"AUTH")
        client.body()
        client.expect(b"CAPA")
        self.assertIn(b"STLS\r\n", client.body())
        client.stls(self.site.client_context())
        client.expect(b"CAPA")
        self.assertIn(b"SASL PLAIN LOGIN\r\n", client.body())
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(self._plain(PASSWORDS["alice"]))
        self._download(client)
        self._assert_deleted()

    def test_wrong_password(self) -> None:
        """It tries a wrong password in three ways, and then the right one, on one connection."""
        client = self.tls_client()
        client.expect(b"CAPA")
        client.body()
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(self._plain("wrong"), b"-ERR [AUTH]")
        self.assertEqual(client.ask(b"AUTH LOGIN"), b"+ VXNlcm5hbWU6")
        self.assertEqual(client.ask(base64.b64encode(b"alice")), b"+ UGFzc3dvcmQ6")
        client.expect(base64.b64encode(b"wrong"), b"-ERR [AUTH]")
        client.expect(b"USER alice")
        client.expect(b"PASS wrong", b"-ERR [AUTH]")
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(self._plain(PASSWORDS["alice"]))
        self._download(client)
        self._assert_deleted()
