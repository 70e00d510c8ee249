"""Tests of where SCRAM keys are looked up, and made up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.auth import scramkeys
from popd.auth.account import Account
from popd.auth.chain import CheckerChain
from popd.auth.fakekeys import DEFAULT_SHAPE, FakeKeys
from popd.auth.interfaces import AuthTemporaryError
from popd.auth.link import Link, Policy
from popd.ctl.passwords import hashed
from popd.protocol.credentials import ScramKeys
from tests.auth.fakes import Directory, FakeChecker

if TYPE_CHECKING:
    from twisted.cred.checkers import ICredentialsChecker

SHA_256, SHA_1 = "SCRAM-SHA-256", "SCRAM-SHA-1"


def keys(iterations: int = 4096, salt: bytes = b"0123456789abcdef") -> ScramKeys:
    """Return keys of somebody."""
    return ScramKeys(salt, iterations, b"stored".ljust(32), b"server".ljust(32))


class Lookups(SynchronousTestCase):
    """Keys come from the first link that has some."""

    def setUp(self) -> None:
        """Make fake keys, and two directories."""
        self.fakes = FakeKeys(b"secret")
        self.first = Directory(alice=keys(5000))
        self.second = Directory(**{"alice": keys(6000), "bob@example.org": keys(7000)})

    def look_up(self, name: bytes, *links: ICredentialsChecker | Link) -> ScramKeys:
        """Return what is found, which has to be there at once."""
        chain = CheckerChain(links or (self.first, self.second), fakes=self.fakes)
        return self.successResultOf(chain.scram_keys(name, SHA_256))

    def test_order(self) -> None:
        """The first one counts; all were asked, whoever has them."""
        found = self.look_up(b"Alice")
        self.assertEqual((found.iterations, found.owner), (5000, Account("alice")))
        self.assertEqual(self.look_up(b"bob@example.ORG").iterations, 7000)
        self.assertIsNone(self.look_up(b"eve").owner)
        self.assertEqual(self.first.looked_up, self.second.looked_up)
        self.assertEqual(len(self.first.looked_up), 3)

    def test_default_domain(self) -> None:
        """Links are asked for the complete name and for the bare one."""
        chain = CheckerChain([self.first, FakeChecker(b"x")], "example.org", fakes=self.fakes)
        for name in (b"bob", b"bob@example.org"):
            self.successResultOf(chain.scram_keys(name, SHA_256))
        self.assertEqual(self.first.looked_up, [(b"bob@example.org", b"bob")] * 2)

    def test_impossible(self) -> None:
        """Who cannot exist is looked up under a harmless name."""
        directory = Directory(**{".nobody": keys()})
        self.assertIsNone(self.look_up(b"../x", directory).owner)
        self.assertEqual(directory.looked_up, [(b".nobody", b"")])

    def test_other_mechanisms(self) -> None:
        """Who has no keys for a mechanism is not asked about it."""
        chain = CheckerChain([self.first], fakes=self.fakes)
        self.assertIsNone(self.successResultOf(chain.scram_keys(b"alice", SHA_1)).owner)
        self.assertEqual(self.first.looked_up, [])

    def test_down(self) -> None:
        """A link that is down matters to those whose keys it may have."""
        self.first.error = AuthTemporaryError("down")
        chain = CheckerChain([self.first, self.second], fakes=self.fakes, clock=Clock())
        found = self.successResultOf(chain.scram_keys(b"alice", SHA_256))
        self.assertEqual(found.iterations, 6000)
        self.failureResultOf(chain.scram_keys(b"eve", SHA_256), AuthTemporaryError)
        self.assertIsNone(self.successResultOf(chain.scram_keys(b"../x", SHA_256)).owner)

    def test_policies(self) -> None:
        """What a link's policy bars is not found behind it."""
        for text, name, owner in (
            ("failure=stop", b"alice", Account("alice")),
            ("failure=stop", b"bob@example.org", None),
            ("success=next", b"alice", None),
            ("success=stop", b"alice", None),
        ):
            barring = Link(self.first, Policy.split(f"[{text}]")[0])
            self.assertEqual(self.look_up(name, barring, self.second).owner, owner)
        no_keys = Link(FakeChecker(b"x"), Policy.split("[failure=stop]")[0])
        self.assertIsNone(self.look_up(b"alice", no_keys, self.second).owner)
        self.first.error = AuthTemporaryError("down")
        stopping = Link(self.first, Policy.split("[temporary=stop]")[0])
        chain = CheckerChain([stopping, self.second], clock=Clock())
        self.failureResultOf(chain.scram_keys(b"alice", SHA_256), AuthTemporaryError)

    def test_at_the_same_time(self) -> None:
        """Nobody waits for one link to be asked before the next."""
        slow: Deferred[ScramKeys | None] = Deferred()
        self.patch(self.first, "scram_keys", lambda *_: slow)
        chain = CheckerChain([self.first, self.second], fakes=self.fakes)
        found = chain.scram_keys(b"alice", SHA_256)
        self.assertEqual(len(self.second.looked_up), 1)
        self.assertNoResult(found)
        slow.callback(None)
        self.assertEqual(self.successResultOf(found).iterations, 6000)


class Fakes(SynchronousTestCase):
    """Keys that are made up look like real ones."""

    def test_constant(self) -> None:
        """They follow from the name, the mechanism, and a secret."""
        fakes = FakeKeys(b"secret")
        made = fakes.make(b"eve", SHA_256)
        self.assertEqual(made, FakeKeys(b"secret").make(b"eve", SHA_256))
        self.assertEqual(len({made.salt, made.stored_key, made.server_key}), 3)
        others = [
            fakes.make(b"eva", SHA_256),
            fakes.make(b"eve", SHA_1),
            FakeKeys(b"other").make(b"eve", SHA_256),
            FakeKeys().make(b"eve", SHA_256),
        ]
        self.assertEqual(len({made.salt, *(other.salt for other in others)}), 5)
        self.assertIsNone(made.owner)

    def test_default(self) -> None:
        """Until any real keys were seen, they are like those that popctl makes."""
        stored = hashed(b"secret").scram_sha_256.partition("}")[2].encode()
        real = scramkeys.parse(SHA_256, stored)
        self.assertEqual((real.iterations, len(real.salt)), DEFAULT_SHAPE)

    def test_sizes(self) -> None:
        """They are as long as real ones."""
        for mechanism, octets in ((SHA_256, 32), (SHA_1, 20)):
            made = FakeKeys().make(b"eve", mechanism)
            self.assertEqual((made.iterations, len(made.salt)), DEFAULT_SHAPE)
            self.assertEqual((len(made.stored_key), len(made.server_key)), (octets, octets))

    def shape(self, fakes: FakeKeys, mechanism: str = SHA_256) -> tuple[int, int]:
        """Return the iterations and the length of the salt of what is made up."""
        made = fakes.make(b"eve", mechanism)
        return made.iterations, len(made.salt)

    def test_most_usual(self) -> None:
        """Their parameters are those of most of the real ones, for each mechanism."""
        fakes = FakeKeys()
        usual, other = keys(15_000, b"x" * 12), keys(4096, b"x" * 20)
        for real in (usual, usual, usual, other, usual, other, usual):
            fakes.seen(SHA_256, real)
        self.assertEqual(self.shape(fakes), (15_000, 12))
        self.assertEqual(self.shape(fakes, SHA_1), DEFAULT_SHAPE)
        for _ in range(5):
            fakes.seen(SHA_256, other)
        self.assertEqual(self.shape(fakes), (4096, 20))

    def test_strange(self) -> None:
        """Parameters that no made up key could have are not copied."""
        fakes = FakeKeys()
        for _ in range(3):
            fakes.seen(SHA_256, keys(1, b""))
            fakes.seen(SHA_256, keys(1, b"x" * 65))
            fakes.seen("SCRAM-SHA-512", keys(1))
        self.assertEqual(self.shape(fakes), DEFAULT_SHAPE)

    def test_processes_agree(self) -> None:
        """What one process has seen the others know, if they parted after these were made."""
        fakes = FakeKeys()
        pid = os.fork()
        if pid == 0:
            for _ in range(3):
                fakes.seen(SHA_256, keys(9999))
            os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual(self.shape(fakes), (9999, 16))

    def test_kept(self) -> None:
        """What they are made of, and what real ones look like, outlasts a restart."""
        path = self.directory()
        fakes = FakeKeys.kept(path)
        for _ in range(1200):
            fakes.seen(SHA_256, keys(9999, b"x" * 8))
        made = fakes.make(b"eve", SHA_256)
        self.assertEqual((made.iterations, len(made.salt)), (9999, 8))
        self.assertEqual(FakeKeys.kept(path).make(b"eve", SHA_256), made)
        other = FakeKeys.kept(path.with_name("other")).make(b"eve", SHA_256)
        self.assertNotEqual(other.stored_key, made.stored_key)

    def test_file(self) -> None:
        """The file is its directory's owner's, for nobody else to read, and made as a whole."""
        path = self.directory()
        owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        os.chown(path.parent, *owner)
        FakeKeys.kept(path)
        status = path.stat()
        self.assertEqual((status.st_uid, status.st_gid, status.st_mode & 0o777), (*owner, 0o600))
        self.assertEqual([one.name for one in path.parent.iterdir()], [path.name])

    def test_unusable(self) -> None:
        """Where nothing can be kept they are made up anew; what is something else stays so."""
        path = self.directory()
        nowhere = path / "none"
        first, second = (FakeKeys.kept(nowhere).make(b"eve", SHA_256) for _ in range(2))
        self.assertNotEqual(first, second)

        def no_room(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", no_room)
        with capturedLogs() as events:
            FakeKeys.kept(path)
        self.assertIn(f"{path}: No space left on device; a restart", str(formatEvent(events[0])))
        self.assertEqual(list(path.parent.iterdir()), [])
        path.write_bytes(b"precious")
        with capturedLogs() as events:
            FakeKeys.kept(path).make(b"eve", SHA_256)
        self.assertIn(f"{path}: this is something else", str(formatEvent(events[0])))
        self.assertEqual(path.read_bytes(), b"precious")

    def directory(self) -> Path:
        """Return where the file will be."""
        directory = Path(self.mktemp())
        directory.mkdir()
        return directory / "fake-keys"
