"""Mixed honest load for a long time: ``python -m tests.load.soak [MINUTES [PAGE]]``.

People fetch and delete their mail, or keep it for a while; poll; break connections off in the
middle; mistype passwords; connect and say nothing.  Meanwhile mail is delivered, and an IMAP server
sees to flags.  What is looked at: whether each message that was delivered was retrieved once, and
whole; whether popd's processes have, when all is over, the descriptors and timers that they
began with; and how much memory they took on.  The figures are printed, and written to PAGE.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import platform
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from popd.server.connection import LINGER
from tests.e2e.crowd import Crowd
from tests.e2e.server import Client, RunningServer, Site, until
from tests.load.holdings import WORKERS, Holdings, Watched, growth

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outcome", "soak"]

WARM_UP: Final = 1 / 3
"""The part of the time after which memory is looked at."""

SAMPLE: Final = 5.0
"""Seconds between two looks at memory."""

PAUSE: Final = 0.15
"""Seconds that a client waits between two sessions, on average."""

DELIVERY: Final = 0.04
"""Seconds between two deliveries, on average."""

STRANGERS: Final = 500
"""How many people mistype their passwords, each at an address of their own."""

SLOPE: Final = 1 << 20
"""Octets an hour by which memory may grow."""


class Outcome(NamedTuple):
    """What came of it.

    :param wrong: each message, session or figure that is not as it should be, in words.
    :param done: how often what was done.
    :param before: what popd had before the load.
    :param warm: what it had when memory began to be looked at.
    :param after: what it had when all clients had gone.
    :param growth: octets of memory that it took on in an hour, by the line that fits best.
    :param tables_growth: those among them that were in `Holdings.tables`.
    """

    wrong: list[str]
    done: Counter[str]
    seconds: float
    before: Holdings
    warm: Holdings
    after: Holdings
    growth: float
    tables_growth: float


class Ledger:
    """What was delivered, and what was retrieved."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serial = itertools.count(1)
        self._digests: dict[int, bytes] = {}
        self._retrieved: Counter[int] = Counter()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def compose(self) -> bytes:
        """Return a new message, which will be delivered."""
        number = next(self._serial)
        lines = random.choice((3, 30, 30, 300, 3000))  # noqa: S311 - no secret
        text = b"".join(
            b"..%d %d the text of a message\n" % (line, number) for line in range(lines)
        )
        message = b"From: a@example.org\nSubject: %d\n\n" % number + text
        with self._lock:
            self._digests[number] = hashlib.sha256(message).digest()
            self.done["deliveries"] += 1
        return message

    def retrieved(self, *messages: bytes) -> None:
        """Write down what a client has now, and will not fetch again."""
        with self._lock:
            for message in messages:
                match = re.search(rb"^Subject: (\d+)\r\n", message, re.MULTILINE)
                number = int(match[1]) if match else 0
                digest = hashlib.sha256(message.replace(b"\r\n", b"\n")).digest()
                if self._digests.get(number) == digest:
                    self._retrieved[number] += 1
                    self.done["retrievals"] += 1
                else:
                    self.wrong.append(f"message {number} is not what was delivered")

    def did(self, what: str) -> None:
        """Count what was done."""
        with self._lock:
            self.done[what] += 1

    def close(self) -> list[str]:
        """Return what is wrong, when all mail has been fetched."""
        with self._lock:
            for number in self._digests:
                times = self._retrieved[number]
                if times != 1:
                    self.wrong.append(f"message {number} was retrieved {times} times")
            return self.wrong


class Load(Crowd):
    """All who do something, each in a thread.

    :param size: how many clients there are of each kind.
    :param kept: who keeps mail deletes the older half of it when there is more.
    """

    def __init__(self, site: Site, server: RunningServer, size: int, kept: int) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._site, self._server, self._kept = site, server, kept
        self._context = site.client_context()
        self.deleting = [f"deletes{number}" for number in range(3 * size)]
        self.keeping = [f"keeps{number}" for number in range(3 * size)]
        for user in (*self.deleting, *self.keeping):
            site.add_user(user)
        self._known: dict[str, dict[bytes, None]] = {user: {} for user in self.keeping}
        users = [iter(itertools.cycle(self.deleting[n::size])) for n in range(size)]
        keepers = [iter(itertools.cycle(self.keeping[n::size])) for n in range(size)]
        turns = itertools.count()
        jobs: list[tuple[Callable[[], None], float]] = [
            *((lambda u=u: self._deletes(next(u), next(turns)), PAUSE) for u in users),
            *((lambda u=u: self._keeps(next(u)), PAUSE) for u in keepers),
            (self._mistypes, PAUSE),
            (self._comes_and_goes, PAUSE),
            (self._delivers, DELIVERY),
            (self._flags, DELIVERY),
        ]
        self.threads = [threading.Thread(target=self._repeat, args=job) for job in jobs]

    def drain(self) -> None:
        """Fetch all that is left, and see that then there is nothing."""
        for user in self.deleting:
            self._deletes(user, 1)
        for user in self.keeping:
            self._keeps(user)
            left, known = len(self._site.messages(user)), len(self._known[user])
            if left != known:
                self.ledger.wrong.append(f"{user} has {left} messages, and should have {known}")
        for user in self.deleting:
            if self._site.messages(user):
                self.ledger.wrong.append(f"{user} still has mail")

    def _repeat(self, job: Callable[[], None], pause: float) -> None:
        while not self.stop.wait(random.expovariate(1 / pause)):
            try:
                job()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                self.ledger.wrong.append(f"{type(error).__name__}: {error}")

    def _connect(self) -> Client:
        self.ledger.did("connections")
        if random.random() < 0.5:  # noqa: S311 - no secret
            return Client(self._server.tls_port, self._context)
        client = Client(self._server.port)
        client.stls(self._context)
        return client

    def _logged_in(self, user: str) -> Client:
        """Log in, and wait for a session that was cut off to be noticed."""

        def attempt() -> Client | None:
            client = self._connect()
            client.expect(b"USER " + user.encode())
            reply = client.ask(b"PASS " + user.encode())
            if reply.startswith(b"+OK"):
                return client
            client.close()
            assert reply.startswith(b"-ERR [IN-USE]"), reply
            return None

        client: Client = until(attempt, f"the maildrop of {user} stays in use")
        self.ledger.did("log-ins")
        return client

    def _deletes(self, user: str, turn: int) -> None:
        """Fetch and delete everything; or break it off, in one of several ways."""
        with self._logged_in(user) as client:
            client.expect(b"UIDL")
            count = len(client.body().splitlines())
            if count and turn % 7 == 0:
                client.send(b"RETR %d\r\n" % count)
                client.line()
                client.reset()
                self.ledger.did("cut off in RETR")
                return
            messages = []
            for number in range(1, count + 1):
                messages.append(client.fetch(number))
                client.expect(b"DELE %d" % number)
            if turn % 5 == 0:
                client.close()
                self.ledger.did("cut off before QUIT")
                return
            client.expect(b"QUIT")
        self.ledger.retrieved(*messages)

    def _keeps(self, user: str) -> None:
        """Fetch what is new, and delete what is old."""
        known = self._known[user]
        with self._logged_in(user) as client:
            client.expect(b"UIDL")
            uids = [line.split()[1] for line in client.body().splitlines()]
            new = [(number, uid) for number, uid in enumerate(uids, 1) if uid not in known]
            messages = [client.fetch(number) for number, _ in new]
            known.update((uid, None) for _, uid in new)
            gone = known.keys() - set(uids)
            if gone:
                self.ledger.wrong.append(f"{user} misses {gone}")
            old = list(known)[: len(known) // 2] if len(known) > self._kept else []
            for uid in old:
                client.expect(b"DELE %d" % (uids.index(uid) + 1))
            client.expect(b"QUIT")
        for uid in old:
            del known[uid]
            self.ledger.did("deletions of old mail")
        self.ledger.retrieved(*messages)
        self.ledger.did("polls" if not new else "polls that found mail")

    def _mistypes(self) -> None:
        """Try a wrong password, from one of many places: most people mistype again one day."""
        number = random.randrange(STRANGERS)  # noqa: S311 - no secret
        source = f"127.1.{number % 250 + 1}.{number // 250 + 1}"
        with Client(self._server.tls_port, self._context, source=source) as client:
            client.expect(b"USER stranger%d" % number)
            client.expect(b"PASS wrong", b"-ERR [AUTH]")
        self.ledger.did("wrong passwords")

    def _comes_and_goes(self) -> None:
        """Connect, and go without a log-in."""
        way = random.randrange(4)  # noqa: S311 - no secret
        if way == 0:
            Client(self._server.port).reset()
        elif way == 1:
            Client(self._server.tls_port, greeted=False).close()  # in the middle of the handshake
        elif way == 2:
            self._connect().close()
        else:
            with Client(self._server.port) as client:
                client.expect(b"CAPA")
                client.body()
                client.expect(b"GET / HTTP/1.0", b"-ERR")
        self.ledger.did("connections without a log-in")

    def _delivers(self) -> None:
        user = random.choice((*self.deleting, *self.keeping))  # noqa: S311 - no secret
        self._site.deliver(user, self.ledger.compose())

    def _flags(self) -> None:
        """Do what an IMAP server does: new mail is seen, seen mail gets other flags."""
        user = random.choice(self.keeping)  # noqa: S311 - no secret
        for path in self._site.messages(user)[-5:]:
            base, _, flags = path.name.partition(":2,")
            new = self._site.maildir(user) / "cur" / f"{base}:2,{'RS' if flags == 'S' else 'S'}"
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                path.rename(new)
                self.ledger.did("renames")


def soak(seconds: float, size: int = 4, kept: int = 60) -> Outcome:
    """Put load on a popd for so long.

    :param size: how many clients there are of each kind.
    :param kept: how many messages are left on the server, at most.
    """
    with tempfile.TemporaryDirectory(prefix="popd-soak-") as root:
        Path(root).chmod(0o755)
        site = Site(Path(root))
        with Watched(site) as server:
            load = Load(site, server, size, kept)
            load.drain()  # so that each process has begun whatever it begins once
            before = server.holdings()
            samples: list[tuple[float, Holdings]] = []
            warm = before
            begun = time.monotonic()
            with load:
                while (passed := time.monotonic() - begun) < seconds:
                    time.sleep(min(SAMPLE, seconds / 20))
                    if passed >= seconds * WARM_UP:
                        now = server.holdings()
                        warm = now if not samples else warm
                        samples.append((time.monotonic() - begun, now))
            load.drain()
            after = _settled(server, before)
            wrong = load.ledger.close()
            wrong += [line for line in server.log.splitlines() if "Traceback" in line]
        if more := after.descriptors - before.descriptors:
            wrong.append(f"descriptors that were not there before: {more}")
        if after.timers > before.timers:
            wrong.append(f"{after.timers} timers, and {before.timers} before")
        growths = (
            growth([(when, now.memory) for when, now in samples]),
            growth([(when, now.tables) for when, now in samples]),
        )
        return Outcome(wrong, load.ledger.done, seconds, before, warm, after, *growths)


def _settled(server: Watched, before: Holdings) -> Holdings:
    """Return what popd has when it is as *before*, or when it waits for no good-bye any more."""
    deadline = time.monotonic() + LINGER + 5
    while True:
        time.sleep(0.2)
        now = server.holdings()
        as_before = now.descriptors <= before.descriptors and now.timers <= before.timers
        if as_before or time.monotonic() > deadline:
            return now


PAGE: Final = """\
.. Written by ``python -m tests.load.soak``; do not edit.

What lasts
----------

On {day} popd, with {workers} workers and Python {python}, had {minutes:.0f} minutes of mixed load:
people who fetch and delete their mail, or keep it for a while, over TLS and STLS; sessions that
break off in the middle; wrong passwords; connections on which nobody logs in; meanwhile
deliveries, and an IMAP server that moves mail and changes its flags.

.. list-table::
    :header-rows: 1

{table}

Memory is that of all processes, what they share counted once, without pages of files, which other
programs share (``Pss_Anon`` and ``Pss_Shmem`` in ``smaps_rollup``); with those it was
{resident} MiB at the end.  Its growth is the slope of the line that fits best through
a figure every {sample:.0f} seconds.  ``python -m tests.load.soak`` does all this, and a test does
it for some seconds.
"""


def page(outcome: Outcome) -> str:
    """Return the part of ``docs/security.rst`` about this."""
    done, before, after = outcome.done, outcome.before, outcome.after
    rows = (
        ("What", "Figure"),
        ("connections with TLS", f"{done['connections']:,}"),
        ("log-ins", f"{done['log-ins']:,}"),
        ("sessions cut off in the middle of a message", f"{done['cut off in RETR']:,}"),
        ("sessions cut off between DELE and QUIT", f"{done['cut off before QUIT']:,}"),
        ("wrong passwords", f"{done['wrong passwords']:,}"),
        ("connections without a log-in", f"{done['connections without a log-in']:,}"),
        ("files renamed under popd's hands", f"{done['renames']:,}"),
        ("messages delivered", f"{done['deliveries']:,}"),
        ("messages retrieved, each once and whole", f"{done['retrievals']:,}"),
        ("what was lost, doubled, changed, refused or cut off", f"{len(outcome.wrong):,}"),
        (
            f"descriptors of its {before.processes} processes, before and after",
            f"{before.descriptors.total()}, {after.descriptors.total()}",
        ),
        ("timers, before and after", f"{before.timers}, {after.timers}"),
        (
            "MiB of memory, after the first third and at the end",
            f"{_mib(outcome.warm.memory)}, {_mib(after.memory)}",
        ),
        (
            "growth of memory since then, MiB an hour (the goal is less than 1)",
            _mib(outcome.growth),
        ),
        ("of that in tables of fixed size, which all processes share", _mib(outcome.tables_growth)),
    )
    return PAGE.format(
        day=time.strftime("%Y-%m-%d"),
        workers=WORKERS,
        python=platform.python_version(),
        minutes=outcome.seconds / 60,
        table="\n".join(f"    * - {what}\n      - {figure}" for what, figure in rows),
        resident=_mib(after.resident),
        sample=SAMPLE,
    )


def _mib(octets: float) -> str:
    return f"{octets / (1 << 20):.2f}"


def main() -> int:
    """Do it for as long as is said; return the exit status."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    outcome = soak(60 * minutes)
    text = page(outcome)
    print(text)
    print("\n".join(outcome.wrong[:20]))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text, encoding="utf-8")
    return 1 if outcome.wrong or outcome.growth > SLOPE else 0


if __name__ == "__main__":
    sys.exit(main())
