"""What waits for the header that a trusted proxy puts in front of each connection.

The header is looked at where it lies, in the kernel, and no more than it is taken from there: so
what follows, be it TLS or POP3, begins as if there had been no header.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from popd.protocol.proxy import BadHeaderError, Header

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.protocol.proxy import Introduction
    from popd.server.factory import POP3Factory

__all__ = ["HEADER_TIMEOUT", "Introducing"]

HEADER_TIMEOUT: Final = 3.0
"""Seconds that a proxy has for its header."""

_log: Final = Logger()


@implementer(IReadDescriptor)
class Introducing:
    """A connection whose header has not come yet.

    :param connection: the connection's socket.
    :param proxy: the IP address of its other end.
    :param factory: will serve it.
    :param reactor: watches the socket.
    :param serve: is called with what the header says.
    """

    def __init__(
        self,
        connection: socket.socket,
        proxy: str,
        factory: POP3Factory,
        reactor: Any,
        serve: Callable[[Introduction], None],
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._proxy = proxy
        self._factory = factory
        self._reactor = reactor
        self._serve = serve
        self._header = Header()
        self._begun = False  # something came
        self._over = False
        self._second = factory.watch.add(factory.clock.seconds() + HEADER_TIMEOUT, self)
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor (`IReadDescriptor`)."""
        return -1 if self._over else self._socket.fileno()

    def logPrefix(self) -> str:
        """Return what Twisted's old way of logging puts in front of lines."""
        return f"{type(self).__name__},{self._proxy}"

    def doRead(self) -> None:
        """Look at what has come."""
        header = self._header
        try:
            while header.introduction is None:
                seen = self._socket.recv(header.missing, socket.MSG_PEEK)
                if not seen:
                    self._close("sent half a PROXY header" if self._begun else "")
                    return
                self._begun = True
                self._socket.recv(header.feed(seen))
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        except BadHeaderError as error:
            self._close(f"sent no PROXY header: {error}")
            return
        self._let_go()
        try:
            self._serve(header.introduction)
        except Exception:  # noqa: BLE001 - the other connections go on
            _log.failure("Connection not served")
            self._socket.close()

    def check_time(self) -> None:
        """Close: it took too long."""
        if not self._over:
            self._close(f"sent no PROXY header within {HEADER_TIMEOUT:g} seconds")

    def connectionLost(self, reason: Any) -> None:
        """Close: the connection is gone, or the reactor stops."""
        if not self._over:
            self._close()

    def _let_go(self) -> None:
        self._reactor.removeReader(self)
        self._factory.watch.remove(self._second, self)
        self._over = True

    def _close(self, why: str = "") -> None:
        self._let_go()
        if why:
            self._factory.gate.sparing.warn("proxy", f"The proxy at {self._proxy} {why}")
        self._socket.close()
