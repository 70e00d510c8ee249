"""How the cost grows: with messages in a maildrop, idle sessions, users in the password file.

Each curve takes minutes, and is measured only when asked for.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final

import maildrops
from maildrops import Mailset
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from measure import Bench
    from servers import Server

Table = list[list[str]]
Curve = tuple[str, Table]

_KB: Final = 1024
_ROUNDS: Final = 3
_DOVECOT_SESSIONS: Final = 1_000
"""Dovecot has a process for each session; more of them say nothing new, and fill the machine."""


def measure(names: list[str], servers: list[Server], bench: Bench, *, smoke: bool) -> list[Curve]:
    """Measure the curves called *names*; return each one's title and table.

    :param smoke: a few small steps only.
    """
    return [_CURVES[name](servers, bench, 2 if smoke else 6) for name in names]


def _powers(largest: int, smallest: int = 1) -> list[int]:
    return [10**exponent for exponent in range(smallest, largest + 1)]


def _messages(servers: list[Server], bench: Bench, largest: int) -> Curve:
    """Poll maildrops of 10 to 1,000,000 messages in which nothing changed."""
    table = [["messages", *(f"{server.name}, ms CPU a poll" for server in servers)]]
    for count in _powers(largest):
        # Links, so that a million messages take little of the disk.
        mail = Mailset(f"of{count}-", 1, count, 700, distinct=max(10, count // 1000))
        row = Row(f"poll{count}", "", "poll", mail, 0, processes=1)
        maildrops.write_passwords(servers[0].site.passwords, mail.names())
        costs = [[bench.sample(server, row).cost for _ in range(_ROUNDS)] for server in servers]
        table.append([f"{count:,}", *(f"{median(cost) * 1000:.3g}" for cost in costs)])
    return "How the cost of a poll grows with the messages in a maildrop:", table


def _idle(servers: list[Server], bench: Bench, largest: int) -> Curve:
    """Take 1 to 10,000 idle sessions, in the clear and with TLS."""
    counts = _powers(min(4, largest), 0)
    head = [f"{server.name}{how}, KB" for server in servers for how in ("", " TLS")]
    table = [["idle sessions", *head]]
    mail = Mailset("many", counts[-1], 10, 700, distinct=10)
    maildrops.write_passwords(servers[0].site.passwords, mail.names())
    maildrops.make(servers[0].site.mail, mail)
    for count in counts:
        line = [f"{count:,}"]
        for server in servers:
            for tls in (0, 1):
                line.append("")
                if server.name == "popd" or count <= _DOVECOT_SESSIONS:
                    row = Row("idle", "", "hold", mail, 0, tls=tls, sessions=count)
                    line[-1] = f"{bench.idle(server, row) / _KB:,.0f}"
        table.append(line)
    return "How the memory of the whole server grows with its idle sessions:", table


def _users(servers: list[Server], bench: Bench, largest: int) -> Curve:
    """Have 1 to 1,000,000 users in the password file."""
    units = ("start s", "MB", "log-in ms CPU", "reload ms CPU")
    head = [f"{server.name}: {unit}" for server in servers for unit in units]
    table = [["users", *head]]
    mail = Mailset("user", 1, 1, 700)
    row = Row("users", "", "login", mail, 0, processes=1)
    for count in _powers(largest, 0):
        line = [f"{count:,}"]
        for server in servers:
            path = server.site.passwords
            maildrops.write_passwords(path, [f"user{number}" for number in range(count)])
            begun = time.monotonic()
            server.restart()
            line.append(f"{time.monotonic() - begun:.2f}")
            login = bench.sample(server, row).cost
            line += [f"{server.meter.memory() / _KB**2:,.0f}", f"{login * 1000:.3g}"]
            before = server.meter.cpu()
            maildrops.write_passwords(path, [f"user{number}" for number in range(count + 1)])
            bench.log_in(server, row)
            line.append(f"{(server.meter.cpu() - before) * 1000:.3g}")
        table.append(line)
    return "How the cost grows with the users in the password file:", table


_CURVES: Final[dict[str, Callable[[list[Server], Bench, int], Curve]]] = {
    "messages": _messages,
    "idle": _idle,
    "users": _users,
}
NAMES: Final = tuple(_CURVES)
