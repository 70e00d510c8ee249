"""TLS on the wire: what may be injected, negotiated, refused or broken off."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import warnings

from twisted.trial.unittest import SkipTest

from tests.e2e.server import LIMIT, PASSWORDS, Client, ServerCase
from tests.server.test_injection import INJECTION, splits

ALERT = b"\x15"
NO_APPLICATION_PROTOCOL = ALERT + b"\x03\x03\0\x02\x02\x78"


class InjectionTests(ServerCase):
    """Plaintext behind STLS is never executed (CVE-2011-0411 and its heirs)."""

    def _inject(self, version: ssl.TLSVersion, *pieces: bytes) -> None:
        """Send plaintext, then speak TLS, and check that what is behind STLS is not answered."""
        context = self.site.client_context()
        context.minimum_version = context.maximum_version = version
        with Client(self.server.port) as client:
            with contextlib.suppress(OSError):  # it may have closed already
                for piece in pieces:
                    client.send(piece)
            reply = client.line()
            if reply == b"-ERR nothing may follow STLS":
                self.assertEqual(client.rest(), b"")
                return
            self.assertEqual(reply, b"+OK begin TLS")
            with contextlib.suppress(OSError):  # it may have closed already
                client.send(hello(context))
            answer = client.rest()
        # A fatal alert at most: no ServerHello, nor a reply in the clear.
        self.assertIn(answer[:1], {b"", ALERT})
        self.assertLessEqual(len(answer), len(NO_APPLICATION_PROTOCOL))

    def _all_splits(self, version: ssl.TLSVersion) -> None:
        for pieces in splits(INJECTION):
            self._inject(version, *pieces)

    def test_tls_1_2(self) -> None:
        """However STLS and another command are cut in two or three, TLS 1.2 ends after it."""
        self._all_splits(ssl.TLSVersion.TLSv1_2)

    def test_tls_1_3(self) -> None:
        """However STLS and another command are cut in two or three, TLS 1.3 ends after it."""
        self._all_splits(ssl.TLSVersion.TLSv1_3)

    def test_same_segment(self) -> None:
        """A command in one segment with STLS gets no reply, and the connection is closed."""
        with self.client() as client:
            client.send(b"STLS\r\nUSER alice\r\n")
            self.assertEqual(client.rest(), b"-ERR nothing may follow STLS\r\n")

    def test_next_segment(self) -> None:
        """A command in the segment behind STLS is no handshake, and gets no POP3 reply."""
        with self.client() as client:
            client.expect(b"STLS")
            client.send(b"USER alice\r\nCAPA\r\n")
            self.assertIn(client.rest()[:1], {b"", ALERT})


class StlsTests(ServerCase):
    """STLS where it belongs and where not."""

    def test_user_is_forgotten(self) -> None:
        """A user name given in plaintext, by whomever, does not count under TLS."""
        server = self.start("--cleartext-login", "always")
        with self.client(server.port) as client:
            client.expect(b"USER alice")
            client.stls(self.site.client_context())
            client.expect(b"PASS " + PASSWORDS["alice"].encode(), b"-ERR send USER first")
            client.log_in()

    def test_capabilities(self) -> None:
        """STLS is announced before TLS and not under it, where logging in is announced instead."""
        with self.client() as client:
            client.expect(b"CAPA")
            before = client.body().split(b"\r\n")
            self.assertIn(b"STLS", before)
            self.assertNotIn(b"USER", before)
            client.stls(self.site.client_context())
            client.expect(b"CAPA")
            after = client.body().split(b"\r\n")
            self.assertNotIn(b"STLS", after)
            self.assertIn(b"USER", after)

    def test_refused_under_tls(self) -> None:
        """There is no TLS inside TLS, be it implicit or by STLS, and the session goes on."""
        implicit, explicit = self.tls_client(), self.client()
        explicit.stls(self.site.client_context())
        for client in (implicit, explicit):
            client.expect(b"STLS", b"-ERR")
            client.log_in()
            client.expect(b"STLS", b"-ERR")
            client.expect(b"NOOP")
            client.expect(b"QUIT")

    def test_refused_after_log_in(self) -> None:
        """Who has logged in without TLS does not get it any more."""
        server = self.start("--cleartext-login", "always")
        with self.client(server.port) as client:
            client.log_in()
            client.expect(b"STLS", b"-ERR")
            client.expect(b"NOOP")

    def test_argument(self) -> None:
        """STLS with an argument starts nothing."""
        with self.client() as client:
            client.expect(b"STLS now", b"-ERR")
            client.expect(b"CAPA")
            client.body()

    def test_no_log_in_without_tls(self) -> None:
        """By default nobody logs in without TLS, by no method, not even with the right password."""
        password = PASSWORDS["alice"].encode()
        with self.client() as client:
            client.expect(b"USER alice", b"-ERR [AUTH]")
            client.expect(b"PASS " + password, b"-ERR [AUTH]")
            client.expect(b"AUTH PLAIN", b"-ERR [AUTH]")
            client.expect(b"AUTH LOGIN", b"-ERR [AUTH]")
            client.expect(b"AUTH PLAIN AGFsaWNlAHNlY3JldC1vZi1hbGljZQ==", b"-ERR [AUTH]")
            client.expect(b"AUTH")
            self.assertEqual(client.body(), b"")
            client.expect(b"STAT", b"-ERR")


class NegotiationTests(ServerCase):
    """What TLS is spoken."""

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, with forward secrecy."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.site.client_context()
            context.minimum_version = context.maximum_version = version
            with Client(self.server.tls_port, context) as client:
                assert isinstance(client.socket, ssl.SSLSocket)
                name, protocol, _ = client.socket.cipher() or ("", "", 0)
                self.assertTrue(name.startswith(("ECDHE-", "TLS_")), name)
                self.assertEqual(client.socket.version(), version.name.replace("_", "."))
                self.assertTrue(protocol)
                client.log_in()

    def test_old_versions(self) -> None:
        """TLS 1.1 and older are refused, on both ports, with an alert that says so."""
        context = self.site.client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises(ssl.SSLError) as caught:
            Client(self.server.tls_port, context)
        self.assertEqual(caught.exception.reason, "TLSV1_ALERT_PROTOCOL_VERSION")
        client = self.client()
        with self.assertRaises(ssl.SSLError) as caught:
            client.stls(context)
        self.assertEqual(caught.exception.reason, "TLSV1_ALERT_PROTOCOL_VERSION")

    def test_alpn_pop3(self) -> None:
        """Of several protocols pop3 is chosen, and who offers none is let in."""
        context = self.site.client_context()
        context.set_alpn_protocols(["http/1.1", "pop3"])
        with Client(self.server.tls_port, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            self.assertEqual(client.socket.selected_alpn_protocol(), "pop3")
            client.log_in()
        with self.tls_client() as client:
            client.log_in("bob")

    def test_alpn_http(self) -> None:
        """A browser that was tricked into talking to a mail server is refused, on both ports."""
        context = self.site.client_context()
        context.set_alpn_protocols(["http/1.1"])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.maximum_version = version
            for client in (self.raw_client(), self.client()):
                if client.greeting:
                    client.expect(b"STLS")
                client.send(hello(context))
                self.assertEqual(client.rest(), NO_APPLICATION_PROTOCOL)

    def test_openssl(self) -> None:
        """OpenSSL's own client finds STLS, verifies the certificate and talks POP3."""
        if shutil.which("openssl") is None:
            raise SkipTest("needs openssl: apt-get install openssl")
        command = f"openssl s_client -connect localhost:{self.server.port} -starttls pop3 -crlf"
        done = subprocess.run(
            [*command.split(), "-CAfile", str(self.site.ca), "-verify_return_error", "-ign_eof"],
            input=b"USER alice\nPASS %s\nSTAT\nQUIT\n" % PASSWORDS["alice"].encode(),
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=LIMIT,
            check=True,
        )
        self.assertIn(b"Verification: OK", done.stdout)
        self.assertIn(b"+OK 0 0\r\n+OK bye\r\n", done.stdout)

    def test_early_data(self) -> None:
        """No ticket allows early data, which somebody could say a second time."""
        if shutil.which("openssl") is None:
            raise SkipTest("needs openssl: apt-get install openssl")
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"localhost:{self.server.tls_port}", "-ign_eof"],
            input=b"CAPA\nQUIT\n",
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=LIMIT,
            check=True,
        )
        limits = re.findall(rb"Max Early Data: (\d+)", done.stdout)
        self.assertEqual(set(limits), {b"0"}, done.stdout)


class BrokenOffTests(ServerCase):
    """Clients that do not know TLS, or do not finish it."""

    def _assert_serves(self) -> None:
        with self.logged_in() as client:
            client.expect(b"QUIT")

    def test_half_a_hello(self) -> None:
        """Half a ClientHello and then a FIN, or an RST, ends that connection and harms nobody."""
        half = hello(self.site.client_context())[:100]
        for stls in (False, True):
            for reset in (False, True):
                client = self.client() if stls else self.raw_client()
                if stls:
                    client.expect(b"STLS")
                client.send(half)
                if reset:
                    client.reset()
                else:
                    client.socket.shutdown(socket.SHUT_WR)
                    self.assertIn(client.rest()[:1], {b"", ALERT})
        self._assert_serves()

    def test_cleartext_on_the_tls_port(self) -> None:
        """POP3 in the clear on the TLS port gets no POP3 reply, and is closed."""
        client = self.raw_client()
        client.send(b"CAPA\r\nQUIT\r\n")
        self.assertIn(client.rest()[:1], {b"", ALERT})
        self._assert_serves()

    def test_http(self) -> None:
        """An HTTP request is one error, which repeats no word of it, and ends the session."""
        script = b"<script>alert(1)</script>"
        with self.client() as client:
            client.send(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: x\r\n"
                b"Content-Length: 999\r\nContent-Type: text/plain\r\nOrigin: null\r\n\r\n"
                + (script + b"\r\n")
                * 20
            )
            lines = client.rest().splitlines()
        self.assertEqual(lines, [b"-ERR this is no web server"])
        self.assertIn("http-request", self.server.log)
        self._assert_serves()


def hello(context: ssl.SSLContext) -> bytes:
    """Return the first flight of a handshake."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
