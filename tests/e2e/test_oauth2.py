"""Log-ins with the tokens of a real OpenID provider."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

from tests.e2e.provider import OidcProvider
from tests.e2e.server import LIMIT, PASSWORDS, Client, ServerCase, until

if TYPE_CHECKING:
    from tests.e2e.server import RunningServer

MESSAGE = b"Subject: hello\n\nHello\n"

SETTINGS = """
username = "email"
issuer = "{issuer}"
audience = "popd"
scope = "mail"
leeway = 0
ca-file = "{ca}"
{how}
[fields]
disabled = "mail_disabled"
master = "mail_master"
"""

JWT = """
[jwt]
refetch = 0.5
"""

INTROSPECTION = """
[introspection]
url = "{url}"
client-id = "popd"
client-secret-file = "{secret}"
cache = 0
"""

DOWN = b"-ERR [SYS/TEMP]"
WRONG = b"-ERR [AUTH]"


class ProviderCase(ServerCase):
    """A provider, and a server that takes its tokens as well as passwords."""

    how = JWT
    """How tokens are verified."""

    def start(self, *options: str) -> RunningServer:
        """Start the provider first."""
        self.provider = OidcProvider(self.site)
        self.addCleanup(self.provider.stop)
        self.provider.start()
        return super().start("--auth", f"popd-oauth2:{self.settings()}", *options)

    def settings(self) -> str:
        """Write how tokens are verified; return the file's name."""
        provider = self.provider
        url = f"{provider.issuer}/token/introspection"
        how = self.how.format(url=url, secret=provider.secret)
        text = SETTINGS.format(issuer=provider.issuer, ca=self.site.ca, how=how)
        file = self.site.root / "oauth2.toml"
        file.write_text(text, encoding="ascii")
        return str(file)

    def attempt(self, token: str, user: str = "", mechanism: str = "OAUTHBEARER") -> bytes:
        """Log in with a token; return the reply that decides, and log out."""
        client = self.tls_client()
        reply = self.log_in(client, token, user, mechanism)
        client.ask(b"QUIT")
        client.close()
        return reply

    def log_in(self, client: Client, token: str, user: str, mechanism: str) -> bytes:
        """Send a token in the two-line form; answer what says why it is refused."""
        if mechanism == "XOAUTH2":
            text = f"user={user}\1auth=Bearer {token}\1\1"
        else:
            text = f"n,{user and 'a=' + user},\1host=localhost\1auth=Bearer {token}\1\1"
        client.expect(b"AUTH " + mechanism.encode(), b"+ ")
        reply = client.ask(base64.b64encode(text.encode()))
        if reply.startswith(b"+ "):
            self.assertIn("status", json.loads(base64.b64decode(reply[2:])))
            reply = client.ask(b"AQ==")
        return reply

    def assertIn_(self, token: str, user: str = "", mechanism: str = "OAUTHBEARER") -> None:
        """Assert that a token lets in."""
        reply = self.attempt(token, user, mechanism)
        self.assertTrue(reply.startswith(b"+OK"), reply)

    def assertOut(self, token: str, user: str = "", status: bytes = WRONG) -> None:
        """Assert that a token does not."""
        reply = self.attempt(token, user)
        self.assertTrue(reply.startswith(status), reply)


if TYPE_CHECKING:
    Base = ProviderCase
else:
    Base = object


class TokenContract(Base):
    """What is true of all tokens, however they are verified."""

    alg: str
    """How they are signed."""

    def token(self, user: str = "alice", **form: object) -> str:
        """Return a token."""
        return self.provider.token(user, alg=self.alg, **form)

    def test_mail(self) -> None:
        """Who has a token gets the mail of its user."""
        self.site.deliver("alice", MESSAGE)
        for user, mechanism in (
            ("", "OAUTHBEARER"),
            ("alice@example.org", "OAUTHBEARER"),
            ("Alice@Example.ORG", "XOAUTH2"),
            ("alice", "XOAUTH2"),
        ):
            with self.tls_client() as client:
                reply = self.log_in(client, self.token(), user, mechanism)
                self.assertTrue(reply.startswith(b"+OK"), reply)
                self.assertEqual(client.fetch(1), MESSAGE.replace(b"\n", b"\r\n"))
                client.expect(b"QUIT")

    def test_refused(self) -> None:
        """Every token that does not open this mail is refused, in the same words."""
        token, expired = self.token(), self.token(seconds=1)
        time.sleep(1.1)
        cases = {
            "rubbish": ("rubbish", ""),
            "cut off": (token[:-7], ""),
            "expired": (expired, ""),
            "another user's": (self.token("bob"), "alice@example.org"),
            "for another audience": (self.token(audience="other"), ""),
            "for another purpose": (self.token(scope="calendar"), ""),
            "of someone who may not": (self.token(claims={"mail_disabled": True}), ""),
            "of nobody who can be": (self.token(claims={"email": "../alice"}), ""),
        }
        replies = {name: self.attempt(*case) for name, case in cases.items()}
        self.assertEqual(set(replies.values()), {replies["rubbish"]}, replies)
        self.assertTrue(replies["rubbish"].startswith(WRONG), replies)
        self.assertIn_(token, "alice@example.org")
        self.assertNotIn(token[-20:], self.server.log)

    def test_workers(self) -> None:
        """Every one of several workers makes requests of its own."""
        self.server.stop()
        self.provider.stop()
        shutil.rmtree(self.site.root / "provider")
        self.server = self.start("--workers", "2")
        token = self.token()
        for _ in range(8):
            self.assertIn_(token)


class JwtTests(TokenContract, ProviderCase):
    """Signed tokens are verified by the provider's keys."""

    alg = "RS256"

    def test_algorithms(self) -> None:
        """Each of the provider's keys is good."""
        for alg in ("RS256", "PS256", "ES256", "EdDSA"):
            self.assertIn_(self.provider.token(alg=alg))

    def test_rotation(self) -> None:
        """New keys count as soon as a token has one, and old ones no longer."""
        old = self.token()
        self.assertIn_(old)
        self.provider.stop()
        self.provider.start("second")
        time.sleep(0.5)  # refetch
        self.assertIn_(self.token())
        self.assertOut(old)

    def test_outage(self) -> None:
        """Known keys count while the provider is down; of others nobody can tell."""
        token, other = self.token(), self.token(alg="ES256")
        self.provider.stop()
        self.assertOut(token, status=DOWN)
        self.provider.start("second")
        token = self.token()
        until(lambda: self.attempt(token).startswith(b"+OK"), "the provider is back in vain")
        self.provider.stop()
        for _ in range(3):
            self.assertOut(other, status=DOWN)
            self.assertIn_(token)


class IntrospectionTests(TokenContract, ProviderCase):
    """The provider is asked about tokens that only it can read."""

    alg = ""
    how = INTROSPECTION

    def test_outage(self) -> None:
        """While the provider is down nobody can tell; once it is back all is well."""
        token = self.token()
        self.assertIn_(token)
        self.provider.stop()
        for _ in range(5):
            self.assertOut(token, status=DOWN)
        self.provider.start()
        self.assertOut("rubbish", status=DOWN)  # not asked yet
        token = self.token()
        until(lambda: self.attempt(token).startswith(b"+OK"), "the provider is back in vain")

    def test_master(self) -> None:
        """A token of a master opens the mail of any user whom the client names."""
        self.site.deliver("bob", MESSAGE)
        token = self.token("alice", claims={"mail_master": True})
        with self.tls_client() as client:
            reply = self.log_in(client, token, "bob@example.org", "OAUTHBEARER")
            self.assertTrue(reply.startswith(b"+OK"), reply)
            self.assertEqual(client.fetch(1), MESSAGE.replace(b"\n", b"\r\n"))

    def test_wrong_secret(self) -> None:
        """A provider that does not know popd is no reason to call tokens wrong."""
        self.provider.secret.write_text("wrong", encoding="ascii")
        self.server.stop()
        self.server = ServerCase.start(self, "--auth", f"popd-oauth2:{self.settings()}")
        self.assertOut(self.token(), status=DOWN)
        self.assertIn("client-id and client-secret right?", self.server.log)


class SilentProviderTests(ProviderCase):
    """A provider that takes connections and says nothing."""

    how = INTROSPECTION

    def settings(self) -> str:
        """Ask someone else about tokens."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        self.how = self.how.replace("{url}", f"https://localhost:{port}/")
        return super().settings()

    def test_others(self) -> None:
        """Forty who wait for it hold up nobody who has a password; and they do not wait long."""
        waiting = [self.tls_client() for _ in range(40)]
        start = time.monotonic()
        for number, client in enumerate(waiting):
            text = base64.b64encode(f"n,,\1auth=Bearer token-{number}\1\1".encode())
            client.send(b"AUTH OAUTHBEARER " + text + b"\r\n")
        for user in PASSWORDS:
            self.logged_in(user).close()
        self.assertLess(time.monotonic() - start, 4)
        for client in waiting:
            reply = client.line()
            self.assertTrue(reply.startswith(DOWN), reply)
        self.assertLess(time.monotonic() - start, 10)


class ClientTests(ProviderCase):
    """Real clients, with tokens of either kind."""

    how = JWT + INTROSPECTION

    def command(self, *arguments: str, good: int = 0) -> str:
        """Run a client; return what it writes."""
        if shutil.which(arguments[0]) is None:
            raise SkipTest(f"needs {arguments[0]}: apt-get install {arguments[0]}")
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            cwd=self.site.root,
        )
        self.assertEqual(done.returncode, good, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def mpop(self, method: str, token: str, good: int = 0) -> str:
        """Run mpop; return what it writes."""
        inbox = self.site.root / "inbox"
        for name in ("tmp", "new", "cur"):
            (inbox / name).mkdir(parents=True, exist_ok=True)
        return self.command(
            *("mpop", "--host=localhost", f"--port={self.server.tls_port}", "--tls=on"),
            *("--tls-starttls=off", f"--tls-trust-file={self.site.ca}", "--received-header=off"),
            *("--user=alice", f"--auth={method}", f"--passwordeval=echo {token}", "--keep=on"),
            *(f"--uidls-file={self.site.root}/uidls-{time.monotonic_ns()}", "--pipelining=on"),
            f"--delivery=maildir,{inbox}",
            good=good,
        )

    def test_mpop(self) -> None:
        """Mpop fetches mail with a token of either kind, by either mechanism."""
        self.site.deliver("alice", MESSAGE)
        for method in ("oauthbearer", "xoauth2"):
            for alg in ("RS256", ""):
                self.mpop(method, self.provider.token(alg=alg))
        messages = list((self.site.root / "inbox" / "new").iterdir())
        self.assertEqual([path.read_bytes() for path in messages], [MESSAGE] * 4)
        for method in ("oauthbearer", "xoauth2"):
            output = self.mpop(method, self.provider.token(audience="other"), good=77)
            self.assertIn("authentication failed", output)

    def test_curl(self) -> None:
        """Curl fetches mail with a token of either kind."""
        self.site.deliver("alice", MESSAGE)
        url = f"pop3s://localhost:{self.server.tls_port}/1"
        common = ("curl", "-q", "-sS", "--cacert", str(self.site.ca), "--user", "alice", url)
        for alg in ("ES256", ""):
            output = self.command(*common, "--oauth2-bearer", self.provider.token(alg=alg))
            self.assertEqual(output, MESSAGE.decode())
        self.command(*common, "--oauth2-bearer", self.provider.token("bob"), good=67)
