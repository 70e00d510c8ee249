"""TLS as popd speaks it: 1.2 and 1.3, forward secrecy, authenticated encryption, ALPN ``pop3``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["ALPN", "CertificateFacts", "ServerTLS", "certificate_facts", "load_context"]

ALPN: Final = b"pop3"
"""POP3's name in Application-Layer Protocol Negotiation (RFC 7301; IANA's list of protocol IDs)."""

_CIPHERS: Final = b"ECDHE+aECDSA+AESGCM:ECDHE+aECDSA+CHACHA20:ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2's cipher suites (RFC 9325 section 4.2), RSA last.  All of TLS 1.3's are fine."""

_KINDS: Final = {
    "RSA": RSAPrivateKey,
    "ECDSA": EllipticCurvePrivateKey,
    "Ed25519": Ed25519PrivateKey,
    "Ed448": Ed448PrivateKey,
}
"""The kinds of keys that a server can have."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's end of TLS connections.

    :param context: what all of them have in common.
    """

    asks_clients = False
    """Whether clients are asked for certificates."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def ask_clients(self, authorities: str) -> None:
        """Ask clients for certificates.

        A client that has none may go on; one whose certificate cannot be verified may not.

        :param authorities: path of a PEM file with the certificates of those who vouch for clients.
        :raises ValueError: it cannot be used.
        """
        names = []
        store = self.context.get_cert_store()
        for certificate in _load_certificates(authorities):
            authority = X509.from_cryptography(certificate)
            if store is not None:
                store.add_cert(authority)
            names.append(authority.get_subject())
        self.context.set_client_ca_list(names)  # so that clients choose one that will do
        self.context.set_verify(SSL.VERIFY_PEER, None)
        self.asks_clients = True

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (Twisted's `IOpenSSLServerConnectionCreator`)."""
        return SSL.Connection(self.context, None)


def load_context(certificates: Sequence[str], private_keys: Sequence[str] = ()) -> ServerTLS:
    """Read certificates and their keys, and make sure that they belong together.

    Each client gets one that it can verify: not RSA if another will do, since that costs more.

    :param certificates: paths of PEM files, one for each kind of key.  Each has a certificate of
        the server, then those of the authorities that vouch for it, in order.
    :param private_keys: paths of PEM files with the keys, in the order of *certificates*; none
        means that each is in its certificate's file.
    :raises ValueError: a file cannot be used.  The text is one line that names it and what is
        wrong with it.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_CIPHERS)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(b"popd")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # clients keep their sessions, in tickets
    context.set_alpn_select_callback(_select_alpn)
    paths: dict[str, str] = {}
    for path, key_path in zip(certificates, private_keys or certificates, strict=True):
        kind = _add(context, path, key_path)
        if kind in paths:
            raise ValueError(
                f"{path}: its key is of the same kind ({kind}) as that of {paths[kind]}: leave one"
                " of them out"
            )
        paths[kind] = path
    return ServerTLS(context)


@dataclass(frozen=True)
class CertificateFacts:
    """What is known of a certificate of the server's.

    :param path: the file that it is in.
    :param names: whom it is for: the DNS names and addresses in it.
    :param not_after: when it expires, in seconds since 1970.
    """

    path: str
    names: tuple[str, ...]
    not_after: float


def certificate_facts(path: str) -> CertificateFacts:
    """Return what is known of the first certificate in a PEM file.

    :raises ValueError: as `load_context`.
    """
    certificate = _load_certificates(path)[0]
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass
    else:
        names += extension.value.get_values_for_type(x509.DNSName)
        names += map(str, extension.value.get_values_for_type(x509.IPAddress))
    expires = certificate.not_valid_after_utc.timestamp()
    return CertificateFacts(path, tuple(names), expires)


def _add(context: SSL.Context, path: str, key_path: str) -> str:
    """Add a certificate with its key; return of which kind that is.

    OpenSSL keeps one for each kind, and has a place of its own for the chain of each only if it
    reads the file itself.
    """
    certificate, key = _load_certificates(path)[0], _load_key(key_path)
    if certificate.public_key() != key.public_key():
        raise ValueError(
            f"{key_path}: this private key does not belong to the certificate in {path}"
        )
    try:
        context.use_certificate_chain_file(path)
        context.use_privatekey_file(key_path)
    except SSL.Error as error:
        raise ValueError(
            f"{path}: OpenSSL refuses this certificate: {error.args[0][-1][-1]}"
        ) from None
    for kind, type_ in _KINDS.items():
        if isinstance(key, type_):
            return kind
    raise ValueError(
        f"{key_path}: TLS has no use for this kind of key; {', '.join(_KINDS)} will do"
    )


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


def _load_certificates(path: str) -> list[x509.Certificate]:
    """Return the certificates in a file, at least one."""
    data = _read(path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(f"{path}: holds no certificate in PEM form") from None


def _load_key(path: str) -> PrivateKeyTypes:
    data = _read(path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ValueError(
            f"{path}: the private key is encrypted, and popd starts with nobody to ask"
        ) from None
    except Exception:  # noqa: BLE001 - cryptography raises several kinds for broken keys
        raise ValueError(f"{path}: holds no private key in PEM form that can be used") from None
