"""Tests of what makes guessing slow."""

from __future__ import annotations

import os
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import Client
from popd.auth.guard import CROWD, CROWD_INTERVAL, REMEMBER, TRUST, UNNAMED, Guard
from popd.auth.penalties import forgive, penalties, slowed
from popd.auth.rules import ACCOUNT, MAX_WAIT, NETWORK, PAIR, SITE, Keys, state_of
from popd.auth.tablefile import GuessTable, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = Shape(64, 256, 256)
ATTACKER = Client("192.0.2.1")
ELSEWHERE = Client("198.51.100.7")
NOON = 1_800_000_000.0
DAY = 86_400.0


class Watched(Clock):
    """A clock that says what date it is."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = NOON


class GuardCase(SynchronousTestCase):
    """A guard, and ways to log in."""

    def setUp(self) -> None:
        """Begin without any memory."""
        self.clock = Watched()
        self.table = GuessTable.in_memory(SMALL)
        self.guard = Guard(self.table, self.clock.seconds)

    def wrong(
        self,
        password: bytes | None,
        client: Client = ATTACKER,
        user: bytes = b"joe",
        guard: Guard | None = None,
    ) -> float:
        """Try a wrong password; return what it had to wait, without letting time pass."""
        guard = guard or self.guard
        delay = guard.delay(client, user)
        if delay < inf:
            guard.failed(client, user, password)
        else:
            guard.unanswered(client)
        return delay

    def right(self, client: Client, user: bytes = b"joe") -> float:
        """Log in; return what that had to wait."""
        delay = self.guard.delay(client, user)
        if delay < inf:
            self.guard.succeeded(client, user)
        else:
            self.guard.unanswered(client)
        return delay

    def guess(
        self, count: int, client: Client | Callable[[int], Client] = ATTACKER, user: bytes = b"joe"
    ) -> None:
        """Try as many wrong passwords, one after the other, as patiently as has to be."""
        for number in range(count):
            origin = client(number) if callable(client) else client
            password = b"%d" % self.clock.seconds() + b"/%d" % number
            delay = self.wrong(password, origin, user)
            while delay == inf:
                self.clock.advance(MAX_WAIT)
                delay = self.wrong(password, origin, user)
            self.clock.advance(delay)

    def per_second(self, seconds: float, attempt: Callable[[], float]) -> float:
        """Attempt over and over again; return how many of them a second were looked at."""
        admitted = 0
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            admitted += self.clock.seconds() + attempt() < end
            self.clock.advance(0.1)
        return admitted / seconds


class HonestTests(GuardCase):
    """People who make mistakes do not notice that they are watched."""

    def test_programs(self) -> None:
        """Five programs with an expired password, which poll all day, disturb nobody behind it."""
        for _ in range(24 * 60):
            for _ in range(5):
                self.assertEqual(self.wrong(b"expired"), 0)
            self.assertEqual(self.right(ATTACKER, b"ann"), 0)
            self.assertEqual(self.right(ATTACKER), 0)
            self.clock.advance(60)

    def test_typing(self) -> None:
        """Ten people behind one address may mistype within a minute, each in three mechanisms."""
        for number in range(NETWORK.free):
            for _ in range(3):
                self.assertEqual(self.wrong(b"typo", user=b"user%d" % number), 0)
            self.assertEqual(self.right(ATTACKER, b"user%d" % number), 0)
            self.clock.advance(6)

    def test_many_clients(self) -> None:
        """A crowd that logs in at the same time has to wait no longer than hashing takes."""
        delays = [self.guard.delay(ATTACKER, b"user%d" % number) for number in range(CROWD + 20)]
        self.assertEqual(set(delays[:CROWD]), {0.0})
        self.assertLess(max(delays), 21 * CROWD_INTERVAL)

    def test_known_crowd(self) -> None:
        """Those who were there before do not even wait for that."""
        for number in range(3 * CROWD):
            self.right(ATTACKER, b"user%d" % number)
        for number in range(3 * CROWD):
            self.assertEqual(self.guard.delay(ATTACKER, b"user%d" % number), 0)

    def test_forgotten_ends(self) -> None:
        """Attempts whose end was never told are not under way for ever."""
        for _ in range(CROWD):
            self.guard.delay(ATTACKER, b"joe")
        self.clock.advance(61)
        self.assertEqual({self.guard.delay(ATTACKER, b"joe") for _ in range(CROWD)}, {0.0})

    def test_unanswered(self) -> None:
        """Attempts that came to nothing are not under way any more."""
        for _ in range(3 * CROWD):
            self.assertEqual(self.guard.delay(ATTACKER, b"joe"), 0)
            self.guard.unanswered(ATTACKER)

    def test_known_to_be_right(self) -> None:
        """Who is known to be right passes, and is not counted, unless he would have to wait."""
        for number in range(3 * CROWD):
            self.assertTrue(self.guard.passes(ATTACKER, b"user%d" % number))
        self.assertEqual(self.guard.delay(ATTACKER, b"joe"), 0)
        self.assertTrue(self.guard.passes(Client(), b"joe"))
        self.wrong(b"typo", user=b"ann")
        self.assertTrue(self.guard.passes(ATTACKER, b"joe"))
        self.guess(NETWORK.free + 5, user=b"ann")
        self.assertFalse(self.guard.passes(ATTACKER, b"joe"))
        self.assertFalse(self.guard.passes(ATTACKER, b"ann"))
        self.assertTrue(self.guard.passes(ELSEWHERE, b"joe"))

    def test_passes_in_a_crowd(self) -> None:
        """In a crowd even who is known to be right takes his turn."""
        for _ in range(CROWD):
            self.guard.delay(ATTACKER, b"joe")
        self.assertFalse(self.guard.passes(ATTACKER, b"ann"))

    def test_no_address(self) -> None:
        """On a UNIX socket nobody waits, whatever he does."""
        local = Client()
        self.guess(300, local)
        self.assertEqual(self.guard.delay(local, b"joe"), 0)
        self.guard.succeeded(local, b"joe")
        self.guard.unanswered(local)
        self.assertEqual(penalties(self.table, NOON), [])


class NetworkTests(GuardCase):
    """An address from which guesses come is slowed down."""

    def test_progress(self) -> None:
        """After ten free guesses each one more doubles the time between two, up to 15 seconds."""
        intervals = []
        for number in range(18):
            self.guard.failed(ATTACKER, b"joe", b"%d" % number)
            (network,) = [p for p in penalties(self.table, NOON) if p.kind == "network"]
            intervals.append(network.interval)
        self.assertEqual(intervals, [0] * 10 + [0.5, 1, 2, 4, 8, 15, 15, 15])

    def test_repeated(self) -> None:
        """One wrong password counts once, however often, and from wherever, it is tried."""
        for _ in range(100):
            self.wrong(b"same")
            self.wrong(b"same", ELSEWHERE)
        found = {(p.kind, p.subject, p.guesses) for p in penalties(self.table, NOON, ["joe"])}
        self.assertEqual(found, {("network", "192.0.2.1", 1), ("account", "joe", 1)})

    def test_repeated_later(self) -> None:
        """That is so for a month after it was tried last."""
        for _ in range(3):
            self.wrong(b"same")
            self.clock.advance(REMEMBER - 64)
        self.assertEqual(penalties(self.table, self.clock.seconds()), [])
        self.clock.advance(128)
        self.wrong(b"same")
        self.assertEqual(len(penalties(self.table, self.clock.seconds())), 2)

    def test_distinct(self) -> None:
        """The same password for another account is another guess, however it is put together."""
        for user, password in ((b"jo", b"e1"), (b"joe", b"1"), (b"joe", b"12"), (b"joe1", b"2")):
            self.wrong(password, user=user)
        worst = penalties(self.table, NOON)
        self.assertEqual([p.guesses for p in worst if p.kind == "network"], [4])

    def test_parallel(self) -> None:
        """Sixteen connections soon make less than one guess a second, and less than one in ten."""
        serial = iter(range(100_000))

        def sixteen() -> float:
            started = [self.guard.delay(ATTACKER, b"joe") for _ in range(16)]
            for delay in started:
                if delay < inf:
                    self.guard.failed(ATTACKER, b"joe", b"%d" % next(serial))
                    self.admitted += 1
            return 0.0

        self.admitted = 0
        self.per_second(2, sixteen)
        self.assertLess(self.admitted, 40)
        self.admitted = 0
        self.per_second(100, sixteen)
        self.assertLess(self.admitted, 10)

    def test_slow_start(self) -> None:
        """Nor do those make more than that who fill the queue while it is still a fast one."""
        for number in range(11):
            self.guard.failed(ATTACKER, b"joe", b"%d" % number)
        due = sorted(self.guard.delay(ATTACKER, b"joe") for _ in range(100))
        self.assertLess(sum(2 <= delay < 12 for delay in due), 5)

    def test_turns(self) -> None:
        """Attempts at the same time come one after the other, as if all before were wrong."""
        self.guess(11)
        self.clock.advance(1)
        delays = [self.guard.delay(ATTACKER, b"joe") for _ in range(40)]
        self.assertEqual(delays[:6], [0, 0.5, 1, 2, 4, 8])
        self.assertEqual(set(delays[6:]), {inf})

    def test_all_at_once(self) -> None:
        """A thousand attempts before the first answer do not get round it: most never come in."""
        delays = [self.guard.delay(ATTACKER, b"joe") for _ in range(1000)]
        admitted = [delay for delay in delays if delay < inf]
        self.assertLessEqual(len(admitted), CROWD + MAX_WAIT / CROWD_INTERVAL + 1)
        for number in range(len(admitted)):
            self.guard.failed(ATTACKER, b"joe", b"%d" % number)
        self.assertEqual(self.guard.delay(ATTACKER, b"ann"), inf)

    def test_decay(self) -> None:
        """What was counted wears off: it is all forgotten after hours."""
        self.guess(200)
        self.assertGreater(self.guard.delay(ATTACKER, b"joe"), 0)
        self.clock.advance(NETWORK.most * NETWORK.fades)
        self.assertEqual(penalties(self.table, self.clock.seconds()), [])
        self.assertEqual([self.guard.delay(ATTACKER, b"joe") for _ in range(5)], [0] * 5)

    def test_own_account(self) -> None:
        """Logging in to an account of his own does not help an attacker."""
        self.guess(30)
        self.right(ATTACKER, b"mallory")
        self.clock.advance(MAX_WAIT)
        self.guard.delay(ATTACKER, b"joe")
        self.assertGreater(self.guard.delay(ATTACKER, b"joe"), MAX_WAIT / 2)

    def test_mapped(self) -> None:
        """An IPv4 address is the same one if it came by IPv6."""
        self.guess(30)
        self.clock.advance(MAX_WAIT)
        self.guard.delay(ATTACKER, b"ann")
        self.assertGreater(self.guard.delay(Client("::ffff:192.0.2.1"), b"ann"), 1)

    def test_clock_back(self) -> None:
        """A clock that is set back lets nobody wait longer than ever."""
        self.guess(30)
        self.clock.rightNow = NOON - DAY
        self.assertEqual(self.guard.delay(ATTACKER, b"joe"), 0)
        self.assertLessEqual(self.guard.delay(ATTACKER, b"joe"), MAX_WAIT)


class IPv6Tests(GuardCase):
    """Whoever has one address of IPv6 has very many."""

    def test_network(self) -> None:
        """A /64 is one network."""
        self.guess(30, lambda number: Client(f"2001:db8:0:1::{number:x}"))
        subjects = {(p.kind, p.subject) for p in penalties(self.table, self.clock.seconds())}
        self.assertIn(("network", "2001:db8:0:1::/64"), subjects)
        self.assertIn(("site", "2001:db8::/48"), subjects)
        self.guard.delay(Client("2001:db8:0:1::ffff"), b"ann")
        self.assertGreater(self.guard.delay(Client("2001:db8:0:1::eeee"), b"ann"), 1)
        self.assertEqual(self.guard.delay(Client("2001:db8:0:2::1"), b"ann"), 0)

    def test_rotation(self) -> None:
        """One who uses each /64 of a /48 once is slowed down too, to a guess every 4 seconds."""
        self.guess(SITE.free + 20, lambda number: Client(f"2001:db8:0:{number:x}::1"))
        self.clock.advance(MAX_WAIT)
        delays = [self.guard.delay(Client(f"2001:db8:0:ff{n:02x}::1"), b"ann") for n in range(6)]
        self.assertEqual(delays, [0, 4, 8, 12, inf, inf])
        self.assertEqual(self.guard.delay(Client("2001:db8:1::1"), b"ann"), 0)


class OwnerTests(GuardCase):
    """Owners get in while they are under attack."""

    def test_elsewhere(self) -> None:
        """An attack from one address does not delay the owner anywhere else, known or not."""
        self.guess(500)
        self.assertEqual(self.right(ELSEWHERE), 0)
        self.assertEqual(self.right(Client("203.0.113.9")), 0)

    def test_same_address(self) -> None:
        """One who shares the attacker's address waits for a turn; after that he waits no more."""
        self.guess(500)
        self.clock.advance(MAX_WAIT / 2)
        delay = self.right(ATTACKER, b"ann")
        self.assertTrue(0 < delay <= MAX_WAIT)
        for _ in range(50):
            self.wrong(b"%f" % self.clock.seconds())
            self.assertEqual(self.right(ATTACKER, b"ann"), 0)

    def test_known_there(self) -> None:
        """One who logged in there before is not even delayed by attempts at his own account."""
        self.right(ATTACKER)
        self.right(ELSEWHERE)
        self.guess(500)
        self.assertEqual(self.right(ELSEWHERE), 0)

    def test_known_pair_guessed(self) -> None:
        """Guesses from where the owner logs in have a queue too, which he ends by logging in."""
        self.right(ATTACKER)
        self.guess(50)
        self.guard.delay(ATTACKER, b"joe")
        self.assertGreater(self.guard.delay(ATTACKER, b"joe"), 1)
        self.clock.advance(2 * MAX_WAIT)
        self.assertEqual(self.right(ATTACKER), 0)
        self.assertEqual([self.right(ATTACKER) for _ in range(5)], [0] * 5)

    def test_known_pair_ends(self) -> None:
        """One who was not there for a quarter of a year is not known there any more."""
        for _ in range(3):  # to log in again refreshes it
            self.right(ATTACKER)
            self.clock.advance(TRUST - DAY)
        self.guess(50, user=b"ann")
        self.assertEqual(self.right(ATTACKER), 0)
        self.clock.advance(TRUST + DAY)
        self.guess(50, user=b"ann")
        self.assertGreater(self.guard.delay(ATTACKER, b"joe"), 0)

    def test_distributed(self) -> None:
        """An account that many networks guess at is slowed a little, but not for its owner."""
        self.right(ELSEWHERE)
        self.guess(1000, lambda number: Client(f"10.0.{number >> 8}.{number & 255}"))
        self.assertEqual(self.right(ELSEWHERE), 0)
        stranger = Client("203.0.113.9")
        self.assertEqual([self.guard.delay(stranger, b"joe") for _ in range(9)], [5.0] * 9)
        self.assertEqual(self.guard.delay(stranger, b"ann"), 0)

    def test_one_network(self) -> None:
        """One network alone cannot slow an account down."""
        self.guess(500)
        accounts = [p for p in penalties(self.table, self.clock.seconds()) if p.kind == "account"]
        self.assertTrue(all(p.guesses < ACCOUNT.free and not p.interval for p in accounts))


class UnnamedTests(GuardCase):
    """Failures of which no password is known, as with SCRAM."""

    def test_program(self) -> None:
        """A program that fails all day, once a minute, counts once an hour for its network."""
        counts = []
        for _ in range(24 * 60):
            self.wrong(None)
            worst = penalties(self.table, self.clock.seconds())
            counts.append(sum(p.guesses for p in worst if p.kind == "network"))
            self.clock.advance(60)
        self.assertEqual(max(counts), 1)
        rises = sum(later > earlier for earlier, later in pairwise([0, *counts]))
        self.assertIn(rises, (23, 24))
        self.assertEqual(self.right(ATTACKER, b"ann"), 0)

    def test_guesses(self) -> None:
        """Guesses at one account are slowed down all the same."""
        self.assertEqual(UNNAMED % NETWORK.fades, 0)
        self.assertLess(self.per_second(60, lambda: self.wrong(None)), 0.7)
        self.assertLess(self.per_second(60, lambda: self.wrong(None)), 0.1)

    def test_accounts(self) -> None:
        """So are guesses at many accounts."""
        serial = iter(range(100_000))
        self.per_second(10, lambda: self.wrong(None, user=b"%d" % next(serial)))
        rate = self.per_second(60, lambda: self.wrong(None, user=b"%d" % next(serial)))
        self.assertLess(rate, 0.1)

    def test_right(self) -> None:
        """The right password ends it for the account."""
        for _ in range(2 * PAIR.free):
            self.wrong(None)
            self.clock.advance(MAX_WAIT)
        self.right(ATTACKER)
        self.assertEqual([self.guard.delay(ATTACKER, b"joe") for _ in range(5)], [0] * 5)


class SlowedTests(GuardCase):
    """How many are slowed down, for operators."""

    def test_count(self) -> None:
        """What is remembered counts only while somebody has to wait for it."""
        self.assertEqual(slowed(self.table, NOON), 0)
        self.guess(NETWORK.free)
        self.assertEqual(slowed(self.table, self.clock.seconds()), 0)
        self.clock.advance(1)  # what was guessed in one second would be guessed again
        self.guess(3)
        self.assertEqual(slowed(self.table, self.clock.seconds()), 1)
        self.guess(NETWORK.free + 3, ELSEWHERE, b"ann")
        self.assertEqual(slowed(self.table, self.clock.seconds()), 2)
        self.assertEqual(slowed(self.table, self.clock.seconds() + DAY), 0)

    def test_estimated(self) -> None:
        """Of much that is remembered a part is looked at, and the number is about right."""
        table = GuessTable.in_memory(Shape(4096, 256, 256))
        keys = Keys(table.key, table.scores.buckets)
        for number in range(6000):
            key = keys.of(ACCOUNT, keys.account(b"user-%d" % number))
            count = ACCOUNT.free + 5 if number % 2 else 1  # every other one has to wait
            table.scores.put(*key, state_of(NOON + count * ACCOUNT.fades, NOON))
        found = dict(table.scores)
        right = slowed(table, NOON, 4096)
        self.assertEqual(right, sum(ACCOUNT.interval(state, NOON) > 0 for state in found.values()))
        self.assertGreater(right, 2900)
        self.assertLess(len(list(table.scores.every(8))), len(found) / 6)
        self.assertLess(abs(slowed(table, NOON, 512) / right - 1), 0.25)  # five deviations


class BoundTests(SynchronousTestCase):
    """What a network can do, whatever it does."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(1, 40),  # attempts at the same time
                st.integers(0, 3),  # which account
                st.floats(0, 30),  # seconds until they are answered, and that pass after that
                st.booleans(),  # whether a password is known
            ),
            min_size=5,
            max_size=60,
        )
    )
    def test_bound(self, waves: list[tuple[int, int, float, bool]]) -> None:
        """New guesses are bounded by what is free, what wears off, and one in 15 seconds."""
        clock = Watched()
        guard = Guard(GuessTable.in_memory(SMALL), clock.seconds)
        made = serial = 0
        for count, account, seconds, known in waves:
            admitted = [
                delay
                for delay in (guard.delay(ATTACKER, b"%d" % account) for _ in range(count))
                if delay < inf
            ]
            clock.advance(max([0.0, *admitted]))
            for _ in admitted:
                serial += 1
                guard.failed(ATTACKER, b"%d" % account, b"%d" % serial if known else None)
            made += len(admitted)
            clock.advance(seconds)
        passed = clock.seconds() - NOON
        # Before the first answers nothing is known: one wave is free, but for CROWD's bound.
        crowd = 2 * 40 + 4 * PAIR.free
        doubling = 6 * 5  # from the first to the longest interval, for each queue
        self.assertLessEqual(
            made, NETWORK.free + crowd + doubling + passed / NETWORK.fades + 5 * passed / MAX_WAIT
        )


class SharedTests(GuardCase):
    """Processes share what they know."""

    def both(self, work: Callable[[Guard], Any]) -> None:
        """Do *work* in a forked process and in this one, at the same time, as far as can be."""
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.read(ready, 1)
                work(Guard(self.table, self.clock.seconds))
                status = 0
            finally:
                os._exit(status)
        os.write(go, b"!")
        work(self.guard)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(ready)
        os.close(go)

    def test_counts(self) -> None:
        """Two that count at the same time lose nothing."""
        me = os.getpid()

        def work(guard: Guard) -> None:
            for number in range(3000):
                client = Client(f"2001:db8:{number % 64:x}::1")
                guard.failed(client, b"joe", b"%d/%d" % (os.getpid() == me, number))

        self.table = GuessTable.in_memory(Shape(4096, 256, 256))
        self.guard = Guard(self.table, self.clock.seconds)
        self.both(work)
        found = [p.guesses for p in penalties(self.table, NOON) if p.kind == "network"]
        self.assertEqual(len(found), 64)
        self.assertEqual(sum(found), 2 * 3000)

    def test_repeats(self) -> None:
        """The same wrong password counts once for all of them."""

        def work(guard: Guard) -> None:
            for number in range(2000):
                guard.failed(ATTACKER, b"joe", b"%d" % (number % 50))

        self.both(work)
        (network,) = [p for p in penalties(self.table, NOON) if p.kind == "network"]
        self.assertEqual(network.guesses, 50)

    def test_turns(self) -> None:
        """No turn is taken twice."""
        clients = [Client(f"192.0.2.{number}") for number in range(100)]
        for client in clients:
            for number in range(11):
                self.guard.failed(client, client.address.encode(), b"%d" % number)
        result, write = os.pipe()

        def work(guard: Guard) -> None:
            delays = [guard.delay(client, b"ann") for _ in range(16) for client in clients]
            os.write(write, b"".join(b"%g\n" % delay for delay in delays if delay < inf))

        self.both(work)
        os.close(write)
        with os.fdopen(result) as lines:
            delays = sorted(float(line) for line in lines)
        self.assertEqual(delays, [turn for turn in (0, 0.5, 1, 2, 4, 8) for _ in clients])


class PenaltyTests(GuardCase):
    """What administrators see, and what they can do about it."""

    def test_list(self) -> None:
        """The worst comes first, with what is known about it."""
        self.guess(12, ELSEWHERE, b"ann")
        self.wrong(b"x", ATTACKER, b"joe")
        self.wrong(None, ATTACKER, b"joe")
        found = penalties(self.table, self.clock.seconds(), ["ann", "joe"])
        self.assertEqual(
            [(p.kind, p.subject, p.guesses) for p in found],
            [
                ("network", "198.51.100.7", 12),
                ("account", "ann", 10),
                ("network", "192.0.2.1", 2),
                ("account", "joe", 2),
                ("pair", "joe from 192.0.2.1", 1),
            ],
        )
        self.assertEqual([p.interval for p in found], [1, 0, 0, 0, 0])
        self.assertTrue(all(p.ends > self.clock.seconds() for p in found))

    def test_about(self) -> None:
        """What concerns one network, or one user, can be asked for."""
        self.wrong(None, ELSEWHERE, b"ann")
        self.wrong(None, ATTACKER, b"joe")
        self.wrong(None, ATTACKER, b"ann")

        def about(subject: str) -> set[tuple[str, str]]:
            found = penalties(self.table, NOON, ["ann", "joe"], subject)
            return {(p.kind, p.subject) for p in found}

        pairs = [("pair", f"{who} from 192.0.2.1") for who in ("ann", "joe")]
        self.assertEqual(about("192.0.2.1"), {("network", "192.0.2.1"), *pairs})
        self.assertEqual(
            about("ann"), {("account", "ann"), pairs[0], ("pair", "ann from 198.51.100.7")}
        )
        self.assertEqual(about("203.0.113.1"), set())

    def test_unknown_names(self) -> None:
        """Names are not stored: one that is not told is only recognisable."""
        self.wrong(None)
        shown = {p.kind: p.subject for p in penalties(self.table, NOON)}
        self.assertRegex(shown["account"], r"^#[0-9a-f]{12}$")
        self.assertRegex(shown["pair"], r"^#[0-9a-f]{12}$")
        self.assertNotIn(b"joe", bytes(self.table._memory))

    def test_forgive_address(self) -> None:
        """A network is forgiven, with its site and with accounts there; others are not."""
        client = Client("2001:db8::1")
        self.guess(30, client)
        self.guess(30)
        self.wrong(None, client)
        self.assertEqual(forgive(self.table, "2001:db8::1"), 3)
        kinds = {(p.kind, p.subject) for p in penalties(self.table, NOON, ["joe"])}
        self.assertEqual(kinds, {("network", "192.0.2.1"), ("account", "joe")})
        self.assertEqual(self.guard.delay(client, b"joe"), 0)
        self.assertEqual(forgive(self.table, "2001:db8::1"), 0)

    def test_forgive_user(self) -> None:
        """A user is forgiven, with all networks that he failed from."""
        self.wrong(None)
        self.wrong(None, ELSEWHERE)
        self.assertEqual(forgive(self.table, "joe"), 3)
        self.assertEqual({p.kind for p in penalties(self.table, NOON, ["joe"])}, {"network"})

    def test_forgive_all(self) -> None:
        """Everything is forgiven, also that a wrong password was known."""
        self.guess(30)
        self.wrong(b"same")
        self.assertEqual(forgive(self.table), 2)
        self.assertEqual(penalties(self.table, NOON), [])
        self.wrong(b"same")
        self.assertEqual(len(penalties(self.table, NOON)), 2)
