"""TCP connections that send at once what the kernel takes.

Twisted keeps what is written until the next turn of the reactor.  A server that answers as soon as
it is asked then pays for two calls of epoll_ctl and a wake-up with every reply, more than for
the reply itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import abstract, tcp
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from popd.server.connection import Connection
from popd.server.tls_transport import start_tls

__all__ = ["PromptServer", "make_prompt"]


class _PromptConnection(abstract.FileDescriptor):
    """The plain connection: what `PromptServer` is, and what TLS is spoken through."""

    def write(self, data: bytes) -> None:
        """Send *data*, or as much as the kernel takes; keep the rest for later."""
        if self.connected and not (self.disconnecting or self._tempDataLen or self.dataBuffer):
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
        abstract.FileDescriptor.write(self, data)


class PromptServer(tcp.Server):
    """The server's end of a TCP connection."""

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Speak TLS from now on."""
        start_tls(self, ctx, _PromptConnection)

    def loseConnection(self) -> None:
        """Close; at once, if nothing is left to be sent."""
        if (
            self.connected
            and isinstance(self.protocol, Connection)  # neither TLS nor a proxy's header before it
            and not (self.TLS or self.disconnecting or self.producer)
            and not (self._tempDataLen or self.dataBuffer)
        ):
            self.disconnecting = True
            self.connectionLost(Failure(CONNECTION_DONE))
        else:
            super().loseConnection()

    def write(self, data: bytes) -> None:
        """Send *data*, through TLS if that was started."""
        if self.TLS:
            super().write(data)
        else:
            _PromptConnection.write(self, data)  # type: ignore[arg-type]


def make_prompt(port: Any) -> None:
    """Let a TCP port's connections be prompt; other kinds of ports stay what they are."""
    if getattr(port, "transport", None) is tcp.Server:
        port.transport = PromptServer
