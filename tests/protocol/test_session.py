"""Tests of `popd.protocol.session`: whole conversations, in one chunk and byte by byte."""

from __future__ import annotations

from base64 import b64encode
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.credentials import PasswordCredentials
from popd.protocol.events import Authenticate, Close, CloseReason, Problem, Reply, Send, Signal
from popd.protocol.lines import LINE_LIMIT
from popd.protocol.message import encode
from popd.protocol.session import GREETING, Session
from popd.protocol.snapshot import Snapshot
from popd.protocol.transaction import Transaction
from tests.protocol.helpers import LOGIN, MAIL, PROTECTED, ConversationCase, World, size, whole

DENIED = b"S: -ERR [AUTH] wrong user name or password"
UNKNOWN = b"S: -ERR unknown command, or not in this state"
NO_SUCH = b"S: -ERR no such message"
NEEDS_TLS = b"S: -ERR [AUTH] log-in needs TLS: send STLS first"
OK = b"S: +OK"
SIZES = [size(message) for message in MAIL]


def b64(text: bytes) -> bytes:
    """Return *text* in base64."""
    return b64encode(text)


class GreetingTests(ConversationCase):
    """The first words."""

    def test_greeting(self) -> None:
        """The greeting is +OK, and announces neither APOP nor a response code."""
        self.assertTrue(GREETING.startswith(b"+OK "))
        self.assertNotIn(b"<", GREETING)
        self.assertNotIn(b"[", GREETING)


class LoginTests(ConversationCase):
    """USER and PASS (RFC 1939 section 7)."""

    def test_good(self) -> None:
        """The right password opens the maildrop."""
        world = self.converse(*LOGIN)
        self.assertEqual(world.credentials, [PasswordCredentials(b"joe", b"secret")])
        self.assertTrue(world.session.logged_in)

    def test_wrong_password(self) -> None:
        """A wrong password is refused, and the user name has to be given again."""
        self.converse(
            *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS wrong", DENIED),
            *(b"C: PASS secret", b"S: -ERR send USER first"),
            *LOGIN,
        )

    def test_spaces_in_password(self) -> None:
        """Every space of a password belongs to it, in front and behind as well."""
        world = self.converse(
            *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS  a b  ", DENIED),
        )
        self.assertEqual(world.credentials, [PasswordCredentials(b"joe", b" a b  ")])

    def test_spaces_round_name(self) -> None:
        """Spaces round a user name are dropped."""
        world = self.converse(b"C: USER  joe ", b"S: +OK send PASS", b"C: PASS secret", LOGIN[3])
        self.assertEqual(world.credentials, [PasswordCredentials(b"joe", b"secret")])

    def test_user_twice(self) -> None:
        """The last USER counts."""
        world = self.converse(b"C: USER ann", b"S: +OK send PASS", *LOGIN)
        self.assertEqual(world.credentials, [PasswordCredentials(b"joe", b"secret")])

    def test_incomplete(self) -> None:
        """USER without a name, PASS without a password or before USER are errors."""
        world = self.converse(
            *(b"C: USER", b"S: -ERR a user name is needed"),
            *(b"C: USER  ", b"S: -ERR a user name is needed"),
            *(b"C: PASS secret", b"S: -ERR send USER first"),
            *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS", b"S: -ERR a password is needed"),
            *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS ", b"S: -ERR a password is needed"),
        )
        self.assertEqual(world.credentials, [])

    def test_problems(self) -> None:
        """A maildrop that cannot be had is told by its response code; the session goes on."""
        for problem, code in (
            (Problem.IN_USE, b"[IN-USE]"),
            (Problem.TEMPORARY, b"[SYS/TEMP]"),
            (Problem.PERMANENT, b"[SYS/PERM]"),
        ):
            self.assertIn(b"-ERR " + code + b" ", problem.value)
            self.converse(
                *(b"C: USER joe", b"S: +OK send PASS", b"C: PASS secret"),
                *(b"S: " + problem.value.removesuffix(b"\r\n"), b"C: QUIT", b"S: +OK bye"),
                login_problem=problem,
            )

    def test_after_login(self) -> None:
        """Nothing of AUTHORIZATION but CAPA and QUIT is left after log-in."""
        commands = (b"USER joe", b"PASS secret", b"AUTH PLAIN", b"AUTH", b"STLS")
        for command in commands:
            self.after_login(b"C: " + command, UNKNOWN)

    def test_before_login(self) -> None:
        """Nothing of TRANSACTION is there before log-in."""
        commands = (b"STAT", b"LIST", b"UIDL", b"RETR 1", b"TOP 1 0", b"DELE 1", b"NOOP", b"RSET")
        for command in commands:
            self.converse(b"C: " + command, UNKNOWN)

    def test_without_tls(self) -> None:
        """Without TLS log-in is refused before the password is looked at."""
        world = self.converse(
            *(b"C: USER joe", NEEDS_TLS, b"C: PASS secret", NEEDS_TLS),
            *(b"C: AUTH PLAIN " + b64(b"\0joe\0secret"), NEEDS_TLS),
            *(b"C: AUTH", OK, b"S: ."),
            channel=Channel(stls=True),
        )
        self.assertEqual(world.credentials, [])

    def test_cleartext_allowed(self) -> None:
        """Without TLS log-in works where the administrator allows it."""
        self.converse(*LOGIN, channel=Channel(cleartext_login=True))


class AuthTests(ConversationCase):
    """AUTH (RFC 5034)."""

    def test_initial_response(self) -> None:
        """PLAIN with an initial response takes one line."""
        world = self.converse(b"C: auth plain " + b64(b"\0joe\0secret"), LOGIN[3])
        expected = PasswordCredentials(b"joe", b"secret", mechanism="PLAIN")
        self.assertEqual(world.credentials, [expected])

    def test_plain_in_two_lines(self) -> None:
        """Without an initial response the challenge is a plus sign and a space."""
        self.converse(b"C: AUTH PLAIN", b"S: + ", b"C: " + b64(b"\0joe\0secret"), LOGIN[3])

    def test_login(self) -> None:
        """LOGIN asks for the name, then the password."""
        self.converse(
            *(b"C: AUTH LOGIN", b"S: + VXNlcm5hbWU6", b"C: " + b64(b"joe")),
            *(b"S: + UGFzc3dvcmQ6", b"C: " + b64(b"secret"), LOGIN[3]),
        )

    def test_login_with_initial_name(self) -> None:
        """LOGIN takes the name as initial response."""
        self.converse(
            *(b"C: AUTH LOGIN " + b64(b"joe"), b"S: + UGFzc3dvcmQ6"),
            *(b"C: " + b64(b"secret"), LOGIN[3]),
        )

    def test_list(self) -> None:
        """A bare AUTH, with or without a space, lists the mechanisms."""
        mechanisms = (OK, b"S: PLAIN", b"S: LOGIN", b"S: .")
        self.converse(b"C: AUTH", *mechanisms, b"C: AUTH ", *mechanisms)

    def test_cancel(self) -> None:
        """An asterisk cancels the exchange, and leaves nothing behind."""
        self.converse(
            *(b"C: AUTH LOGIN", b"S: + VXNlcm5hbWU6", b"C: " + b64(b"joe")),
            *(b"S: + UGFzc3dvcmQ6", b"C: *", b"S: -ERR authentication cancelled"),
            *(b"C: CAPA", *CAPA_UNDER_TLS, *LOGIN),
        )

    def test_malformed(self) -> None:
        """Responses that are no base64, or not what the mechanism says, fail; others may log in."""
        not_base64 = b"S: -ERR that is not base64"
        malformed = b"S: -ERR [AUTH] malformed credentials"
        self.converse(
            *(b"C: AUTH PLAIN !!!!", not_base64),
            *(b"C: AUTH PLAIN AGpvZQBw=", not_base64),
            *(b"C: AUTH PLAIN " + b64(b"\0joe\0secret") + b" x", not_base64),
            *(b"C: AUTH PLAIN =", malformed),
            *(b"C: AUTH PLAIN", b"S: + ", b"C: ", malformed),
            *(b"C: AUTH PLAIN", b"S: + ", b"C: USER joe", not_base64),
            *LOGIN,
        )

    def test_unknown_mechanism(self) -> None:
        """An unknown mechanism is refused, and its name not repeated."""
        self.converse(b"C: AUTH X-Y abc", b"S: -ERR unknown authentication mechanism")

    def test_wrong_password(self) -> None:
        """AUTH says the same of a wrong password as PASS does."""
        self.converse(b"C: AUTH PLAIN " + b64(b"\0joe\0x"), DENIED, *LOGIN)

    def test_long_initial_response(self) -> None:
        """An initial response may be far longer than 255 octets (RFC 5034 section 4)."""
        password = b"p" * 6_000
        world = self.converse(b"C: AUTH PLAIN " + b64(b"\0joe\0" + password), DENIED)
        expected = PasswordCredentials(b"joe", password, mechanism="PLAIN")
        self.assertEqual(world.credentials, [expected])

    def test_forgets_user(self) -> None:
        """AUTH forgets a USER before it."""
        self.converse(
            *(b"C: USER joe", b"S: +OK send PASS", b"C: AUTH PLAIN " + b64(b"\0joe\0x"), DENIED),
            *(b"C: PASS secret", b"S: -ERR send USER first"),
        )

    def test_too_long_response(self) -> None:
        """An over-long response ends the exchange with one error."""
        self.converse(
            *(b"C: AUTH PLAIN", b"S: + ", b"C: " + b"A" * LINE_LIMIT, b"S: -ERR line too long"),
            *(b"C: QUIT", b"S: +OK bye"),
        )


def capa(*names: bytes) -> tuple[bytes, ...]:
    """Return the lines of a CAPA reply."""
    return (OK, *(b"S: " + name for name in names), b"S: .")


COMMON = (b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING")
LAST = (b"EXPIRE NEVER", b"IMPLEMENTATION popd")
CAPA_UNDER_TLS = capa(*COMMON, b"USER", b"SASL PLAIN LOGIN", *LAST)


class CapabilityTests(ConversationCase):
    """CAPA (RFC 2449)."""

    def test_under_tls(self) -> None:
        """Under TLS log-in is offered and STLS is not, in both states."""
        for channel in (PROTECTED, Channel(tls=True, stls=True)):
            self.converse(
                *(b"C: CAPA", *CAPA_UNDER_TLS, *LOGIN, b"C: CAPA", *CAPA_UNDER_TLS),
                channel=channel,
            )

    def test_without_tls(self) -> None:
        """Without TLS STLS is offered, and no way to send a password."""
        self.converse(b"C: CAPA", *capa(*COMMON, b"STLS", *LAST), channel=Channel(stls=True))

    def test_cleartext_allowed(self) -> None:
        """What is announced before a cleartext log-in is announced after it."""
        announced = capa(*COMMON, b"USER", b"SASL PLAIN LOGIN", b"STLS", *LAST)
        self.converse(
            *(b"C: CAPA", *announced, *LOGIN, b"C: CAPA", *announced),
            channel=Channel(stls=True, cleartext_login=True),
        )

    def test_registered(self) -> None:
        """Only registered capabilities are announced."""
        registered = {
            *(b"TOP", b"USER", b"SASL", b"RESP-CODES", b"LOGIN-DELAY", b"PIPELINING", b"EXPIRE"),
            *(b"UIDL", b"IMPLEMENTATION", b"STLS", b"AUTH-RESP-CODE", b"UTF8", b"LANG"),
        }
        reply = Channel(stls=True, cleartext_login=True).capabilities()
        names = {line.split(b" ")[0] for line in reply.split(b"\r\n")[1:-2]}
        self.assertEqual(names - registered, set())
        self.assertIn(b"STLS", names)


class StlsTests(ConversationCase):
    """STLS (RFC 2595)."""

    def world(self, *said: bytes) -> World:
        """Say each of these in a chunk of its own, on a connection that can start TLS."""
        world = World(channel=Channel(stls=True))
        world.say(said)
        return world

    def test_started(self) -> None:
        """After STLS one may log in; CAPA no longer lists STLS."""
        world = self.world(b"STLS\r\n", b"CAPA\r\nUSER joe\r\nPASS secret\r\n")
        self.assertTrue(world.output.startswith(GREETING + b"+OK begin TLS\r\n+OK\r\nTOP\r\n"))
        self.assertNotIn(b"STLS", world.output)
        self.assertTrue(world.session.logged_in)

    def test_user_forgotten(self) -> None:
        """A user name from before TLS is forgotten."""
        world = World(channel=Channel(stls=True, cleartext_login=True))
        world.say([b"USER joe\r\n", b"STLS\r\n", b"PASS secret\r\n"])
        self.assertTrue(world.output.endswith(b"+OK begin TLS\r\n-ERR send USER first\r\n"))
        self.assertEqual(world.credentials, [])

    def test_injection(self) -> None:
        """What comes behind STLS in plaintext is not executed, and ends the session."""
        for behind in (b"C", b"CAPA\r\n", b"USER joe\r\nPASS secret\r\n", b"\r\n"):
            world = self.world(b"STLS\r\n" + behind)
            self.assertEqual(world.output, GREETING + b"-ERR nothing may follow STLS\r\n")
            self.assertEqual(world.closed, CloseReason.INJECTION)

    def test_injection_while_starting(self) -> None:
        """What was fed before TLS runs is thrown away, even by a careless driver."""
        session = Session(Channel(stls=True))
        session.feed(b"STLS\r\n")
        session.next_event()
        session.feed(b"CAPA\r\n")
        self.assertEqual(session.next_event(), Signal.PAUSED)
        session.tls_started()
        self.assertEqual(session.next_event(), Signal.NEED_DATA)

    def test_argument(self) -> None:
        """STLS with an argument does not start TLS."""
        refused = b"S: -ERR this command takes no argument"
        self.converse(b"C: STLS x", refused, channel=Channel(stls=True))

    def test_trailing_space(self) -> None:
        """STLS with a trailing space is STLS, and nothing may follow it either."""
        world = self.world(b"STLS \r\nCAPA\r\n")
        self.assertEqual(world.closed, CloseReason.INJECTION)

    def test_under_tls(self) -> None:
        """STLS under TLS is refused."""
        self.converse(
            *(b"C: STLS", b"S: -ERR TLS is active already"),
            channel=Channel(tls=True, stls=True),
        )

    def test_twice(self) -> None:
        """A second STLS is refused."""
        world = self.world(b"STLS\r\n", b"STLS\r\n")
        self.assertTrue(world.output.endswith(b"-ERR TLS is active already\r\n"))

    def test_not_available(self) -> None:
        """Without a certificate STLS is refused."""
        self.converse(b"C: STLS", b"S: -ERR TLS is not available", channel=Channel())


class ListingTests(ConversationCase):
    """STAT, LIST, UIDL."""

    def rows(self, column: list[bytes], *numbers: int) -> tuple[bytes, ...]:
        """Return the lines of a listing."""
        return (OK, *(b"S: %d %s" % (n, column[n - 1]) for n in numbers), b"S: .")

    sizes: ClassVar = [b"%d" % n for n in SIZES]
    uids: ClassVar = [b"uid-1", b"uid-2", b"uid-3"]

    def test_stat(self) -> None:
        """STAT counts messages and octets."""
        self.after_login(b"C: STAT", b"S: +OK 3 %d" % sum(SIZES))

    def test_list(self) -> None:
        """LIST gives number and size of every message, or of one."""
        self.after_login(
            *(b"C: LIST", *self.rows(self.sizes, 1, 2, 3)),
            *(b"C: LIST 2", b"S: +OK 2 %d" % SIZES[1]),
        )

    def test_uidl(self) -> None:
        """UIDL gives number and unique-id of every message, or of one."""
        self.after_login(
            *(b"C: UIDL", *self.rows(self.uids, 1, 2, 3)),
            *(b"C: UIDL 2", b"S: +OK 2 uid-2"),
        )

    def test_empty(self) -> None:
        """An empty maildrop has empty listings."""
        self.after_login(
            *(b"C: STAT", b"S: +OK 0 0", b"C: LIST", OK, b"S: .", b"C: UIDL", OK, b"S: ."),
            *(b"C: LIST 1", NO_SUCH),
            messages=(),
        )

    def test_deleted(self) -> None:
        """A deleted message is nowhere any more, and the others keep their numbers."""
        self.after_login(
            *(b"C: DELE 2", OK, b"C: STAT", b"S: +OK 2 %d" % (SIZES[0] + SIZES[2])),
            *(b"C: LIST", *self.rows(self.sizes, 1, 3)),
            *(b"C: UIDL", *self.rows(self.uids, 1, 3)),
            *(b"C: LIST 2", NO_SUCH, b"C: UIDL 2", NO_SUCH, b"C: RETR 2", NO_SUCH),
            *(b"C: TOP 2 0", NO_SUCH, b"C: DELE 2", NO_SUCH),
            *(b"C: LIST 3", b"S: +OK 3 %d" % SIZES[2]),
        )

    def test_reset(self) -> None:
        """RSET brings everything back."""
        world = self.after_login(
            *(b"C: DELE 1", OK, b"C: DELE 3", OK, b"C: RSET", OK),
            *(b"C: STAT", b"S: +OK 3 %d" % sum(SIZES)),
            *(b"C: LIST", *self.rows(self.sizes, 1, 2, 3), b"C: QUIT", b"S: +OK bye"),
        )
        self.assertEqual(world.committed, frozenset())


class NumberTests(ConversationCase):
    """Message numbers are plain ASCII digits."""

    def test_no_such_message(self) -> None:
        """Digits that are no message's number are told from nonsense."""
        for word in (b"0", b"4", b"01", b"4294967297", b"18446744073709551617", b"9" * 9_000):
            for command in (b"LIST ", b"UIDL ", b"RETR ", b"DELE "):
                self.after_login(b"C: " + command + word, NO_SUCH)

    def test_nonsense(self) -> None:
        """What int() might take, or a C library, is no number."""
        for word in (
            *(b"+1", b"-1", b"1_0", b"1abc", b"1.0", b"1e0", b"0x1", b"1\t", b"1\0", b"1\0junk"),
            *(b"\x0b1", b"1\r", b"\xd9\xa1", b"\xef\xbc\x91", b"\xc2\xb2", b"\xc2\xa01", b"abc"),
        ):
            for command in (b"LIST ", b"UIDL ", b"RETR ", b"DELE "):
                world = self.after_login(
                    *(b"C: " + command + word, b"S: -ERR a message number is needed"),
                    *(b"C: QUIT", b"S: +OK bye"),
                )
                self.assertEqual(world.committed, frozenset(), (command, word))

    def test_missing(self) -> None:
        """RETR and DELE need a number, TOP needs two."""
        two = b"S: -ERR a message number and a number of lines are needed"
        self.after_login(
            *(b"C: RETR", b"S: -ERR a message number is needed"),
            *(b"C: DELE ", b"S: -ERR a message number is needed"),
            *(b"C: TOP", two, b"C: TOP 1", two, b"C: TOP 1 2 3", two),
        )

    def test_too_many(self) -> None:
        """One argument is the most that LIST, UIDL, RETR and DELE take."""
        for verb in (b"LIST", b"UIDL", b"RETR", b"DELE"):
            self.after_login(
                b"C: " + verb + b" 1 2", b"S: -ERR this command takes one argument at most"
            )

    def test_lines(self) -> None:
        """TOP's number of lines is plain digits as well."""
        for word in (b"-1", b"+1", b"x", b"1_0", b"9" * 11):
            self.after_login(b"C: TOP 1 " + word, b"S: -ERR a number of lines is needed")

    def test_spaces(self) -> None:
        """Spaces round a number are forgiven."""
        for command in (b"LIST 2 ", b"LIST  2"):
            self.after_login(b"C: " + command, b"S: +OK 2 %d" % SIZES[1])


class MessageTests(ConversationCase):
    """RETR and TOP."""

    def test_retr(self) -> None:
        """RETR sends the message, byte-stuffed, behind its size."""
        self.after_login(
            *(b"C: RETR 2", b"S: +OK %d octets" % SIZES[1]),
            *(b"S: Subject: two", b"S: ", b"S: ..dot", b"S: ...", b"S: last", b"S: ."),
        )

    def test_top(self) -> None:
        """TOP sends the header, the blank line and so many lines."""
        self.after_login(
            *(b"C: TOP 3 2", OK, b"S: Subject: three", b"S: ", b"S: line", b"S: line", b"S: ."),
            *(b"C: TOP 3 0", OK, b"S: Subject: three", b"S: ", b"S: ."),
        )

    def test_gone(self) -> None:
        """A message that is gone is an error of its own; the session goes on."""
        gone = b"S: " + Problem.GONE.value.removesuffix(b"\r\n")
        self.after_login(
            *(b"C: RETR 1", gone, b"C: TOP 1 0", gone, b"C: STAT", b"S: +OK 3 %d" % sum(SIZES)),
            message_problem=Problem.GONE,
        )


class UpdateTests(ConversationCase):
    """QUIT."""

    def test_before_login(self) -> None:
        """QUIT before log-in says good-bye and commits nothing."""
        world = self.converse(b"C: QUIT", b"S: +OK bye")
        self.assertEqual(world.closed, CloseReason.QUIT)
        self.assertIsNone(world.committed)

    def test_commit(self) -> None:
        """QUIT commits just the messages that are marked."""
        world = self.after_login(
            *(b"C: DELE 1", OK, b"C: DELE 3", OK, b"C: QUIT", b"S: +OK bye"),
        )
        self.assertEqual(world.committed, frozenset({0, 2}))
        self.assertEqual(world.closed, CloseReason.QUIT)

    def test_failures(self) -> None:
        """QUIT tells when something could not be removed (RFC 1939 section 6)."""
        self.after_login(
            *(b"C: DELE 1", OK),
            *(b"C: QUIT", b"S: -ERR [SYS/TEMP] some deleted messages not removed"),
            commit_failures=1,
        )

    def test_argument(self) -> None:
        """QUIT with an argument does not commit."""
        world = self.after_login(
            *(b"C: DELE 1", OK, b"C: QUIT now", b"S: -ERR this command takes no argument"),
        )
        self.assertIsNone(world.committed)

    def test_no_quit(self) -> None:
        """Without QUIT nothing is committed."""
        self.assertIsNone(self.after_login(b"C: DELE 1", OK).committed)

    def test_after_quit(self) -> None:
        """Nothing behind QUIT is executed."""
        world = self.after_login(b"C: QUIT", b"C: NOOP", b"S: +OK bye")
        self.assertEqual(world.session.next_event(), Signal.PAUSED)


class ToleranceTests(ConversationCase):
    """What clients really send."""

    def test_case_and_line_ends(self) -> None:
        """Lower case, bare LF and trailing spaces are tolerated."""
        world = World()
        world.say(whole(b"user joe\nPass secret\nstat \nNoOp  \r\nrset\nquit \n"))
        self.assertEqual(
            world.output,
            GREETING
            + b"+OK send PASS\r\n+OK maildrop locked and ready\r\n+OK 3 %d\r\n" % sum(SIZES)
            + b"+OK\r\n+OK\r\n+OK bye\r\n",
        )

    def test_spaces(self) -> None:
        """Spaces around an argument, or in place of one, are tolerated."""
        size = SIZES[1]
        self.after_login(b"C: LIST  2  ", b"S: +OK 2 %d" % size)
        listing = [b"S: %d %d" % (number, size) for number, size in enumerate(SIZES, 1)]
        self.after_login(b"C: LIST   ", b"S: +OK", *listing, b"S: .")

    def test_nonsense(self) -> None:
        """Nonsense gets one error each, in both states, and none of it is repeated."""
        nonsense = (
            *(b"", b" ", b"XYZ:q", b"STAT\0", b"US\xffER a", b"\tSTAT", b" STAT", b"<script>"),
            *(b"__class__", b"\xc5\xbfTAT", b"STATS", b"GET", b"\x1b[2J"),
        )
        for line in nonsense:
            self.converse(b"C: " + line, UNKNOWN)
            self.after_login(b"C: " + line, UNKNOWN)

    def test_arguments_too_many(self) -> None:
        """Commands without arguments refuse one."""
        for verb in (b"STAT", b"NOOP", b"RSET", b"CAPA", b"QUIT"):
            self.after_login(b"C: " + verb + b" x", b"S: -ERR this command takes no argument")

    def test_too_long(self) -> None:
        """An over-long line gets one error, none of it is executed, and the session goes on."""
        self.after_login(
            *(b"C: " + b"QUIT " * LINE_LIMIT, b"S: -ERR line too long", b"C: NOOP", OK),
        )

    def test_endless(self) -> None:
        """A line that does not end at all ends the session, in both states."""
        for before in (b"", b"USER joe\r\nPASS secret\r\n"):
            world = World()
            world.say([before])
            said = len(world.output)
            world.say([b"x" * 1_000] * 250)
            self.assertIsNone(world.closed)
            world.say([b"x" * 1_000] * 50 + [b"\r\nQUIT\r\n"])
            self.assertEqual(world.output[said:], b"-ERR line too long\r\n")
            self.assertEqual(world.closed, CloseReason.TOO_MANY_ERRORS)

    def test_reply_length(self) -> None:
        """No reply line is longer than 512 octets (RFC 1939 section 3)."""
        world = World()
        world.say(whole(b"CAPA\r\nX\r\n" + b"Z" * 2_000 + b"\r\nUSER " + b"u" * 500 + b"\r\n"))
        self.assertLess(max(map(len, world.output.split(b"\r\n"))), 511)


class ErrorLimitTests(ConversationCase):
    """Too many bad commands end the session."""

    def test_before_login(self) -> None:
        """The tenth bad command before log-in is answered, and is the last."""
        world = self.converse(*(b"C: X", UNKNOWN) * 9)
        self.assertIsNone(world.closed)
        world = self.converse(*(b"C: X", UNKNOWN) * 10, b"C: QUIT")
        self.assertEqual(world.closed, CloseReason.TOO_MANY_ERRORS)

    def test_refused_logins(self) -> None:
        """Refused log-ins count among them."""
        world = self.converse(*(b"C: AUTH PLAIN " + b64(b"\0joe\0x"), DENIED) * 10, b"C: QUIT")
        self.assertEqual(world.closed, CloseReason.TOO_MANY_ERRORS)
        self.assertEqual(len(world.credentials), 10)

    def test_after_login(self) -> None:
        """The fiftieth bad command after log-in is the last; deletions are not committed."""
        bad = (b"C: X", UNKNOWN)
        world = self.converse(*bad * 9, *LOGIN, *bad * 49, b"C: STAT", b"S: +OK 3 %d" % sum(SIZES))
        self.assertIsNone(world.closed)
        world = self.after_login(b"C: DELE 1", OK, *bad * 50, b"C: QUIT")
        self.assertEqual(world.closed, CloseReason.TOO_MANY_ERRORS)
        self.assertIsNone(world.committed)


class CrossProtocolTests(ConversationCase):
    """A browser that a web page sends here is heard no further than its first line (ALPACA)."""

    NO_HTTP = b"S: -ERR this is no web server"

    def test_ends(self) -> None:
        """A request line is answered with a fixed text, and nothing behind it is carried out."""
        behind = (b"C: Host: x", b"C: ", b"C: USER joe", b"C: PASS secret", b"C: DELE 1")
        for request in (
            *(b"GET / HTTP/1.1", b"POST /<script> HTTP/1.0", b"OPTIONS * HTTP/1.1", b"GET /x"),
            *(b"PRI * HTTP/2.0", b"CAPA.x / HTTP/1.1", b"\xff / HTTP/1.1", b"PUT / HTTP/1.1"),
        ):
            for channel in (PROTECTED, Channel(), Channel(stls=True)):
                world = self.converse(b"C: " + request, self.NO_HTTP, *behind, channel=channel)
                self.assertEqual(world.closed, CloseReason.HTTP)
                self.assertEqual(world.credentials, [])

    def test_no_request(self) -> None:
        """What only looks a little like one is an ordinary mistake."""
        for line in (b"GET", b"get / http/1.1", b"X HTTP", b"GETTING / x"):
            self.assertIsNone(self.converse(b"C: " + line, UNKNOWN).closed)
        self.assertIsNone(self.converse(b"C: USER x HTTP/1.1", b"S: +OK send PASS").closed)

    def test_after_log_in(self) -> None:
        """Who has logged in may make the same mistake as any other."""
        self.assertIsNone(self.after_login(b"C: GET / HTTP/1.1", UNKNOWN).closed)


class PauseTests(ConversationCase):
    """Nothing overtakes what is under way."""

    def test_pipelined_login(self) -> None:
        """What is pipelined behind PASS waits for the log-in, and is answered in order."""
        session = Session(PROTECTED)
        session.feed(b"USER joe\r\nPASS secret\r\nSTAT\r\nRETR 1\r\nNOOP\r\n")
        self.assertEqual(session.next_event(), Reply(b"+OK send PASS\r\n"))
        self.assertIsInstance(session.next_event(), Authenticate)
        self.assertEqual(session.next_event(), Signal.PAUSED)
        self.assertEqual(session.buffered, len(b"STAT\r\nRETR 1\r\nNOOP\r\n"))
        session.authenticated(Snapshot([7], [b"u"]))
        self.assertEqual(session.next_event(), Reply(b"+OK maildrop locked and ready\r\n"))
        self.assertEqual(session.next_event(), Reply(b"+OK 1 7\r\n"))
        self.assertEqual(session.next_event(), Send(0, None, b"+OK 7 octets\r\n"))
        self.assertEqual(session.next_event(), Signal.PAUSED)
        session.sent()
        self.assertEqual(session.next_event(), Reply(b"+OK\r\n"))
        self.assertEqual(session.next_event(), Signal.NEED_DATA)

    def test_answer_to_nothing(self) -> None:
        """An answer that nobody waits for is a programming error."""
        session = Session(PROTECTED)
        for answer in (session.sent, session.tls_started):
            self.assertRaises(RuntimeError, answer)
        self.assertRaises(RuntimeError, session.authenticated, Snapshot([], []))
        self.assertRaises(RuntimeError, session.denied, Problem.CREDENTIALS)
        self.assertRaises(RuntimeError, session.unsent, Problem.GONE)
        self.assertRaises(RuntimeError, session.committed, 0)

    def test_after_close(self) -> None:
        """A closed session stays closed."""
        session = Session(PROTECTED)
        session.feed(b"QUIT\r\nQUIT\r\n")
        self.assertEqual(session.next_event(), Close(b"+OK bye\r\n", CloseReason.QUIT))
        self.assertEqual(session.next_event(), Signal.PAUSED)


class SmallTests(SynchronousTestCase):
    """What a session says of itself, and a client that may not delete."""

    def test_pending(self) -> None:
        """There is something to do once there is something to parse."""
        session = Session(Channel())
        self.assertFalse(session.pending)
        session.feed(b"CAPA\r\n")
        self.assertTrue(session.pending)

    def test_may_not_delete(self) -> None:
        """DELE is refused, and marks nothing."""
        transaction = Transaction(Channel(), Snapshot((7,), (b"u",)), may_delete=False)
        reply = transaction.execute(b"DELE 1")
        assert isinstance(reply, Reply)
        self.assertTrue(reply.data.startswith(b"-ERR"))
        self.assertEqual(transaction.execute(b"STAT"), Reply(b"+OK 1 7\r\n"))

    def test_many_dots(self) -> None:
        """A message of which many lines begin with a dot is stuffed like any other."""
        pieces, octets = encode(b".a\n" * 40, None)
        self.assertEqual(b"".join(pieces), b"..a\r\n" * 40 + b".\r\n")
        self.assertEqual(octets, 160)
