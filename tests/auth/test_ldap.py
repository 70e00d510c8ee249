"""Tests of the checker that asks an LDAP directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sansldap import (
    BindRequest,
    LDAPFilter,
    LDAPResultCode,
    LDAPServer,
    PartialAttribute,
    SearchRequest,
    SimpleCredential,
)
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.auth import ldap
from popd.auth.account import Account
from popd.auth.health import FIRST_PAUSE
from popd.auth.interfaces import AuthTemporaryError, IAccounts
from popd.auth.ldap import LdapChecker, LdapCheckerFactory, LdapDirectory
from popd.auth.ldap_client import MAX_MESSAGE, LdapConnection
from popd.auth.ldap_names import Names, escaped, filled_filter
from popd.auth.ldap_settings import LdapServer, LdapSettings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred

SERVER = LdapServer("ldap", "ldap.example.org", 389, "")
SEARCH = LdapSettings(
    (SERVER,),
    bind_dn="cn=popd",
    bind_password="service",
    base="dc=example",
    filter="(mail={user})",
    fields={"quota": "mailQuota", "allow_nets": "net", "disabled": "locked"},
    timeout=9.0,
    connections=2,
)
TEMPLATE = LdapSettings((SERVER,), user_dn="uid={local},dc=example", timeout=9.0, connections=2)


class Attempt(UsernamePassword):
    """What the chain asks with."""

    bare = b""


class Line(StringTransport):
    """A connection to a directory in memory, which answers at once, or when it is told to."""

    def __init__(self, directory: FakeDirectory, connection: LdapConnection) -> None:
        super().__init__()
        self.directory = directory
        self.connection = connection
        self.session = LDAPServer()
        self.ended = False

    def write(self, data: bytes) -> None:
        """Take a question."""
        for message in self.session.receive(data):
            self.directory.asked.append(message)
            self.directory.questions.append((self, message))
        if not self.directory.silent:
            self.directory.answer()

    def abortConnection(self) -> None:
        """End, once."""
        if not self.ended:
            self.ended = True
            self.connection.connectionLost(Failure(ConnectionDone()))


class FakeDirectory:
    """A `Dialer` that connects to itself.

    `entries` are attributes by names of entries; all are found by each search.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.up = True
        self.silent = False
        self.entries: dict[str, Mapping[str, list[bytes]]] = {}
        self.passwords = {"cn=popd": "service"}
        self.bind_code = LDAPResultCode.INVALID_CREDENTIALS
        self.search_code = LDAPResultCode.SUCCESS
        self.asked: list[Any] = []
        self.questions: list[tuple[Line, Any]] = []
        self.lines: list[Line] = []

    async def connect(self, reactor: Any) -> LdapConnection:
        """Connect at once, or not at all."""
        if not self.up:
            raise AuthTemporaryError("nobody there")
        connection = LdapConnection(reactor, 4.5)
        self.lines.append(Line(self, connection))
        connection.makeConnection(self.lines[-1])
        return connection

    def answer(self) -> None:
        """Answer what has been asked."""
        questions, self.questions = self.questions, []
        for line, message in questions:
            if isinstance(message, BindRequest):
                assert isinstance(message.authentication, SimpleCredential)
                right = self.passwords.get(message.name) == message.authentication.password
                code = LDAPResultCode.SUCCESS if right else self.bind_code
                line.session.bind_response(message.message_id, result_code=code)
            elif isinstance(message, SearchRequest):
                for dn, attributes in self.entries.items():
                    parts = [PartialAttribute(name, values) for name, values in attributes.items()]
                    line.session.search_result_entry(message.message_id, dn, parts)
                line.session.search_result_done(message.message_id, result_code=self.search_code)
            if not line.ended:
                line.connection.dataReceived(line.session.data_to_send())

    @property
    def bound(self) -> list[str]:
        """As whom somebody tried to bind."""
        return [message.name for message in self.asked if isinstance(message, BindRequest)]


class DirectoryCase(SynchronousTestCase):
    """A checker, and a directory with one user in it."""

    settings = SEARCH

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.directory = FakeDirectory(self.clock)
        self.directory.entries["uid=alice,dc=example"] = {"mailquota": [b"1K"]}
        self.directory.passwords["uid=alice,dc=example"] = "secret"
        self.checker = self.made(self.settings)

    def made(self, settings: LdapSettings) -> LdapDirectory:
        """Return a checker with these settings."""
        dialer: Any = self.directory
        return LdapDirectory(settings, Names(settings), dialer, self.clock)

    def ask(self, name: bytes = b"alice@x.org", password: bytes = b"secret") -> Deferred[Account]:
        """Ask for somebody."""
        return self.checker.requestAvatarId(Attempt(name, password))

    def assertWrong(self, asked: Deferred[Account]) -> None:
        """Assert that somebody did not get in."""
        self.failureResultOf(asked, UnauthorizedLogin)

    def assertUnknown(self, asked: Deferred[Account], why: str) -> None:
        """Assert that it could not be told, for a reason that has *why* in it."""
        text = self.failureResultOf(asked, AuthTemporaryError).getErrorMessage()
        self.assertIn(why, text)


class SearchTests(DirectoryCase):
    """A user is found, and then bound as."""

    def test_interface(self) -> None:
        """It is a checker as twisted.cred knows it, and knows users without their passwords."""
        verifyObject(ICredentialsChecker, self.checker)
        verifyObject(IAccounts, self.checker)

    def test_right(self) -> None:
        """The service searches for a user with his name, and the user binds elsewhere."""
        account = self.successResultOf(self.ask())
        self.assertEqual(account, Account("alice@x.org", quota=1024))
        service, search, user = self.directory.asked
        self.assertEqual((service.name, user.name), ("cn=popd", "uid=alice,dc=example"))
        self.assertEqual(
            (search.base_object, str(search.filter)), ("dc=example", "(mail=alice@x.org)")
        )
        self.assertEqual(search.attributes, ["locked", "mailQuota", "net"])
        self.assertEqual(len(self.directory.lines), 2)
        self.successResultOf(self.ask())
        self.assertEqual(len(self.directory.lines), 2)

    def test_wrong(self) -> None:
        """All ways to refuse a bind are a wrong password."""
        self.assertWrong(self.ask(password=b"Secret"))
        for code in ("NO_SUCH_OBJECT", "INAPPROPRIATE_AUTHENTICATION", "UNWILLING_TO_PERFORM"):
            self.directory.bind_code = LDAPResultCode[code]
            self.assertWrong(self.ask(password=b"Secret"))

    def test_undecided(self) -> None:
        """All else is no answer."""
        for code in ("BUSY", "UNAVAILABLE", "OTHER", "REFERRAL", "CONFIDENTIALITY_REQUIRED"):
            self.directory.bind_code = LDAPResultCode[code]
            self.assertUnknown(self.ask(password=b"Secret"), code)
        self.directory.search_code = LDAPResultCode.NO_SUCH_OBJECT
        self.directory.entries.clear()
        self.assertUnknown(self.ask(), "beneath dc=example: NO_SUCH_OBJECT")

    def test_unknown(self) -> None:
        """An unknown user is refused by as many questions as a known one."""
        self.assertWrong(self.ask(password=b"Secret"))
        known = [type(message) for message in self.directory.asked]
        self.directory.asked.clear()
        self.directory.entries.clear()
        self.assertWrong(self.ask())
        self.assertEqual([type(message) for message in self.directory.asked], known[1:])
        self.assertNotIn("", self.directory.bound)

    def test_ambiguous(self) -> None:
        """Where there are several entries, or one without a name, nobody gets in."""
        self.directory.passwords["uid=bob"] = "secret"
        self.directory.entries["uid=bob"] = {}
        self.assertWrong(self.ask())
        self.directory.entries = {"": {}}
        self.directory.passwords[""] = "secret"
        self.assertWrong(self.ask())

    def test_cut_short(self) -> None:
        """Where a server says that there are more entries than it gives, nobody gets in."""
        self.directory.search_code = LDAPResultCode.SIZE_LIMIT_EXCEEDED
        self.assertWrong(self.ask())

    def test_never_asked(self) -> None:
        """A bind without a password would go well: there is none; nor one that is no text."""
        for password in (b"", b"\xff"):
            self.assertWrong(self.ask(password=password))
        self.assertEqual(self.directory.asked, [])
        connection = LdapConnection(self.clock, 1.0)
        self.assertRaises(ValueError, connection.bind, "cn=a", "")
        self.assertRaises(ValueError, connection.bind, "", "secret")

    def test_fields(self) -> None:
        """Networks may have several values, other fields have one; else nobody gets in."""
        alice: dict[str, list[bytes]] = {"net": [b"192.0.2.0/24", b"::1"], "locked": [b"FALSE"]}
        self.directory.entries["uid=alice,dc=example"] = alice
        account = self.successResultOf(self.ask())
        self.assertEqual((len(account.networks), account.disabled), (2, False))
        for name, values in (
            ("locked", [b"TRUE"]),
            ("locked", [b"perhaps"]),
            ("mailQuota", [b"1", b"2"]),
            ("mailQuota", [b"\xff"]),
        ):
            self.directory.entries["uid=alice,dc=example"] = {name: values}
            self.assertTrue(self.successResultOf(self.ask()).disabled, values)

    def test_name(self) -> None:
        """The directory may say what the user is called."""
        self.checker = self.made(
            LdapSettings((SERVER,), base="dc=example", filter="(uid={local})", name="UID")
        )
        entry = self.directory.entries["uid=alice,dc=example"] = {"uid": [b"Alice@X.org"]}
        self.assertEqual(self.successResultOf(self.ask(b"al")).name, "alice@x.org")
        for values in ([], [b"a", b"b"], [b"../a"], [b"\xff"]):
            entry["uid"] = values
            self.assertWrong(self.ask(b"al"))
        self.assertNotIn("cn=popd", self.directory.bound)

    def test_without_password(self) -> None:
        """Users are known without their passwords, which master users have no need of."""
        account = self.successResultOf(self.checker.account(b"alice@x.org", b""))
        self.assertEqual(account, Account("alice@x.org", quota=1024))
        self.directory.entries.clear()
        self.assertIsNone(self.successResultOf(self.checker.account(b"bob@x.org", b"")))


class TemplateTests(DirectoryCase):
    """A user's entry has a name that follows from his."""

    settings = TEMPLATE

    def test_right(self) -> None:
        """Nothing is searched."""
        self.assertEqual(self.successResultOf(self.ask(b"alice")), Account("alice"))
        self.assertEqual(self.directory.bound, ["uid=alice,dc=example"])

    def test_domain(self) -> None:
        """A name with a domain means somebody else, unless it is the default one."""
        self.assertWrong(self.ask(b"alice@other.org"))
        attempt = Attempt(b"alice@x.org", b"secret")
        attempt.bare = b"alice"
        account = self.successResultOf(self.checker.requestAvatarId(attempt))
        self.assertEqual(account.name, "alice@x.org")

    def test_down(self) -> None:
        """Nobody waits for a directory that is down."""
        self.directory.up = False
        self.assertUnknown(self.ask(b"alice"), "nobody there")
        self.directory.up = True
        self.assertUnknown(self.ask(b"alice"), "nobody there")
        self.clock.advance(FIRST_PAUSE)
        self.successResultOf(self.ask(b"alice"))


class ConnectionTests(DirectoryCase):
    """What happens when connections break, or nothing is said on them."""

    def test_closed(self) -> None:
        """When it is closed all connections are, and what is asked still leaves none behind."""
        self.made(self.settings).close()  # which has none
        self.successResultOf(self.ask())
        self.assertEqual([line.ended for line in self.directory.lines], [False, False])
        self.directory.silent = True
        asked = self.ask()
        self.directory.answer()  # the search
        self.checker.close()
        self.directory.answer()
        self.assertTrue(asked.called)
        asked.addErrback(lambda failure: failure.trap(AuthTemporaryError))
        self.assertEqual({line.ended for line in self.directory.lines}, {True})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """A directory that says nothing to anybody is down, and comes back."""
        self.successResultOf(self.ask())
        self.directory.silent = True
        asked = [self.ask(), self.ask()]
        self.clock.advance(9.0)
        for deferred in asked:
            self.failureResultOf(deferred, AuthTemporaryError)
        self.assertUnknown(self.ask(), "does not answer")
        self.directory.silent = False
        self.clock.advance(FIRST_PAUSE)
        self.successResultOf(self.ask())

    def test_silent_binds(self) -> None:
        """So is one that says nothing of passwords; not more than its share are asked about."""
        self.successResultOf(self.ask())
        self.directory.silent = True
        asked = [self.ask() for _ in range(5)]
        self.directory.answer()  # the searches
        binds = len(self.directory.questions)
        self.assertEqual(binds, SEARCH.connections)
        self.clock.advance(9.0)
        for deferred in asked:
            self.assertUnknown(deferred, "does not answer")
        self.assertUnknown(self.ask(), "does not answer")

    def test_forgotten(self) -> None:
        """Idle connections of a directory that says nothing are not tried one after the other."""
        self.directory.silent = True
        asked = [self.ask(), self.ask()]
        for _ in range(3):  # the service, the searches, the users
            self.directory.answer()
        for deferred in asked:
            self.successResultOf(deferred)
        alone = self.ask()
        self.directory.answer()  # the search
        self.clock.advance(9.0)
        self.failureResultOf(alone, AuthTemporaryError)
        self.assertEqual([line.ended for line in self.directory.lines], [True] * 3)

    def test_turns(self) -> None:
        """Who waits for his turn gets it, and nobody gets the answer to another's question."""
        self.directory.passwords["uid=alice,dc=example"] = "secret"
        self.successResultOf(self.ask())
        self.directory.silent = True
        asked = [self.ask(password=b"%d" % n) for n in range(3)] + [self.ask()]
        for _ in range(4):
            self.directory.answer()
        for wrong in asked[:3]:
            self.assertWrong(wrong)
        self.successResultOf(asked[3])

    def test_many_waiting(self) -> None:
        """Beyond a number that no site has, nobody more waits."""
        self.patch(ldap, "MAX_WAITING", 3)
        self.successResultOf(self.ask())
        self.directory.silent = True
        asked = [self.ask() for _ in range(SEARCH.connections + 4)]
        self.directory.answer()  # the searches
        self.assertUnknown(asked[-1], "too many log-ins wait")
        for _ in range(4):
            self.directory.answer()
        self.assertEqual(
            [self.successResultOf(one).name for one in asked[:-1]], ["alice@x.org"] * 5
        )

    def test_idle_end(self) -> None:
        """Connections that end while nobody needs them, or just then, are replaced."""
        self.successResultOf(self.ask())
        for line in self.directory.lines:
            line.abortConnection()
        self.successResultOf(self.ask())
        service, user = self.directory.lines[2:]
        self.directory.silent = True
        asked = self.ask()
        self.directory.answer()
        user.abortConnection()
        self.directory.answer()
        self.successResultOf(asked)
        self.assertFalse(service.ended)

    def test_service_refused(self) -> None:
        """Where popd itself is refused the password was not wrong."""
        self.directory.passwords["cn=popd"] = "other"
        self.assertUnknown(self.ask(), "refuses bind-dn: INVALID_CREDENTIALS")

    def test_nonsense(self) -> None:
        """What is no LDAP, or has no end, ends the connection."""
        huge = b"\x30\x84\x7f\xff\xff\xff" + b"x" * (MAX_MESSAGE + 1)
        stray = bytes.fromhex("300c 0201 63 6107 0a0100 0400 0400")  # an answer to no question
        for nonsense in (b"-ERR what?\r\n", huge, stray):
            self.setUp()
            self.successResultOf(self.ask())
            self.directory.silent = True
            asked = self.ask()
            line = self.directory.lines[0]
            line.connection.dataReceived(nonsense)
            self.assertTrue(line.ended, nonsense[:10])
            self.failureResultOf(asked, AuthTemporaryError)


class NameTests(SynchronousTestCase):
    """Names in filters and in names of entries."""

    def test_filter(self) -> None:
        """Whatever stands in a name, it is a value and nothing else (RFC 4515 section 3)."""
        template = LDAPFilter.from_string(
            "(&(|(uid={user})(mail={local}@{domain}))(!(x=a*{user}*)))"
        )
        parts = {"user": b"*)(uid=*\\\0", "local": b"{domain}", "domain": b"(\xff"}
        filled = str(filled_filter(template, parts))
        user = r"\2a\29\28uid=\2a\5c\00"
        self.assertEqual(filled, rf"(&(|(uid={user})(mail={{domain}}@\28\ff))(!(x=a*{user}*)))")

    def test_escaped(self) -> None:
        """Whatever stands in a name, it is one value (RFC 4514 section 2.4)."""
        self.assertEqual(escaped('ab9,=+"<>;\\# '), r"ab9\2c\3d\2b\22\3c\3e\3b\5c\23\20")
        self.assertEqual(escaped("\u00e9"), r"\c3\a9")

    def test_parts(self) -> None:
        """A domain that no placeholder tells from others is the default one."""
        for wanted, username, bare, known in (
            ("(a={user})", b"al@x", b"", True),
            ("(a={user})", b"al", b"", True),
            ("(a={local})(b={domain})", b"al@x", b"", True),
            ("(a={local})(b={domain})", b"al", b"", False),
            ("(a={local})", b"al@x", b"", False),
            ("(a={local})", b"al@x", b"al", True),
            ("(a={local})", b"al", b"", True),
            ("(a={user})", b"../x", b"", False),
        ):
            names = Names(LdapSettings((SERVER,), base="dc=x", filter=f"(&{wanted})"))
            parts = names.parts(username, bare)
            self.assertEqual(parts is not None, known, (wanted, username))


class FileTests(SynchronousTestCase):
    """The settings' file, and the factory."""

    factory = LdapCheckerFactory()

    def setUp(self) -> None:
        """Name the file."""
        self.path = Path(self.mktemp()).absolute()
        self.password = Path(self.mktemp()).absolute()
        self.password.write_text("secret \n", "ascii")

    def test_interface(self) -> None:
        """It is a plugin as twistd knows it."""
        verifyObject(ICheckerFactory, self.factory)
        verifyObject(IPlugin, self.factory)

    def write(self, text: str) -> str:
        """Write the file."""
        self.path.write_text(text, "utf-8")
        return str(self.path)

    def test_all(self) -> None:
        """All that a file may say."""
        path = self.write(
            f"""
            uri = ["ldap://[2001:db8::1]", "ldaps://b.example.org:6636/", "ldapi://%2Frun%2Fldapi"]
            start-tls = false
            bind-dn = "cn=popd"
            bind-password-file = "{self.password}"
            base = "ou={{domain}},dc=example"
            scope = "one"
            filter = "(uid={{local}})"
            name = "uid"
            fields = {{ quota = "mailQuota" }}
            timeout = 5
            connections = 3
            """
        )
        settings = read_settings(path)
        servers = (
            LdapServer("ldap", "2001:db8::1", 389, ""),
            LdapServer("ldaps", "b.example.org", 6636, ""),
            LdapServer("ldapi", "", 0, "/run/ldapi"),
        )
        self.assertEqual(settings.servers, servers)
        self.assertEqual((settings.bind_password, settings.timeout), ("secret ", 5))
        self.assertNotIn("secret", repr(settings))
        self.assertIsInstance(self.factory.generateChecker(path), LdapDirectory)

    def test_template(self) -> None:
        """Without a search users are known by their passwords alone."""
        path = self.write('uri = "ldaps://b"\nuser-dn = "uid={user},dc=x"')
        checker = self.factory.generateChecker(path)
        self.assertIs(type(checker), LdapChecker)

    def assertRefused(self, argument: str, reason: str) -> None:
        """Assert that *argument* is refused, in one line with *reason* in it."""
        error = self.assertRaises(InvalidAuthArgumentString, self.factory.generateChecker, argument)
        self.assertIn(reason, str(error))
        self.assertNotIn("\n", str(error))

    def test_missing(self) -> None:
        """Where sansldap is not installed nothing but this checker needs it, and it says so."""
        code = (
            "import sys; sys.modules['sansldap'] = None\n"
            "import twisted.plugins.popd_plugin as plugin\n"
            "try: plugin.ldap_checker.generateChecker('/etc/ldap.toml')\n"
            "except Exception as error: print(error)\n"
        )
        output = subprocess.check_output(
            [sys.executable, "-c", code], text=True, env={"PYTHONPATH": ":".join(sys.path)}
        )
        self.assertEqual(output, "popd-ldap needs sansldap: pip install 'popd[ldap]'\n")

    def test_wrong(self) -> None:
        """The error says what is wrong."""
        self.assertRefused("", "needs a file")
        self.assertRefused(f"{self.path}/none", "No such file")
        good = 'uri = "ldap://a"\nbase = "dc=x"\nfilter = "(uid={user})"\n'
        self.password.write_text("\n", "ascii")
        for text, reason in (
            ("uri =", "Invalid value"),
            ("bind_dn = 'x'", "there is no 'bind_dn'; did you mean 'bind-dn'?"),
            ("uri = 3", "uri must be a text"),
            ("timeout = true", "timeout must be a number"),
            ("ca = ''", "ca is empty"),
            ("", "no uri"),
            ("uri = 'http://a'", "uri must be like"),
            ("uri = 'ldap://a/dc=x'", "uri must be like"),
            ("uri = 'ldap://a'", "how is a user found?"),
            ("uri = 'ldap://a'\nuser-dn = 'cn={user}'\nbase = 'dc=x'", "either user-dn"),
            ("uri = 'ldap://a'\nuser-dn = 'cn={user}'\nname = 'uid'", "need a search"),
            ("uri = 'ldap://a'\nuser-dn = 'cn={domain}'", "where the user's name belongs"),
            ("uri = 'ldap://a'\nuser-dn = 'cn={name}'", "{name} is none of"),
            ("uri = 'ldap://a'\nbase = 'dc=x'\nfilter = '((uid={user})'", "filter: "),
            (good + "bind-dn = 'cn=a'", "need each other"),
            (good + f"bind-dn = 'cn=a'\nbind-password-file = '{self.password}'", "is empty"),
            (good + "scope = 'all'", "scope must be one of"),
            (good + "timeout = 10", "timeout must be"),
            (good + "connections = 1000", "connections must be"),
            (good + "fields = { home = 'x' }", "there is no 'home'"),
            (good + "fields = { quota = 3 }", "the name of an attribute"),
            (good + "ca = '/nowhere'", "ca /nowhere: No such file"),
            (good + "ca = '/dev/null'", "ca /dev/null: "),
        ):
            self.assertRefused(self.write(text), reason)
