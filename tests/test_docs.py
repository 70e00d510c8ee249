"""Tests of the documentation."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popcheck.rules import load
from popd.config import DEFAULTS

DOCS = Path(__file__).parent.parent / "docs"


class PageTests(SynchronousTestCase):
    """Pages that are made from the code, or go with it."""

    def test_configuration(self) -> None:
        """Settings are explained as in etc/popd.toml; if not, run docs/make_configuration.py."""
        script = runpy.run_path(str(DOCS / "make_configuration.py"))
        for page in script["TEXTS"]:
            self.assertEqual(
                (DOCS / page).read_text(encoding="utf-8"), script["render"](page), page
            )
        self.assertEqual(
            {one.name for one in script["settings"](script["SOURCE"].read_text(encoding="utf-8"))},
            set(DEFAULTS),
        )

    def test_popctl(self) -> None:
        """The manual page has popctl's commands; if not, run docs/make_popctl.py."""
        script = runpy.run_path(str(DOCS / "make_popctl.py"))
        self.assertEqual(script["TARGET"].read_text(encoding="utf-8"), script["render"]())

    def test_replies(self) -> None:
        """Every error that a client can be told is explained."""
        page = (DOCS / "troubleshooting.rst").read_text(encoding="utf-8")
        code = "".join(
            path.read_text(encoding="utf-8")
            for path in (DOCS.parent / "popd/protocol").rglob("*.py")
        )
        replies = re.findall(r'-ERR ([^"%]+)\\r\\n"', code)
        replies += re.findall(r"BadCommandError\(\"(.+?)\"\)", code)
        self.assertGreater(len(replies), 20)
        for reply in replies:
            self.assertTrue(f"``-ERR {reply}``" in page, reply)

    def test_benchmarks(self) -> None:
        """The benchmarks understand the commands that are shown."""
        page = (DOCS / "performance.rst").read_text(encoding="utf-8")
        shown = re.findall(r"^    python benchmarks/run\.py(.*?)(?: +#.*)?$", page, re.MULTILINE)
        self.assertGreater(len(shown), 3)
        code = (
            "import sys, shlex, run\n"
            "for line in sys.stdin: sys.argv[1:] = shlex.split(line); run._arguments()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=DOCS.parent / "benchmarks",
            input="\n".join(shown),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_conformance(self) -> None:
        """The matrix is that of the results; if not, run docs/make_conformance.py."""
        script = runpy.run_path(str(DOCS / "make_conformance.py"))
        self.assertEqual(script["TARGET"].read_text(encoding="utf-8"), script["render"]())

    def test_conformance_rules(self) -> None:
        """The results are about the rules that there are; if not, run tests.popcheck.peers."""
        kept = json.loads((DOCS / "conformance.json").read_text(encoding="utf-8"))
        self.assertEqual(set(kept), {"popd", "dovecot", "courier"})
        for server in kept.values():
            self.assertEqual(set(server["results"]), set(load()), server["name"])
        outcomes = {outcome for outcome, _ in kept["popd"]["results"].values()}
        self.assertEqual(outcomes, {"PASS", "SKIP"})

    def test_security(self) -> None:
        """Every test that a promise about security names is there."""
        pages = [path.read_text(encoding="utf-8") for path in DOCS.glob("security*.rst")]
        tests = DOCS.parent / "tests"
        code = "".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
        for name in re.findall(r"``([\w/]+\.py|\w+Tests|test_\w+)``", "".join(pages)):
            if "/" in name:
                self.assertTrue((tests.parent / name).exists(), name)
            elif name.endswith(".py"):
                self.assertTrue(list(tests.rglob(name)), name)
            else:
                self.assertRegex(code, rf"(?:def|class) {name}\b")

    def test_sphinx(self) -> None:
        """All pages are whole, and each is linked from somewhere."""
        output = self.mktemp()
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        built = subprocess.run(
            [*command, str(DOCS), output], capture_output=True, text=True, check=False
        )
        self.assertEqual((built.returncode, built.stderr), (0, ""))
        self.assertTrue(Path(output, "troubleshooting.html").exists())


class ProtocolTests(SynchronousTestCase):
    """``docs/protocol.rst`` is made from the code."""

    def test_up_to_date(self) -> None:
        """It says what the code says; if not, run ``python docs/make_protocol.py``."""
        script = runpy.run_path(str(DOCS / "make_protocol.py"))
        self.assertEqual((DOCS / "protocol.rst").read_text(encoding="utf-8"), script["render"]())
