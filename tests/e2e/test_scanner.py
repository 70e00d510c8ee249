"""What a scanner of others thinks of popd's TLS: sslyze, by the rules of Mozilla's guideline.

sslyze needs an older cryptography than popd may have, so it has an environment of its own: install
it there (``pip install sslyze``) and name its program in ``POPD_SSLYZE``, if it is not on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.e2e.server import LIMIT, RunningServer, Site

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SSLYZE = os.environ.get("POPD_SSLYZE") or shutil.which("sslyze")


def certificate(name: str, issuer: Any = None) -> tuple[Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate as a public authority makes them, or that of the authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer, signing = issuer or (None, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    bits = {"digital_signature"}
    if issuer is None:
        bits |= {"key_cert_sign", "crl_sign"}
    else:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    key_usage = x509.KeyUsage(**{bit: bit in bits for bit in every})
    return builder.add_extension(key_usage, critical=True).sign(signing, SHA256()), key


class ScannerTests(SynchronousTestCase):
    """sslyze finds that popd does as Mozilla's "intermediate" configuration says."""

    def setUp(self) -> None:
        """Have a site whose certificate is like any other."""
        if SSLYZE is None:
            raise SkipTest("needs sslyze: pip install sslyze, in an environment of its own")
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        Path(directory.name).chmod(0o755)
        self.site = Site(Path(directory.name))
        authority = certificate("an authority")
        leaf, key = certificate("localhost", authority)
        self.site.ca.write_bytes(authority[0].public_bytes(Encoding.PEM))
        self.site.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.site.private_key.write_bytes(pem)

    def scan(self, port: int, *options: str) -> tuple[int, str]:
        """Return sslyze's exit status, and what it says."""
        assert SSLYZE is not None
        done = subprocess.run(
            [
                *(SSLYZE, "--mozilla_config=intermediate"),
                *("--certinfo_ca_file", str(self.site.ca), *options, f"localhost:{port}"),
            ],
            capture_output=True,
            text=True,
            timeout=3 * LIMIT,
            check=False,
        )
        return done.returncode, done.stdout[-2_000:]

    def test_intermediate(self) -> None:
        """It passes, on the TLS port and by STLS, and none of the old attacks works."""
        with RunningServer(self.site) as server:
            for said in (self.scan(server.tls_port), self.scan(server.port, "--starttls=pop3")):
                self.assertEqual(said[0], 0, said[1])
                self.assertIn("OK - Compliant", said[1])
