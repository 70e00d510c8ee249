"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["ceiling", "count", "data", "duration", "moment", "plain", "seconds", "share"]

_NICE: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_KILO: Final = 1000.0


def count(value: float) -> str:
    """Return a number, or a rate, with as many digits as tell something."""
    if value == int(value) or value >= 100:  # noqa: PLR2004 - no more digits are needed
        return f"{round(value):,}".replace(",", "\u202f")
    return f"{value:.3g}" if value >= 0.01 else "<\u202f0.01" if value else "0"  # noqa: PLR2004


def data(octets: float) -> str:
    """Return an amount of data."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while octets >= _KILO and len(units) > 1:
        octets /= _KILO
        del units[0]
    unit = units[0]
    return f"{octets:.0f}\u202f{unit}" if unit == "B" else f"{octets:.3g}\u202f{unit}"


def seconds(value: float) -> str:
    """Return a short time."""
    if value < 1:
        return f"{value * _KILO:.2g}\u202fms" if value < 0.1 else f"{value * _KILO:.0f}\u202fms"  # noqa: PLR2004
    return f"{value:.2g}\u202fs" if value < 10 else f"{value:.0f}\u202fs"  # noqa: PLR2004


def share(value: float) -> str:
    """Return how much of a processor is used."""
    return f"{value * 100:.0f}\u202f%" if value >= 0.1 or not value else f"{value * 100:.1g}\u202f%"  # noqa: PLR2004


def duration(value: float) -> str:
    """Return a long time, in its two largest units."""
    left = max(0, int(value))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}\u202f{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0\u202fs"


def moment(time: float) -> str:
    """Return a point in time, in UTC, to the second."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ceiling(value: float) -> float:
    """Return the next number from *value* on that an axis may well end with."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 1.0
    while power > value:
        power /= 10
    return next(nice * power for nice in _NICE if nice * power >= value * 0.999)


def plain(text: str) -> str:
    """Return a text of a stranger's so that all of it is seen, and nothing turns what is around."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )
