"""How far processes that serve strangers reach: ``--sandbox``.

A worker reaches the mail, the files that its ``--auth`` name, the state directory and the log, and
reads Python and what libraries need; neither configuration nor certificates, which its supervisor
has read.  It starts no programs and makes no TCP connections unless an ``--auth`` needs that.  The
supervisor, whom no stranger can talk to, is not confined: workers of another configuration get
rules of their own.  One process that does all keeps what a reload and its end need besides.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias

from twisted.logger import Logger

from popd.maildrop.mounts import disk_of
from popd.sandbox import landlock
from popd.sandbox.landlock import CREATE, Access, Rules
from popd.sandbox.places import (
    DEVICES,
    SYSTEM,
    around,
    in_place,
    interpreter,
    python,
    socket_directory,
)
from popd.sandbox.privileges import renounce

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from popd.auth.interfaces import Needs
    from popd.config import Settings

__all__ = ["OUT_OF_REACH", "Confinement", "Launch", "Sandboxing"]

Sandboxing: TypeAlias = Literal["auto", "off", "required"]
"""Whether Landlock is used: where the kernel has it, never, or else popd does not start."""

OUT_OF_REACH: Final = "popd has given up what it did not need, see --sandbox: restart it"
"""Why one process cannot take over a configuration."""

_CONTROL: Final = "/run/popd/control"

Grant: TypeAlias = tuple[str, Access]


@dataclass(frozen=True)
class Launch:
    """How popd was started, by paths that may be relative or empty.

    :param config: the configuration file.
    :param log: the file that twistd logs to.
    :param pid: the file that twistd keeps its process id in.
    :param watched: whether systemd wants to hear how popd is.
    """

    config: str = ""
    log: str = ""
    pid: str = ""
    watched: bool = False

    @classmethod
    def of(cls, config: str | None, twistd: Mapping[str, str | None] | None) -> Launch:
        """Return how this process was started.

        :param config: what ``--config`` is.
        :param twistd: twistd's own options.
        """
        options = twistd or {}
        log, pid = (options.get(name) or "" for name in ("logfile", "pidfile"))
        return cls(config or "", log, pid, watched="NOTIFY_SOCKET" in os.environ)


class Confinement:
    """What processes of one configuration may reach.

    :param settings: the configuration.
    :param needs: what each ``--auth`` needs; None for one that does not say.
    :param mail: the directory beneath which all mail is.
    :param launch: how popd was started.
    :param alone: whether one process does all.
    :raises ValueError: the kernel has no Landlock, and it is required.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        settings: Settings,
        needs: Iterable[Needs | None],
        mail: str,
        launch: Launch,
        *,
        alone: bool,
    ) -> None:
        self._settings = settings
        self._needs = tuple(needs)
        self.mail = mail
        """The directory beneath which all mail is."""
        self._launch = launch
        self._alone = alone
        self.version = 0 if settings.sandbox == "off" else landlock.abi()
        """Which Landlock is used, 0 for none."""
        self._entered: Rules | None = None
        if settings.sandbox == "required" and not self.version:
            raise ValueError(
                "this kernel has no Landlock, see /sys/kernel/security/lsm; auto does without"
            )

    @property
    def entered(self) -> bool:
        """Whether this process has given up what is not needed."""
        return self._entered is not None

    def report(self) -> None:
        """Say in the log whether there is one, and what it has to leave open."""
        if self.version:
            self._log.info(
                "{who}: confined by Landlock, version {version}{but}",
                who="popd" if self._alone else "Workers",
                version=self.version,
                but="; but an --auth may read all, start programs and connect to anywhere"
                if self._anything
                else "",
            )
        elif self._settings.sandbox != "off":
            self._log.info("This kernel has no Landlock: popd reaches all that its user may")
        if os.geteuid() == 0:
            self._log.critical(
                "popd runs as root; it has none of root's privileges, but root's files are its own."
                " Start it as the user who owns the mail, or give twistd --uid USER"
            )

    def enter(self) -> None:
        """Give up all privileges, and all reach but this, for good.

        :raises OSError: that failed, and it is required.
        """
        renounce()
        if not self.version:
            return
        disk_of(b"/")  # from now on /proc cannot be opened, but what is open is read again
        rules = self.rules()
        try:
            landlock.restrict(rules)
            self._entered = _present(rules)
        except OSError as error:
            if self._settings.sandbox == "required":
                raise
            self._log.error("Not confined by Landlock: {error}", error=error)

    def obstacle(self, other: Confinement) -> str:
        """Return what another configuration needs that this process cannot reach any more.

        That is nothing, ``""``, if it has not given up anything.
        """
        if self._entered is None:
            return ""
        other._entered = had = self._entered
        wanted = _present(other.rules())
        if wanted.connect and not had.connect:
            return "TCP connections"
        paths = wanted.paths.items()
        return next((path for path, access in paths if not _covers(had, path, access)), "")

    @property
    def _anything(self) -> bool:
        """Whether an ``--auth`` needs more than it can say."""
        return any(one is None or one.anything for one in self._needs)

    def rules(self) -> Rules:
        """Return what may be reached."""
        paths: dict[str, Access] = {}
        for path, access in self._grants():
            paths[path] = paths.get(path, Access(0)) | access
        anything = self._anything
        connect = anything or any(one is not None and one.network for one in self._needs)
        # In one process popd is its own client for systemd, and may have to listen elsewhere.
        connect |= self._alone and self._launch.watched
        return Rules(paths, connect, bind=self._alone, signals=self._alone or anything)

    def _grants(self) -> Iterator[Grant]:
        for path in (*SYSTEM, *python()):
            yield path, Access.READ
        for path in DEVICES:
            yield path, Access.READ | Access.WRITE_FILE
        yield self.mail, Access.CHANGE
        yield self._settings.state_directory, Access.CHANGE | Access.MAKE_DIR
        yield from self._files((self._launch.log,), Access.CHANGE)
        if self._anything:
            yield "/", Access.READ | Access.EXECUTE
        for needs in filter(None, self._needs):
            yield from self._files(needs.files)
            yield from self._files(needs.databases, Access.CHANGE)
        if self._alone:
            yield from self._grants_of_all()

    def _grants_of_all(self) -> Iterator[Grant]:
        """Yield what one process needs besides: to reload, to begin anew, and to end."""
        settings = self._settings
        for path in interpreter():
            yield path, Access.READ | Access.EXECUTE
        for path in in_place():
            yield os.path.dirname(path), Access.READ_DIR  # where Python looks for it
        yield "/proc", Access.READ
        yield from self._files((self._launch.config, settings.client_ca))
        yield from self._files((*settings.certificate, *settings.private_key))
        if settings.certificate_dir:
            yield from self._certificates(settings.certificate_dir)
        yield from self._files((settings.guess_table,), Access.CHANGE)
        yield from self._files((self._launch.pid,), Access.CHANGE)
        control = "" if settings.control == "none" else settings.control or _CONTROL
        yield from self._files((control,), CREATE | Access.REMOVE_FILE)
        for endpoint in (*settings.listen, *settings.listen_tls, settings.status):
            directory = socket_directory(endpoint)
            if directory:
                yield directory, CREATE | Access.REMOVE_FILE

    @staticmethod
    def _files(paths: Iterable[str], access: Access = Access.READ) -> Iterator[Grant]:
        for path in filter(None, paths):
            for place in around(path):
                yield place, access

    @staticmethod
    def _certificates(directory: str) -> Iterator[Grant]:
        """Yield where certificates are, and where one for another name is likely to be."""
        yield directory, Access.READ
        with suppress(OSError):
            for entry in os.scandir(directory):
                for name in ("", "fullchain.pem", "privkey.pem"):
                    path = os.path.join(entry.path, name).rstrip("/")
                    if os.path.lexists(path):
                        for place in around(path):
                            yield place, Access.READ
                            if not f"{place}/".startswith(f"{directory.rstrip('/')}/"):
                                yield os.path.dirname(place), Access.READ


def _present(rules: Rules) -> Rules:
    """Return the same rules about what is there, by its real names."""
    paths: dict[str, Access] = {}
    for path, access in rules.paths.items():
        if os.path.exists(path):
            real = os.path.realpath(path)
            paths[real] = paths.get(real, Access(0)) | access
    return replace(rules, paths=paths)


def _covers(rules: Rules, path: str, access: Access) -> bool:
    """Tell whether rules allow something beneath *path*."""
    while True:
        access &= ~rules.paths.get(path, Access(0))
        if not access:
            return True
        if path == "/":
            return False
        path = os.path.dirname(path)
