"""Tests of `popd.server.crowd`, `popd.server.sparing` and `popd.server.networks`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from popd.server.crowd import Crowd
from popd.server.networks import NOBODY, Networks
from popd.server.sparing import Sparing


class CrowdTests(SynchronousTestCase):
    """Many users come from one address."""

    def setUp(self) -> None:
        """Make a crowd."""
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.crowd = Crowd(self.clock)

    def come(self, address: str, users: int, first: int = 0) -> list[str]:
        """Let users come, and return the warnings."""
        with capturedLogs() as events:
            for number in range(first, first + users):
                self.crowd.see(address, b"user%d" % number)
        self.assertTrue(all(event["log_level"] is LogLevel.warn for event in events))
        return [formatEvent(event) for event in events]

    def test_warning(self) -> None:
        """From a private address that is worth a warning, which names the options."""
        for address in ("10.0.0.1", "172.17.0.1", "192.168.1.1", "fd00::1", "::ffff:10.0.0.2"):
            self.crowd = Crowd(self.clock)
            self.assertEqual(self.come(address, 19), [])
            (warning,) = self.come(address, 1, 19)
            self.assertIn(f"20 users come from {address}, a private address", warning)
            self.assertIn(f"--proxy-protocol {address}", warning)

    def test_others(self) -> None:
        """From an address of the internet or of this machine, or from none, it is not."""
        for address in ("192.0.2.1", "127.0.0.1", "::1", "172.32.0.1", "2001:db8::1", ""):
            self.assertEqual(self.come(address, 50), [])

    def test_same_users(self) -> None:
        """Nor is it if the same ones come again and again."""
        for _ in range(5):
            self.assertEqual(self.come("10.0.0.1", 19), [])

    def test_slowly(self) -> None:
        """Nor if they do not come within ten minutes."""
        self.come("10.0.0.1", 15)
        self.clock.advance(601)
        self.assertEqual(self.come("10.0.0.1", 15, 15), [])
        self.clock.advance(300)
        self.assertEqual(len(self.come("10.0.0.1", 5, 30)), 1)

    def test_once_an_hour(self) -> None:
        """There is one warning an hour."""
        self.assertEqual(len(self.come("10.0.0.1", 100)), 1)
        self.clock.advance(3_599)
        self.assertEqual(self.come("10.0.0.2", 100), [])
        self.clock.advance(1)
        self.assertEqual(len(self.come("10.0.0.2", 100)), 1)

    def test_bounded(self) -> None:
        """No more than some addresses are looked at."""
        for number in range(200):
            self.crowd.see(f"10.0.0.{number}", b"user")
        self.assertEqual(len(self.crowd._users), 64)


class SparingTests(SynchronousTestCase):
    """Lines that could be many."""

    def test_sparing(self) -> None:
        """One of a kind is written in a second, and says how many were not."""
        clock = Clock()
        sparing = Sparing(clock)
        with capturedLogs() as events:
            for text in ("one", "two", "three"):
                sparing.warn("a", text)
            sparing.warn("b", "other {kind}")
            clock.advance(1)
            sparing.warn("a", "four")
            clock.advance(1)
            sparing.warn("a", "five")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["one", "other {kind}", "four (and 2 more like this before)", "five"],
        )


class NetworksTests(SynchronousTestCase):
    """Sets of networks."""

    def test_contains(self) -> None:
        """An address is in one of them, or not, and what is no address never is."""
        networks = Networks.parse("192.0.2.0/24, 2001:db8::/32,10.0.0.1")
        for address in ("192.0.2.255", "::ffff:192.0.2.1", "2001:db8::1%eth0", "10.0.0.1"):
            self.assertIn(address, networks)
        for address in ("192.0.3.0", "2001:db9::", "10.0.0.2", "", "x", "/run/popd"):
            self.assertNotIn(address, networks)
        self.assertTrue(networks)

    def test_nobody(self) -> None:
        """There may be none."""
        self.assertNotIn("192.0.2.1", NOBODY)
        self.assertFalse(NOBODY)

    def test_wrong(self) -> None:
        """What is no network is refused."""
        for text in ("", "192.0.2.1/24", "x", "192.0.2.1,"):
            self.assertRaises(ValueError, Networks.parse, text)
