"""A complete throw-away set-up for ``--demo``: a certificate, a user, some mail.

All of it is in one directory, which is made at the first start and kept from then on.  Whatever is
removed from it is made anew.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import sys
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address

from popd.config import ConfigError
from popd.listen import Purpose, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.config import Layer
    from popd.listen import Listener

__all__ = ["DIRECTORY", "Guide", "layer", "prepare"]

DIRECTORY: Final = Path("popd-demo")
"""Where the demo keeps its things, below the directory that popd is started in."""

_USER: Final = "demo"
_LIFETIME: Final = timedelta(days=365)
_SPARE: Final = timedelta(days=1)
"""A certificate that is not good for this much longer is renewed."""


def layer(directory: Path) -> Layer:
    """Return the settings for the demo in *directory*.  Touches no disk."""
    return {
        "listen": ("tcp:1110:interface=127.0.0.1",),
        "listen-tls": ("tcp:1995:interface=127.0.0.1",),
        "certificate": (str(directory / "server.pem"),),
        "auth": (f"popd-passwd:{directory / 'passwd'}",),
        "state-directory": str(directory),
        "maildrop": f"maildir:{directory}/mail/{{local}}",
        "workers": "1",
    }


def prepare(directory: Path, now: datetime | None = None) -> str:
    """Make what is missing in *directory* and return the user's password.

    :param now: when this is; the certificate will be valid then.
    :raises ConfigError: the directory cannot be used.
    """
    now = now or datetime.now(UTC)
    try:
        _make_directory(directory)
        _make_certificate(directory / "server.pem", now)
        _make_mail(directory / "mail" / _USER, now)
        return _make_password(directory / "passwd")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path} is not a directory of yours: start popd in another one")
    path.chmod(0o700)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, all at once."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def _make_password(path: Path) -> str:
    start = f"{_USER}:{{PLAIN}}"
    if not path.exists():
        _write(path, f"{start}{secrets.token_urlsafe(12)}\n".encode())
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(start):
            return line.removeprefix(start).split(":")[0]
    raise ConfigError(f"{path} has no line {start}PASSWORD: remove it to have it made anew")


def _make_certificate(path: Path, now: datetime) -> None:
    """Make a certificate with its key, in one file so that they always match."""
    if path.exists():
        try:
            old = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise ConfigError(
                f"{path} is no certificate: remove it to have it made anew"
            ) from error
        if old.not_valid_after_utc > now + _SPARE:
            return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    hosts = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SPARE)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    _write(
        path,
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _make_mail(maildir: Path, now: datetime) -> None:
    """Make a Maildir; if there was none, deliver some messages into it."""
    first = not maildir.exists()
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for number, message in enumerate(_messages(now) if first else ()):
        base = f"{int(now.timestamp())}.M{number:06}P{os.getpid()}.popd-demo"
        _write(maildir / "tmp" / base, message)
        (maildir / "tmp" / base).rename(maildir / "new" / base)


def _messages(now: datetime) -> Iterator[bytes]:
    """Yield messages as they are stored: some with the line ends of Unix, some with the mail's."""
    welcome = _message("popd <postmaster@example.org>", "Welcome to popd", now - timedelta(days=3))
    welcome.set_content(
        "Hello,\n\nthis mail is a file in the directory popd-demo/mail/demo/new, which is a\n"
        "Maildir.  Your mail server puts mail there, and popd hands it to you.\n\n"
        "Delete it whenever you like.\n"
    )
    yield welcome.as_bytes()

    dots = _message("Ada <ada@example.org>", "Files that ls does not show", now - timedelta(days=2))
    dots.set_content(
        ".profile is the one you want.\nThe others that begin with a dot:\n\n"
        ".bashrc\n.vimrc\n..\n.\n\nThe dots are part of this mail, and none is missing.\n"
    )
    yield dots.as_bytes(policy=SMTP)

    report = _message("Grace <grace@example.org>", "The numbers", now - timedelta(days=1))
    report.set_content("They are attached.\n\n-- \nGrace\n")
    report.add_attachment(
        "month,messages\n2026-01,1110\n2026-02,1995\n", "csv", filename="mail.csv"
    )
    yield report.as_bytes()

    greeting = _message("Zoë <zoe@example.org>", "Grüße aus Köln", now - timedelta(hours=1))
    greeting.set_content("Schöne Grüße!\n\nZoë\n", cte="8bit")
    yield greeting.as_bytes(policy=SMTP)


def _message(sender: str, subject: str, date: datetime) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = "Demo <demo@example.org>"
    message["Subject"] = subject
    message["Date"] = format_datetime(date)
    message["Message-ID"] = make_msgid(domain="example.org")
    return message


class Guide(Service):
    """Says on the terminal how to look at the demo, once all ports are there.

    :param directory: where the demo is.
    :param certificates: paths of what clients have to trust; the first will do.
    :param password: the user's.
    :param listeners: where popd listens.
    """

    def __init__(
        self,
        directory: Path,
        certificates: tuple[str, ...],
        password: str,
        listeners: list[Listener],
    ) -> None:
        self._directory = directory
        self._certificates = certificates
        self._password = password
        self._listeners = listeners

    def startService(self) -> None:
        """Print the guide; not to ``sys.stdout``, which is the log by now."""
        super().startService()
        if sys.__stdout__ is not None:
            sys.__stdout__.buffer.write(os.fsencode(self.text()))
            sys.__stdout__.flush()

    def text(self) -> str:
        """Return the guide.  The line that begins with ``curl`` works wherever it is pasted."""
        places = "".join(
            f"  {shown(listener.address)}, {listener.purpose.value}\n"
            for listener in self._listeners
            if listener.address
        )
        return f"""
popd's demo is running.  What belongs to it is in {self._directory.absolute()}

  user {_USER}, password {self._password}
{places}
This lists the mail; a message's number behind the last / shows the message:

{self._command()}

Control-C stops it.

"""

    def _command(self) -> str:
        """Return a command that lists the maildrop, over implicit TLS if popd listens for it."""
        ways = {Purpose.IMPLICIT_TLS: ["pop3s"], Purpose.STLS: ["pop3", "--ssl-reqd"]}
        for purpose, (scheme, *options) in ways.items():
            for listener in self._listeners:
                address = listener.address
                if listener.purpose is purpose and isinstance(address, IPv4Address | IPv6Address):
                    local = ip_address(address.host).is_loopback
                    place = shown(address) if local else f"localhost:{address.port}"
                    options += ["--cacert", str(Path(self._certificates[0]).absolute())]
                    options += ["--user", f"{_USER}:{self._password}", f"{scheme}://{place}/"]
                    return shlex.join(["curl", "--silent", "--show-error", *options])
        return "(popd listens on no TCP port with TLS)"
