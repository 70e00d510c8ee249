"""A few processes that ask PAM, each one question at a time; see `popd.auth.pam_helper`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from popd.auth import pam_helper
from popd.auth.health import Health
from popd.auth.interfaces import AuthUncertainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

__all__ = ["MAX_WAITING", "USES", "Helper", "Launcher", "Pool"]

MAX_WAITING: Final = 1000
"""How many questions may wait for a helper."""

USES: Final = 1000
"""After so many questions a helper is replaced: not every module gives back all its memory."""

_REAP: Final = 0.1
"""Seconds between two looks whether a process that was ended has ended."""

_NOBODY: Final = {"user": ".nobody", "password": "-", "host": ""}
"""Who is asked about to find out whether PAM answers; nobody can be called so."""


class HelperDiedError(AuthUncertainError):
    """A helper ended before it had answered."""


class Helper(LineOnlyReceiver):
    """popd's end of the line to a helper.

    :param kill: ends the process.
    """

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = 16_384

    def __init__(self, kill: Callable[[], object]) -> None:
        self._kill = kill
        self._waiting: Deferred[dict[str, Any]] | None = None
        self.uses = 0
        self.lost = False

    @property
    def worn(self) -> bool:
        """Whether it must not be asked again."""
        return self.lost or self.uses >= USES

    def ask(self, question: Mapping[str, str]) -> Deferred[dict[str, Any]]:
        """Ask, and return what it answers; to cancel that ends the helper.

        Fails with `AuthUncertainError`.
        """
        self.uses += 1
        self._waiting = Deferred(lambda _: self.end())
        self.sendLine(json.dumps(question).encode("ascii"))
        return self._waiting

    def lineReceived(self, line: bytes) -> None:
        """Take an answer."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.end()  # it was not asked
        else:
            waiting.callback(json.loads(line))

    def end(self) -> None:
        """End the process, whatever it does."""
        self._waiting = None
        self.lost = True
        self._kill()
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The process has ended, or is as good as ended."""
        self.lost = True
        self._kill()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(HelperDiedError("the helper that asks PAM has died"))


class Launcher:
    """Starts helpers.

    :param arguments: of the script: the service, and perhaps where its file is.
    :param limit: how many processes there may be that were ended and have not.
    :param reactor: the reactor.
    """

    def __init__(self, arguments: Sequence[str], limit: int, reactor: Any) -> None:
        self._arguments = arguments
        self._limit = limit
        self._reactor = reactor
        self._dying: list[subprocess.Popen[bytes]] = []

    def start(self) -> Helper:
        """Return a new helper.

        :raises AuthUncertainError: there cannot be any now.
        """
        if len(self._dying) >= self._limit:
            raise AuthUncertainError("too many helpers hang in PAM, and cannot be ended")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            script = [sys.executable, "-I", "-S", str(Path(pam_helper.__file__))]
            descriptor = theirs.fileno()
            try:
                process = subprocess.Popen(  # noqa: S603 - a script of popd's own
                    [*script, str(descriptor), *self._arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(descriptor,),
                    cwd="/",
                    env={"PATH": os.defpath},
                    start_new_session=True,  # Control-C is for popd
                )
            except OSError as error:
                raise AuthUncertainError(f"no helper can be started: {error}") from error
            helper = Helper(lambda: self._kill(process))
            ours.setblocking(False)
            factory = Factory.forProtocol(lambda: helper)
            factory.noisy = False
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        return helper

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None and process not in self._dying:
            process.kill()
            self._dying.append(process)
            self._reap(process)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            self._reactor.callLater(_REAP, self._reap, process)
        else:
            self._dying.remove(process)


class _Job:
    """A question, and who waits for the answer."""

    def __init__(self, question: Mapping[str, str], cancel: Callable[[_Job], None]) -> None:
        self.question = question
        self.answer: Deferred[dict[str, Any]] = Deferred(lambda _: cancel(self))


class Pool:
    """Helpers, started as they are needed, and the questions that wait for one.

    Who no longer wants to know leaves a helper at work; one that has no answer in time is ended.

    :param start: starts a helper.
    :param size: how many there are at most.
    :param timeout: seconds that an answer may take.
    :param clock: the reactor.
    """

    def __init__(
        self, start: Callable[[], Helper], size: int, timeout: float, clock: IReactorTime
    ) -> None:
        self._start = start
        self._free = size
        self._timeout = timeout
        self._clock = clock
        self._idle: list[Helper] = []
        self._queue: deque[_Job] = deque()
        self._heard = 0.0
        self._health = Health(self._probe, clock)
        self._closed = False

    def close(self) -> None:
        """Have no helpers any more, once they have answered."""
        self._closed = True
        self._health.close()
        while self._idle:
            self._idle.pop().end()

    def ask(self, question: Mapping[str, str]) -> Deferred[dict[str, Any]]:
        """Return what PAM answers.

        Fails with `AuthUncertainError`, at once if PAM is known to hang.
        """
        self._health.check()
        return self._put(question)

    def _probe(self) -> Deferred[Any]:
        return self._put(_NOBODY)

    def _put(self, question: Mapping[str, str]) -> Deferred[dict[str, Any]]:
        if len(self._queue) >= MAX_WAITING:
            raise AuthUncertainError("too many log-ins wait for PAM")
        job = _Job(question, self._forget)
        self._queue.append(job)
        self._next()
        return job.answer

    def _forget(self, job: _Job) -> None:
        if job in self._queue:
            self._queue.remove(job)

    def _next(self) -> None:
        while self._queue and self._free:
            job = self._queue.popleft()
            try:
                helper = self._any()
            except AuthUncertainError as error:
                job.answer.errback(error)
                continue
            self._free -= 1
            self._give(helper, job)

    def _any(self) -> Helper:
        while self._idle:
            helper = self._idle.pop()
            if not helper.lost:
                return helper
        return self._start()

    def _give(self, helper: Helper, job: _Job) -> None:
        begun = self._clock.seconds()
        asking = helper.ask(job.question)
        asking.addTimeout(self._timeout, self._clock, lambda *_: self._late(begun))
        asking.addBoth(self._done, helper, job)

    def _late(self, begun: float) -> None:
        trouble = f"PAM does not answer for {self._timeout:g} seconds"
        if self._heard <= begun:
            self._health.failed(trouble)
        raise AuthUncertainError(trouble)

    def _done(self, result: Any, helper: Helper, job: _Job) -> None:
        self._free += 1
        if not helper.lost:
            self._heard = self._clock.seconds()
        if not helper.worn and not self._closed:
            self._idle.append(helper)
        elif not helper.lost:
            helper.end()
        if not job.answer.called:
            if isinstance(result, Failure) and result.check(HelperDiedError) and helper.uses > 1:
                self._queue.appendleft(job)  # it may have been dead before it was asked
            else:
                job.answer.callback(result)
        self._next()
