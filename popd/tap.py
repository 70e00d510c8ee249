"""``twistd popd``: from the command line to running services."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.application.service import MultiService
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.defer import DeferredList
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, globalLogPublisher
from twisted.python import usage

from popd import __version__, config, demo, systemd
from popd.auth.interfaces import IBearerToken, IClientCertificate
from popd.desk import Alone
from popd.door import starting
from popd.helptexts import DEMO, HELP
from popd.heritage import Heritage
from popd.listen import Listener, Purpose, StartError, parse_endpoint
from popd.logs import bridge
from popd.metrics import Sources
from popd.operate.commands import Commands
from popd.operate.controlsocket import ControlSocket
from popd.probe import Watchman, targets
from popd.reload import Plan, Reloader
from popd.sandbox.confinement import Launch
from popd.sandbox.watch import MountWatch
from popd.server.note import LogFormat, hasten
from popd.server.reactor import make_lean, make_steady
from popd.succession import Invocation, Succession
from popd.workers import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory

    from popd.auth.tablefile import GuessTable
    from popd.desk import Crew
    from popd.server.tls import Served
    from popd.status.site import Status

__all__ = ["Options", "Server", "build", "makeService"]

_log = Logger()


class Options(usage.Options, AuthOptionMixin):
    """The command line.  After parsing, `settings` is what it and the configuration file say."""

    supportedInterfaces = (
        IUsernamePassword,
        IUsernameHashedPassword,
        IBearerToken,
        IClientCertificate,
    )

    synopsis = "[options]"
    longdesc = (
        "A POP3 server for Maildirs.  For example: twistd -n --pidfile= popd"
        " --certificate /etc/ssl/mail.pem --auth popd-passwd:/etc/popd/passwd"
        " --maildrop 'maildir:/srv/mail/{domain}/{local}/Maildir'"
    )
    optFlags: ClassVar = [["demo", None, DEMO]]
    optParameters: ClassVar = [[name, None, None, text] for name, text in HELP.items()]

    settings: config.Settings
    invocation: Invocation

    def opt_listen(self, endpoint: str) -> None:
        """Endpoint for cleartext with STLS; may be repeated; "none" for none (default: tcp:110)."""
        self.setdefault("listen", []).append(endpoint)

    def opt_listen_tls(self, endpoint: str) -> None:
        """Endpoint for implicit TLS; may be repeated; "none" for none (default: tcp:995)."""
        self.setdefault("listen-tls", []).append(endpoint)

    def opt_certificate(self, path: str) -> None:
        """PEM file: the certificate, then its authorities'; repeat it for another kind of key."""
        self.setdefault("certificate", []).append(path)

    def opt_private_key(self, path: str) -> None:
        """PEM file of a certificate's key, in the same order (default: each certificate's file)."""
        self.setdefault("private-key", []).append(path)

    def opt_auth(self, description: str) -> None:
        """How users log in, as TYPE[:ARGUMENT]; repeat it and each is asked in turn."""
        self.setdefault("auth", []).append(description)

    def opt_apop(self) -> None:
        """Offer APOP, for old clients; it needs passwords that are stored as they are."""
        self["apop"] = True

    def opt_version(self) -> None:
        """Show popd's version and exit."""
        sys.stdout.write(f"popd {__version__}\n")
        raise SystemExit

    def parseArgs(self, *rest: str) -> None:
        """Refuse what is no option."""
        if rest:
            raise usage.UsageError(f"{rest[0]!r} is no option")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line.

        :raises StartError: something is wrong with it.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise StartError(f"{error}; see twistd popd --help") from error

    def postOptions(self) -> None:
        """Merge the command line with what it builds on.

        :raises StartError: something is wrong, or missing.
        """
        self.invocation = Invocation(Path.cwd(), self.parent or {})
        self.settings = self.settle()

    @cached_property
    def _handed_over(self) -> config.Layer:
        """What systemd handed over, as long as nobody has taken it."""
        return systemd.handed_over()

    def settle(self) -> config.Settings:
        """Return what popd is told to do, as the configuration file is now.

        :raises StartError: something is wrong, or missing.
        """
        try:
            return config.settle(
                self._handed_over,
                demo.layer(demo.DIRECTORY.absolute()) if self["demo"] else {},
                config.read_file(self["config"]) if self["config"] else {},
                {
                    key: config.checked(key, self[key], f"--{key}")
                    for key in config.DEFAULTS
                    if self.get(key) is not None
                },
            )
        except config.ConfigError as error:
            raise StartError(str(error)) from error


class Server(MultiService):
    """All of popd.  Starts whole or not at all.

    :param reactor: what to stop if a port turns out not to be had once everything runs.
    :param at_exit: has something called when the process ends, as `atexit.register` does.
    :param log_format: what lines of the log are.
    """

    def __init__(
        self,
        reactor: Any,
        at_exit: Callable[..., object] = atexit.register,
        log_format: LogFormat = "text",
    ) -> None:
        super().__init__()
        self._log_format = log_format
        self.reactor = reactor
        self._at_exit = at_exit
        self.listeners: list[Listener] = []
        self.reloader: Reloader
        self.notifier = systemd.Notifier({})
        self.heritage = Heritage(reactor, {})
        self.succession = Succession(self, Invocation())
        self.watchman: Watchman | None = None
        self.control: ControlSocket | None = None
        self.status: Status | None = None
        self.reloaded: tuple[float, str] | None = None
        """When the configuration was taken up anew last, and what was wrong with it."""
        self.draining = False
        """Whether no new sessions are begun because popd is about to end."""

    def privilegedStartService(self) -> None:
        """Bind all ports.

        :raises StartError: a port cannot be had.  The text went to stderr, too.
        """
        hasten(globalLogPublisher, self._log_format)
        with suppress(ValueError):  # not the main thread, so that signals are others' business
            signal.signal(signal.SIGHUP, lambda *_: self._soon(self.reload))
            signal.signal(signal.SIGUSR2, lambda *_: self._soon(self.reload_code))
        with _told():
            super().privilegedStartService()

    def startService(self) -> None:
        """Serve.

        :raises StartError: something cannot be had.  The text went to stderr, too.
        """
        self.heritage.speak_up()
        with _told():
            self.reloader.confine()
            super().startService()
        self.reloader.service.serving().addCallback(self.heritage.serves)

    def listener(
        self,
        option: str,
        description: str,
        factory: IProtocolFactory,
        purpose: Purpose,
        *,
        accepting: bool,
    ) -> Listener:
        """Return what listens on an endpoint.

        :param option: what the endpoint was given with.
        :raises StartError: it cannot be one.
        """
        reactor = self.heritage.reactor_for(f"{option} {description}")
        endpoint = parse_endpoint(reactor, option, description)
        listener = Listener(
            endpoint,
            factory,
            purpose,
            f"{option} {description}",
            give_up=self._give_up,
            accepting=accepting,
        )
        listener.kind = description.partition(":")[0]
        return listener

    def add(self, listener: Listener) -> None:
        """Have a listener listen when this does."""
        self.listeners.append(listener)
        listener.setServiceParent(self)

    def remove(self, listener: Listener) -> None:
        """Have a listener listen no more."""
        self.listeners.remove(listener)
        listener.disownServiceParent()

    def all_listeners(self) -> list[Listener]:
        """Return all listeners, that of the status page included."""
        return [*self.listeners, self.status.listener] if self.status else self.listeners

    def stopService(self) -> Deferred[Any]:
        """Let sessions go on for a while; a second signal ends that."""
        self.draining = True
        self.succession.break_off()
        self.notifier.stopping()
        with suppress(ValueError):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._soon(self.hurry))
        return DeferredList([super().stopService(), self.heritage.end()])

    def reload(self) -> Deferred[str]:
        """Take over the configuration, password files and certificates as they are now.

        Sessions go on.  What is wrong is logged, and then all stays as it was.

        :return: what is wrong, in a line; empty if nothing is.
        """
        return self.reloader.reload()

    def reload_code(self) -> Deferred[str]:
        """Have a popd of the code that is installed now take this one's place; likewise."""
        return self.reloader.reload_code()

    def drain(self) -> None:
        """End, once sessions have had some time to end."""
        with suppress(ReactorNotRunning):
            self.reactor.stop()

    def certificates(self) -> list[Served]:
        """Return all certificates that are in use."""
        return self.reloader.certificates()

    @cached_property
    def crew(self) -> Crew:
        """All processes that serve."""
        service = self.reloader.service
        return service if isinstance(service, Supervisor) else Alone(service.desk)

    @property
    def guesses(self) -> GuessTable:
        """What is known of guesses."""
        return self.reloader.plan.serving.door.guesses

    def _slowed(self) -> int:
        return self.reloader.plan.serving.door.slowed()

    def hurry(self) -> None:
        """Wait no longer for sessions, here and in the popd before."""
        self.reloader.service.hurry()
        self.heritage.end()

    def _soon(self, function: Callable[[], object]) -> None:
        """Call a function from a signal handler."""
        self.reactor.callFromThread(function)

    def show(self, description: str) -> None:
        """Add the status page.

        :param description: the endpoint that it is to be had on.
        :raises StartError: it cannot be one.
        """
        from popd.status.site import Status  # noqa: PLC0415 - it needs much that else nobody does

        sources = Sources(
            self.reloader.plan.serving.meter,
            self.crew,
            self.certificates,
            self._slowed,
            time.time(),
        )
        reactor = self.heritage.reactor_for(f"--status {description}")
        self.status = Status(reactor, description, sources, lambda: self.draining, self._give_up)
        self.status.setServiceParent(self)

    def _give_up(self, error: StartError) -> None:
        """Stop in an orderly way, and end with exit status 1."""
        _log.critical("{error}", error=error.code)
        _tell(error)
        # twistd ends with 0 whenever the reactor stops, and has no other way to ask for more.
        self._at_exit(os._exit, 1)
        with suppress(ReactorNotRunning):
            self.reactor.callWhenRunning(self.reactor.stop)


def makeService(options: Options) -> Server:
    """Return all of popd, not yet started (Twisted's `IServiceMaker`).

    :raises StartError: something cannot be used.  No port is bound yet.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it chooses it

    return build(options, reactor)


def build(options: Options, reactor: Any) -> Server:
    """Return all of popd on *reactor*; see `makeService`."""
    settings = options.settings
    bridge()
    with starting("--demo"):
        password = demo.prepare(demo.DIRECTORY) if options["demo"] else ""
    server = Server(reactor, log_format=settings.log_format)
    server.heritage = heritage = Heritage.claimed(reactor)
    server.succession = Succession(server, options.invocation, systemd.kept())
    plan = Plan.of(settings, launch=Launch.of(options["config"], options.parent))
    make_steady(reactor)
    if plan.alone:
        make_lean(reactor)
    for one in plan.places():
        server.add(server.listener(*one, accepting=plan.alone))
    server.reloader = Reloader(server, options.settle, plan)
    server.reloader.watch.setServiceParent(server)
    watch = MountWatch(reactor, lambda: server.reloader.plan.confinement, server.reload)
    watch.setServiceParent(server)
    server.reloader.service.setServiceParent(server)
    server.notifier = notifier = systemd.Notifier(os.environ)
    if notifier:
        server.watchman = watchman = Watchman(
            reactor, notifier, plan.insider, lambda: targets(server.listeners), server.crew
        )
        notifier.muted = heritage.pending  # until then, systemd knows another popd
        heritage.when_ours(lambda: watchman.begin(server))
    if settings.control != "none":
        commands = Commands(reactor, server)
        server.control = ControlSocket(reactor, settings.control, commands, heritage)
        server.control.setServiceParent(server)
    if settings.status:
        server.show(settings.status)
    if options["demo"]:
        guide = demo.Guide(demo.DIRECTORY, settings.certificate, password, server.listeners)
        guide.setServiceParent(server)
    return server


@contextmanager
def _told() -> Iterator[None]:
    """Tell whoever starts popd, too, why that is not possible."""
    try:
        yield
    except StartError as error:
        _tell(error)
        raise


def _tell(error: StartError) -> None:
    """Write to the terminal's stderr, where twistd's has become the log."""
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"{error.code}\n")
        sys.__stderr__.flush()
