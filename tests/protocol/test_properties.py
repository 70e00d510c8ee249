"""Property tests of whole sessions."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.lines import LINE_LIMIT
from popd.protocol.offer import WAYS, Offer
from tests.protocol.helpers import MAIL, PROTECTED, World, byte_by_byte, size, whole
from tests.protocol.scram import derive

VERBS = (
    *(b"USER", b"PASS", b"AUTH", b"CAPA", b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE"),
    *(b"RSET", b"NOOP", b"QUIT", b"XYZ", b"auth plain", b"AUTH LOGIN", b"AUTH PLAIN"),
)
WORDS = (
    *(b"", b" ", b"1", b"2", b"3", b"4", b"0", b"-1", b"joe", b"secret", b"99999999999", b"*"),
    *(b"=", b64encode(b"\0joe\0secret"), b64encode(b"joe"), b"\xff", b"\0", b"x" * LINE_LIMIT),
)
MECHANISMS = (
    *(b"AUTH SCRAM-SHA-256", b"AUTH SCRAM-SHA-256-PLUS", b"AUTH OAUTHBEARER", b"AUTH XOAUTH2"),
    *(b"AUTH CRAM-MD5", b"AUTH EXTERNAL", b"APOP joe", b"AUTH LOGIN", b"AUTH PLAIN", b"*", b""),
)
RESPONSES = st.sampled_from(
    [
        *(b"", b" =", b" *", b" " + b"0" * 32),
        *(
            b" " + b64encode(response)
            for response in (
                *(b"n,,n=joe,r=a", b"p=tls-exporter,,n=joe,r=a", b"c=biws,r=a1@x,p=" + b"A" * 44),
                *(b"n,a=joe,\1auth=Bearer bad\1\1", b"user=joe\1auth=Bearer bad\1\1"),
                *(b"joe " + b"0" * 32, b"\0joe\0x", b"joe", b"\xff"),
            )
        ),
    ]
)
EVERYTHING = Channel(
    tls=True,
    offer=Offer.of(WAYS, lambda: b"1@x"),
    bindings=lambda _: b"binding",
    certificate=True,
)
KEYS = derive(b"secret", b"salt", 1)
ENDS = (b"\r\n", b"\n", b"", b"\r", b" \r\n")
LINES = st.builds(
    lambda verb, words, end: b" ".join([verb, *words]) + end,
    st.sampled_from(VERBS),
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.sampled_from(ENDS),
)
STREAMS = st.lists(LINES | st.binary(max_size=20), max_size=40).map(b"".join)
LOGIN = b"USER joe\r\nPASS secret\r\n"
LISTING = re.compile(rb"\+OK\r\n([^.\r\n][^\r\n]*\r\n)*\.\r\n")
STATUS = re.compile(rb"(\+OK|-ERR|\+ )[\x20-\x7e]*")


class AnyOctetsTests(SynchronousTestCase):
    """What holds for whatever a client sends."""

    @given(st.sampled_from([b"", LOGIN]), STREAMS)
    def test_only_replies(self, before: bytes, stream: bytes) -> None:
        """Arbitrary octets never raise, and yield nothing but well-formed replies."""
        world = World(messages=())
        world.say(whole(before + stream))
        for line in re.sub(rb"\+OK\r\n([^.\r\n][^\r\n]*\r\n)*\.\r\n", b"", world.output).split(
            b"\r\n"
        ):
            self.assertTrue(not line or STATUS.fullmatch(line), line)
        self.assertTrue(world.output.endswith(b"\r\n"))

    @given(st.sampled_from([b"", LOGIN]), STREAMS, st.sampled_from([PROTECTED, Channel()]))
    def test_chunks(self, before: bytes, stream: bytes, channel: Channel) -> None:
        """How the stream is cut changes nothing."""
        worlds = [World(channel=channel) for _ in range(2)]
        for world, cut in zip(worlds, (whole, byte_by_byte), strict=True):
            world.say(cut(before + stream))
        self.assertEqual(worlds[0].output, worlds[1].output)
        self.assertEqual(worlds[0].committed, worlds[1].committed)
        self.assertEqual(worlds[0].credentials, worlds[1].credentials)


class LoginTests(SynchronousTestCase):
    """What holds for whatever a client sends to log in."""

    lines = st.lists(
        st.builds(bytes.__add__, st.sampled_from(MECHANISMS), RESPONSES)
        | RESPONSES.map(lambda response: response[1:]),
        max_size=20,
    )

    @given(lines)
    def test_answered(self, lines: list[bytes]) -> None:
        """Every line gets one answer of one line, whichever exchange it is in."""
        world = World(channel=EVERYTHING, keys=KEYS, messages=())
        for line in lines:
            if world.closed is not None or world.session.logged_in:
                break
            before = len(world.output)
            world.say([line + b"\r\n"])
            self.assertRegex(world.output[before:], rb"\A(\+OK |-ERR |\+ )[\x20-\x7e]*\r\n\Z", line)

    @given(lines)
    def test_chunks(self, lines: list[bytes]) -> None:
        """How the stream is cut changes nothing."""
        worlds = [World(channel=EVERYTHING, keys=KEYS) for _ in range(2)]
        for world, cut in zip(worlds, (whole, byte_by_byte), strict=True):
            world.say(cut(b"\r\n".join(lines)))
        self.assertEqual(worlds[0].output, worlds[1].output)
        self.assertEqual(worlds[0].credentials, worlds[1].credentials)
        self.assertEqual(worlds[0].lookups, worlds[1].lookups)


class MaildropMachine(RuleBasedStateMachine):
    """A session beside a list of messages with deletion marks: they must agree."""

    sizes: ClassVar = [size(message) for message in MAIL]

    @initialize()
    def log_in(self) -> None:
        """Begin with a session in TRANSACTION."""
        self.world = World()
        self.world.say([LOGIN])
        self.alive = [True] * len(MAIL)

    def ask(self, command: bytes) -> bytes:
        """Say a command and return what comes back."""
        self.world.output = b""
        self.world.say([command + b"\r\n"])
        return self.world.output

    numbers = st.integers(0, len(MAIL) + 1)

    def exists(self, number: int) -> bool:
        """Tell whether a message number stands for a message."""
        return 1 <= number <= len(MAIL) and self.alive[number - 1]

    @rule(number=numbers)
    def dele(self, number: int) -> None:
        """DELE marks a message that is there."""
        reply = self.ask(b"DELE %d" % number)
        assert reply.startswith(b"+OK" if self.exists(number) else b"-ERR")
        if self.exists(number):
            self.alive[number - 1] = False

    @rule()
    def rset(self) -> None:
        """RSET takes all marks away."""
        assert self.ask(b"RSET") == b"+OK\r\n"
        self.alive = [True] * len(MAIL)

    @rule(number=numbers)
    def retr(self, number: int) -> None:
        """RETR sends as many octets as LIST says, for a message that is there."""
        reply = self.ask(b"RETR %d" % number)
        if not self.exists(number):
            assert reply.startswith(b"-ERR")
            return
        status, _, body = reply.partition(b"\r\n")
        assert status == b"+OK %d octets" % self.sizes[number - 1]
        lines = body.removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
        assert len(lines) == self.sizes[number - 1]

    @rule(number=numbers)
    def one(self, number: int) -> None:
        """LIST and UIDL with a number agree with the model."""
        scan, uid = self.ask(b"LIST %d" % number), self.ask(b"UIDL %d" % number)
        if self.exists(number):
            assert scan == b"+OK %d %d\r\n" % (number, self.sizes[number - 1])
            assert uid == b"+OK %d uid-%d\r\n" % (number, number)
        else:
            assert scan.startswith(b"-ERR")
            assert uid.startswith(b"-ERR")

    @invariant()
    def listings(self) -> None:
        """STAT, LIST and UIDL agree with the model at any time."""
        left = [i for i, alive in enumerate(self.alive) if alive]
        stat = b"+OK %d %d\r\n" % (len(left), sum(self.sizes[i] for i in left))
        assert self.ask(b"STAT") == stat
        rows = b"".join(b"%d %d\r\n" % (i + 1, self.sizes[i]) for i in left)
        assert self.ask(b"LIST") == b"+OK\r\n" + rows + b".\r\n"
        rows = b"".join(b"%d uid-%d\r\n" % (i + 1, i + 1) for i in left)
        assert self.ask(b"UIDL") == b"+OK\r\n" + rows + b".\r\n"

    def teardown(self) -> None:
        """QUIT commits just what the model has marked."""
        if hasattr(self, "world"):
            self.ask(b"QUIT")
            marked = frozenset(i for i, alive in enumerate(self.alive) if not alive)
            assert self.world.committed == marked


class MaildropModelTests(SynchronousTestCase):
    """A model of the maildrop agrees with a session over random command sequences."""

    def test_model(self) -> None:
        """Random commands leave session and model in agreement."""
        machine = MaildropMachine.TestCase
        machine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
        machine("runTest").debug()
