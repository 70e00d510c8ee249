"""Whether the ports answer as they should, and let somebody in."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from popd.ctl.doctor.finding import fine, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from popd.ctl.doctor.finding import Finding, Patient

__all__ = ["Client", "Target", "check_login", "check_ports", "targets"]

_TIMEOUT: Final = 5.0
_MAX_LINE: Final = 4096
_MAX_LINES: Final = 100
_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound


@dataclass(frozen=True)
class Target:
    """Something that popd listens on.

    :param shown: what it is called.
    :param address: a host and a port, or a path; None if it cannot be connected to so simply.
    :param implicit: whether TLS is spoken from the start.
    """

    shown: str
    address: tuple[str, int] | str | None
    implicit: bool


def targets(patient: Patient) -> Iterator[Target]:
    """Yield what popd should listen on."""
    settings = patient.settings
    for endpoints, implicit in ((settings.listen, False), (settings.listen_tls, True)):
        for endpoint in endpoints:
            yield Target(endpoint, _address(endpoint), implicit)


def _address(endpoint: str) -> tuple[str, int] | str | None:
    kind, *parts = (part.replace("\\:", ":") for part in re.split(r"(?<!\\):", endpoint))
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    plain = [part for part in parts if "=" not in part]
    if kind == "unix":
        return named.get("address") or (plain[0] if plain else None)
    port = named.get("port") or (plain[0] if plain else "")
    if kind not in {"tcp", "tcp6"} or not port.isdecimal():
        return None
    interface = named.get("interface", "" if kind == "tcp" else "::")
    return _ANY.get(interface, interface), int(port)


class Client:
    """A POP3 client.  A context manager.

    :raises OSError: there is no connection, or no answer in time.
    :raises ValueError: what answers speaks no POP3.
    """

    def __init__(self, target: Target) -> None:
        if isinstance(target.address, str):
            self._socket: Any = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_TIMEOUT)
            self._socket.connect(target.address)
        else:
            self._socket = socket.create_connection(target.address or ("", 0), _TIMEOUT)
        try:
            if target.implicit:
                self._start_tls()
            self._file = self._socket.makefile("rb")
            self.line()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def _start_tls(self) -> None:
        # Whether the certificate is any good another check finds out.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket)

    def line(self) -> str:
        """Return a reply's status line, which is +OK.

        :raises ValueError: it is not.
        """
        line: bytes = self._file.readline(_MAX_LINE)
        if not line.startswith(b"+OK"):
            raise ValueError(ascii(line.rstrip(b"\r\n"))[2:-1] or "nothing, and was closed")
        return line.decode("ascii", "replace").strip()

    def ask(self, command: bytes) -> str:
        """Send a command, and return its status line."""
        self._socket.sendall(command + b"\r\n")
        return self.line()

    def capabilities(self) -> set[str]:
        """Return what CAPA lists."""
        self.ask(b"CAPA")
        found: set[str] = set()
        while (line := self._file.readline(_MAX_LINE)) not in {b".\r\n", b""}:
            found.add(line.decode("ascii", "replace").strip())
            if len(found) > _MAX_LINES:
                break
        return found

    def stls(self) -> None:
        """Start TLS by STLS."""
        self.ask(b"STLS")
        self._file.close()
        self._start_tls()
        self._file = self._socket.makefile("rb")

    @property
    def certificate(self) -> bytes:
        """The server's certificate, DER; empty without TLS."""
        getter = getattr(self._socket, "getpeercert", None)
        return getter(True) or b"" if getter else b""


def check_ports(patient: Patient) -> Iterator[Finding]:
    """Each port greets, lists what it can do, and speaks TLS."""
    for target in targets(patient):
        name = f"port {target.shown}"
        if target.address is None:
            yield fine(name, "not looked at: how to reach it is not known here")
            continue
        try:
            with Client(target) as client:
                capabilities = client.capabilities()
                if not target.implicit and "STLS" in capabilities:
                    client.stls()
                    client.capabilities()
                    capabilities.add("TLS")
                client.ask(b"QUIT")
        except ConnectionRefusedError:
            yield problem(name, "nobody listens there", "start popd; its log says why it ended")
        except (OSError, EOFError) as error:
            reason = str(getattr(error, "strerror", "") or error)
            yield problem(name, f"no answer: {reason}", "look into popd's log")
        except ValueError as error:
            yield problem(name, f"it said {error}", "is that popd? see: ss -ltnp")
        else:
            yield from _judged(name, patient, capabilities, implicit=target.implicit)


def _judged(
    name: str, patient: Patient, capabilities: set[str], *, implicit: bool
) -> Iterator[Finding]:
    if not {"UIDL", "TOP"} <= capabilities:
        yield problem(name, "it is a POP3 server, but not popd", "see who listens there: ss -ltnp")
    elif implicit:
        yield fine(name, "greets, lists what it can do, under TLS")
    elif "TLS" in capabilities:
        yield fine(name, "greets, lists what it can do, STLS starts TLS")
    elif patient.settings.certificate:
        yield problem(name, "there is no STLS, though there is a certificate", "restart popd")
    else:
        yield warning(name, "there is no TLS", "give popd a certificate")


def check_login(patient: Patient) -> Iterator[Finding]:
    """Somebody can log in, and sees his maildrop."""
    if patient.login is None:
        yield warning("log-in", "not tried", "give --user, which asks for a password")
        return
    user, password = patient.login
    reachable = [target for target in targets(patient) if target.address is not None]
    target = next((one for one in reachable if one.implicit), reachable[0] if reachable else None)
    if target is None:
        yield warning("log-in", "not tried: no port can be reached from here", "log in by hand")
        return
    if any(octet in password for octet in b"\r\n\0"):
        yield problem("log-in", "no such password can be sent", "give one line as password")
        return
    try:
        with Client(target) as client:
            if not target.implicit and "STLS" in client.capabilities():
                client.stls()
            client.ask(b"USER " + user.encode())
            client.ask(b"PASS " + password)
            messages = client.ask(b"STAT").split()[1]
            client.ask(b"QUIT")
    except ValueError as error:
        yield problem("log-in", f"{user} is refused: {error}", f"ask: popctl auth test {user}")
    except OSError as error:
        yield problem("log-in", f"no answer: {error}", "look into popd's log")
    else:
        yield fine("log-in", f"{user} logs in at {target.shown} and has {messages} messages")
