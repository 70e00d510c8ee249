"""What systemd hands to popd, and what popd tells it: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from twisted.internet.endpoints import _SystemdParser
from twisted.logger import Logger

from popd.listen import StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

__all__ = ["OURS", "PURPOSES", "Notifier", "handed_over", "inherited", "kept"]

_log = Logger()

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

_PATIENCE: Final = 1.0
"""Seconds that a message may wait for systemd to read those before it."""

_MICROSECONDS: Final = 1_000_000

OURS: Final = "popd/"
"""How the names of sockets begin that are none of systemd's, see `popd.heritage`."""

PURPOSES: Final = {"pop3": "listen", "pop3s": "listen-tls"}
"""Which option a socket of this name stands for."""

_PORTS: Final = {110: "pop3", 995: "pop3s"}
"""What a socket is for that has no such name (RFC 1939 section 3, RFC 8314 section 3.3)."""


class Notifier:
    """Tells systemd how popd is; tells nobody, and costs nothing, where there is none.

    :param environment: where systemd says how to reach it.  That is taken out, because it is meant
        for this process and none that it starts.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self.variables = {name: environment.pop(name) for name in _VARIABLES if name in environment}
        """What was taken out, for a program that this process becomes."""
        self._address = self.variables.get("NOTIFY_SOCKET", "")
        self.muted = False
        """Whether nothing is said, because systemd listens to another popd."""

    def __bool__(self) -> bool:
        """Return whether there is somebody to tell."""
        return bool(self._address)

    @property
    def watchdog_interval(self) -> float:
        """Seconds within which `watchdog` must be called again and again, or systemd ends popd.

        It is 0 if systemd does not, see sd_watchdog_enabled(3).
        """
        meant = self.variables.get("WATCHDOG_PID", str(os.getpid()))
        if not self or meant != str(os.getpid()):
            return 0.0
        with suppress(ValueError):
            return max(0, int(self.variables.get("WATCHDOG_USEC", 0))) / _MICROSECONDS
        return 0.0

    def ready(self) -> None:
        """Popd serves: it has started, or has taken over a new configuration."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Popd takes over a new configuration; `ready` says when that is done, or is refused."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def succeeded(self, pid: int) -> None:
        """Another process is popd from now on, and serves."""
        self._tell(f"MAINPID={pid}", "READY=1")
        self.muted = True

    def stopping(self) -> None:
        """Popd is about to end."""
        self._tell("STOPPING=1")

    def watchdog(self) -> None:
        """Popd still works."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say in a line how popd is, for ``systemctl status``."""
        self._tell(f"STATUS={' '.join(text.split())}")

    def _tell(self, *assignments: str) -> None:
        if not self._address or self.muted:
            return
        # A name that begins with @ is in the abstract namespace, see unix(7).
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.settimeout(_PATIENCE)
                end.connect(address)
                end.sendall("\n".join(assignments).encode())
        except OSError as error:
            _log.warn(
                "systemd cannot be told {word} at {address}: {error}",
                word=assignments[0],
                address=self._address,
                error=error.strerror or error,
            )


def handed_over(sockets: Iterable[tuple[int, str]] | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return the endpoints of the sockets that systemd listens on for popd, by option.

    They take the place of popd's own defaults.  What a socket is for, its name says (see
    ``FileDescriptorName=`` in systemd.socket(5)), or its port.

    :param sockets: number and name of each; by default what systemd handed over.
    :return: an empty mapping if there are none, and otherwise both `PURPOSES`.
    :raises StartError: it is not clear what a socket is for.
    """
    found: dict[str, list[str]] = {option: [] for option in PURPOSES.values()}
    if sockets is None:
        sockets = [one for one in inherited() if not one[1].startswith(OURS)]
    some = False
    for index, (descriptor, name) in enumerate(sockets):
        with socket.socket(fileno=os.dup(descriptor)) as listening:
            address, family = listening.getsockname(), listening.family
        if not isinstance(address, tuple):
            raise StartError(
                f"systemd handed over {address!r}: popd makes UNIX sockets itself, see --listen"
            )
        port = address[1]
        option = PURPOSES.get(name if name in PURPOSES else _PORTS.get(port, ""))
        if option is None:
            raise StartError(
                f"systemd handed over a socket at port {port}, named {name}: is it for TLS from the"
                " start? Write FileDescriptorName=pop3s into its unit, or FileDescriptorName=pop3"
            )
        found[option].append(f"systemd:domain={family.name.removeprefix('AF_')}:index={index}")
        some = True
    return {option: tuple(them) for option, them in found.items()} if some else {}


def inherited() -> list[tuple[int, str]]:
    """Return number and name of each socket that this process was started with, see `OURS`."""
    # Twisted has taken them out of the environment, whoever looked there before.
    handed = _SystemdParser._sddaemon  # noqa: SLF001
    return list(zip(handed._descriptors, handed._names, strict=True))  # noqa: SLF001


def kept() -> list[tuple[int, str]]:
    """Return copies of systemd's own sockets, with their names, whatever becomes of the originals.

    They are what another popd would be handed over; call it before anybody listens.
    """
    return [(os.dup(one), name) for one, name in inherited() if not name.startswith(OURS)]
