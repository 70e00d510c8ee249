"""What supervisor and workers say to each other: AMP over a socket pair, one for each worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.amp import AMP, Argument, BinaryBoxProtocol, Command, Unicode

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, ITransport
    from twisted.python.failure import Failure

__all__ = ["Ask", "Channel", "Ready", "Retire", "Stop", "channel_factory"]


class Json(Argument):
    """Anything that JSON can say, in at most 65,535 octets."""

    def toString(self, inObject: Any) -> bytes:
        """Return it as octets."""
        return json.dumps(inObject, separators=(",", ":")).encode()

    def fromString(self, inString: bytes) -> Any:
        """Return what the octets say."""
        return json.loads(inString)


class Ready(Command):
    """Worker to supervisor: I accept connections."""


class Stop(Command):
    """Supervisor to worker: end yourself, in good order; if you are about to, be quick."""


class Retire(Command):
    """Supervisor to worker: accept no more connections, and end when the last session has."""


class Ask(Command):
    """Supervisor to worker: an operator wants to know or to change something; see `popd.desk`."""

    arguments = [(b"what", Unicode()), (b"about", Json())]  # noqa: RUF012 - AMP's way
    response = [(b"answer", Json())]  # noqa: RUF012


class Channel(AMP):
    """One end of the line between the supervisor and a worker.

    :param on_ready: called when the other end is ready.
    :param on_stop: called when the other end wants this one to stop.
    :param on_retire: called when the other end wants this one to retire.
    :param on_ask: called with what is asked and about what; returns the answer, or a Deferred.
    :param on_lost: called when the other end is gone.
    """

    def __init__(
        self,
        *,
        on_ready: Callable[[], object] = lambda: None,
        on_stop: Callable[[], object] = lambda: None,
        on_retire: Callable[[], object] = lambda: None,
        on_ask: Callable[[str, Any], Any] = lambda _what, _about: None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_retire = on_retire
        self._on_ask = on_ask
        self._on_lost = on_lost

    @Ready.responder
    def ready(self) -> dict[str, object]:
        """Take `Ready`."""
        self._on_ready()
        return {}

    @Stop.responder
    def stop(self) -> dict[str, object]:
        """Take `Stop`."""
        self._on_stop()
        return {}

    @Retire.responder
    def retire(self) -> dict[str, object]:
        """Take `Retire`."""
        self._on_retire()
        return {}

    @Ask.responder
    def ask(self, what: str, about: Any) -> Deferred[dict[str, object]]:
        """Take `Ask`."""
        return maybeDeferred(self._on_ask, what, about).addCallback(
            lambda answer: {"answer": answer}
        )

    def let_go(self) -> None:
        """Close a forked copy of this end, so that the other can see this one's process die."""
        transport: Any = self.transport
        transport.socket.close()

    def makeConnection(self, transport: ITransport) -> None:
        """Begin; without a line in the log, which AMP itself would write."""
        BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is gone, or this one closes."""
        BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None
        self._on_lost()


def channel_factory(channel: Channel) -> Factory:
    """Return a factory that makes just this channel, as Twisted wants one to adopt a socket."""

    class ChannelFactory(Factory):
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> Channel:
            return channel

    return ChannelFactory()
