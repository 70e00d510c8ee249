"""Tests of what is said about backends that are down; LDAP's and Dovecot's tests have the rest."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from popd.auth.health import reason


class Reasons(SynchronousTestCase):
    """An administrator reads words, not how a library puts them."""

    def test_words(self) -> None:
        """OpenSSL's lists are taken apart; whoever says nothing is called by its name."""
        several = [("SSL routines", "", "certificate verify failed"), ("", "", "and more")]
        for error, said in (
            (SSL.Error(several), "TLS: certificate verify failed, and more"),
            (SSL.Error(), "Error"),
            (ValueError("no"), "no"),
            (ValueError(), "ValueError"),
        ):
            self.assertEqual(reason(error), said)
