"""HTML in which everything is escaped that was not made here."""

from __future__ import annotations

from html import escape
from typing import Final

__all__ = ["VOID", "Markup", "element", "joined"]

VOID: Final = frozenset({"link", "meta", "wbr"})
"""Elements without content."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *content: object, **attributes: object) -> Markup:
    """Return an element.

    :param content: what is in it; whatever is no `Markup` is text.  None is left out.
    :param attributes: ``_`` stands for ``-``, and one at the end is dropped.  True is an attribute
        without a value; one that is None or False is left out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")  # noqa: PLW2901 - it is the same key
        parts.append(key if value is True else f'{key}="{escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    if name in VOID:
        return Markup(start)
    return Markup(f"{start}{joined(*content)}</{name}>")


def joined(*content: object) -> Markup:
    """Return several pieces of content as one."""
    return Markup(
        "".join(
            piece if isinstance(piece, Markup) else escape(str(piece))
            for piece in content
            if piece is not None
        )
    )
