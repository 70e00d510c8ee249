"""Tests of `popd.maildrop.names`."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop.names import claimed_sizes, time_digits


class FileName(NamedTuple):
    """A Maildir file name, read."""

    base: bytes
    time: tuple[int, int] | None
    stored: int | None
    wire: int | None

    @classmethod
    def parse(cls, name: bytes) -> FileName:
        """Read a file name; every name is one."""
        base = name.partition(b":")[0]
        digits = time_digits(base)
        time = (int(digits[0]), int(digits[1])) if digits else None
        return cls(base, time, *claimed_sizes(base))


class BaseNameTests(SynchronousTestCase):
    """What a message's own name is."""

    def test_flags(self) -> None:
        """The base name ends before the first colon."""
        for name in (b"1.M2P3.host", b"1.M2P3.host:2,", b"1.M2P3.host:2,RS", b"1.M2P3.host:2,a:b"):
            self.assertEqual(FileName.parse(name).base, b"1.M2P3.host")

    def test_sizes_belong(self) -> None:
        """The sizes are part of the base name, as they never change."""
        self.assertEqual(FileName.parse(b"1.h,S=5,W=6:2,S").base, b"1.h,S=5,W=6")

    def test_nothing_before_the_colon(self) -> None:
        """A name that begins with a colon has an empty base name."""
        self.assertEqual(FileName.parse(b":2,S"), (b"", None, None, None))


class TimeTests(SynchronousTestCase):
    """When a message was delivered."""

    def test_known_forms(self) -> None:
        """The seconds and microseconds that deliverers write are understood."""
        for name, time in (
            (b"1700000000.M123P45.host", (1_700_000_000, 123)),
            (b"1700000000.V801I4c2M123456.host", (1_700_000_000, 123_456)),
            (b"1700000000.V801I4c2M654321_0.host,S=5:2,S", (1_700_000_000, 654_321)),
            (b"1700000000.12345_3.host", (1_700_000_000, 0)),
            (b"1700000000.host", (1_700_000_000, 0)),
            (b"0.x", (0, 0)),
        ):
            self.assertEqual(FileName.parse(name).time, time)

    def test_microseconds_elsewhere(self) -> None:
        """Only the second part of a name holds microseconds."""
        for name in (b"17.P1.M5", b"17.MAIL.host", b"17.h,M5", b"17.M1234567P1.host"):
            self.assertEqual(FileName.parse(name).time, (17, 0))

    def test_no_time(self) -> None:
        """A name that does not begin with a time has none."""
        for name in (
            b"x.17",
            b"+17.x",
            b" 17.x",
            b"1_7.x",
            b"-17.x",
            "\u0661\u0667.x".encode(),
            b"17",
            b"17,S=5",
            b"",
            b".17",
            b"1" * 13 + b".x",
            b"9" * 100_000 + b".M1.x",
        ):
            self.assertIsNone(FileName.parse(name).time, name[:20])

    def test_endless_microseconds(self) -> None:
        """Microseconds of a hundred thousand digits are none."""
        self.assertEqual(FileName.parse(b"17.M" + b"9" * 100_000 + b".x").time, (17, 0))


class SizeTests(SynchronousTestCase):
    """What a name says of the message's size."""

    def test_both(self) -> None:
        """S= and W= are read in either order and among other fields."""
        for name in (b"1.h,S=123,W=130:2,S", b"1.h,W=130,S=123", b"1.h,x=1,S=123,W=130,y=2"):
            parsed = FileName.parse(name)
            self.assertEqual((parsed.stored, parsed.wire), (123, 130))

    def test_malformed(self) -> None:
        """What is no plain number is no size."""
        for field in (
            b",S=",
            b",S=+5",
            b",S=5_0",
            b",S= 5",
            b",S=5x",
            b",S=-5",
            b",S=5\n",
            b"S=5",
            b":2,S=5",
            b",S=0x5",
            ",S=\u0665".encode(),
            b",S=" + b"9" * 16,
            b",S=" + b"9" * 100_000,
        ):
            self.assertIsNone(FileName.parse(b"1.h" + field).stored, field[:20])

    @given(st.binary())
    def test_any_name(self, name: bytes) -> None:
        """Every name can be read, and its base name reads the same."""
        parsed = FileName.parse(name)
        self.assertTrue(name.startswith(parsed.base))
        self.assertEqual(FileName.parse(parsed.base), parsed)
