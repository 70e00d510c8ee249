"""Tests of the documentation."""

from __future__ import annotations

import runpy
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

DOCS = Path(__file__).parent.parent / "docs"


class ProtocolTests(SynchronousTestCase):
    """``docs/protocol.rst`` is made from the code."""

    def test_up_to_date(self) -> None:
        """It says what the code says; if not, run ``python docs/make_protocol.py``."""
        script = runpy.run_path(str(DOCS / "make_protocol.py"))
        self.assertEqual((DOCS / "protocol.rst").read_text(encoding="utf-8"), script["render"]())
