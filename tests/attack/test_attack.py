"""The attacks in small; ``python -m tests.attack`` has them in full."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.attack import churn, idle, memory
from tests.attack.adversary import Adversary
from tests.e2e.server import ServerCase


class MemoryTests(ServerCase):
    """Whatever is sent or not read, a connection takes no more than its share."""

    options = memory.OPTIONS

    def test_cost(self) -> None:
        """Some attackers of each kind stay within their bounds."""
        cost = memory.mixed(self.server, 5, 1.5)
        self.assertLessEqual(cost.octets, cost.limit, str(cost))
        self.assertGreater(cost.sent, 5 * 262_144, str(cost))


class IdleTests(ServerCase):
    """Sessions that say nothing cost little."""

    options = idle.OPTIONS

    def test_few(self) -> None:
        """Some dozens with TLS cost no more than their part."""
        result = idle.hold(self.server, idle.users(self.site, 100))
        self.assertLessEqual(result.grown, result.sessions * idle.LIMIT, str(result))


class ChurnTests(ServerCase):
    """Who has gone has left nothing behind."""

    options = churn.OPTIONS

    def flat(self, left: churn.Left) -> None:
        """Check that nothing has grown."""
        self.assertLessEqual(left.octets, churn.GROWTH, str(left))
        self.assertLessEqual(left.files, 0, str(left))

    def test_churn(self) -> None:
        """Connections that end in any way, some hundreds of them."""
        self.flat(churn.churn(self.server, 750))

    def test_names(self) -> None:
        """So it is with names of hosts that are asked for."""
        names = self.site.root / "names"
        names.mkdir()
        pem = self.site.certificate.read_bytes() + self.site.private_key.read_bytes()
        (names / "localhost.pem").write_bytes(pem)
        self.server = self.start(*self.options, "--certificate-dir", str(names))
        self.flat(churn.random_names(self.server, 550))


class AdversaryTests(SynchronousTestCase):
    """Sessions while somebody else is at work in the Maildir."""

    def test_model(self) -> None:
        """Whatever the two do by turns, nothing goes that was not marked."""
        logger = logging.getLogger("popd.maildrop")
        logger.addHandler(silence := logging.NullHandler())
        self.addCleanup(logger.removeHandler, silence)
        done: Counter[str] = Counter()
        for seed in range(4):
            ground = Path(self.mktemp()).absolute()
            adversary = Adversary(ground, seed, done)
            for _ in range(500):
                adversary.step()
        self.assertGreater(min(done.values()), 10, done)
