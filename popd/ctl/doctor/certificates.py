"""Whether clients can verify the server's certificates, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from popd.ctl.doctor.finding import fine, problem, warning
from popd.ctl.doctor.network import Client, targets
from popd.server.tls import names_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.ctl.doctor.finding import Finding, Patient

__all__ = ["check_certificates", "check_shown", "is_for"]

_SOON: Final = 14
_RENEW: Final = "renew it (certbot renew, acme.sh --cron), then: popctl reload"


def check_certificates(patient: Patient) -> Iterator[Finding]:
    """Each certificate is good by now and for a while, has its chain, and is for the host."""
    if not patient.settings.certificate:
        yield warning("certificate", "there is none, and so no TLS", "get one, say from an ACME CA")
    named: list[str] = []
    for path in patient.settings.certificate:
        name = f"certificate {path}"
        try:
            chain = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            yield problem(name, f"cannot be read: {error}", "put a PEM file there")
            continue
        yield from _dates(name, chain[0])
        yield from _chain(name, chain)
        named += names_of(chain[0])
    if patient.settings.certificate:
        yield _names(patient.host, named)


def _dates(name: str, leaf: x509.Certificate) -> Iterator[Finding]:
    now = datetime.now(UTC)
    days = (leaf.not_valid_after_utc - now).days
    if leaf.not_valid_before_utc > now:
        yield problem(name, f"not good before {leaf.not_valid_before_utc}", "is the clock right?")
    elif days < 0:
        yield problem(name, f"it has expired on {leaf.not_valid_after_utc:%Y-%m-%d}", _RENEW)
    elif days < _SOON:
        yield warning(name, f"it expires in {days} days", _RENEW)
    else:
        yield fine(name, f"good for {days} days")


def _chain(name: str, chain: list[x509.Certificate]) -> Iterator[Finding]:
    """Look whether each certificate is vouched for by the one behind it."""
    for number, (one, by) in enumerate(pairwise(chain), 1):
        try:
            one.verify_directly_issued_by(by)
        except (ValueError, TypeError, InvalidSignature):
            text = f"certificate {number} in it was not issued by the one behind it"
            yield problem(name, text, "put the server's first, then its issuer's, and so on")
            return
    if len(chain) == 1 and chain[0].issuer != chain[0].subject:
        yield warning(
            name, "its issuer is not in the file", "use fullchain.pem: clients need the chain"
        )
    elif chain[0].issuer == chain[0].subject:
        yield warning(name, "it vouches for itself", "clients complain; get one from an authority")
    else:
        yield fine(name, f"a chain of {len(chain)}")


def _names(host: str, named: list[str]) -> Finding:
    if any(is_for(name, host) for name in named):
        return fine("certificate names", f"{host} is among them")
    names = " ".join(named[:10]) or "nobody"
    return problem(
        "certificate names",
        f"they are for {names}, not for {host}",
        "give --host the name that clients use, or get a certificate for it",
    )


def is_for(name: str, host: str) -> bool:
    """Tell whether a certificate's name means a host; ``*`` is one label (RFC 6125)."""
    name, host = name.lower(), host.lower()
    if name.startswith("*."):
        label, _, rest = host.partition(".")
        return bool(label) and rest == name.removeprefix("*.")
    return name == host


def check_shown(patient: Patient) -> Iterator[Finding]:
    """A popd that runs shows clients what is in the files."""
    files = {_der(path) for path in patient.settings.certificate}
    for target in targets(patient):
        if not target.implicit or target.address is None:
            continue
        try:
            with Client(target) as client:
                shown = client.certificate
        except (OSError, ValueError):
            continue  # the check of ports has it
        if shown in files:
            yield fine(f"certificate at {target.shown}", "it is the one in the file")
        else:
            yield problem(
                f"certificate at {target.shown}",
                "clients are shown another one than is in the file",
                "popctl reload, or restart popd",
            )


def _der(path: str) -> bytes:
    try:
        chain = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError):
        return b""
    return chain[0].public_bytes(Encoding.DER)
