"""Asking a popd that runs, over its control socket (see `popd.operate.controlsocket`)."""

from __future__ import annotations

import errno
import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from popd.ctl.store import RefusedError, UnusableError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TIMEOUT", "Remote"]

TIMEOUT: Final = 60.0
"""Seconds that an answer may take."""

_LINE: Final = 16 << 20
"""The longest answer that is read, in octets."""

_REASONS: Final = {
    errno.ENOENT: "there is no such socket",
    errno.ECONNREFUSED: "nobody listens there any more",
    errno.EACCES: "only root and the user that popd runs as may",
}


class Remote:
    """A popd that runs, or should.

    :param path: of its control socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, what: str, timeout: float = TIMEOUT, **about: Any) -> Any:
        """Ask something, and return the answer.

        :param timeout: seconds that it may take.
        :raises RefusedError: popd says that it cannot answer, and why.
        :raises UnusableError: there is no popd that answers.
        """
        for answer in self.listen(what, timeout, **about):
            return answer
        raise self._silent("it closed the connection without an answer")

    def listen(self, what: str, timeout: float | None = None, **about: Any) -> Iterator[Any]:
        """Ask something, and yield the answers until there are no more; see `ask`."""
        question = json.dumps({"ask": what, "about": about}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(self._path)
                with suppress(BrokenPipeError):  # it may have said why it does not listen
                    connection.sendall(question)
                connection.settimeout(timeout)
                with connection.makefile("rb") as answers:
                    while line := answers.readline(_LINE):
                        yield self._read(line)
        except TimeoutError:
            raise self._silent(f"it did not answer within {timeout or TIMEOUT:g} seconds") from None
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
            raise UnusableError(
                f"popd does not run, or listens on no control socket at {self._path}: {reason}"
            ) from error

    def _read(self, line: bytes) -> Any:
        try:
            said = json.loads(line)
            if "error" in said:
                raise RefusedError(str(said["error"]))
            return said["answer"]
        except (ValueError, LookupError, TypeError):
            raise self._silent("what answers there is no popd") from None

    def _silent(self, reason: str) -> UnusableError:
        return UnusableError(f"popd at {self._path}: {reason}")
