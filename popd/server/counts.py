"""What is counted about sessions: which numbers there are, and where each stands in a seat's row.

An event costs some tens of nanoseconds for each number that it moves.  Nothing here fails: what is
not known by its name is counted as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from popd.protocol.offer import WAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from popd.server.visit import Visit

    Row = memoryview | Sequence[int]

__all__ = ["CELLS", "COUNTED", "Counter", "Counts", "Timing", "lose_all", "present"]

_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows, or several, one for each combination of its labels' values.

    :param name: as Prometheus calls it.
    :param text: what it counts.
    :param labels: the names of its labels.
    :param values: all combinations of their values; each has one cell.
    :param first: where in a row the cells begin.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    first: int

    def cell(self, *values: str) -> int:
        """Return the place in a row of the number that has these labels."""
        return self.first + self.values.index(values)


@dataclass(frozen=True, slots=True)
class Timing:
    """How often something took how long: a histogram.

    Its cells are one for each bucket, the last without a bound, then the sum in microseconds.

    :param name: as Prometheus calls it.
    :param text: what takes the time.
    :param bounds: the upper ends of the buckets in seconds.
    :param first: where in a row the cells begin.
    """

    name: str
    text: str
    bounds: tuple[float, ...]
    first: int

    @property
    def total(self) -> int:
        """Where in a row the sum is."""
        return self.first + len(self.bounds) + 1

    def buckets(self, numbers: Row) -> list[int]:
        """Return how many there were in each bucket, of those in a row."""
        return list(numbers[self.first : self.total])

    def seconds(self, numbers: Row) -> float:
        """Return how long all of them took together."""
        return int(numbers[self.total]) / _MICROSECONDS


class _Layout:
    """Gives each its cells, one after the other."""

    def __init__(self) -> None:
        self.cells = 0
        self.all: list[Counter | Timing] = []

    def counter(self, name: str, text: str, **labels: Sequence[str]) -> Counter:
        values = tuple(product(*labels.values()))
        counter = Counter(name, text, tuple(labels), values, self.cells)
        self.cells += len(values)
        self.all.append(counter)
        return counter

    def timing(self, name: str, text: str, bounds: tuple[float, ...]) -> Timing:
        timing = Timing(name, text, bounds, self.cells)
        self.cells += len(bounds) + 2
        self.all.append(timing)
        return timing


_OTHER: Final = "other"
_SUCCESS: Final = "success"
_MECHANISMS: Final = (*sorted(WAYS), _OTHER)
_RESULTS: Final = (
    _SUCCESS,
    *("credentials", "temporary", "permanent", "in-use", "too-soon", "limit"),
)
_TRANSPORTS: Final = ("tls", "stls", "cleartext")
_REASONS: Final = (
    *("quit", "disconnected", "idle", "login-timeout", "too-many-errors", "stls-injection"),
    *("http-request", "read-error", "tls-error", "not-reading", "drained", "kicked", "replaced"),
    *("limit", "internal-error", _OTHER),
)
_LIMITS: Final = (
    *("max-sessions", "max-sessions-per-ip", "max-sessions-per-user", "max-download-per-day"),
    *("login-timeout", "idle-timeout", "file-descriptors", _OTHER),
)
_STATES: Final = ("authorization", "transaction")

_FAST: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_SLOW: Final = (*_FAST, 30.0, 60.0, 300.0)

_layout: Final = _Layout()

CONNECTIONS: Final = _layout.counter("popd_connections_total", "Connections that were accepted.")
SESSIONS: Final = _layout.counter(
    "popd_sessions_total",
    "Sessions that are over, by how they were protected in the end, and how far they came.",
    transport=_TRANSPORTS,
    state=_STATES,
)
ENDED: Final = _layout.counter(
    "popd_sessions_ended_total", "Sessions that are over, by why they ended.", reason=_REASONS
)
LOST: Final = _layout.counter(
    "popd_sessions_lost_total",
    "Sessions that were cut off because the worker that had them died.",
    state=_STATES,
)
LOGINS: Final = _layout.counter(
    "popd_logins_total",
    "Attempts to log in, by mechanism and by what came of them.",
    mechanism=_MECHANISMS,
    result=_RESULTS,
)
LOGIN_TIME: Final = _layout.timing(
    "popd_login_duration_seconds",
    "Time from the client's credentials to the reply that it is logged in.",
    _FAST,
)
AUTH_CACHE: Final = _layout.counter(
    "popd_auth_cache_hits_total",
    "Credentials that were known from a short while ago, so that nobody was asked about them.",
)
OPENED: Final = _layout.counter(
    "popd_maildrop_opens_total",
    "Maildrops that were opened: as they were remembered (hit), or looked through (miss).",
    cache=("hit", "miss"),
)
TWINS: Final = _layout.counter(
    "popd_uidl_duplicates_total",
    "Messages found at log-in whose unique-id another would have as well.",
)
RETRIEVED: Final = _layout.counter("popd_messages_retrieved_total", "Messages that RETR sent.")
TOPS: Final = _layout.counter("popd_messages_top_total", "Messages of which TOP sent a part.")
DELETED: Final = _layout.counter("popd_messages_deleted_total", "Messages that were removed.")
SENT: Final = _layout.counter(
    "popd_messages_sent_bytes_total", "Octets of messages that RETR and TOP sent."
)
RETR_TIME: Final = _layout.timing(
    "popd_retr_duration_seconds",
    "Time from RETR until all of the message was handed to the network.",
    _SLOW,
)
LIMITED: Final = _layout.counter(
    "popd_limits_hit_total", "What was refused or ended because of a limit.", limit=_LIMITS
)

CELLS: Final = _layout.cells
"""How many numbers a row has."""

COUNTED: Final = tuple(_layout.all)
"""All that is counted."""

# What the hot paths need, looked up once.
_CONNECTIONS: Final = CONNECTIONS.first
_LET_IN: Final = {name: LOGINS.cell(name, _SUCCESS) for name in _MECHANISMS}
_LET_IN_OTHER: Final = _LET_IN[_OTHER]
_TIMES: Final = LOGIN_TIME.first
_TIME: Final = LOGIN_TIME.total
_HIT, _MISS = (OPENED.cell(value) for value in ("hit", "miss"))
_OVER: Final = {name: SESSIONS.cell(name, _STATES[0]) for name in _TRANSPORTS}
_ENDED: Final = {name: ENDED.cell(name) for name in _REASONS}
_ENDED_OTHER: Final = _ENDED[_OTHER]


class Counts:
    """What one process counts.  Each method is an event of `popd.server.journal.Journal`.

    :param row: `CELLS` numbers, which nobody else changes.
    """

    __slots__ = ("_row",)

    def __init__(self, row: memoryview) -> None:
        self._row = row

    def began(self) -> None:
        """A client connected."""
        self._row[_CONNECTIONS] += 1

    def recognised(self) -> None:
        """Credentials were known from a short while ago."""
        self._row[AUTH_CACHE.first] += 1

    def let_in(self, mechanism: str, seconds: float, *, remembered: bool) -> None:
        """A client logged in.

        :param seconds: how long that took.
        :param remembered: whether its maildrop was remembered and had not changed.
        """
        row = self._row
        row[_LET_IN.get(mechanism, _LET_IN_OTHER)] += 1
        row[_HIT if remembered else _MISS] += 1
        row[_TIMES + bisect_left(_FAST, seconds)] += 1
        if seconds > 0:  # clocks are put back
            row[_TIME] += int(seconds * _MICROSECONDS)

    def duplicates(self, messages: int) -> None:
        """So many messages of a maildrop had a unique-id that another had as well."""
        self._row[TWINS.first] += messages

    def shut_out(self, mechanism: str, result: str) -> None:
        """A client could not log in."""
        if mechanism not in _LET_IN:
            mechanism = _OTHER
        self._row[LOGINS.cell(mechanism, result if result in _RESULTS else "temporary")] += 1

    def sent(self, octets: int, seconds: float, *, whole: bool) -> None:
        """A message was sent, or a part of one."""
        row = self._row
        row[SENT.first] += octets
        if not whole:
            row[TOPS.first] += 1
            return
        row[RETRIEVED.first] += 1
        row[RETR_TIME.first + bisect_left(_SLOW, seconds)] += 1
        if seconds > 0:
            row[RETR_TIME.total] += int(seconds * _MICROSECONDS)

    def limited(self, limit: str) -> None:
        """Something was refused or ended because of a limit."""
        self._row[LIMITED.cell(limit if (limit,) in LIMITED.values else _OTHER)] += 1

    def ended(self, visit: Visit) -> None:
        """A session is over."""
        row = self._row
        row[_OVER[visit.transport] + (visit.logged_in is not None)] += 1
        row[_ENDED.get(visit.why, _ENDED_OTHER)] += 1
        if visit.deleted:
            row[DELETED.first] += visit.deleted


def present(numbers: Row) -> tuple[int, int]:
    """Return how many sessions there are that have not logged in, and that have.

    They are what came less what went, so a client costs no more than these two.  Who reads while
    another process counts may see one as neither, or twice; but never less than none.

    :param numbers: a row, or the sums of several.
    """
    let_in = sum(int(numbers[cell]) for cell in _LET_IN.values())
    gone = [
        sum(int(numbers[SESSIONS.cell(transport, state)]) for transport in _TRANSPORTS)
        + int(numbers[LOST.cell(state)])
        for state in _STATES
    ]
    return max(0, int(numbers[_CONNECTIONS]) - let_in - gone[0]), max(0, let_in - gone[1])


def lose_all(row: memoryview) -> None:
    """Note that the process that counted in this row died, and its sessions with it."""
    for state, sessions in zip(_STATES, present(row), strict=True):
        row[LOST.cell(state)] += sessions
