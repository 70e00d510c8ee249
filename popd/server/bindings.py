"""What is known of a TLS connection: what binds an exchange to it, and who the client is."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from OpenSSL import SSL

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["channel_binding", "client_certificate", "tls_connection", "tls_reason", "tls_shown"]

_EXPORTER: Final = b"EXPORTER-Channel-Binding"
_EXPORTER_OCTETS: Final = 32

_WEAK: Final = frozenset({"md5", "sha1"})


def tls_connection(transport: Any) -> SSL.Connection:
    """Return the TLS connection of a transport, whether TLS ran from the start or came by STLS."""
    handle = transport.getHandle()
    if isinstance(handle, SSL.Connection):
        return handle
    # Twisted's TLS lies between the connection beneath and the protocol.
    connection: SSL.Connection = transport.protocol.getHandle()
    return connection


def tls_shown(connection: SSL.Connection) -> str:
    """Return the version and the cipher of a connection whose hands are shaken."""
    cipher = connection.get_cipher_name()
    return intern(f"{connection.get_protocol_version_name()} {cipher}") if cipher else ""


def tls_reason(error: SSL.Error) -> str:
    """Return what OpenSSL says is wrong, in its words; empty if it says nothing."""
    told = error.args[0] if error.args else ()
    return str(told[-1][-1]) if told and isinstance(told, list) else ""


def channel_binding(connection: SSL.Connection, name: str) -> bytes | None:
    """Return what binds an exchange to *connection* once hands are shaken; None if nothing does.

    :param name: ``tls-exporter`` (RFC 9266), for TLS 1.3 only, since before that it would be safe
        only with an extension that the client may not know; or ``tls-server-end-point`` (RFC 5929
        section 4).  With several certificates the latter may be wrong in a resumed session, in
        which no certificate is sent.
    """
    if name == "tls-exporter":
        if connection.get_protocol_version_name() != "TLSv1.3":
            return None
        return connection.export_keying_material(_EXPORTER, _EXPORTER_OCTETS, b"")
    if name != "tls-server-end-point":
        return None
    own = connection.get_certificate()
    if own is None:
        return None
    certificate = own.to_cryptography()
    return certificate.fingerprint(_digest_of(certificate))


def _digest_of(certificate: Certificate) -> HashAlgorithm:
    """Return the hash function that RFC 5929 section 4.1 says."""
    own = certificate.signature_hash_algorithm  # None for Ed25519, which the RFC leaves open
    return SHA256() if own is None or own.name in _WEAK else own


def client_certificate(connection: SSL.Connection) -> Certificate | None:
    """Return the certificate that the client has shown, if it has.

    It was verified: a connection on which it could not be does not come about.
    """
    shown = connection.get_peer_certificate()
    return None if shown is None else shown.to_cryptography()
