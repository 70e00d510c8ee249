"""TLS as popd speaks it: 1.2 and 1.3, forward secrecy, authenticated encryption, ALPN ``pop3``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["ALPN", "ServerTLS", "load_context"]

ALPN: Final = b"pop3"
"""POP3's name in Application-Layer Protocol Negotiation (RFC 7301; IANA's list of protocol IDs)."""

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2's cipher suites (RFC 9325 section 4.2).  All of TLS 1.3's are fine."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's end of TLS connections.

    :param context: what all of them have in common.
    """

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (Twisted's `IOpenSSLServerConnectionCreator`)."""
        return SSL.Connection(self.context, None)


def load_context(certificate: str, private_key: str | None = None) -> ServerTLS:
    """Read a certificate and its key, and make sure that they belong together.

    :param certificate: path of a PEM file: the server's certificate, then those of the authorities
        that vouch for it, in order.
    :param private_key: path of a PEM file with the key; None means that it is in *certificate*.
    :raises ValueError: a file cannot be used.  The text is one line that names it and what is
        wrong with it.
    """
    key_path = private_key or certificate
    chain = _load_chain(certificate)
    key = _load_key(key_path)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_CIPHERS)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(b"popd")
    context.set_alpn_select_callback(_select_alpn)
    try:
        context.use_certificate(X509.from_cryptography(chain[0]))
        for issuer in chain[1:]:
            context.add_extra_chain_cert(X509.from_cryptography(issuer))
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error:
        raise ValueError(
            f"{key_path}: this private key does not belong to the certificate in {certificate}"
        ) from None
    return ServerTLS(context)


def _select_alpn(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """Choose `ALPN`; refuse a client that speaks something else (RFC 7301 section 3.2).

    It keeps a browser from being tricked into talking to a mail server (ALPACA).  A client that
    offers nothing is never asked.
    """
    if ALPN in offered:
        return ALPN
    # pyOpenSSL turns an exception here into the fatal alert no_application_protocol; Twisted wants
    # it in the form that OpenSSL's own errors have.
    raise SSL.Error([("SSL routines", "", "no application protocol")])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _load_chain(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        if path in str(error):
            raise
        raise ValueError(f"{path}: holds no certificate in PEM form") from None


def _load_key(path: str) -> PKey:
    data = _read(path)
    try:
        return PKey.from_cryptography_key(load_pem_private_key(data, None))  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"{path}: the private key is encrypted, and popd starts with nobody to ask"
        ) from None
    except Exception:  # noqa: BLE001 - cryptography raises several kinds for broken keys
        raise ValueError(f"{path}: holds no private key in PEM form that can be used") from None
