"""Tests of `popd.maildrop.stock`: its columns are as narrow as can be, and become wider."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from popd.maildrop.stock import SINGLE, Change, Found, Stock
from popd.maildrop.stored import Facts


def found(number: int, info: bytes = b":2,S") -> Found:
    """Return the file of a message, as a listing shows it."""
    return b"cur", b"%d.h%b" % (1000 + number, info), number


def stock_of(count: int, facts: Facts) -> Stock:
    """Return the stock of so many messages, all alike."""
    return Stock.of((found(number), facts, SINGLE) for number in range(count))


def with_one_more(stock: Stock, facts: Facts) -> Stock:
    """Return the stock with a new message at its end."""
    return stock.after(Change([], {}, [found(len(stock))]), lambda _: facts)


class ColumnTests(SynchronousTestCase):
    """No number is lost where a column is too narrow for it."""

    def test_narrow(self) -> None:
        """A column takes no more room than its largest number needs."""
        for size, itemsize in [(255, 1), (256, 2), (65_536, 4), (1 << 32, 8)]:
            octets = stock_of(3, Facts(1, 2, size)).columns[-1]
            self.assertEqual((octets.itemsize, list(octets)), (itemsize, [size] * 3))

    def test_before_1970(self) -> None:
        """A time may be negative."""
        self.assertEqual(stock_of(2, Facts(1, -2, 3)).facts(1), Facts(1, -2, 3))

    def test_large_after_small(self) -> None:
        """A large message after small ones, and a small one after that."""
        stock = stock_of(3, Facts(100, 1, 110))
        for number, size in [(3, 1 << 33), (4, 7), (5, 70_000)]:
            stock = with_one_more(stock, Facts(size, number, size + 1))
        sizes = [100, 100, 100, 1 << 33, 7, 70_000]
        self.assertEqual([stock.facts(i).size for i in range(6)], sizes)
        self.assertEqual(list(stock.snapshot.sizes[3:]), [(1 << 33) + 1, 8, 70_001])
        self.assertEqual(stock.base(5), b"1005.h")

    def test_many_places(self) -> None:
        """Each of many messages gets flags that no other has."""
        count = 400
        stock = stock_of(count, Facts(1, 1, 1))
        moved = {i: found(i, b":2,%d" % i) for i in range(count)}
        stock = stock.after(Change([], moved, [found(count)]), lambda _: Facts(1, 1, 1))
        self.assertEqual(
            [stock.locate(i)[0] for i in (0, 255, 256, 399, 400)],
            [
                b"/cur/%d.h:2,%b" % (1000 + i, b"%d" % i if i < count else b"S")
                for i in (0, 255, 256, 399, 400)
            ],
        )

    def test_long_names(self) -> None:
        """More than 65,535 octets of names, some of them added."""
        count = 9_400
        stock = stock_of(count, Facts(1, 1, 1))
        stock = with_one_more(stock, Facts(1, 1, 1))
        self.assertEqual(stock.snapshot.uids[count], b"%d.h" % (1000 + count))
        self.assertEqual(stock.snapshot.uids[count - 1], b"%d.h" % (999 + count))
