"""Tests of the checker of bearer tokens, its factory, and the file that says what it does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import trustme
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from popd.auth.account import Account, Client
from popd.auth.interfaces import IBearerToken
from popd.auth.oauth2.checker import MAX_TOKEN, OAuth2Checker, OAuth2CheckerFactory
from popd.auth.oauth2.settings import ALGORITHMS, read_settings
from tests.auth.oauth2.fakes import KEYS


@implementer(IBearerToken)
@dataclass
class Token:
    """What a client shows."""

    username: bytes
    token: bytes
    client: object = Client()
    bare: bytes = b""


class FakeVerifier:
    """Finds every token good, and notes it."""

    def __init__(self, account: Account) -> None:
        self.answer = account
        self.asked: list[bytes] = []

    async def account(self, token: bytes) -> Account:
        """Return always the same account."""
        self.asked.append(token)
        return self.answer


ALICE = Account("alice@example.org")
JWT = b"eyJh.eyJp.AAAA"


class CheckingTests(SynchronousTestCase):
    """Whom a token lets in."""

    def setUp(self) -> None:
        """Make a checker for both kinds of tokens."""
        self.signatures, self.introspection = FakeVerifier(ALICE), FakeVerifier(ALICE)
        self.checker = OAuth2Checker(self.signatures, self.introspection)

    def assertGood(self, username: bytes, token: bytes = JWT, bare: bytes = b"") -> None:
        """Assert that a token lets its user in."""
        answer = self.checker.requestAvatarId(Token(username, token, bare=bare))
        self.assertIs(self.successResultOf(answer), self.signatures.answer)

    def assertBad(self, username: bytes, token: bytes, reason: str, bare: bytes = b"") -> None:
        """Assert that a token lets nobody in."""
        answer = self.checker.requestAvatarId(Token(username, token, bare=bare))
        error = self.failureResultOf(answer, UnauthorizedLogin).value
        self.assertEqual(str(error), reason)

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it, of bearer tokens."""
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(self.checker.credentialInterfaces, (IBearerToken,))

    def test_kinds(self) -> None:
        """Signed tokens are verified here, the provider is asked about others."""
        others = [b"opaque", b"eyJh.b", b"eyJh.b.c.d.e", b"a.b.c", b"a1-._~+/==", b"t=E!*$"]
        for token in (JWT, *others):
            self.successResultOf(self.checker.requestAvatarId(Token(b"", token)))
        self.assertEqual(self.signatures.asked, [JWT])
        self.assertEqual(self.introspection.asked, others)

    def test_one_kind(self) -> None:
        """Where there is one way only, it is gone with all tokens that it is for."""
        self.checker = OAuth2Checker(None, self.introspection)
        self.successResultOf(self.checker.requestAvatarId(Token(b"", JWT)))
        self.assertEqual(self.introspection.asked, [JWT])
        self.checker = OAuth2Checker(self.signatures, None)
        self.assertBad(b"", b"opaque", "the token is no JWT")

    def test_no_token(self) -> None:
        """What no provider would give out is not looked at any further."""
        self.assertGood(b"", JWT + b"A" * (MAX_TOKEN - len(JWT)))
        longer = b"A" * (MAX_TOKEN + 1)
        for token in (b"", b"a b", b"a\n", b"\xff", b"a\0", b"a\x7f", longer):
            self.assertBad(b"", token, "this is no bearer token")
        self.assertEqual(self.introspection.asked, [])

    def test_named_user(self) -> None:
        """If the client names a user, it must be the token's, in whichever spelling."""
        for name in (b"", b"alice@example.org", b"ALICE@Example.ORG"):
            self.assertGood(name)
        for name in (b"bob@example.org", b"alice", b"alice@example.com", b"\xff", b"../alice"):
            self.assertBad(name, JWT, "the token is another user's")

    def test_bare_name(self) -> None:
        """A token may name its user without the default domain."""
        self.signatures.answer = Account("alice")
        self.assertGood(b"alice@example.org", bare=b"alice")
        self.assertBad(b"alice@example.com", JWT, "the token is another user's")

    def test_master(self) -> None:
        """One who may act as others is told apart from them by others."""
        self.signatures.answer = Account("admin@example.org", master=True)
        self.assertGood(b"alice@example.org")

    def test_disabled(self) -> None:
        """Whether the account is good for anything is not asked here."""
        self.signatures.answer = Account("alice@example.org", disabled=True)
        self.assertGood(b"alice@example.org")


def run(code: str, argument: str) -> str:
    """Return what Python writes when it runs *code*."""
    return subprocess.check_output(
        [sys.executable, "-c", code, argument], text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


JWT_FILE = """
username = "email"
issuer = "https://login.example.org"
audience = "popd"
[jwt]
"""
INTROSPECTION_FILE = """
username = "email"
scope = "mail"
[introspection]
url = "https://login.example.org/introspect"
client-id = "popd"
client-secret-file = "SECRET"
"""


class FactoryTests(SynchronousTestCase):
    """The factory makes checkers from the argument of --auth."""

    factory = OAuth2CheckerFactory()

    def setUp(self) -> None:
        """Choose where the files are."""
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.path = self.root / "oauth2.toml"
        self.secret = self.root / "secret"
        self.secret.write_text("s3cret \n")

    def write(self, content: str) -> str:
        """Write the file; return its name."""
        self.path.write_text(content.replace("SECRET", str(self.secret)))
        return str(self.path)

    def assertRefused(self, argument: str, reason: str) -> None:
        """Assert that *argument* is refused for *reason*."""
        error = self.assertRaises(InvalidAuthArgumentString, self.factory.generateChecker, argument)
        self.assertEqual(str(error), f"popd-oauth2{reason}")

    def assertWrong(self, content: str, reason: str) -> None:
        """Assert that a file with *content* is refused for *reason*."""
        self.assertRefused(self.write(content), f": {self.path}: {reason}")

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)
        self.assertEqual(self.factory.authType, "popd-oauth2")

    def test_help(self) -> None:
        """The file in the help is right, but for the names of what is not there."""
        text = self.factory.authHelp.replace("/etc/popd/oauth2-secret", "SECRET")
        lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
        settings = read_settings(self.write("\n".join(lines)))
        assert settings.jwt is not None
        assert settings.introspection is not None
        self.assertEqual(settings.claims.username, "preferred_username")
        self.assertEqual(settings.claims.fields, {"disabled": "mail_disabled"})
        self.assertEqual(settings.jwt.types, {"at+jwt"})
        self.assertEqual(settings.introspection.client_secret, "s3cret ")
        self.assertEqual(settings.ca_file, "/etc/popd/ca.pem")
        self.assertNotIn("s3cret", repr(settings))

    def test_defaults(self) -> None:
        """What is left out is safe."""
        settings = read_settings(self.write(JWT_FILE))
        assert settings.jwt is not None
        self.assertIsNone(settings.introspection)
        self.assertEqual(settings.jwt.types, {"at+jwt"})
        self.assertEqual(settings.jwt.algorithms, set(ALGORITHMS))
        self.assertFalse(any(name == "none" or name.startswith("HS") for name in ALGORITHMS))

    def test_checkers(self) -> None:
        """There is a checker for signed tokens, for others, and for both."""
        keys = self.root / "keys.json"
        keys.write_text(json.dumps(KEYS))
        ca = self.root / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(ca))
        jwt = self.factory.generateChecker(self.write(f"ca-file = '{ca}'\n{JWT_FILE}"))
        asked = self.factory.generateChecker(self.write(INTROSPECTION_FILE))
        self.assertIsNone(jwt._introspection)
        self.assertIsNone(asked._signatures)
        both = JWT_FILE + f"jwks = '{keys}'\n" + INTROSPECTION_FILE.partition('"mail"\n')[2]
        checker = self.factory.generateChecker(self.write(both))
        self.assertIsNotNone(checker._signatures)
        self.assertIsNotNone(checker._introspection)

    def test_before_fork(self) -> None:
        """A checker that was made has no reactor yet and no threads, so that workers may fork."""
        code = (
            "import sys, threading\n"
            "from popd.auth.oauth2.checker import OAuth2CheckerFactory\n"
            "OAuth2CheckerFactory().generateChecker(sys.argv[1])\n"
            "print('twisted.internet.reactor' in sys.modules, threading.active_count())\n"
        )
        output = run(code, self.write(JWT_FILE))
        self.assertEqual(output, "False 1\n")

    def test_without_library(self) -> None:
        """If PyJWT is not installed, it is said how to install it."""
        code = (
            "import sys\n"
            "sys.modules['jwt'] = None\n"
            "from popd.auth.oauth2.checker import OAuth2CheckerFactory\n"
            "try:\n"
            "    OAuth2CheckerFactory().generateChecker(sys.argv[1])\n"
            "except Exception as error:\n"
            "    print(type(error).__name__, error)\n"
        )
        reason = "InvalidAuthArgumentString popd-oauth2 needs PyJWT: pip install 'popd[oauth2]'\n"
        for content, output in ((JWT_FILE, reason), (INTROSPECTION_FILE, "")):
            self.assertEqual(run(code, self.write(content)), output)

    def test_no_file(self) -> None:
        """Without a file, or one that can be read, the error says so."""
        self.assertRefused("", " needs a file: popd-oauth2:FILE")
        missing = str(self.root / "missing")
        self.assertRefused(missing, f": {missing}: No such file or directory")
        self.path.write_bytes(b"\xff")
        self.assertRefused(str(self.path), f": {self.path}: not UTF-8, as TOML has to be")

    def test_wrong_files(self) -> None:
        """The error says what is wrong."""
        ca = f"{self.root}/ca.pem"
        self.assertWrong(
            INTROSPECTION_FILE.replace("SECRET", f"{self.root}/none"),
            f"{self.root}/none: No such file or directory",
        )
        self.secret.write_text("\n")
        self.assertWrong(
            INTROSPECTION_FILE,
            "introspection.client-secret-file is missing, or what it names is empty",
        )
        self.assertRefused(
            self.write(f"ca-file = '{ca}'\n{JWT_FILE}"), f": {ca}: No such file or directory"
        )
        Path(ca).write_text("nothing")
        self.assertRefused(
            self.write(f"ca-file = '{ca}'\n{JWT_FILE}"),
            f": {ca}: there is no certificate in PEM, or a broken one",
        )
        self.assertRefused(
            self.write(f"{JWT_FILE}jwks = '{ca}'"),
            f": {ca}: Expecting value: line 1 column 1 (char 0)",
        )

    def test_wrong_settings(self) -> None:
        """Whatever cannot be meant is refused, with a hint."""
        for content, reason in (
            ("x", "Expected '=' after a key in a key/value pair (at end of document)"),
            (JWT_FILE.replace("email", ""), "username must be a text in quotes, and not empty"),
            (JWT_FILE.replace("[jwt]", ""), "how are tokens checked? write a table [jwt]"),
            (JWT_FILE.replace("audience", "#"), "[jwt] needs issuer and audience"),
            (JWT_FILE.replace("issuer", "#"), "[jwt] needs issuer and audience"),
            (INTROSPECTION_FILE.replace("scope", "#"), "give audience or scope: without"),
            (JWT_FILE.replace("username", "#"), "username is missing"),
            (JWT_FILE.replace("username", "usrname"), "there is no usrname; did you mean username"),
            (JWT_FILE.replace('"popd"', "[]"), "audience is an empty list"),
            (JWT_FILE.replace('"popd"', "[7]"), "audience must be a text in quotes or a list"),
            ("leeway = -1" + JWT_FILE, "leeway must be a number of seconds from 0 to 300"),
            ("leeway = true" + JWT_FILE, "leeway must be a number of seconds from 0 to 300"),
            (JWT_FILE + "refetch = inf", "jwt.refetch must be a number of seconds from 0 to 3600"),
            (JWT_FILE + "algorithms = ['HS256']", "jwt.algorithms cannot have HS256; there are"),
            (JWT_FILE + "algorithms = 'none'", "jwt.algorithms cannot have none; there are"),
            (JWT_FILE + "key = 1", "there is no jwt.key; there are jwks,"),
            (JWT_FILE + "[fields]\nmaster = 1", "fields.master must be a text in quotes"),
            (JWT_FILE + "[fields]\nmastr = 'x'", "fields.mastr is no field of an account; there"),
            ("jwt = 1" + JWT_FILE.replace("[jwt]", ""), "jwt must be a table: [jwt]"),
            (INTROSPECTION_FILE.replace("url", "#"), "introspection.url is missing"),
            (INTROSPECTION_FILE.replace("client-id", "#"), "introspection.client-id is missing"),
        ):
            error = self.assertRaises(
                InvalidAuthArgumentString, self.factory.generateChecker, self.write(content)
            )
            self.assertIn(f"popd-oauth2: {self.path}: {reason}", str(error))

    def test_urls(self) -> None:
        """A token is sent nowhere but to a named host over TLS."""
        for url in (
            "http://login.example.org",
            "https://",
            "https://user:secret@login.example.org",
            "https://login.example.org/#x",
            "https://login.example.org:port",
            "https://login.example.org/\u00fc",
            "https://[login.example.org",
            "login.example.org",
        ):
            self.assertWrong(
                JWT_FILE.replace("https://login.example.org", url),
                "issuer must be a URL like https://login.example.org/path",
            )
