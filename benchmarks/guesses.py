"""What it costs to count wrong guesses: microseconds a call, and the memory of all that is known.

``python benchmarks/guesses.py`` prints a table, in half a minute.  Each figure is the best of five
rounds.  With nothing known, then with a million addresses that guessed once or several times.
"""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from popd.auth.account import Client
from popd.auth.guard import Guard
from popd.auth.penalties import penalties
from popd.auth.tablefile import GuessTable

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES: Final = 1_000_000
ROUNDS: Final = 5
CALLS: Final = 20_000
WORST: Final = 1000
"""How many of the addresses guess twelve times."""


def address(number: int) -> Client:
    """Return one of many clients."""
    return Client(str(IPv4Address(0x0B00_0000 + number * 17)))


def measure(what: str, call: Callable[[int], object]) -> None:
    """Print how many microseconds a call takes."""
    best = float("inf")
    for turn in range(ROUNDS):
        begin = time.perf_counter()
        for number in range(turn * CALLS, turn * CALLS + CALLS):
            call(number)
        best = min(best, (time.perf_counter() - begin) / CALLS)
    print(f"{what:58} {best * 1e6:6.2f} us")


def memory(table: GuessTable, what: str) -> None:
    """Print how much memory a table takes; it is common to all processes."""
    megabytes = os.fstat(table.descriptor).st_blocks * 512 / 1e6
    print(f"{what:58} {megabytes:6.2f} MB")


def log_ins(guard: Guard, when: str) -> None:
    """Measure the calls of log-ins by honest users, 500 of them from 50 places."""
    people = [(Client(f"192.0.2.{n % 50}"), b"user%d@example.org" % n) for n in range(500)]
    for person in people:
        guard.delay(*person)
        guard.succeeded(*person)

    def log_in(number: int) -> None:
        person = people[number % 500]
        guard.delay(*person)
        guard.succeeded(*person)

    measure(f"delay and succeeded, {when}", log_in)

    def first(number: int) -> None:
        guard.delay(address(number + 2 * ADDRESSES), b"new%d@example.org" % number)

    measure(f"delay of a new client and a new name, {when}", first)


def main() -> None:
    """Measure."""
    table = GuessTable.in_memory()
    guard = Guard(table)
    memory(table, "nothing known")
    log_ins(guard, "nothing known")
    memory(table, "after log-ins")
    for number in range(ADDRESSES):
        for guess in range(12 if number < WORST else 1):
            guard.failed(address(number), b"joe@example.org", b"%d/%d" % (number, guess))
    memory(table, f"{ADDRESSES} addresses guessed")
    log_ins(guard, "with a million")
    slow = address(0)
    measure("delay of one who is slowed down", lambda n: guard.delay(slow, b"x%d" % (n % 500)))
    measure("failed", lambda n: guard.failed(address(n), b"joe@example.org", b"again %d" % n))
    measure("failed, known", lambda n: guard.failed(address(n), b"joe@example.org", b"known"))
    begin = time.perf_counter()
    found = penalties(table, time.time())
    print(f"{len(found)} are listed in {time.perf_counter() - begin:.1f} s")
    worst = sum(penalty.interval > 0 for penalty in found if penalty.kind == "network")
    print(f"of the {WORST} worst networks {worst} are known")
    memory(table, "in the end")


if __name__ == "__main__":
    main()
