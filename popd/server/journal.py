"""What is written down, and counted, about sessions: each event in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from popd.server.visit import Visit

__all__ = ["Journal"]


class Journal:
    """Is told what happens in a process's sessions.  Nothing here waits for anything, or fails."""

    def began(self, visit: Visit) -> None:
        """A client connected."""

    def let_in(self, visit: Visit, seconds: float) -> None:
        """It logged in, *seconds* after it had shown its credentials."""

    def shut_out(self, visit: Visit, mechanism: str, result: str) -> None:
        """It could not log in.

        :param result: ``credentials``, ``temporary``, ``in-use``, ``permanent`` or ``too-soon``.
        """

    def sent(self, visit: Visit, octets: int, seconds: float, *, whole: bool) -> None:
        """It was sent a message, or with TOP a part of one, in so many seconds."""

    def removed(self, visit: Visit, uid: str, octets: int) -> None:
        """A message that it had marked was removed."""

    def limited(self, visit: Visit | None, peer: str, limit: str) -> None:
        """A client was refused something because of a limit.

        :param visit: whose; None for a connection that is no session yet.
        :param limit: the name of the option that sets it: ``max-sessions``, say.
        """

    def ended(self, visit: Visit) -> None:
        """It is gone, and nothing more is done for it."""
