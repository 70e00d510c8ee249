"""Real clients fetch, keep and delete real mail: those that CI has anyway.

``python -m tests.clients`` runs all of them.
"""

from __future__ import annotations

from twisted.trial.unittest import SkipTest

from tests.clients.contract import PopClient, Scenario
from tests.clients.libraries import Poplib
from tests.clients.programs import Curl, Fetchmail, Getmail, Mpop, Pop3test
from tests.e2e.server import ServerCase


class ClientTests(ServerCase):
    """Each client is another user, whose password has another scheme."""

    def _live(self, kind: type[PopClient], user: str) -> None:
        if missing := kind.missing():
            raise SkipTest(f"needs {missing}: apt-get install {' '.join(kind.packages)}")
        scenario = Scenario(kind, self.site, self.server, user)
        for implicit in kind.ways:
            scenario.fetch_keep_delete(implicit=implicit)

    def test_poplib(self) -> None:
        """Python's own."""
        self._live(Poplib, "alice")

    def test_curl(self) -> None:
        """A session for each command."""
        self._live(Curl, "bob")

    def test_fetchmail(self) -> None:
        """It hands mail on."""
        self._live(Fetchmail, "carol")

    def test_mpop(self) -> None:
        """It sends several commands at a time."""
        self._live(Mpop, "dave")

    def test_getmail(self) -> None:
        """It is not root's."""
        self._live(Getmail, "erin")

    def test_pop3test(self) -> None:
        """It speaks SASL."""
        self._live(Pop3test, "alice")
