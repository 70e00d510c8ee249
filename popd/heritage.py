"""What a popd was handed over by the one before it, whose place it takes with other code.

It is started as systemd starts services (sd_listen_fds(3)): with the sockets that systemd listens
on, if there are any, and behind them with those that the popd before listens on, each of which has
the option and the endpoint that it belongs to for its name.  One more is a line between the two,
see `popd.succession`.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, unquote

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from popd import __version__, systemd

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure

__all__ = ["END", "LINE", "REFUSED", "SERVES", "STDERR", "YOURS", "Heritage", "Line", "name_of"]

LINE: Final = "line"
"""What the line is called."""
STDERR: Final = "stderr"
"""What the standard error is called: until it serves, the new popd's own is the line."""

SERVES: Final = b"\0serves"
"""New to old, with a process id and a version behind it: I serve."""
YOURS: Final = b"\0yours"
"""Old to new: I let nobody in any more, all is yours."""
REFUSED: Final = b"\0refused"
"""Old to new: this has taken too long, end yourself."""
END: Final = b"\0end"
"""New to old: it is time to end; said again, to be quick."""


def name_of(what: str) -> str:
    """Return the name by which something is handed over: one that can stand in LISTEN_FDNAMES."""
    return systemd.OURS + quote(what, safe="")


class Line(LineOnlyReceiver):
    """One end of the line between two popds.

    :param heard: called with each line that the other end says.
    :param lost: called when the other end is gone.
    """

    delimiter = b"\n"
    transport: Any

    def __init__(self, heard: Callable[[bytes], object], lost: Callable[[], object]) -> None:
        self._heard = heard
        self._lost = lost
        self.open = False
        """Whether the other end is there."""

    def adopt(self, reactor: Any, end: socket.socket) -> None:
        """Speak on one end of a socket pair, which is the reactor's from now on."""
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        end.setblocking(False)
        with end:
            reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)

    def say(self, *words: bytes) -> None:
        """Say something, if anybody is there."""
        if self.open:
            self.sendLine(b" ".join(words))

    def connectionMade(self) -> None:
        """Begin."""
        self.open = True

    def lineReceived(self, line: bytes) -> None:
        """Take a line."""
        self._heard(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is gone."""
        self.open = False
        self._lost()


class Heritage:
    """What was handed over; it may be nothing.

    :param reactor: the process's.
    :param descriptors: what there is, by its name.
    """

    _log: ClassVar = Logger()

    def __init__(self, reactor: Any, descriptors: dict[str, int]) -> None:
        self._reactor = reactor
        self._sockets = dict(descriptors)
        self._stderr = self._sockets.pop(STDERR, None)
        line = self._sockets.pop(LINE, None)
        self.pending = line is not None
        """Whether there is a popd that has not said yet that all is this one's."""
        self._begins: list[Callable[[], object]] = []
        self.gone: Deferred[None] = Deferred()
        """Fires when the popd before has ended."""
        self._line: Line | None = None
        if line is None:
            self.gone.callback(None)
        else:
            self._line = Line(self._heard, self._lost)
            self._line.adopt(reactor, socket.socket(fileno=line))

    @classmethod
    def claimed(cls, reactor: Any) -> Heritage:
        """Return what this process was handed over."""
        found = {}
        for descriptor, name in systemd.inherited():
            if name.startswith(systemd.OURS):
                os.set_inheritable(descriptor, False)
                found[unquote(name.removeprefix(systemd.OURS))] = descriptor
        return cls(reactor, found)

    def when_ours(self, begin: Callable[[], object]) -> None:
        """Call a function when nobody else is popd any more, which may be at once."""
        if self.pending:
            self._begins.append(begin)
        else:
            begin()

    def take(self, what: str) -> int | None:
        """Return the socket of an option and its endpoint, whose owner the caller is then."""
        return self._sockets.pop(what, None)

    def reactor_for(self, what: str) -> Any:
        """Return a reactor to listen with, on what was handed over for an option and its endpoint.

        It is the process's own if nothing was.
        """
        descriptor = self.take(what)
        return self._reactor if descriptor is None else _Heir(self._reactor, descriptor)

    def speak_up(self) -> None:
        """Have a standard error as the popd before: what goes wrong from now on is in the log."""
        if self._stderr is not None:
            os.dup2(self._stderr, 2)
            os.close(self._stderr)
            self._stderr = None

    def serves(self, all_well: bool) -> None:
        """Tell the popd before that this one serves, or end at once if it does not."""
        if self._line is None or not self.pending:
            return
        if not all_well:
            self._log.critical("No worker serves: the popd before goes on")
            os._exit(1)
        self._line.say(SERVES, str(os.getpid()).encode(), __version__.encode())

    def end(self) -> Deferred[None]:
        """Have the popd before end, after the time that its sessions are given; wait for it.

        A second call has it be quick.
        """
        if self._line is not None:
            self._line.say(END)
        ended: Deferred[None] = Deferred()
        self.gone.addCallback(ended.callback)
        return ended

    def _heard(self, line: bytes) -> None:
        if line == YOURS:
            self._begin()
        elif line == REFUSED:
            os._exit(1)

    def _begin(self) -> None:
        if self.pending:
            self.pending = False
            self._discard()
            for begin in self._begins:
                begin()

    def _lost(self) -> None:
        self._log.info("The popd before has ended")
        self._begin()  # whatever became of it, there is this one now
        self.gone.callback(None)

    def _discard(self) -> None:
        """Close what nobody wants any more."""
        for descriptor in self._sockets.values():
            with socket.socket(fileno=descriptor) as unused:
                if unused.family == socket.AF_UNIX:
                    with suppress(OSError):
                        Path(unused.getsockname()).unlink()
        self._sockets.clear()


class _Heir:
    """A reactor that listens on a socket that is there already, wherever it is told to.

    :param reactor: the reactor that it is else.
    :param descriptor: the socket.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> Any:
        """See `twisted.internet.interfaces.IReactorTCP`."""
        del port, interface
        with socket.socket(fileno=self._descriptor) as inherited:
            heirloom: Any = tcp.Port._fromListeningDescriptor(  # noqa: SLF001 - as adoptStreamPort does
                self._reactor, inherited.fileno(), inherited.family, factory
            )
            inherited.listen(backlog)
        heirloom.startListening()
        return heirloom

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> Any:
        """See `twisted.internet.interfaces.IReactorUNIX`."""
        del address, wantPID
        with socket.socket(fileno=self._descriptor) as inherited:
            heirloom: Any = unix.Port._fromListeningDescriptor(  # noqa: SLF001
                self._reactor, inherited.fileno(), factory
            )
        heirloom.backlog, heirloom.mode = backlog, mode
        heirloom.startListening()
        return heirloom
