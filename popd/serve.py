"""What one process serves with: made before a fork where it can be shared, after it where not."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import MultiService

from popd.desk import Desk
from popd.metrics import Meter
from popd.server.factory import CleartextLogin, POP3Factory
from popd.server.journal import Journal
from popd.server.offload import Offload
from popd.server.port import Lobby

if TYPE_CHECKING:
    from popd.door import Door
    from popd.server.tls import ServerTLS

__all__ = ["GARBAGE", "SWITCH", "Service", "Serving"]

GARBAGE: Final = (700, 10, 1000)
"""When Python looks for garbage.  Its default goes through everything a hundred times as often, and
while it does, with a large maildrop being opened, nobody is served for 10 ms."""

_M_ARENA_MAX: Final = -8  # in glibc's malloc.h

SWITCH: Final = 0.0001
"""Seconds that a thread may compute while the reactor's waits to go on.  It waits anew after each
system call, some 25 times in a session, and Python's default is 5 ms."""


class Service(MultiService):
    """What serves in one process.

    :param desk: answers operators for it.
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk


class Serving:
    """All that every process of a popd has in common.

    :param door: how users get in.
    :param cleartext_login: who may log in without TLS.
    :param tls: the server's end of TLS, or None.
    :param hashers: how many passwords a process checks at the same time.
    :param meter: counts what happens.
    """

    def __init__(
        self,
        door: Door,
        cleartext_login: CleartextLogin,
        tls: ServerTLS | None,
        hashers: int,
        meter: Meter | None = None,
    ) -> None:
        self.cleartext = Lobby()
        self.implicit_tls = Lobby(tls)
        self._door = door
        self._cleartext_login = cleartext_login
        self._tls = tls
        self._hashers = hashers
        self._meter = meter or Meter()

    def on(self, reactor: Any, seat: int = 0) -> Service:
        """Return the service that serves what comes into the lobbies, on *reactor*.

        :param seat: which of the processes that serve this is, see `Seats`.
        """
        offload = Offload(reactor)
        factory = POP3Factory(
            self._door.portal(reactor),
            offload,
            reactor,
            cleartext_login=self._cleartext_login,
            tls=self._tls,
            offer=self._door.offer,
            journal=Journal(self._meter.of(seat)),
            seat=seat,
        )
        service = Service(Desk(factory))
        offload.setServiceParent(service)
        self.cleartext.target = self.implicit_tls.target = factory
        reactor.suggestThreadPoolSize(self._hashers)
        sys.setswitchinterval(SWITCH)
        _share_memory()
        gc.freeze()  # what is there now stays, and need not be looked through
        gc.set_threshold(*GARBAGE)
        return service


def _share_memory() -> None:
    """Let all threads take memory from one place, as far as the C library can.

    By default each has its own, and keeps what it once had; and only one runs at a time anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
