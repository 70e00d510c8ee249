"""The table, on the terminal and in docs/performance.rst, and its plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Sample
    from rows import Row

BEGIN: Final = ".. The figures begin; benchmarks/run.py writes them."
END: Final = ".. The figures end."
_PAGE: Final = f"""Performance
===========

What popd costs, beside Dovecot, measured in one run on one machine by ``benchmarks/run.py``.

{BEGIN}
{END}
"""


@dataclass
class Results:
    """What was measured, by row and server.

    :param about: the circumstances, one sentence each.
    """

    about: list[str] = field(default_factory=list)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, row: Row, server: str, sample: Sample) -> None:
        """Take note of a measurement."""
        self.rows[row.name] = row
        self.samples.setdefault(row.name, {}).setdefault(server, []).append(sample)

    def costs(self, row: str, server: str) -> list[float]:
        """Return the costs in the table's units, lowest first: milliseconds, or KB."""
        unit = 1 / 1024 if self.rows[row].of_memory else 1000
        return sorted(sample.cost * unit for sample in self.samples[row].get(server, []))

    def ratio(self, row: str) -> float | None:
        """Return how many times popd's cost Dovecot's is, by the medians."""
        popd, dovecot = self.costs(row, "popd"), self.costs(row, "Dovecot")
        return median(dovecot) / median(popd) if popd and dovecot else None

    def rate(self, row: str, server: str) -> float:
        """Return the median of the sessions a second."""
        return median([sample.rate for sample in self.samples[row].get(server, [])] or [0.0])

    def lines(self) -> list[list[str]]:
        """Return the table, with its head."""
        head = ["row", "one session", "Dovecot", "popd", "ratio", "target", "met"]
        return [[*head, "sessions/s Dovecot", "popd"], *map(self._line, self.rows)]

    def _line(self, name: str) -> list[str]:
        row, ratio = self.rows[name], self.ratio(name)
        popd = self.costs(name, "popd")
        if row.of_memory:
            met = bool(popd) and median(popd) <= row.target
            target = f"<= {row.target:g} KB"
        else:
            met = ratio is not None and ratio >= row.target
            target = f">= {row.target:g}"
        known = bool(popd) if row.of_memory else ratio is not None
        return [
            name,
            row.title,
            _spread(self.costs(name, "Dovecot"), row),
            _spread(popd, row),
            f"{ratio:.2f}" if ratio is not None else "",
            target,
            ("yes" if met else "no") if known else "",
            *(_short(self.rate(name, server)) for server in ("Dovecot", "popd")),
        ]

    def save(self, path: Path) -> None:
        """Write everything that was measured as JSON."""
        samples = {
            row: {server: list(map(asdict, values)) for server, values in servers.items()}
            for row, servers in self.samples.items()
        }
        path.write_text(json.dumps({"about": self.about, "samples": samples}, indent=1) + "\n")


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


def as_text(table: list[list[str]]) -> str:
    """Return a table for the terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def as_rst(table: list[list[str]]) -> str:
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


def page_body(results: Results, growth: list[tuple[str, list[list[str]]]], image: str) -> str:
    """Return what stands between the markers."""
    text = "".join(f"{sentence}\n" for sentence in results.about)
    text += (
        "\nCosts are minimum, median and maximum of the rounds; the ratio is Dovecot's median over"
        "\npopd's.\n\n"
    )
    if results.rows:
        text += as_rst(results.lines())
    for title, table in growth:
        text += f"\n{title}\n\n{as_rst(table)}"
    if image:
        text += f"\n.. image:: {image}\n   :alt: How many times popd's cost Dovecot's is, by row\n"
    return text


def plot(results: Results, path: Path) -> bool:
    """Draw the ratios beside their targets; return whether matplotlib was there to do it."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - need not be installed
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - likewise

    rows = [row for row in results.rows.values() if results.ratio(row.name) is not None]
    places = list(range(len(rows)))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes.barh(places, [results.ratio(row.name) or 0 for row in rows], color="#4477aa")
    targets = [(place, row.target) for place, row in enumerate(rows) if not row.of_memory]
    axes.plot([t for _, t in targets], [p for p, _ in targets], "|", color="#cc3311", ms=16, mew=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("Dovecot's cost over popd's (red: what popd has to reach)")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True
