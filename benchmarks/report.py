"""The tables, on the terminal and in docs/performance.rst."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from measure import MeasureError

if TYPE_CHECKING:
    from pathlib import Path

    from fairness import Fairness
    from growth import Curve
    from measure import Sample
    from rows import Row

Table = list[list[str]]

BEGIN: Final = ".. The figures begin; benchmarks/run.py writes them."
END: Final = ".. The figures end."
_PAGE: Final = f"""Performance
===========

{BEGIN}
{END}
"""
_SPREAD: Final = "What a session costs the server (minimum / median / maximum of the rounds)"
_FAIR: Final = "How long a poll of 50 messages takes, one begun every 10 ms; popd with one worker"
_SETTINGS: Final = "Dovecot's configuration"


@dataclass
class Results:
    """What was measured, by row and server.

    :param about: the circumstances, one sentence each.
    :param errors: what failed, by row and server.
    :param settings: Dovecot's configuration file.
    """

    about: list[str] = field(default_factory=list)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    fairness: Fairness | None = None
    curves: list[Curve] = field(default_factory=list)
    settings: str = ""

    def add(self, row: Row, server: str, sample: Sample | MeasureError) -> None:
        """Take note of a measurement."""
        self.rows[row.name] = row
        of_row = self.samples.setdefault(row.name, {})
        if isinstance(sample, MeasureError):
            self.errors[row.name, server] = str(sample)
            of_row[server] = []
        elif (row.name, server) not in self.errors:
            of_row.setdefault(server, []).append(sample)

    def failures(self) -> list[str]:
        """Return what failed, a line each."""
        found = list(self.errors.values())
        found += self.fairness.failures.values() if self.fairness else []
        return found + [text for curve in self.curves for text in curve.failures.values()]

    def tables(self) -> list[tuple[str, Table]]:
        """Return all tables with their titles."""
        tables = [(_SPREAD, self.lines())] if self.rows else []
        if self.fairness is not None:
            tables.append((_FAIR, self.fairness.table()))
        return tables + [(curve.title, curve.table()) for curve in self.curves]

    def costs(self, row: str, server: str) -> list[float]:
        """Return the costs in the table's units, lowest first: milliseconds, or KB."""
        unit = 1 / 1024 if self.rows[row].of_memory else 1000
        return sorted(sample.cost * unit for sample in self.samples[row].get(server, []))

    def ratio(self, row: str) -> float | None:
        """Return how many times popd's cost Dovecot's is, by the medians."""
        popd, dovecot = self.costs(row, "popd"), self.costs(row, "Dovecot")
        if not popd or not dovecot or median(popd) <= 0:  # a few clients may take no memory
            return None
        return median(dovecot) / median(popd)

    def rate(self, row: str, server: str) -> float:
        """Return the median of the sessions a second."""
        return median([sample.rate for sample in self.samples[row].get(server, [])] or [0.0])

    def load(self, row: str) -> float:
        """Return the median of the milliseconds of CPU that a session took of the load generator.

        Of the server for which it is more.
        """
        loads = [[sample.load for sample in samples] for samples in self.samples[row].values()]
        return max((median(load) for load in loads if load), default=0.0) * 1000

    def lines(self) -> Table:
        """Return the table, with its head."""
        head = ["row", "one session", "Dovecot", "popd", "ratio", "target", "met"]
        head += ["sessions/s Dovecot", "popd", "ahead", "load generator"]
        return [head, *map(self._line, self.rows)]

    def _line(self, name: str) -> list[str]:
        row, ratio = self.rows[name], self.ratio(name)
        popd, load = self.costs(name, "popd"), self.load(name)
        if row.target is None:
            target, met = "", None
        elif row.of_memory:
            target, met = f"<= {row.target:g} KB", median(popd) <= row.target if popd else None
        else:
            target, met = f">= {row.target:g}", None if ratio is None else ratio >= row.target
        rates = [self.rate(name, server) for server in ("Dovecot", "popd")]
        return [
            name,
            row.title,
            self._cell(name, "Dovecot"),
            self._cell(name, "popd"),
            f"{ratio:.2f}" if ratio is not None else "",
            target,
            _verdict(met),
            *map(_short, rates),
            _verdict(rates[1] >= rates[0] if all(rates) else None),
            f"{_short(load)} ms" if load else "",
        ]

    def _cell(self, name: str, server: str) -> str:
        if (name, server) in self.errors:
            return "failed"
        return _spread(self.costs(name, server), self.rows[name])


def _verdict(met: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[met]


def _spread(values: list[float], row: Row) -> str:
    if not values:
        return ""
    numbers = " / ".join(_short(value) for value in (values[0], median(values), values[-1]))
    return f"{numbers} {'KB' if row.of_memory else 'ms'}"


def _short(value: float) -> str:
    """Return three digits or so."""
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004


def as_text(table: Table) -> str:
    """Return a table for the terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def as_rst(table: Table) -> str:
    """Return a table as reStructuredText."""
    text = ".. list-table::\n   :header-rows: 1\n\n"
    for line in table:
        cells = [f"- {cell}".rstrip() for cell in line]
        text += f"   * {cells[0]}\n" + "".join(f"     {cell}\n" for cell in cells[1:])
    return text


def write_page(page: Path, body: str) -> None:
    """Put *body* between the markers of a page, which is made if there is none."""
    old = page.read_text(encoding="utf-8") if page.exists() else _PAGE
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{page}: has not the two comments between which the figures belong")
    head, tail = old.split(BEGIN)[0], old.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n\n{body}\n{END}{tail}", encoding="utf-8")


def page_body(results: Results, images: list[tuple[str, str]]) -> str:
    """Return what stands between the markers.

    :param images: their names, and what is to be seen.
    """
    text = "".join(f"{sentence}\n" for sentence in results.about)
    for title, table in results.tables():
        text += f"\n{title}:\n\n{as_rst(table)}"
    for name, alt in images:
        text += f"\n.. image:: {name}\n   :alt: {alt}\n"
    if results.settings:
        lines = (f"   {line}".rstrip() for line in results.settings.strip().splitlines())
        text += f"\n{_SETTINGS}::\n\n" + "\n".join(lines) + "\n"
    return text
