"""Tests of `popd.server.tls`: handshakes without a network, and files that are no good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme
from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.server import tls as popd_tls
from popd.server.bindings import channel_binding, client_certificate
from popd.server.tls import ServerTLS, load_context

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = trustme.CA()
NAME = "mail.example.org"
ISSUED = ROOT.create_child_ca().issue_cert(NAME)
RSA_CA = ROOT.create_child_ca(key_type=trustme.KeyType.RSA)
RSA_ISSUED = RSA_CA.issue_cert(NAME, key_type=trustme.KeyType.RSA)


class TLSCase(SynchronousTestCase):
    """A test case with a certificate and its key in files."""

    def setUp(self) -> None:
        """Write them."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        chain = b"".join(blob.bytes() for blob in ISSUED.cert_chain_pems)
        self.certificate = self.file("chain.pem", chain)
        self.key = self.file("key.pem", ISSUED.private_key_pem.bytes())
        self.rsa = self.file("rsa.pem", RSA_ISSUED.private_key_and_cert_chain_pem.bytes())

    def file(self, name: str, content: bytes) -> str:
        """Write a file and return its path."""
        path = self.directory / name
        path.write_bytes(content)
        return str(path)

    def signed(self, key: Any, hash_: Any = None) -> str:
        """Return the path of a file with a key and a certificate that it vouches for itself."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
        ).sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hash_ or SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.file("signed.pem", certificate.public_bytes(Encoding.PEM) + pem)


class LoadTests(TLSCase):
    """What can be wrong with the files is told in one line that names them."""

    def refused(self, certificate: str, key: str | None, *words: str) -> None:
        """Check that these files are refused with a line that holds *words*."""
        keys = [] if key is None else [key]
        error = self.assertRaises(ValueError, load_context, [certificate], keys)
        for word in words:
            self.assertIn(word, str(error))
        self.assertNotIn("\n", str(error))

    def test_good(self) -> None:
        """A certificate with its chain and its key are taken; so is one file with all of it."""
        verifyObject(IOpenSSLServerConnectionCreator, load_context([self.certificate], [self.key]))
        both = ISSUED.private_key_and_cert_chain_pem.bytes()
        self.assertIsInstance(load_context([self.file("both.pem", both)]), ServerTLS)

    def test_missing(self) -> None:
        """A missing file, or a directory in its place, is named."""
        nothing = str(self.directory / "nothing.pem")
        self.refused(nothing, self.key, nothing, "No such file")
        self.refused(self.certificate, nothing, nothing, "No such file")
        self.refused(str(self.directory), self.key, "Is a directory")

    def test_nonsense(self) -> None:
        """A file that is not what it should be is named."""
        nonsense = self.file("nonsense.pem", b"-----BEGIN CERTIFICATE-----\nx\n")
        self.refused(nonsense, self.key, nonsense, "no certificate")
        self.refused(self.certificate, nonsense, nonsense, "no private key")
        self.refused(self.key, self.key, self.key, "no certificate")
        self.refused(self.certificate, None, self.certificate, "no private key")

    def test_mismatch(self) -> None:
        """A key that belongs to another certificate is refused, and both files are named."""
        other = trustme.CA().issue_cert("mail.example.org").private_key_pem.bytes()
        path = self.file("other.pem", other)
        self.refused(self.certificate, path, path, self.certificate, "does not belong")

    def test_encrypted(self) -> None:
        """An encrypted key is refused, rather than asking on a terminal that is not there."""
        key = load_pem_private_key(ISSUED.private_key_pem.bytes(), None)
        encryption = BestAvailableEncryption(b"secret")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        self.refused(self.certificate, self.file("locked.pem", pem), "is encrypted")

    def test_same_kind(self) -> None:
        """Of two certificates whose keys are of the same kind, one would never be shown."""
        other = ISSUED.private_key_and_cert_chain_pem.bytes()
        first, second = self.file("first.pem", other), self.file("second.pem", other)
        error = self.assertRaises(ValueError, load_context, [first, self.rsa, second])
        self.assertEqual(
            str(error),
            f"{second}: its key is of the same kind (ECDSA) as that of {first}: leave one of them"
            " out",
        )

    def test_mismatch_of_kinds(self) -> None:
        """Keys in another order than their certificates are refused."""
        key = self.file("rsa.key", RSA_ISSUED.private_key_pem.bytes())
        error = self.assertRaises(
            ValueError, load_context, [self.rsa, self.certificate], [self.key, key]
        )
        self.assertEqual(
            str(error),
            f"{self.key}: this private key does not belong to the certificate in {self.rsa}",
        )

    def test_weak(self) -> None:
        """What OpenSSL thinks too weak is refused in its words."""
        key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
        self.refused(self.signed(key), None, "OpenSSL refuses", "key too small")

    def test_unusable_kind(self) -> None:
        """A key that is good for other things only is refused."""
        key = dsa.generate_private_key(2048)
        self.refused(self.signed(key), None, "no use for this kind of key", "RSA, ECDSA")

    def test_ed25519(self) -> None:
        """Ed25519 is a kind of its own."""
        path = self.signed(ed25519.Ed25519PrivateKey.generate())
        self.assertIsInstance(
            load_context([path, self.rsa, self.certificate], [path, self.rsa, self.key]), ServerTLS
        )


class HandshakeTests(TLSCase):
    """What is agreed on."""

    def shake(
        self,
        set_up: Callable[[SSL.Context], object],
        *,
        name: bytes = b"mail.example.org",
        tls: ServerTLS | None = None,
    ) -> tuple[SSL.Connection, SSL.Connection]:
        """Let a client, set up so, shake hands with the server; return both ends.

        :raises SSL.Error: what the client makes of it.
        """
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        ROOT.configure_trust(context)
        context.set_verify(SSL.VERIFY_PEER)
        set_up(context)
        client = SSL.Connection(context, None)
        client.set_tlsext_host_name(name)
        client.set_connect_state()
        tls = tls or load_context([self.rsa, self.certificate], [self.rsa, self.key])
        server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        for _ in range(4):
            for end, other in ((client, server), (server, client)):
                error = None
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error as problem:
                    error = problem
                self.carry(end, other)
                if error is not None and end is client:
                    raise error
        return client, server

    def carry(self, source: SSL.Connection, target: SSL.Connection) -> None:
        """Carry what one end has to say to the other."""
        try:
            while True:
                target.bio_write(source.bio_read(65_536))
        except SSL.WantReadError:
            pass

    def nothing(self, context: SSL.Context) -> None:
        """Set up nothing special."""

    def test_default(self) -> None:
        """Two that can do anything agree on TLS 1.3; the chain is complete."""
        client, _ = self.shake(self.nothing)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.3")
        chain = client.get_peer_cert_chain()
        self.assertEqual(len(chain or []), 2)

    def test_tls_1_2(self) -> None:
        """A client without TLS 1.3 gets forward secrecy and authenticated encryption."""
        client, _ = self.shake(lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")
        self.assertRegex(client.get_cipher_name() or "", "^ECDHE-.*(GCM|POLY1305)")

    def test_certificates(self) -> None:
        """A client that verifies RSA only gets that, with its own chain; others get ECDSA."""
        for ciphers, issued in (
            (b"ECDHE-RSA-AES128-GCM-SHA256", RSA_ISSUED),
            (b"ECDHE-ECDSA-AES128-GCM-SHA256", ISSUED),
            (b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305", ISSUED),
            (b"ALL", ISSUED),
        ):

            def set_up(context: SSL.Context, ciphers: bytes = ciphers) -> None:
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
                context.set_cipher_list(ciphers)

            client, _ = self.shake(set_up)
            chain = client.get_peer_cert_chain(as_cryptography=True)
            expected = [
                x509.load_pem_x509_certificate(pem.bytes()) for pem in issued.cert_chain_pems
            ]
            self.assertEqual(chain, expected)

    def test_ed25519(self) -> None:
        """A client can verify Ed25519, where that is what there is."""
        path = self.signed(ed25519.Ed25519PrivateKey.generate())
        client, _ = self.shake(
            lambda context: context.set_verify(SSL.VERIFY_NONE), tls=load_context([path])
        )
        certificate = client.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        self.assertIsInstance(certificate.public_key(), ed25519.Ed25519PublicKey)

    def test_old_versions(self) -> None:
        """A client without TLS 1.2 is refused."""

        def old(context: SSL.Context) -> None:
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
            context.set_min_proto_version(SSL.TLS1_VERSION)
            context.set_max_proto_version(SSL.TLS1_1_VERSION)

        error = self.assertRaises(SSL.Error, self.shake, old)
        self.assertIn("protocol version", str(error))

    def test_old_ciphers(self) -> None:
        """A client with nothing but CBC or RSA key exchange is refused."""

        def old(context: SSL.Context) -> None:
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(b"ECDHE+AES:RSA+AES:!AESGCM:!AESCCM")

        error = self.assertRaises(SSL.Error, self.shake, old)
        self.assertIn("handshake failure", str(error))

    def test_alpn(self) -> None:
        """``pop3`` is chosen from what a client offers by ALPN."""
        client, _ = self.shake(lambda context: context.set_alpn_protos([b"h2", b"pop3"]))
        self.assertEqual(client.get_alpn_proto_negotiated(), b"pop3")

    def test_no_alpn(self) -> None:
        """A client that offers nothing is welcome."""
        client, _ = self.shake(self.nothing)
        self.assertEqual(client.get_alpn_proto_negotiated(), b"")

    def test_other_alpn(self) -> None:
        """A client that offers only others is refused, and told why (RFC 7301 section 3.2)."""
        error = self.assertRaises(
            SSL.Error, self.shake, lambda context: context.set_alpn_protos([b"http/1.1"])
        )
        self.assertIn("no application protocol", str(error))

    def shaken_by(self, groups: bytes) -> str | None:
        """Return by which group keys were exchanged with a client that has these."""

        def set_up(context: SSL.Context) -> None:
            taken = Binding.lib.SSL_CTX_set1_curves_list(context._context, groups)
            if taken != 1:
                Binding.lib.ERR_clear_error()
                raise SkipTest(f"this OpenSSL does not have {groups.decode()}")

        return self.shake(set_up)[0].get_group_name()

    def test_groups(self) -> None:
        """Keys are exchanged by groups that Mozilla recommends, and by no others."""
        for group, name in (
            (b"X25519", "x25519"),
            (b"prime256v1", "secp256r1"),
            (b"secp384r1", "secp384r1"),
            (b"secp521r1:secp384r1", "secp384r1"),
            (b"X448:X25519", "x25519"),
        ):
            self.assertEqual((self.shaken_by(group) or "").lower(), name)
        for group in (b"secp521r1", b"X448"):
            self.assertRaises(SSL.Error, self.shaken_by, group)

    def test_post_quantum(self) -> None:
        """Where OpenSSL has it, ML-KEM goes first."""
        group = self.shaken_by(b"X25519MLKEM768:X25519") or ""
        self.assertEqual(group.lower(), "x25519mlkem768")

    def test_old_openssl(self) -> None:
        """An OpenSSL without ML-KEM gets the other list, and no error stays behind."""
        unknown = b"X25519NOSUCHTHING:X25519"
        self.patch(popd_tls, "_GROUPS", (unknown, b"secp384r1"))
        self.assertEqual((self.shaken_by(b"X25519:secp384r1") or "").lower(), "secp384r1")

    def test_cache(self) -> None:
        """The server remembers no sessions; clients have them in tickets."""
        context = load_context([self.rsa]).context
        self.assertEqual(context.get_session_cache_mode(), SSL.SESS_CACHE_OFF)

    def test_renegotiation(self) -> None:
        """A client that wants to negotiate again is refused."""
        client, server = self.shake(
            lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION)
        )
        client.renegotiate()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        self.carry(client, server)
        self.assertRaises(SSL.WantReadError, server.recv, 1)
        self.carry(server, client)
        error = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertIn("no renegotiation", str(error))

    def test_channel_bindings(self) -> None:
        """Both ends see the same; the certificate is the one that was sent, be there several."""
        for ciphers, issued in (
            (b"ECDHE-RSA-AES128-GCM-SHA256", RSA_ISSUED),
            (b"ECDHE-ECDSA-AES128-GCM-SHA256", ISSUED),
        ):

            def set_up(context: SSL.Context, ciphers: bytes = ciphers) -> None:
                context.set_max_proto_version(SSL.TLS1_2_VERSION)
                context.set_cipher_list(ciphers)

            _, server = self.shake(set_up)
            certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
            self.assertEqual(
                channel_binding(server, "tls-server-end-point"), certificate.fingerprint(SHA256())
            )
            self.assertIsNone(channel_binding(server, "tls-exporter"))
        client, server = self.shake(self.nothing)
        exported = client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        self.assertEqual(channel_binding(server, "tls-exporter"), exported)
        self.assertIsNone(channel_binding(server, "tls-unique"))

    def test_end_point_hash(self) -> None:
        """The hash is that of the certificate's signature, but SHA-256 where it has none."""
        for key, signed_with, expected in (
            (ec.generate_private_key(ec.SECP256R1()), SHA384(), SHA384()),
            (ed25519.Ed25519PrivateKey.generate(), None, SHA256()),
        ):
            path = self.signed(key, signed_with)
            _, server = self.shake(
                lambda context: context.set_verify(SSL.VERIFY_NONE), tls=load_context([path])
            )
            certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
            self.assertEqual(
                channel_binding(server, "tls-server-end-point"), certificate.fingerprint(expected)
            )

    def test_client_certificates(self) -> None:
        """Clients are asked for certificates if that is wanted, and verified; none is needed."""
        authority, stranger = trustme.CA(), trustme.CA()
        finished = b"SSL negotiation finished successfully"
        known, unknown = (ca.issue_cert("joe@example.org") for ca in (authority, stranger))
        asking = load_context([self.rsa])
        self.assertFalse(asking.asks_clients)
        asking.ask_clients(self.file("clients.pem", authority.cert_pem.bytes()))
        self.assertTrue(asking.asks_clients)
        client, server = self.shake(known.configure_cert, tls=asking)
        certificate = x509.load_pem_x509_certificate(known.cert_chain_pems[0].bytes())
        self.assertEqual(client_certificate(server), certificate)
        self.assertEqual(server.get_state_string(), finished)
        names = client.get_client_ca_list()
        self.assertEqual(len(names), 1)
        _, server = self.shake(self.nothing, tls=asking)
        self.assertIsNone(client_certificate(server))
        _, server = self.shake(unknown.configure_cert, tls=asking)
        self.assertNotEqual(server.get_state_string(), finished)
        _, server = self.shake(known.configure_cert)
        self.assertIsNone(client_certificate(server))
        for name in (str(self.directory / "nothing.pem"), self.key):
            error = self.assertRaises(ValueError, asking.ask_clients, name)
            self.assertIn(name, str(error))
