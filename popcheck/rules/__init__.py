"""The rules, by topic.  `load` knows them all."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from popcheck.rule import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from popcheck.rule import Rule

__all__ = ["load"]


def load() -> Mapping[str, Rule]:
    """Return all rules by their names, in the order in which they are checked."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(RULES.items()))
