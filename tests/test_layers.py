"""The floors of the house: imports point down, and the lower floors know no Twisted."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

import popd

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(popd.__file__).parent
MODULES = {
    ".".join(("popd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
POPCHECK = ROOT.parent / "popcheck"
"""Beside the house: a client of any server, which shares nothing with this one."""

FLOORS = ("popd.protocol", "popd.maildrop", "popd.auth", "popd.server", "popd", "popd.ctl")
"""From the ground up; what is in no other package is on the floor of ``popd.tap``."""

TWISTED_FREE = (
    *("popd.protocol", "popd.maildrop", "popd.auth.schemes", "popd.auth.scramkeys"),
    *("popd.auth.account", "popd.auth.saslprep", "popd.auth.reread"),
    *("popd.auth.passwd", "popd.auth.passwdline", "popd.auth.appfile", "popd.auth.apppass"),
)
MAX_LINES = 450


def is_in(module: str, package: str) -> bool:
    """Return whether *module* is *package* or in it."""
    return module == package or module.startswith(f"{package}.")


def floor(module: str) -> int:
    """Return the number of the floor that *module* is on."""
    home = max(FLOORS, key=lambda package: is_in(module, package) * len(package))
    return FLOORS.index(home)


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Yield the full names of what the module at *path* imports.

    :param top_level: leave out what is imported only when a function is called.
    """
    statements: list[ast.AST] = [ast.parse(path.read_bytes())]
    while statements:
        node = statements.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            statements += ast.iter_child_nodes(node)


class LayerTests(SynchronousTestCase):
    """Every module of popd keeps to its floor."""

    def test_all_floors_inhabited(self) -> None:
        """These tests look at the modules that there are."""
        self.assertEqual(
            {floor(module) for module in MODULES if module != "popd"}, set(range(len(FLOORS)))
        )

    def test_downwards(self) -> None:
        """A module imports from its own floor and from those below."""
        for module, path in MODULES.items():
            for name in imports(path):
                if is_in(name, "popd") and name != "popd.__version__":
                    self.assertLessEqual(floor(name), floor(module), f"{module} imports {name}")

    def test_twisted_free(self) -> None:
        """What needs no reactor can be tested without one."""
        for module, path in MODULES.items():
            if any(is_in(module, package) for package in TWISTED_FREE):
                for name in imports(path):
                    self.assertFalse(is_in(name, "twisted"), f"{module} imports {name}")

    def test_no_reactor(self) -> None:
        """Whoever imports a module has not thereby chosen a reactor."""
        for module, path in MODULES.items():
            for name in imports(path, top_level=True):
                self.assertFalse(is_in(name, "twisted.internet.reactor"), module)

    def test_size(self) -> None:
        """No module is too long to be read at a sitting."""
        for path in (*MODULES.values(), *POPCHECK.rglob("*.py")):
            self.assertLessEqual(len(path.read_text().splitlines()), MAX_LINES, path)

    def test_popcheck(self) -> None:
        """The conformance suite imports what comes with Python, and nothing of popd."""
        for path in POPCHECK.rglob("*.py"):
            for name in imports(path):
                self.assertIn(name.split(".")[0], (*sys.stdlib_module_names, "popcheck"), path)
