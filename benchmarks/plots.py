"""The plots beside docs/performance.rst: popd's costs against Dovecot's, and how they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from growth import Line
    from report import Results

_COLUMNS: Final = 3
_DECADE: Final = 10
_STYLES: Final = {
    "popd": {"color": "#4477aa"},
    "popd TLS": {"color": "#4477aa", "linestyle": "--"},
    "Dovecot": {"color": "#cc3311"},
    "Dovecot TLS": {"color": "#cc3311", "linestyle": "--"},
}


def draw(results: Results, folder: Path) -> list[tuple[str, str]] | None:
    """Draw what there is; return the files' names and what they show; None without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - need not be installed
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - likewise

    plt.rcParams["svg.hashsalt"] = "popd"  # the same figures make the same file
    images = []
    if any(results.ratio(name) is not None for name in results.rows):
        _save(plt, _ratios(plt, results), folder / "performance.svg")
        images.append(("performance.svg", "How many times popd's cost Dovecot's is, by row"))
    if any(line.points for curve in results.curves for line in curve.lines):
        _save(plt, _growth(plt, results), folder / "growth.svg")
        images.append(("growth.svg", "How costs grow with messages, sessions, and users"))
    return images


def _save(plt: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _ratios(plt: Any, results: Results) -> Any:
    """Draw the ratios beside their targets."""
    ratios = {name: results.ratio(name) for name in results.rows}
    rows = [row for name, row in results.rows.items() if (ratios[name] or 0) > 0]
    places = list(range(len(rows)))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes.barh(places, [ratios[row.name] for row in rows], color="#4477aa")
    targets = [(place, row.target) for place, row in enumerate(rows) if not row.of_memory]
    axes.plot([t for _, t in targets], [p for p, _ in targets], "|", color="#cc3311", ms=16, mew=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("Dovecot's cost over popd's (red: what popd has to reach)")
    return figure


def _growth(plt: Any, results: Results) -> Any:
    """Draw each quantity that was measured while something grew, both axes logarithmic."""
    panels: dict[tuple[str, str], list[Line]] = {}
    for curve in results.curves:
        for line in filter(lambda line: line.points, curve.lines):
            panels.setdefault((curve.grows, line.quantity), []).append(line)
    height = -(-len(panels) // _COLUMNS)
    size = (9, 2.8 * height)
    figure, grid = plt.subplots(height, _COLUMNS, figsize=size, layout="constrained", squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, ((grows, quantity), lines) in zip(grid.flat, panels.items(), strict=False):
        for line in lines:
            points = sorted(line.points.items())
            style = _STYLES.get(line.name, {})
            axes.plot(*zip(*points, strict=True), marker=".", label=line.name, **style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < low * _DECADE:  # or noise looks like growth
            middle = (low * high) ** 0.5
            axes.set_ylim(middle / _DECADE**0.5, middle * _DECADE**0.5)
        axes.set_xlabel(grows)
        axes.set_ylabel(quantity)
        axes.legend(fontsize="x-small")
    return figure
