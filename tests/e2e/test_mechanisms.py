"""Real clients log in by every mechanism that they know, and masters as others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.trial.unittest import SkipTest

from popd.auth import scramkeys
from tests.e2e.server import LIMIT, Client, RunningServer, ServerCase, Site, until

if TYPE_CHECKING:
    from pathlib import Path

MECHANISMS: Final = (
    "EXTERNAL,SCRAM-SHA-256-PLUS,SCRAM-SHA-256,SCRAM-SHA-1,CRAM-MD5,PLAIN,LOGIN,USER,APOP"
)
POP3TEST: Final = "/usr/lib/cyrus/bin/pop3test"
PACKAGES: Final = {
    "curl": "curl",
    "mpop": "mpop",
    POP3TEST: "cyrus-clients libsasl2-modules",
}
MESSAGE: Final = b"Subject: hello\n\nthe only message\n"

USERS: Final = {
    "sam": scramkeys.written("SCRAM-SHA-256", b"secret-of-sam"),
    "sal": scramkeys.written("SCRAM-SHA-1", b"secret-of-sal"),
    "pat": "{PLAIN}secret-of-pat",
    "off": "{PLAIN}secret-of-off::::::nologin",
    "root": "{PLAIN}secret-of-root::::::master",
}


def certificate_of(site: Site, authority: trustme.CA, name: str) -> Path:
    """Return the path of a PEM file with a client's certificate and its key."""
    path = site.root / f"{name}-{secrets.token_hex(4)}.pem"
    leaf = authority.issue_cert(f"{name}@example.org")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


class MechanismCase(ServerCase):
    """A server with every mechanism, and a message for everybody."""

    def start(self, *options: str) -> RunningServer:
        """Add users, and authorities for clients, before the server starts."""
        site, authority = self.site, trustme.CA()
        authority.cert_pem.write_to_path(str(site.root / "clients.pem"))
        self.certificates = {
            name: certificate_of(site, authority, name) for name in ("pat", "off", "root", "nobody")
        }
        self.certificates["stranger"] = certificate_of(site, trustme.CA(), "pat")
        with site.passwords.open("a", encoding="ascii") as file:
            file.writelines(f"{name}@example.org:{field}\n" for name, field in USERS.items())
        for name in USERS:
            for directory in ("tmp", "new", "cur"):
                (site.maildir(name) / directory).mkdir(parents=True)
            site.deliver(name, MESSAGE)
        return super().start(
            *("--sasl", MECHANISMS),
            *("--auth", "popd-certificate:san-email"),
            *("--client-ca", str(site.root / "clients.pem")),
            *options,
        )

    def command(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a program; return its exit status and what it writes."""
        if shutil.which(arguments[0]) is None:
            raise SkipTest(f"needs {arguments[0]}: apt-get install {PACKAGES[arguments[0]]}")
        done = subprocess.run(
            arguments,
            cwd=self.site.root,
            input=stdin,
            capture_output=True,
            timeout=3 * LIMIT,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    def logged(self, *words: str) -> str:
        """Return the one line about a log-in that the server has logged since this was asked."""
        lines: list[str] = until(self._ended, "no session ends")
        self.assertEqual(len(lines), 1, lines)
        for word in words:
            self.assertIn(word, lines[0])
        return lines[0]

    seen = 0

    def _ended(self) -> list[str]:
        """Return the lines about log-ins that were logged until the session ended, if it has."""
        log = self.server.log
        lines = [line for line in log[self.seen :].splitlines() if "Session " in line]
        if not re.search(r" s, [a-z-]+( \(.*\))?$", "\n".join(lines), re.MULTILINE):
            return []
        self.seen = len(log)
        refusals = [line for line in lines if "log-in refused: " in line]
        return refusals or [line for line in lines if ", retrieved " in line]


class CurlTests(MechanismCase):
    """curl, which says which mechanism it wants."""

    def fetch(self, user: str, mechanism: str, *options: str, password: str | None = None) -> str:
        """Return the message of *user*, or what curl says is wrong."""
        password = f"secret-of-{user}" if password is None else password
        return self.command(
            *("curl", "--silent", "--show-error", "--cacert", str(self.site.ca), *options),
            *("--login-options", f"AUTH={mechanism}"),
            *("--user", f"{user}:{password}"),
            f"pop3s://localhost:{self.server.tls_port}/1",
        )[1]

    def test_passwords(self) -> None:
        """By name and password, and by digests of them."""
        for user, mechanism in (
            *(("sam", name) for name in ("PLAIN", "LOGIN")),
            *(("pat", name) for name in ("PLAIN", "LOGIN", "CRAM-MD5", "+APOP")),
        ):
            self.assertIn("the only message", self.fetch(user, mechanism), mechanism)
            self.logged(
                f"user {user}@example.org, from 127.0.0.1, TLS",
                f", mechanism {mechanism.strip('+')}, ",
            )
            self.assertIn("curl: (67)", self.fetch(user, mechanism, password="wrong"))
            self.logged(f"log-in refused: user {user}, ")

    def test_reasons(self) -> None:
        """Who is disabled is told what others are told, and the log knows more."""
        for mechanism in ("PLAIN", "CRAM-MD5"):
            self.assertIn("curl: (67)", self.fetch("off", mechanism))
            self.logged("log-in refused: user off, ", ": the account is disabled")

    def external(self, user: str, certificate: str) -> str:
        """Do so with a certificate; curl wants no password for that."""
        pem = str(self.certificates[certificate])
        return self.fetch(user, "EXTERNAL", "--cert", pem, password="")

    def test_certificates(self) -> None:
        """By a certificate: whom it names, and whom a master wants to be."""
        for name, user, outcome in (
            ("pat", "pat", "user pat@example.org, "),
            ("root", "root", "user root@example.org, "),
            ("root", "sam", "user sam@example.org, by master root@example.org, "),
        ):
            found = self.external(user, name)
            self.assertIn("the only message", found)
            self.logged(f"{outcome}from 127.0.0.1, TLS", ", mechanism EXTERNAL, ")
        for name, user, reason in (
            ("pat", "sam", "pat@example.org is no master"),
            ("off", "off", "the account is disabled"),
            ("nobody", "nobody", "does not exist"),
        ):
            self.assertIn("curl: (67)", self.external(user, name))
            self.logged("log-in refused: ", reason)

    def test_no_certificate(self) -> None:
        """Without a certificate there is no EXTERNAL, and with a stranger's no TLS."""
        self.assertIn("curl: (67)", self.fetch("pat", "EXTERNAL", password=""))
        self.assertIn("the only message", self.fetch("pat", "PLAIN"))
        found = self.fetch("pat", "PLAIN", "--cert", str(self.certificates["stranger"]))
        self.assertNotIn("the only message", found)


class MpopTests(MechanismCase):
    """mpop, by STLS and by TLS from the start."""

    def fetch(self, user: str, *options: str, implicit: bool, password: str = "") -> int:
        """Log in and return mpop's exit status."""
        inbox = self.site.root / "inbox"
        for name in ("tmp", "new", "cur"):
            (inbox / name).mkdir(parents=True, exist_ok=True)
        (self.site.root / ".mpoprc").touch(0o600)
        port = self.server.tls_port if implicit else self.server.port
        return self.command(
            *("mpop", "--host=localhost", f"--port={port}", f"--user={user}"),
            f"--passwordeval=echo {password or f'secret-of-{user}'}",
            *("--tls=on", f"--tls-starttls={'off' if implicit else 'on'}", "--auth-only"),
            *(f"--tls-trust-file={self.site.ca}", f"--delivery=maildir,{inbox}"),
            *(f"--uidls-file={self.site.root}/uidls", *options),
        )[0]

    def test_scram(self) -> None:
        """By proof of the password, which is not sent."""
        for user, mechanism in (("sam", "SCRAM-SHA-256"), ("sal", "SCRAM-SHA-1")):
            auth = f"--auth={mechanism.lower()}"
            for implicit in (False, True):
                self.assertEqual(self.fetch(user, auth, implicit=implicit), 0)
                self.logged(
                    f"user {user}@example.org, from 127.0.0.1, TLS", f", mechanism {mechanism}, "
                )
                self.assertNotEqual(self.fetch(user, auth, implicit=implicit, password="x"), 0)
                self.logged(f"log-in refused: user {user}, ")
        self.assertNotEqual(self.fetch("nobody", "--auth=scram-sha-256", implicit=True), 0)
        self.logged("log-in refused: user nobody, ")

    def test_certificate(self) -> None:
        """By a certificate that is shown after STLS."""
        pem = self.certificates["pat"]
        options = ("--auth=external", f"--tls-key-file={pem}", f"--tls-cert-file={pem}")
        self.assertEqual(self.fetch("pat", *options, implicit=False), 0)
        self.logged("user pat@example.org, from 127.0.0.1, TLS", ", mechanism EXTERNAL, ")


class Pop3testTests(MechanismCase):
    """The Cyrus project's pop3test."""

    def log_in(self, user: str, mechanism: str, *options: str, password: str = "") -> str:
        """Log in after STLS, and leave; return what was said."""
        return self.command(
            *(POP3TEST, "-p", str(self.server.port), "-t", "", "-m", mechanism, "-a", user),
            *("-w", password or f"secret-of-{user}", *options, "localhost"),
            stdin=b"STAT\r\nQUIT\r\n",
        )[1]

    def test_each(self) -> None:
        """By every mechanism that it knows."""
        for user, mechanism in (
            ("sam", "SCRAM-SHA-256"),
            ("sal", "SCRAM-SHA-1"),
            ("pat", "CRAM-MD5"),
            ("pat", "PLAIN"),
            ("pat", "LOGIN"),
            ("pat", "user"),
        ):
            said = self.log_in(user, mechanism)
            self.assertIn("Authenticated.", said, mechanism)
            self.assertIn("+OK 1 36", said)
            self.logged(f"user {user}@example.org, ", f", mechanism {mechanism.upper()}, ")
            self.assertIn("failed", self.log_in(user, mechanism, password="wrong"))
            self.logged(f"log-in refused: user {user}, ")

    def test_masters(self) -> None:
        """A master becomes another user, by an authorization identity or in his name."""
        for user, *options in (("root", "-u", "sam"), ("sam*root",)):
            said = self.log_in(user, "PLAIN", *options, password="secret-of-root")
            self.assertIn("Authenticated.", said)
            self.logged("user sam@example.org, by master root@example.org, from 127.0.0.1, TLS")
        said = self.log_in("pat", "PLAIN", "-u", "sam")
        self.assertIn("failed", said)
        self.logged("log-in refused: user pat, ", "pat@example.org is no master")


class BindingTests(MechanismCase):
    """A small client that binds its log-in to the TLS connection."""

    def connect(self, version: int, *, stls: bool) -> tuple[SSL.Connection, Client]:
        """Return a TLS connection, and what speaks POP3 through it."""
        client = self.client(self.server.port if stls else self.server.tls_port, greeted=stls)
        if stls:
            client.expect(b"STLS")
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(self.site.ca))
        context.set_verify(SSL.VERIFY_PEER, None)
        context.set_max_proto_version(version)
        client.socket.settimeout(None)
        connection = SSL.Connection(context, client.socket)
        connection.set_connect_state()
        connection.do_handshake()
        client.socket = connection  # type: ignore[assignment]
        if not stls:
            client.line()
        return connection, client

    def prove(
        self, client: Client, binding: str, data: bytes, mechanism: str = "SCRAM-SHA-256-PLUS"
    ) -> bytes:
        """Log in as sam, bound to *data*; return the server's last word."""
        header = f"p={binding},,".encode() if binding else b"y,,"
        bare = b"n=sam,r=" + secrets.token_hex(8).encode()
        reply = client.ask(f"AUTH {mechanism} ".encode() + base64.b64encode(header + bare))
        if not reply.startswith(b"+ "):
            return reply
        first = base64.b64decode(reply[2:])
        fields = dict(part.split(b"=", 1) for part in first.split(b","))
        unproven = b"c=" + base64.b64encode(header + data) + b",r=" + fields[b"r"]
        spoken = b",".join((bare, first, unproven))
        salt, iterations = base64.b64decode(fields[b"s"]), int(fields[b"i"])
        salted = hashlib.pbkdf2_hmac("sha256", b"secret-of-sam", salt, iterations)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), spoken, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        reply = client.ask(base64.b64encode(unproven + b",p=" + base64.b64encode(proof)))
        if not reply.startswith(b"+ "):
            return reply
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        expected = b"v=" + base64.b64encode(hmac.digest(server_key, spoken, "sha256"))
        self.assertEqual(base64.b64decode(reply[2:]), expected)
        return client.ask(b"")

    def test_bound(self) -> None:
        """Both kinds of binding, however TLS came about; TLS 1.2 has the server's certificate."""
        for version, stls in (
            (SSL.TLS1_3_VERSION, False),
            (SSL.TLS1_3_VERSION, True),
            (SSL.TLS1_2_VERSION, False),
            (SSL.TLS1_2_VERSION, True),
        ):
            for name in ("tls-exporter", "tls-server-end-point"):
                connection, client = self.connect(version, stls=stls)
                reply = self.prove(client, name, binding_data(connection, name))
                good = version == SSL.TLS1_3_VERSION or name == "tls-server-end-point"
                self.assertEqual(reply.startswith(b"+OK"), good, (version, stls, name, reply))
                client.close()
                if good:
                    self.logged("user sam@example.org, ", ", mechanism SCRAM-SHA-256-PLUS, ")

    def test_other_connection(self) -> None:
        """A proof for another connection, as somebody in the middle would relay, is no good."""
        other, _ = self.connect(SSL.TLS1_3_VERSION, stls=False)
        _, client = self.connect(SSL.TLS1_3_VERSION, stls=False)
        reply = self.prove(client, "tls-exporter", binding_data(other, "tls-exporter"))
        self.assertTrue(reply.startswith(b"-ERR"), reply)

    def test_downgrade(self) -> None:
        """Nobody can take the mechanisms that bind out of the list unnoticed."""
        _, client = self.connect(SSL.TLS1_3_VERSION, stls=False)
        reply = self.prove(client, "", b"", "SCRAM-SHA-256")
        self.assertTrue(reply.startswith(b"-ERR"), reply)


def binding_data(connection: SSL.Connection, name: str) -> bytes:
    """Return what binds to a connection, as its client sees it."""
    if name == "tls-exporter":
        return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    certificate = connection.get_peer_certificate()
    assert certificate is not None
    der = certificate.to_cryptography().public_bytes(Encoding.DER)
    return hashlib.sha256(der).digest()
