"""Reload of code: another popd, of what is installed now, takes the place of this one.

It is a new interpreter with the same command line, and is handed over all sockets that this one
listens on (see `popd.heritage`).  So both accept connections for a moment.  Only when the new one
serves does this one let nobody in any more; it ends with its last session, or when the new one is
to end.  If the new one does not come to serve, nothing has happened to this one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError  # noqa: A004
from twisted.logger import Logger

from popd.heritage import END, LINE, REFUSED, SERVES, STDERR, YOURS, Line, name_of
from popd.workers import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

    from popd.tap import Server

_log = Logger()

__all__ = ["PATIENCE", "Invocation", "Succession"]

PATIENCE: Final = 60.0
"""Seconds that a new popd has until it serves."""

_PID: Final = b"\0pid"
"""The first that is heard: the process id."""

_BECOME: Final = f"""
import os, sys
if os.fork():
    os._exit(0)  # systemd wants its main process to be a child of its own
for number, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, number)
    os.set_inheritable(descriptor, False)
pid = str(os.getpid())
os.write(2, {_PID!r} + b" " + pid.encode() + b"\\n")
os.environ["LISTEN_PID"] = pid
if "WATCHDOG_PID" in os.environ:
    os.environ["WATCHDOG_PID"] = pid
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What stands between: it does as systemd does, see sd_listen_fds(3)."""

_FIRST: Final = 3
"""The number of the first socket that is handed over."""


@dataclass(frozen=True)
class Invocation:
    """How this process was started, and so how another one is.

    :param directory: where that was.
    :param twistd: twistd's own options.
    """

    directory: Path = field(default_factory=Path.cwd)
    twistd: MutableMapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, *sys.orig_argv[1:]]


class _Candidate:
    """A new popd that is being started, as the one before sees it.

    :param server: all of the one before.
    :param finish: called when that is to end, and once more when it is to be quick.
    """

    def __init__(self, server: Server, finish: Callable[[], object]) -> None:
        self._server = server
        self._finish = finish
        self._starter: subprocess.Popen[bytes] | None = None
        self._process = -1  # a descriptor of it
        self._last = ""  # what it said last on its standard error
        self.line = Line(self._heard, self._lost)
        self.outcome: Deferred[str] = Deferred()
        """Why it does not serve; empty if it does."""
        self.pid = 0
        self.version = ""
        self.succeeded = False
        """Whether it is the one that matters now."""

    def start(self, invocation: Invocation, sockets: Iterable[tuple[int, str]]) -> None:
        """Start it.

        :raises OSError: that is not possible.
        """
        ours, theirs = socket.socketpair()
        handed = [*sockets, (theirs.fileno(), name_of(LINE)), (2, name_of(STDERR))]
        above = _FIRST + len(handed)
        copies = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, above) for number, _ in handed]
        environment = {
            **os.environ,
            **self._server.notifier.variables,
            "LISTEN_FDS": str(len(handed)),
            "LISTEN_FDNAMES": ":".join(name for _, name in handed),
        }
        script = [sys.executable, "-I", "-S", "-c", _BECOME, ",".join(map(str, copies))]
        try:
            self._starter = subprocess.Popen(  # noqa: S603 - what this process was started with
                [*script, *invocation.command],
                pass_fds=copies,
                stderr=theirs.fileno(),
                cwd=invocation.directory,
                env=environment,
            )
            self.line.adopt(self._server.reactor, ours)
        finally:
            ours.close()
            theirs.close()
            for copy in copies:
                os.close(copy)

    def _heard(self, line: bytes) -> None:
        word, *rest = line.split(b" ")
        if word == _PID:
            with suppress(OSError):
                self._process = os.pidfd_open(int(rest[0]))
        elif word == SERVES:
            self.pid, self.version = int(rest[0]), rest[1].decode()
            if not self.outcome.called:
                self.outcome.callback("")
        elif word == END and self.succeeded:
            self._finish()
        elif line.strip() and not line.startswith(b"\0"):
            self._last = line.decode(errors="backslashreplace").strip()
            _log.warn("The new popd says: {text}", text=self._last)

    def _lost(self) -> None:
        if self.succeeded:
            self._finish()
        elif not self.outcome.called:
            said = self._last.removeprefix("twistd popd: ") or "its log says why"
            self.outcome.callback(f"the new popd does not start: {said}")

    def refuse(self) -> None:
        """End it, if it is there."""
        self.line.say(REFUSED)
        if self._process >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def forget(self) -> None:
        """Let go of the process."""
        if self._starter is not None:
            self._starter.wait()  # it has ended when the other began
        if self._process >= 0:
            os.close(self._process)
            self._process = -1


class _PidFile:
    """The file with this process's id, as far as twistd keeps one, while there may be another.

    :raises OSError: it cannot be moved out of the way.
    """

    def __init__(self, twistd: MutableMapping[str, Any]) -> None:
        self._twistd = twistd
        self._path = Path(twistd.get("pidfile") or os.devnull)
        self._aside = self._path.with_name(f"{self._path.name}.old")
        self._is_ours = _reads(self._path) == b"%d" % os.getpid()
        if self._is_ours:
            self._path.rename(self._aside)

    def put_back(self) -> None:
        """The other popd is none."""
        if self._is_ours:
            self._aside.replace(self._path)

    def give_up(self) -> None:
        """The other popd has one of its own there, which twistd must not remove."""
        self._twistd["pidfile"] = ""
        if self._is_ours:
            self._aside.unlink(missing_ok=True)


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError:
        return b""


class Succession:
    """Has another popd take the place of this one.

    :param server: all of this one.
    :param invocation: how it was started.
    :param kept: systemd's sockets, and their names.
    """

    def __init__(
        self, server: Server, invocation: Invocation, kept: Iterable[tuple[int, str]] = ()
    ) -> None:
        self._server = server
        self._invocation = invocation
        self._kept = list(kept)
        self._ending = False
        self._candidate: _Candidate | None = None

    def break_off(self) -> None:
        """Have no other popd, if one is being started: this one is ended."""
        if self._candidate is not None:
            self._candidate.refuse()

    async def hand_over(self) -> str:
        """Start another popd, and when it serves leave everything to it.

        :return: empty; or why that could not be done, in which case all is as before.
        """
        if os.getpid() == 1:
            return "popd is process 1 here, and with its end all would end: restart that instead"
        ours: Deferred[None] = Deferred()
        self._server.heritage.when_ours(lambda: ours.callback(None))
        await ours
        try:
            pidfile = _PidFile(self._invocation.twistd)
        except OSError as error:
            return f"--pidfile cannot be moved: {error.strerror}"
        candidate = self._candidate = _Candidate(self._server, self._finish)
        problem = await self._tried(candidate)
        self._candidate = None
        if self._server.draining:  # whoever ends this one wants no other
            problem = ENDING
        if problem:
            candidate.refuse()
            pidfile.put_back()
        else:
            pidfile.give_up()
            candidate.succeeded = True
            _log.info(
                "popd {version}, process {pid}, serves from now on; this one ends with its last"
                " session",
                version=candidate.version,
                pid=candidate.pid,
            )
            await self._leave(candidate.pid)
            candidate.line.say(YOURS)
        candidate.forget()
        return problem

    async def _tried(self, candidate: _Candidate) -> str:
        """Return why another popd does not serve, when that is known; nothing if it does."""
        watchman = self._server.watchman
        if watchman is not None:  # log-ins to itself may come to the other one now
            watchman.trusting = True
        try:
            candidate.start(self._invocation, self._sockets())
            candidate.outcome.addTimeout(PATIENCE, self._server.reactor)
            return await candidate.outcome
        except OSError as error:
            return f"no other popd can be started: {error.strerror}"
        except TimeoutError:
            return f"the new popd did not serve within {PATIENCE:g} s"
        finally:
            if watchman is not None:
                watchman.trusting = False

    def _sockets(self) -> Iterator[tuple[int, str]]:
        """Yield number and name of what is handed over."""
        yield from self._kept
        for listener in self._server.all_listeners():
            if listener.bound is not None and listener.kind != "systemd":
                yield listener.bound.fileno(), name_of(listener.shown)
        control = self._server.control
        if control is not None and control.bound is not None:
            yield control.bound.fileno(), name_of(control.shown)

    async def _leave(self, pid: int) -> None:
        """Let nobody in any more, and end when the last session has.

        :param pid: the process that is popd from now on.
        """
        server = self._server
        server.draining = True
        server.reloader.watch.disownServiceParent()
        if server.watchman is not None:
            server.watchman.disownServiceParent()
        service = server.reloader.service
        left = service.leave()
        for listener in server.all_listeners():
            listener.hand_over()
        if server.control is not None:
            server.control.hand_over()
        await left
        server.notifier.succeeded(pid)
        over = DeferredList([service.retire(), server.heritage.gone])
        over.addCallback(lambda _: self._finish())

    def _finish(self) -> None:
        """End, after the time that sessions are given; the second time at once."""
        if self._ending:
            self._server.hurry()
        self._ending = True
        self._server.drain()
