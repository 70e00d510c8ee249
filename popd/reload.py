"""Another configuration for a popd that runs: all of it, or nothing."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from popd import certificates
from popd.certificates import CertificateWatch
from popd.door import Door, starting
from popd.listen import Purpose, StartError
from popd.sandbox.confinement import OUT_OF_REACH, Confinement, Launch
from popd.serve import Service, Serving
from popd.server.insider import Insider
from popd.server.limits import IDLE_TIMEOUT, MEGABYTE, Limits, raise_file_limit, shortage
from popd.server.networks import NOBODY, Networks
from popd.workers import ENDING, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from popd.config import Settings
    from popd.listen import Listener
    from popd.server.port import Lobby
    from popd.server.tls import Served, ServerTLS
    from popd.tap import Server

__all__ = ["Plan", "Reloader"]

_log = Logger()

_MIN_HASHERS: Final = 2
"""How many passwords can be checked at the same time, at least."""

_FIXED: Final = ("log_format", "state_directory")
"""Settings that need a restart."""

Work: TypeAlias = "Callable[[], Coroutine[Any, Any, str]]"
"""Something that is done by and by; it returns why it could not be, or an empty text."""

Place: TypeAlias = "tuple[str, str, Lobby, Purpose]"
"""An endpoint: the option that it was given with, its description, and what is served there."""


@dataclass(frozen=True)
class Plan:
    """Everything that is made of settings, before a fork.

    :param serving: what processes serve with.
    :param insider: popd as its own client.
    :param files: how the files of its certificates were when they were read, see
        `popd.certificates.state`.
    :param confinement: what who serves can reach.
    :param launch: how popd was started.
    """

    settings: Settings
    serving: Serving
    insider: Insider
    confinement: Confinement
    launch: Launch
    files: object = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        before: Plan | None = None,
        tls: ServerTLS | None = None,
        files: object = None,
        launch: Launch | None = None,
    ) -> Plan:
        """Return the plan that settings lead to.

        :param before: the plan in force; what has to outlast it is taken over.
        :param tls: certificates that were read already; then the rest stays as it is.
        :param files: how their files were then.
        :param launch: how popd was started, if there was no plan before.
        :raises StartError: something cannot be used.
        """
        if before is not None and tls is not None:
            door = before.serving.door
        else:
            files = certificates.state(settings)
            with starting(""):
                used = before.serving.tls if before else None
                tls = certificates.load(settings, used.served if used else ())
            door = Door(settings, before.serving.door if before else None)
        insider = before.insider if before else Insider()
        serving = Serving(
            door,
            settings.cleartext_login,
            tls,
            max(_MIN_HASHERS, (os.cpu_count() or 1) // _worker_count(settings.workers)),
            _limits(settings),
            insider,
            settings.drain_timeout,
            before=before.serving if before else None,
        )
        launch = launch or (before.launch if before else Launch())
        with starting("--sandbox"):
            alone = _worker_count(settings.workers) == 1
            confinement = Confinement(settings, door.needs(), door.mail, launch, alone=alone)
        return cls(settings, serving, insider, confinement, launch, files)

    @property
    def workers(self) -> int:
        """How many processes serve."""
        return _worker_count(self.settings.workers)

    @property
    def alone(self) -> bool:
        """Whether there is one process in all."""
        return self.workers == 1

    def needs_restart(self, old: Plan) -> str:
        """Return why this cannot follow *old* in the same process; empty if it can."""
        if self.alone != old.alone:
            return "--workers cannot change between one and several without a restart"
        obstacle = old.confinement.obstacle(self.confinement)
        return obstacle and f"{obstacle}: {OUT_OF_REACH}"

    def places(self) -> Iterator[Place]:
        """Yield where to listen."""
        cleartext = Purpose.STLS if self.serving.tls else Purpose.CLEARTEXT
        for description in self.settings.listen:
            yield "--listen", description, self.serving.cleartext, cleartext
        for description in self.settings.listen_tls:
            yield "--listen-tls", description, self.serving.implicit_tls, Purpose.IMPLICIT_TLS

    def start(self, reactor: Any, listeners: list[Listener]) -> Service | Supervisor:
        """Return what serves by this plan."""
        if self.alone:
            return self.serving.on(reactor)
        return Supervisor(
            reactor,
            self.workers,
            listeners,
            self.work,
            self.settings.drain_timeout,
            self.serving.vacate,
        )

    def work(self, reactor: Any, seat: int) -> Service:
        """Return what serves in a worker, after it has given up what it does not need."""
        self.confinement.enter()
        return self.serving.on(reactor, seat)


class Reloader:
    """Goes from one plan to the next.

    :param server: all of popd.
    :param settle: returns the settings as they are now; raises StartError.
    :param plan: the first plan.
    """

    _log: ClassVar = Logger()

    def __init__(self, server: Server, settle: Callable[[], Settings], plan: Plan) -> None:
        self._server = server
        self._settle = settle
        self.plan = plan
        """The plan in force."""
        self.service = plan.start(server.reactor, server.listeners)
        """What serves."""
        self.watch = CertificateWatch(
            server.reactor,
            lambda: self.plan.settings,
            lambda: self.plan.files,
            self.certificates,
            self._renew,
        )
        self._busy = False
        self._waiting: dict[Work, list[Deferred[str]]] = {}  # what is next, and who wants to hear

    def confine(self) -> None:
        """Give up what is not needed to serve, if this process does; before it has any threads.

        :raises StartError: that failed, and is required.
        """
        confinement = self.plan.confinement
        if os.geteuid() == 0 and self.plan.settings.sandbox == "required":
            raise StartError(
                "--sandbox required: popd does not serve as root; start it as the user who owns the"
                " mail, or give twistd --uid USER"
            )
        confinement.report()
        if self.plan.alone:
            try:
                confinement.enter()
            except OSError as error:
                raise StartError(f"--sandbox: {error}") from error

    def certificates(self) -> list[Served]:
        """Return the certificates that are in use."""
        tls = self.plan.serving.tls
        return tls.served if tls else []

    def reload(self) -> Deferred[str]:
        """See `Server.reload`.  While one is under way, all who ask have the next in common."""
        return self._ask(self._reload)

    def reload_code(self) -> Deferred[str]:
        """See `Server.reload_code`.  Likewise."""
        return self._ask(self._server.succession.hand_over)

    def _ask(self, work: Work) -> Deferred[str]:
        asked: Deferred[str] = Deferred()
        self._waiting.setdefault(work, []).append(asked)
        self._next()
        return asked

    def _next(self) -> None:
        if self._waiting and not self._busy:
            work = next(iter(self._waiting))
            self._begin(work, self._waiting.pop(work))

    def _renew(self, tls: ServerTLS, files: object) -> bool:
        """Take over other certificates, and nothing else, unless something else is under way."""
        if self._busy:
            return False
        self._begin(lambda: self._take_certificates(tls, files), [])
        return True

    def _begin(self, work: Work, waiting: list[Deferred[str]]) -> None:
        self._busy = True
        if not self._server.draining:
            self._server.notifier.reloading()
        Deferred.fromCoroutine(self._try(work)).addCallback(self._done, waiting)

    def _done(self, problem: str, waiting: list[Deferred[str]]) -> None:
        self._busy = False
        if not self._server.draining:  # else systemd has been told that it ends
            self._server.notifier.ready()
        for asked in waiting:
            asked.callback(problem)
        self._next()

    async def _try(self, work: Work) -> str:
        try:
            problem = ENDING if self._server.draining else await work()
        except StartError as error:
            problem = str(error.args[0])
            if self.plan.confinement.entered and os.strerror(errno.EACCES) in problem:
                problem = f"{problem}; if its user may, {OUT_OF_REACH}"
        except Exception as error:  # noqa: BLE001 - whatever it was, popd goes on as it was
            self._log.failure("Reload broken off")
            problem = f"{type(error).__name__}: {error}"
        self._server.reloaded = time.time(), problem
        if problem:
            self._log.critical("Not reloaded: {problem}; all stays as it was", problem=problem)
        return problem

    async def _reload(self) -> str:
        problem = await self._take_over()
        if not problem:
            self._log.info("Reloaded")
        return problem

    async def _take_certificates(self, tls: ServerTLS, files: object) -> str:
        problem = await self._take_over(tls, files)
        if not problem:
            self._log.info("The new certificates are in use")
        return problem

    async def _take_over(self, tls: ServerTLS | None = None, files: object = None) -> str:
        server, old = self._server, self.plan
        settings = old.settings if tls is not None else self._settle()
        for name in _FIXED:
            if getattr(settings, name) != getattr(old.settings, name):
                return f"--{name.replace('_', '-')} cannot change without a restart"
        new = Plan.of(settings, old, tls, files)
        obstacle = new.needs_restart(old)
        if obstacle:
            return obstacle
        kept = {listener.shown: listener for listener in server.listeners}
        wanted: dict[str, Place] = {f"{one[0]} {one[1]}": one for one in new.places()}
        added = [
            server.listener(*wanted[shown], accepting=new.alone)
            for shown in wanted
            if shown not in kept
        ]
        try:
            for listener in added:
                listener.privilegedStartService()
            problem = await self._switch(new, [*server.listeners, *added])
        except BaseException:
            _stop(added)
            raise
        if problem:
            _stop(added)
            return problem
        self.plan = new
        for listener in added:
            server.add(listener)
        for shown, listener in kept.items():
            if shown not in wanted:
                server.remove(listener)
        return ""

    async def _switch(self, plan: Plan, listeners: list[Listener]) -> str:
        if isinstance(self.service, Supervisor):
            wanted = {f"{option} {text}" for option, text, *_ in plan.places()}
            stay = [listener for listener in listeners if listener.shown in wanted]
            return await self.service.renew(
                plan.work, stay, plan.workers, plan.settings.drain_timeout
            )
        plan.serving.take_over(self.service)
        return ""


def _stop(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.stopService()


def _limits(settings: Settings) -> Limits:
    """Return the limits that settings mean; warn of what may not work out."""
    limits = Limits(
        sessions=settings.max_sessions,
        per_address=settings.max_sessions_per_ip,
        per_user=settings.max_sessions_per_user,
        login_timeout=settings.login_timeout,
        idle_timeout=settings.idle_timeout,
        per_day=round(settings.max_download_per_day * MEGABYTE),
        proxies=_networks(settings.proxy_protocol),
        relays=_networks(settings.xclient),
        watch_crowds=not settings.proxy_protocol and not settings.xclient,
    )
    problem = shortage(limits, _worker_count(settings.workers), raise_file_limit())
    if problem:
        _log.warn("{problem}", problem=problem)
    if 0 < limits.idle_timeout < IDLE_TIMEOUT:
        _log.warn(
            "--idle-timeout {seconds:g}: RFC 1939 wants 600 or more, and clients may rely on it",
            seconds=limits.idle_timeout,
        )
    return limits


def _networks(text: str) -> Networks:
    return NOBODY if text in {"", "none"} else Networks.parse(text)


def _worker_count(workers: str) -> int:
    if workers != "auto":
        return int(workers)
    return len(os.sched_getaffinity(0))
