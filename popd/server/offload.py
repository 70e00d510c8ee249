"""The one way for file work off the reactor's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from twisted.application.service import Service
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorFromThreads

__all__ = ["THREADS", "Offload"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

THREADS: Final = 10
"""How many file operations may be under way at once.  A disk that hangs holds as many threads as it
has requests; the rest wait in turn, and the reactor never does."""


class Offload(Service):
    """A thread pool for work that may wait for a disk, apart from the one that hashes passwords.

    Call it with a function and its arguments; the Deferred fires in the reactor's thread.

    :param reactor: where results come back to.
    """

    name = "offload"

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=THREADS, name="popd-files")

    def startService(self) -> None:
        """Start taking work."""
        super().startService()
        self._pool.start()

    def stopService(self) -> None:
        """Finish the work that is under way, and take no more."""
        super().stopService()
        self._pool.stop()

    def __call__(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Deferred[Result]:
        """Call *function* in a thread of the pool."""
        return deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
