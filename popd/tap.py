"""``twistd popd``: from the command line to running services."""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.application.service import MultiService
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, globalLogPublisher
from twisted.python import usage

from popd import __version__, config, demo
from popd.auth.interfaces import IBearerToken, IClientCertificate
from popd.desk import Alone
from popd.door import Door, starting
from popd.listen import Listener, Purpose, StartError, parse_endpoint
from popd.logs import bridge
from popd.maildrop.snapshots import DEFAULT_CACHE_SIZE, DEFAULT_CLOCK_SKEW
from popd.metrics import Meter, Sources
from popd.serve import Serving
from popd.server.note import hasten
from popd.server.reactor import make_lean
from popd.server.tls import certificate_facts, load_context
from popd.workers import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IProtocolFactory

    from popd.desk import Crew
    from popd.serve import Service

__all__ = ["Options", "Server", "build", "makeService"]

_log = Logger()

_MIN_HASHERS: Final = 2
"""How many passwords can be checked at the same time, at least."""

_DEMO: Final = (
    "Show popd at work: makes ./popd-demo with a certificate, a user and some mail, listens on"
    " 127.0.0.1 ports 1110 and 1995, and says how to look at it.  Other options win over it."
)
_HELP: Final = {
    "config": "A TOML file with the names of these options, which win over it.",
    "maildrop": "Where the mail is: maildir:/PATH with {user}, {local} or {domain} in it.",
    "default-domain": "What stands behind the @ of a user name that has none.",
    "cleartext-login": "Who may log in without TLS: never, local or always.  (default: never)",
    "missing-maildrop": "What a Maildir not yet there is: empty or an error.  (default: empty)",
    "sasl": "The only mechanisms that are offered, as MECHANISM,...; USER is for USER and PASS."
    "  (default: all that --auth can verify, but for SCRAM-SHA-1 and CRAM-MD5)",
    "client-ca": "PEM file: the authorities that vouch for clients, who are then asked for"
    " certificates.",
    "guess-table": "A file that keeps what is known of password guessing.  (default: none, and a"
    " restart forgets it)",
    "state-directory": "Where the last uses of app passwords are kept.  (default: /var/lib/popd)",
    "workers": "How many processes serve; auto is one for each processor.  (default: auto)",
    "auth-cache-ttl": "Seconds that a verified password counts without being verified again; 0"
    " verifies every time.  (default: 300)",
    "cache-size": "Megabytes for maildrops that were opened lately, in each process; 0 keeps none."
    f"  (default: {DEFAULT_CACHE_SIZE:g})",
    "clock-skew": "Seconds that the clocks of machines that share the mail may differ.  (default:"
    f" {DEFAULT_CLOCK_SKEW:g})",
    "status": "An endpoint of this machine, such as tcp:9110:interface=127.0.0.1, that says over"
    " HTTP how popd is: a page, /metrics and /healthz.  (default: none)",
}


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
    optFlags: ClassVar = [["demo", None, _DEMO]]
    optParameters: ClassVar = [[name, None, None, text] for name, text in _HELP.items()]

    settings: config.Settings

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
        try:
            self.settings = config.settle(
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
    """

    def __init__(self, reactor: Any, at_exit: Callable[..., object] = atexit.register) -> None:
        super().__init__()
        self._reactor = reactor
        self._at_exit = at_exit
        self.listeners: list[Listener] = []
        self.draining = False
        """Whether no new sessions are begun because popd is about to end."""

    def privilegedStartService(self) -> None:
        """Bind all ports.

        :raises StartError: a port cannot be had.  The text went to stderr, too.
        """
        hasten(globalLogPublisher)
        try:
            super().privilegedStartService()
        except StartError as error:
            _tell(error)
            raise

    def listen(
        self,
        option: str,
        description: str,
        factory: IProtocolFactory,
        purpose: Purpose,
        *,
        accepting: bool,
    ) -> None:
        """Add an endpoint to listen on.

        :param option: what the endpoint was given with.
        :raises StartError: it cannot be one.
        """
        endpoint = parse_endpoint(self._reactor, option, description)
        listener = Listener(
            endpoint,
            factory,
            purpose,
            f"{option} {description}",
            give_up=self._give_up,
            accepting=accepting,
        )
        self.listeners.append(listener)
        listener.setServiceParent(self)

    def show(self, description: str, sources: Sources) -> None:
        """Add the status page.

        :param description: the endpoint that it is to be had on.
        :raises StartError: it cannot be one.
        """
        from popd.status.site import Status  # noqa: PLC0415 - it needs much that else nobody does

        status = Status(self._reactor, description, sources, lambda: self.draining, self._give_up)
        status.setServiceParent(self)

    def _give_up(self, error: StartError) -> None:
        """Stop in an orderly way, and end with exit status 1."""
        _log.critical("{error}", error=error.code)
        _tell(error)
        # twistd ends with 0 whenever the reactor stops, and has no other way to ask for more.
        self._at_exit(os._exit, 1)
        with suppress(ReactorNotRunning):
            self._reactor.callWhenRunning(self._reactor.stop)


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
    with starting("--certificate"):
        tls = (
            load_context(settings.certificate, settings.private_key)
            if settings.certificate
            else None
        )
    if tls is not None and settings.client_ca:
        with starting("--client-ca"):
            tls.ask_clients(settings.client_ca)
    door = Door(settings)
    server = Server(reactor)
    workers = _worker_count(settings.workers)
    hashers = max(_MIN_HASHERS, (os.cpu_count() or 1) // workers)
    meter = Meter()
    serving = Serving(door, settings.cleartext_login, tls, hashers, meter)
    alone = workers == 1
    if alone:
        make_lean(reactor)
    cleartext = Purpose.STLS if tls else Purpose.CLEARTEXT
    for description in settings.listen:
        server.listen("--listen", description, serving.cleartext, cleartext, accepting=alone)
    for description in settings.listen_tls:
        server.listen(
            "--listen-tls",
            description,
            serving.implicit_tls,
            Purpose.IMPLICIT_TLS,
            accepting=alone,
        )
    service: Service | Supervisor
    crew: Crew
    if alone:
        service = serving.on(reactor)
        crew = Alone(service.desk)
    else:
        service = crew = Supervisor(reactor, workers, server.listeners, serving.on, meter.vacated)
    service.setServiceParent(server)
    if settings.status:
        facts = [certificate_facts(path) for path in settings.certificate]
        server.show(settings.status, Sources(meter, crew, lambda: facts, door.slowed, time.time()))
    if options["demo"]:
        guide = demo.Guide(demo.DIRECTORY, settings.certificate, password, server.listeners)
        guide.setServiceParent(server)
    return server


def _worker_count(workers: str) -> int:
    if workers != "auto":
        return int(workers)
    return len(os.sched_getaffinity(0))


def _tell(error: StartError) -> None:
    """Write to the terminal's stderr, where twistd's has become the log."""
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"{error.code}\n")
        sys.__stderr__.flush()
