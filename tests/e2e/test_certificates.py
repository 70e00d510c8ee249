"""Two certificates side by side: which one a client gets, and with which authorities."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from functools import cache
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT, Client, RunningServer, ServerCase

RSA: Final = trustme.KeyType.RSA


@cache
def _rsa() -> tuple[trustme.CA, trustme.LeafCert]:
    """Return an authority with RSA, and a certificate that it vouches for by another one."""
    authority = trustme.CA(key_type=RSA)
    child = authority.create_child_ca(key_type=RSA)
    return authority, child.issue_cert("localhost", key_type=RSA)


class CertificateTests(ServerCase):
    """The site's certificate has an ECDSA key; an RSA one is added, with its own authorities."""

    def setUp(self) -> None:
        """Make the certificate; the server of other tests will not do."""
        super().setUp()
        authority, leaf = _rsa()
        authority.cert_pem.write_to_path(str(self.site.ca), append=True)
        path = str(self.site.root / "rsa.pem")
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        pair = ("--certificate", path, "--private-key", path)
        self.servers = [self.start(*pair, "--workers", count) for count in ("1", "2")]

    def both_ports(self, context: ssl.SSLContext, server: RunningServer) -> list[Client]:
        """Return a client by STLS and one by implicit TLS, which have verified the chain."""
        clients = [Client(server.port), Client(server.tls_port, context)]
        for client in clients:
            self.addCleanup(client.close)
        clients[0].stls(context)
        return clients

    def test_tls_1_2(self) -> None:
        """Who knows RSA only gets that, others ECDSA; each chain verifies; all get a ticket."""
        for ciphers, kind in (
            ("ECDHE+aRSA", RSAPublicKey),
            ("ECDHE+aECDSA", EllipticCurvePublicKey),
            ("DEFAULT", EllipticCurvePublicKey),
        ):
            for server in self.servers:
                context = self.site.client_context()
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(ciphers)
                for client in self.both_ports(context, server):
                    assert isinstance(client.socket, ssl.SSLSocket)
                    der = client.socket.getpeercert(binary_form=True) or b""
                    self.assertIsInstance(x509.load_der_x509_certificate(der).public_key(), kind)
                    client.log_in()
                    client.expect(b"QUIT")
                    session = client.socket.session
                    self.assertTrue(session is not None and session.has_ticket)

    def test_tls_1_3(self) -> None:
        """The same with TLS 1.3, where signatures are chosen apart from ciphers; no early data."""
        if shutil.which("openssl") is None:
            raise SkipTest("needs openssl: apt-get install openssl")
        for algorithms, kind in (
            ("rsa_pss_rsae_sha256:rsa_pkcs1_sha256", b"RSA-PSS"),
            ("rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256", b"ECDSA"),
            ("", b"ECDSA"),
        ):
            for server in self.servers:
                for place in (
                    ["-connect", f"localhost:{server.port}", "-starttls", "pop3"],
                    ["-connect", f"localhost:{server.tls_port}"],
                ):
                    options = [*place, *(["-sigalgs", algorithms] if algorithms else [])]
                    shown = self.s_client(*options)
                    self.assertIn(b"Peer signature type: " + kind, shown)
                    self.assertIn(b"Max Early Data: 0\n", shown)
                    self.assertIn(b"New, TLSv1.3", shown)
                    self.assertIn(b"Reused, TLSv1.3", self.s_client(*options, resume=True))

    def s_client(self, *options: str, resume: bool = False) -> bytes:
        """Return what OpenSSL's client shows of a session that verified the chain."""
        ticket = str(self.site.root / "ticket.pem")
        command = ["openssl", "s_client", "-tls1_3", "-ign_eof", "-crlf", "-verify_return_error"]
        done = subprocess.run(
            [
                *command,
                *("-CAfile", str(self.site.ca), "-sess_in" if resume else "-sess_out", ticket),
                *options,
            ],
            input=b"QUIT\n",
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=LIMIT,
            check=True,
        )
        self.assertIn(b"Verify return code: 0 (ok)", done.stdout)
        return done.stdout
