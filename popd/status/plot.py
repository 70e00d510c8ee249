"""Small plots of the time just past, as SVG that needs neither a script nor a style of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from popd.status.markup import Markup, element
from popd.status.units import ceiling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Series = Sequence[float | None]

__all__ = ["plot"]

_WIDTH, _HEIGHT = 360, 72
"""The plot's own units; on the page it is as large as there is room."""

_GAP: Final = 35.0
"""Seconds between two points from which on they are not joined."""


def plot(
    title: str,
    lines: Sequence[tuple[str, str, Series]],
    times: Sequence[float],
    end: float,
    span: float,
    show: Callable[[float], str],
) -> Markup:
    """Return a plot with its title, scale and key.

    :param lines: of each, its name in ``/status.json``, what it is called, and its points.
    :param times: when the points are.
    :param end: when its right end is.
    :param span: how many seconds before that its left end is.
    :param show: writes a value out.
    """
    values = [value for _, _, series in lines for value in series if value is not None]
    top = ceiling(max(values, default=0.0))
    paths = []
    for number, (_, _, series) in enumerate(lines):
        runs = list(_runs(series, [1 - (end - time) / span for time in times], _GAP / span, top))
        if not number:
            paths.append(element("path", class_="area", d=_area(runs)))
        paths.append(element("path", class_=f"line line-{number}", d=_line(runs)))
    latest = [(label, _last(series)) for _, label, series in lines]
    spoken = ", ".join(f"{label} {_said(value, show)}" for label, value in latest)
    most = show(max(values)) if values else "nothing yet"
    drawing = element(
        "svg",
        *paths,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}. Now: {spoken}. Most: {most}.",
    )
    key = [
        element(
            "span",
            element("span", label, class_="label"),
            " ",
            element("b", _said(value, show), data_series=name),
            class_=f"key key-{number}",
        )
        for number, ((name, _, _), (label, value)) in enumerate(zip(lines, latest, strict=True))
    ]
    return element(
        "figure",
        element("figcaption", element("h3", title), element("span", *key, class_="keys")),
        element(
            "div",
            drawing,
            element("span", show(top), class_="top", aria_hidden="true"),
            class_="plot",
        ),
        class_="small",
        data_unit=show.__name__,
    )


def _last(series: Series) -> float | None:
    return series[-1] if series else None


def _said(value: float | None, show: Callable[[float], str]) -> str:
    return "\u2013" if value is None else show(value)


def _runs(
    series: Series, parts: Sequence[float], gap: float, top: float
) -> Iterator[list[tuple[float, float]]]:
    """Yield the points that belong together, in the plot's units.

    :param parts: how far right each point is: 0 is the left end, 1 the right.
    :param gap: how far apart two points are that do not belong together.
    """
    run: list[tuple[float, float]] = []
    before = 0.0
    for value, part in zip(series, parts, strict=True):
        if run and (value is None or part - before > gap):
            yield run
            run = []
        if value is not None and part >= 0:
            run.append((_WIDTH * min(part, 1.0), 1 + (_HEIGHT - 2) * (1 - value / top)))
            before = part
    if run:
        yield run


def _line(runs: Sequence[Sequence[tuple[float, float]]]) -> str:
    return "".join(f"M{_points(run)}{'h1' if len(run) == 1 else ''}" for run in runs)


def _area(runs: Sequence[Sequence[tuple[float, float]]]) -> str:
    return "".join(
        f"M{run[0][0]:.1f} {_HEIGHT}L{_points(run)}L{run[-1][0]:.1f} {_HEIGHT}Z" for run in runs
    )


def _points(run: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
