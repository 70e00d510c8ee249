"""Whole sessions with several workers, and with a cache that is new, useless, or in the way.

The tests are those of `test_sessions` and `test_delivery`; what they find has to be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e import test_delivery, test_sessions

if TYPE_CHECKING:
    from tests.e2e.server import ServerCase

    Base = ServerCase
else:
    Base = object


class TwoWorkers(Base):
    """Sessions meet different processes, each of which remembers what it has seen."""

    def setUp(self) -> None:
        """Start two workers."""
        self.options = (*self.options, "--workers", "2")
        super().setUp()


class Forgetful(Base):
    """Nothing is kept in memory."""

    def setUp(self) -> None:
        """Start a server with no room for a maildrop."""
        self.options = (*self.options, "--cache-size", "0", "--auth-cache-ttl", "0")
        super().setUp()


class Damaged(Base):
    """The cache in each Maildir is damaged, or cannot be written."""

    def setUp(self) -> None:
        """Damage them all."""
        super().setUp()
        for number, maildir in enumerate(self.site.mail.glob("*/*/Maildir")):
            cache = maildir / "popd-cache"
            if number % 2:
                cache.write_bytes(b"popd-cache 1 3 nonsense\n")
            else:
                cache.mkdir(exist_ok=True)


class TwoWorkersEndTests(TwoWorkers, test_sessions.EndTests):
    """See `EndTests`."""


class TwoWorkersChangingMaildirTests(TwoWorkers, test_sessions.ChangingMaildirTests):
    """See `ChangingMaildirTests`."""


class TwoWorkersDeliveryTests(TwoWorkers, test_delivery.DeliveryTests):
    """See `DeliveryTests`."""


class ForgetfulChangingMaildirTests(Forgetful, test_sessions.ChangingMaildirTests):
    """See `ChangingMaildirTests`."""


class ForgetfulDeliveryTests(Forgetful, test_delivery.DeliveryTests):
    """See `DeliveryTests`."""


class DamagedChangingMaildirTests(Damaged, test_sessions.ChangingMaildirTests):
    """See `ChangingMaildirTests`."""


class DamagedDeliveryTests(Damaged, test_delivery.DeliveryTests):
    """See `DeliveryTests`."""
