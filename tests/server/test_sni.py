"""Tests of certificates for several names."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from popd.server.sni import pairs, serve_names
from popd.server.tls import ServerTLS, load_context, names_of

AUTHORITY = trustme.CA()


class NameTests(SynchronousTestCase):
    """Who asks for which name gets what."""

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.default = self.write("default.pem", "localhost", into=Path(self.mktemp()))

    def write(self, name: str, *names: str, into: Path | None = None, **options: Any) -> str:
        """Write a certificate with its key into one file; return its path."""
        into = into or self.directory
        into.mkdir(exist_ok=True)
        leaf = AUTHORITY.issue_cert(*names, **options)
        path = into / name
        path.write_bytes(leaf.cert_chain_pems[0].bytes() + leaf.private_key_pem.bytes())
        return str(path)

    def serve(self) -> ServerTLS:
        """Return what serves the directory."""
        tls = load_context([self.default])
        serve_names(tls, str(self.directory))
        return tls

    @staticmethod
    def shown(tls: ServerTLS, name: bytes | None) -> tuple[str, ...]:
        """Return the names in the certificate that a client is shown."""
        server = SSL.Connection(tls.context, None)
        server.set_accept_state()
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        if name is not None:
            client.set_tlsext_host_name(name)
        for end, other in ((client, server), (server, client)) * 2:
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65_536))
        shown = client.get_peer_certificate()
        assert shown is not None
        return names_of(shown.to_cryptography())

    def test_choice(self) -> None:
        """A name, a wildcard for one label, and for all others the default."""
        self.write("one.pem", "one.example.org")
        self.write("wild.pem", "*.example.net")
        tls = self.serve()
        self.assertEqual(self.shown(tls, b"One.Example.ORG"), ("one.example.org",))
        self.assertEqual(self.shown(tls, b"a.example.net"), ("*.example.net",))
        for name in (b"a.b.example.net", b"example.net", b"other.example.org", None):
            self.assertEqual(self.shown(tls, name), ("localhost",))
        self.assertEqual(len(tls.served), 3)

    def test_kinds(self) -> None:
        """Certificates of one name may have keys of different kinds; all are there."""
        self.write("rsa.pem", "one.example.org", key_type=trustme.KeyType.RSA)
        self.write("ecdsa.pem", "one.example.org", key_type=trustme.KeyType.ECDSA)
        tls = self.serve()
        self.assertEqual(self.shown(tls, b"one.example.org"), ("one.example.org",))
        self.assertEqual(len(tls.contexts), 2)

    def test_pairs(self) -> None:
        """Directories as ACME clients make them count when both files are there."""
        for name, files in (
            ("whole", ("fullchain.pem", "privkey.pem")),
            ("half", ("privkey.pem",)),
        ):
            for file in files:
                path = self.directory / name / file
                path.parent.mkdir(exist_ok=True)
                path.touch()
        (self.directory / "README").touch()
        whole = self.directory / "whole"
        expected = [(str(whole / "fullchain.pem"), str(whole / "privkey.pem"))]
        self.assertEqual(list(pairs(str(self.directory))), expected)
        self.assertRaises(ValueError, list, pairs(str(self.directory / "nothing")))

    def test_no_name(self) -> None:
        """A certificate for no host is of no use."""
        (self.directory / "x.pem").write_bytes(
            AUTHORITY.cert_pem.bytes() + AUTHORITY.private_key_pem.bytes()
        )
        error = self.assertRaises(ValueError, self.serve)
        self.assertIn("for no host name", str(error))

    def test_many_names(self) -> None:
        """Names that nobody has cost no memory."""
        self.write("one.pem", "one.example.org")
        tls = self.serve()
        for number in range(200):
            self.shown(tls, b"%d.example.com" % number)
        self.assertEqual(len(tls.contexts), 2)
