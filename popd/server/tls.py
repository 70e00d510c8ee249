"""TLS as popd speaks it: 1.2 and 1.3, forward secrecy, authenticated encryption, ALPN ``pop3``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
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
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = [
    "ALPN",
    "Served",
    "ServerTLS",
    "add_certificate",
    "load_certificates",
    "load_context",
    "names_of",
    "new_context",
]

ALPN: Final = b"pop3"
"""POP3's name in Application-Layer Protocol Negotiation (RFC 7301; IANA's list of protocol IDs)."""

_CIPHERS: Final = b"ECDHE+aECDSA+AESGCM:ECDHE+aECDSA+CHACHA20:ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2's cipher suites (RFC 9325 section 4.2), RSA last.  All of TLS 1.3's are fine."""

_GROUPS: Final = (
    b"X25519MLKEM768:X25519:prime256v1:secp384r1",
    b"X25519:prime256v1:secp384r1",
)
"""Groups for the exchange of keys, the best first (Mozilla's "Server Side TLS").  Of these lists
the first counts that OpenSSL has all of: ML-KEM came with 3.5."""

_KINDS: Final = {
    "RSA": RSAPrivateKey,
    "ECDSA": EllipticCurvePrivateKey,
    "Ed25519": Ed25519PrivateKey,
    "Ed448": Ed448PrivateKey,
}
"""The kinds of keys that a server can have."""


@dataclass(frozen=True)
class Served:
    """A certificate that popd shows to clients.

    :param path: where it was read from.
    :param names: which hosts it is for, see `names_of`; ``*.`` may be in front.
    :param not_after: when it expires, in UTC.
    """

    path: str
    names: tuple[str, ...]
    not_after: datetime


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's end of TLS connections.

    :param context: what all of them have in common.
    """

    asks_clients = False
    """Whether clients are asked for certificates."""

    def __init__(self, context: SSL.Context, served: Sequence[Served] = ()) -> None:
        self.context = context
        self.served = list(served)
        """All certificates, those for other names (`popd.server.sni`) included."""
        self.contexts = [context]
        """All contexts, the default first."""

    def ask_clients(self, authorities: str) -> None:
        """Ask clients for certificates.

        A client that has none may go on; one whose certificate cannot be verified may not.

        :param authorities: path of a PEM file with the certificates of those who vouch for clients.
        :raises ValueError: it cannot be used.
        """
        trusted = [X509.from_cryptography(one) for one in load_certificates(authorities)]
        for context in self.contexts:
            store = context.get_cert_store()
            for authority in trusted:
                if store is not None:
                    store.add_cert(authority)
            # So that clients choose one that will do.
            context.set_client_ca_list([authority.get_subject() for authority in trusted])
            context.set_verify(SSL.VERIFY_PEER, None)
        self.asks_clients = True

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (Twisted's `IOpenSSLServerConnectionCreator`)."""
        return SSL.Connection(self.context, None)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return which hosts a certificate is for (RFC 6125): names in lower case, then addresses."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return (*map(str.lower, names), *map(str, addresses))


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
    context = new_context()
    served: dict[str, Served] = {}
    for path, key_path in zip(certificates, private_keys or certificates, strict=True):
        kind, one = add_certificate(context, path, key_path)
        if kind in served:
            raise ValueError(
                f"{path}: its key is of the same kind ({kind}) as that of {served[kind].path}:"
                " leave one of them out"
            )
        served[kind] = one
    return ServerTLS(context, list(served.values()))


def new_context() -> SSL.Context:
    """Return a context without a certificate."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_CIPHERS)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    _limit_groups(context)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(b"popd")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # clients keep their sessions, in tickets
    context.set_alpn_select_callback(_select_alpn)
    return context


def _limit_groups(context: SSL.Context) -> None:
    """Exchange keys by `_GROUPS` alone, for which pyOpenSSL has no method."""
    library = Binding.lib
    if hasattr(library, "SSL_CTX_set1_curves_list"):
        for names in _GROUPS:
            if library.SSL_CTX_set1_curves_list(context._context, names) == 1:  # noqa: SLF001
                return
            library.ERR_clear_error()  # or it would be taken for another one's


def add_certificate(context: SSL.Context, path: str, key_path: str) -> tuple[str, Served]:
    """Add a certificate with its key; return of which kind that is, and what is known of it.

    OpenSSL keeps one for each kind, and has a place of its own for the chain of each only if it
    reads the file itself.

    :raises ValueError: see `load_context`.
    """
    certificate, key = load_certificates(path)[0], _load_key(key_path)
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
            return kind, Served(path, names_of(certificate), certificate.not_valid_after_utc)
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


def load_certificates(path: str) -> list[x509.Certificate]:
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
