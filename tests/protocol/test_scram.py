"""Tests of `popd.protocol.sasl.scram`, and of the events that an exchange needs."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.channel import Channel
from popd.protocol.credentials import ScramCredentials, ScramKeys
from popd.protocol.events import Authenticate, Lookup, Problem, Reply, Signal
from popd.protocol.offer import Offer
from popd.protocol.sasl.exchange import Ask, Challenge, Done, Failed, Outcome
from popd.protocol.sasl.scram import Scram
from popd.protocol.session import Session
from popd.protocol.snapshot import EMPTY
from tests.protocol.helpers import ConversationCase
from tests.protocol.scram import ScramClient, derive

SERVER_NONCE = rb"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
NAMES = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1")
BINDINGS = {"tls-exporter": b"\x01" * 32, "tls-server-end-point": b"\x02" * 32}
OFFER = Offer(NAMES, unique=lambda: SERVER_NONCE)
PLAIN_TLS = Channel(tls=True, offer=OFFER)
BOUND = Channel(tls=True, offer=OFFER, bindings=BINDINGS.get)

# RFC 7677 section 3 and RFC 5802 section 5: the user "user", whose password is "pencil".
SALT_256 = b"W22ZaJ0SNY7soEsUEjb6gQ=="
PROOF_256 = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SALT_1 = b"QSXCR+Q6sek8bf92"
KEYS = derive(b"pencil", b64decode(SALT_256), 4096)
KEYS_1 = derive(b"pencil", b64decode(SALT_1), 4096, "sha1")

MALFORMED = Failed()
BAD_BINDING = Failed("[AUTH] the channel binding is missing or wrong")
DENIED = b"S: -ERR [AUTH] wrong user name or password"


def client_line(message: bytes) -> bytes:
    """Return a line that a client sends."""
    return b"C: " + b64encode(message)


def server_line(message: bytes) -> bytes:
    """Return a line that a server sends."""
    return b"S: + " + b64encode(message)


def exchange(
    client: ScramClient,
    name: str = "SCRAM-SHA-256",
    channel: Channel = PLAIN_TLS,
    keys: ScramKeys = KEYS,
) -> tuple[Scram, Outcome]:
    """Go through an exchange as far as the server's final message."""
    scram = Scram(name, channel)
    outcome = scram.step(client.first)
    if isinstance(outcome, Ask):
        outcome = scram.step(client.final(scram.found(keys).data))
    return scram, outcome


class VectorTests(ConversationCase):
    """The examples of the RFCs."""

    sha256 = (
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=" + PROOF_256,
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    )
    sha1 = (
        b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    )

    def test_sha256(self) -> None:
        """RFC 7677 section 3, with and without an initial response."""
        first, challenge, final, signature = self.sha256
        last = (server_line(challenge), client_line(final), server_line(signature))
        for begin in (
            (b"C: AUTH SCRAM-SHA-256 " + b64encode(first),),
            (b"C: AUTH SCRAM-SHA-256", b"S: + ", client_line(first)),
        ):
            world = self.converse(
                *(*begin, *last, b"C: ", b"S: +OK maildrop locked and ready"),
                channel=PLAIN_TLS,
                keys=KEYS,
            )
            self.assertEqual(world.lookups, [Lookup(b"user", "SCRAM-SHA-256")])
            expected = ScramCredentials(b"user", b"", True, KEYS, "SCRAM-SHA-256")
            self.assertEqual(world.credentials, [expected])

    def test_sha1(self) -> None:
        """RFC 5802 section 5; an equals sign is an empty response as well."""
        first, challenge, final, signature = self.sha1
        world = self.converse(
            *(b"C: AUTH SCRAM-SHA-1 " + b64encode(first), server_line(challenge)),
            *(
                client_line(final),
                server_line(signature),
                b"C: =",
                b"S: +OK maildrop locked and ready",
            ),
            channel=replace(PLAIN_TLS, offer=replace(OFFER, unique=lambda: b"3rfcNHYJY1ZVvWVs7j")),
            keys=KEYS_1,
        )
        self.assertEqual(world.lookups, [Lookup(b"user", "SCRAM-SHA-1")])


class ConversationTests(ConversationCase):
    """What a session makes of the steps."""

    def talk(self, client: ScramClient, *last: bytes, keys: ScramKeys = KEYS) -> None:
        """Go through an exchange as far as the server's final message, then say *last*."""
        begin = (b"C: AUTH SCRAM-SHA-256 " + b64encode(client.first),)
        server_first = Scram("SCRAM-SHA-256", PLAIN_TLS)
        server_first.step(client.first)
        challenge = server_first.found(keys).data
        self.world = self.converse(
            *(*begin, server_line(challenge), client_line(client.final(challenge)), *last),
            channel=PLAIN_TLS,
            keys=keys,
        )

    def test_wrong_password(self) -> None:
        """A wrong proof is somebody's guess: the world is told, and refuses."""
        self.talk(ScramClient(password=b"pen"), DENIED, b"C: QUIT", b"S: +OK bye")
        expected = ScramCredentials(b"user", b"", False, KEYS, "SCRAM-SHA-256")
        self.assertEqual(self.world.credentials, [expected])

    def test_nobody(self) -> None:
        """Keys without an owner let nobody in, even if somebody knew what they are made of."""
        self.talk(ScramClient(), DENIED, keys=replace(KEYS, owner=None))

    def test_cancel(self) -> None:
        """The client may cancel when it has seen the server's signature, and is not let in."""
        client = ScramClient()
        client.final(b"r=" + client.nonce + SERVER_NONCE + b",s=" + SALT_256 + b",i=4096")
        signature = server_line(client.expected)
        self.talk(client, signature, b"C: *", b"S: -ERR authentication cancelled")
        self.assertEqual(self.world.credentials, [])
        self.talk(client, signature, b"C: eA==", b"S: -ERR [AUTH] malformed credentials")
        self.assertEqual(self.world.credentials, [])

    def test_lookup_fails(self) -> None:
        """A directory that is down is no wrong password, and ends the exchange."""
        first = b64encode(ScramClient().first)
        world = self.converse(
            *(b"C: AUTH SCRAM-SHA-256 " + first, b"S: " + Problem.TEMPORARY.value[:-2]),
            *(b"C: QUIT", b"S: +OK bye"),
            channel=PLAIN_TLS,
            lookup_problem=Problem.TEMPORARY,
        )
        self.assertEqual(world.credentials, [])

    def test_paused(self) -> None:
        """Nothing is parsed while keys are looked up, and only the answer to that is taken."""
        session = Session(PLAIN_TLS)
        session.feed(b"AUTH SCRAM-SHA-256 " + b64encode(ScramClient().first) + b"\r\n*\r\nQUIT\r\n")
        self.assertEqual(session.next_event(), Lookup(b"user", "SCRAM-SHA-256"))
        self.assertEqual(session.next_event(), Signal.PAUSED)
        self.assertRaises(RuntimeError, session.authenticated, EMPTY)
        session.found(KEYS)
        self.assertRaises(RuntimeError, session.found, KEYS)
        event = session.next_event()
        assert isinstance(event, Reply)
        self.assertTrue(event.data.startswith(b"+ "))
        self.assertEqual(session.next_event(), Reply(b"-ERR authentication cancelled\r\n"))

    def test_authenticate_waits(self) -> None:
        """Keys are no answer to credentials."""
        session = Session(Channel(tls=True))
        session.feed(b"USER joe\r\nPASS x\r\n")
        session.next_event()
        self.assertIsInstance(session.next_event(), Authenticate)
        self.assertRaises(RuntimeError, session.found, KEYS)


class NameTests(SynchronousTestCase):
    """Who logs in, and for whom."""

    def ask(self, name: bytes, header: bytes = b"n,,") -> Outcome:
        """Return what comes of a first message."""
        return Scram("SCRAM-SHA-256", PLAIN_TLS).step(ScramClient(name=name, header=header).first)

    def test_escapes(self) -> None:
        """A comma and an equals sign are escaped in names; nothing else is."""
        self.assertEqual(self.ask(b"a=2Cb=3Dc"), Ask(b"a,b=c", "SCRAM-SHA-256"))
        self.assertEqual(self.ask(b"a=3D2C"), Ask(b"a=2C", "SCRAM-SHA-256"))
        for name in (b"a=", b"a=2c", b"a=41", b"a==2C", b"=3", b"a\0", b"\xff", b""):
            self.assertEqual(self.ask(name), MALFORMED, name)
            if name:
                self.assertEqual(self.ask(b"joe", b"n,a=" + name + b","), MALFORMED, name)

    def test_utf8(self) -> None:
        """Names are UTF-8."""
        name = "jürgen@example.org".encode()
        self.assertEqual(self.ask(name), Ask(name, "SCRAM-SHA-256"))

    def test_somebody_else(self) -> None:
        """For whom the user wants to act is handed on; for himself is for nobody else."""
        for header, authzid in ((b"n,a=ann=2C,", b"ann,"), (b"n,a=user,", b""), (b"n,,", b"")):
            scram, outcome = exchange(ScramClient(header=header))
            self.assertIsInstance(outcome, Challenge)
            done = Done(ScramCredentials(b"user", authzid, True, KEYS, "SCRAM-SHA-256"))
            self.assertEqual(scram.step(b""), done)


class SyntaxTests(SynchronousTestCase):
    """Attributes have their order, and limits (RFC 5802 section 7)."""

    def test_first(self) -> None:
        """A first message that is not well formed fails."""
        long = b"x" * 5_000
        for message in (
            *(b"", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,r=abc,n=user", b"n,,n=user,r="),
            *(b"n,,m=x,n=user,r=abc", b"n,,n=user,r=abc,m=x", b"n,,n=user,m=x,r=abc"),
            *(b",,n=user,r=abc", b"x,,n=user,r=abc", b"N,,n=user,r=abc", b"n,b=x,n=user,r=abc"),
            *(b"F,n,,n=user,r=abc", b"n,a=,n=user,r=abc", b"p=,,n=user,r=abc"),
            *(b"n,,n=user,r=a b", b"n,,n=user,r=a\x7f", b"n,,n=user,r=\xc3\xbc", b"n,,n=user,r=a,"),
            *(b"n,,n=user,r=abc,x=", b"n,,n=user,r=abc,1=x", b"n,,n=user,r=abc,r=def"),
            *(b"n,,n=user,r=" + b"x" * 257, b"n,,n=user,r=" + long, b"n,,n=" + long + b",r=abc"),
            *(b"n,,n=user,r=abc,x=\xff", b"n,,n=user,r=abc,x=\0", b"n,,n=user,r=abc\n"),
        ):
            outcome = Scram("SCRAM-SHA-256", PLAIN_TLS).step(message)
            self.assertEqual(outcome, MALFORMED, message)

    def test_final(self) -> None:
        """A final message that is not well formed, or has another nonce, fails."""
        nonce = b"abc" + SERVER_NONCE
        proof = b64encode(b"x" * 32)
        for message in (
            *(b"", b"c=biws", b"c=biws,r=" + nonce, b"c=biws,p=" + proof),
            *(b"r=" + nonce + b",c=biws,p=" + proof, b"c=biws,r=abc,p=" + proof),
            *(b"c=biws,r=%b,p=%b" % (nonce + b"x", proof), b"c=biws,r=%b,p=" % nonce),
            *(b"c=biws,r=%b,p=%b" % (SERVER_NONCE, proof), b"c=biws,r=%b,p=!" % nonce),
            *(b"c=biws,r=%b,m=x,p=%b" % (nonce, proof), b"m=x,c=biws,r=%b,p=%b" % (nonce, proof)),
            *(b"c=biws,r=%b,p=%b,x=y" % (nonce, proof), b"c=biws,r=%b,p==" % nonce),
            *(b"c=biws,r=%b,p=%b" % (nonce, b64encode(b"x" * n)) for n in (0, 1, 20, 31, 33)),
            *(b"c=biws,r=%b,p=%b,p=%b" % (nonce, proof, proof),),
            b"c=biws,r=%b,x=%b,p=%b" % (nonce, b"x" * 5_000, proof),
        ):
            scram = Scram("SCRAM-SHA-256", PLAIN_TLS)
            scram.step(b"n,,n=user,r=abc")
            scram.found(KEYS)
            self.assertEqual(scram.step(message), MALFORMED, message)

    def test_extensions(self) -> None:
        """Attributes that nobody knows are ignored, but belong to what is proven."""
        scram, outcome = exchange(ScramClient(extension=b",x=y=z,Q=1"))
        self.assertIsInstance(outcome, Challenge)
        self.assertIsInstance(scram.step(b""), Done)

    def test_replay(self) -> None:
        """A final message is worth nothing in another exchange."""
        client = ScramClient()
        old = Scram("SCRAM-SHA-256", PLAIN_TLS)
        old.step(client.first)
        final = client.final(old.found(KEYS).data)
        other = replace(PLAIN_TLS, offer=replace(OFFER, unique=lambda: b"another"))
        new = Scram("SCRAM-SHA-256", other)
        new.step(client.first)
        new.found(KEYS)
        self.assertEqual(new.step(final), MALFORMED)

    @given(
        st.sampled_from(NAMES),
        st.lists(
            st.sampled_from(
                [b"n,,n=user,r=abc", b"c=biws,r=abc" + SERVER_NONCE + b",p=", b"", b",", b"="]
            )
            | st.binary(max_size=30),
            max_size=6,
        ).map(b"".join),
        st.lists(st.binary(max_size=60), max_size=3),
    )
    def test_arbitrary(self, name: str, first: bytes, others: list[bytes]) -> None:
        """Whatever a client says has an outcome, and none of it lets it in."""
        scram = Scram(name, BOUND)
        for message in (first, *others):
            match scram.step(message):
                case Ask():
                    self.assertIsInstance(scram.found(KEYS), Challenge)
                case Done(ScramCredentials(proven=proven)):
                    self.assertFalse(proven)
                    return
                case Failed():
                    return
                case outcome:
                    self.fail(f"{outcome} in answer to nonsense")


class BindingTests(SynchronousTestCase):
    """The exchange can be bound to the TLS connection (RFC 5802 section 6)."""

    plus = "SCRAM-SHA-256-PLUS"

    def test_bound(self) -> None:
        """With the octets of its own connection a client gets in."""
        for name, octets in BINDINGS.items():
            header = b"p=" + name.encode("ascii") + b",,"
            client = ScramClient(header=header, binding=octets)
            scram, outcome = exchange(client, self.plus, BOUND)
            self.assertEqual(outcome, Challenge(client.expected), name)
            done = Done(ScramCredentials(b"user", b"", True, KEYS, self.plus))
            self.assertEqual(scram.step(b""), done)

    def test_somebody_between(self) -> None:
        """Octets of another connection, none, or another header than before fail."""
        header = b"p=tls-exporter,,"
        for client in (
            ScramClient(header=header, binding=b"\x03" * 32),
            ScramClient(header=header),
            ScramClient(header=header, binding=BINDINGS["tls-server-end-point"]),
            ScramClient(header=header, binding=BINDINGS["tls-exporter"], confirmed=b"n,,"),
            ScramClient(header=header, binding=BINDINGS["tls-exporter"], confirmed=b"p=x,,"),
        ):
            self.assertEqual(exchange(client, self.plus, BOUND)[1], BAD_BINDING, client)
        client = ScramClient(header=b"n,a=ann,", confirmed=b"n,,")
        self.assertEqual(exchange(client)[1], BAD_BINDING)

    def test_header(self) -> None:
        """Who binds says -PLUS and ``p``, with a name that the connection has, or neither."""
        for name, channel, header in (
            *((self.plus, BOUND, header) for header in (b"n,,", b"y,,", b"p=tls-unique,,")),
            (self.plus, replace(BOUND, bindings=lambda _: None), b"p=tls-exporter,,"),
            ("SCRAM-SHA-256", BOUND, b"p=tls-exporter,,"),
            ("SCRAM-SHA-256", PLAIN_TLS, b"p=tls-exporter,,"),
            ("SCRAM-SHA-256", Channel(cleartext_login=True, offer=OFFER), b"p=tls-exporter,,"),
        ):
            client = ScramClient(header=header)
            self.assertEqual(exchange(client, name, channel)[1], BAD_BINDING, (name, header))

    def test_downgrade(self) -> None:
        """A client that would bind, and was not told that it can, is told that it was betrayed."""
        client = ScramClient(header=b"y,,")
        for name in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
            self.assertEqual(exchange(client, name, BOUND)[1], BAD_BINDING)
        self.assertIsInstance(exchange(client, channel=PLAIN_TLS)[1], Challenge)
        unbound = replace(BOUND, offer=replace(OFFER, sasl=("SCRAM-SHA-256",)))
        self.assertIsInstance(exchange(client, channel=unbound)[1], Challenge)

    def test_no_binding(self) -> None:
        """A client that cannot bind gets in without."""
        self.assertIsInstance(exchange(ScramClient(), channel=BOUND)[1], Challenge)
