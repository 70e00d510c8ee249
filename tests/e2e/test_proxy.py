"""Proxies in front of the real server: the real HAProxy, nginx and Dovecot."""

from __future__ import annotations

import getpass
import os
import shutil
import struct
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

from popd.auth import scramkeys
from tests.e2e.backends import end, reachable
from tests.e2e.launch import free_port
from tests.e2e.server import PASSWORDS, Client, RunningServer, ServerCase, stored, until

if TYPE_CHECKING:
    import ssl

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
HAPROXY = shutil.which("haproxy", path=_PATH)
DOVECOT = shutil.which("dovecot", path=_PATH)
POP3_LOGIN = Path("/usr/lib/dovecot/pop3-login")
NGINX = shutil.which("nginx", path=_PATH)
NGINX_MAIL = Path("/usr/lib/nginx/modules/ngx_mail_module.so")

PROXY = "127.0.0.1"
"""Where the proxies' connections come from."""

CLIENT, OTHER = "127.0.0.5", "127.0.0.6"
"""Where clients come from."""

TOO_MANY = b"-ERR [SYS/TEMP] too many sessions, try again later"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"

_HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen version1
    bind 127.0.0.1:{ports[0]}
    server popd 127.0.0.1:{port} send-proxy check check-send-proxy inter 100ms
listen version2
    bind 127.0.0.1:{ports[1]}
    server popd 127.0.0.1:{tls_port} send-proxy-v2 check check-send-proxy inter 100ms
listen ends_tls
    bind 127.0.0.1:{ports[2]} ssl crt {certificate}
    server popd 127.0.0.1:{port} send-proxy-v2-ssl-cn proxy-v2-options ssl,authority,ssl-cipher
"""

_NGINX = """
load_module {module};
daemon off;
pid {home}/nginx.pid;
error_log {home}/nginx.log;
events {{}}
mail {{
    auth_http 127.0.0.1:{asked}/;
    proxy_protocol on;
    proxy_pass_error_message on;
    server {{
        listen 127.0.0.1:{own_port};
        protocol pop3;
    }}
}}
"""

_DOVECOT = """
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
protocols = pop3
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
{users}
passdb {{
  driver = static
  args = proxy=y host=127.0.0.1 port={port} nopassword=y {more}
}}
service pop3-login {{
{chroot}
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {own_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service stats {{
{chroot}
}}
service anvil {{
{chroot}
}}
"""


class ProxyCase(ServerCase):
    """Clients that come to proxies."""

    def connect(self, port: int, tls: ssl.SSLContext | None = None, source: str = CLIENT) -> Client:
        """Connect to a port of this machine."""
        client = Client(port, tls, source=source)
        self.addCleanup(client.close)
        return client

    def complaints(self) -> list[str]:
        """Return what the server has logged, but for the minute's line about who did not log in."""
        lines = self.server.log.splitlines()
        return [line for line in lines if "connections on which nobody tried" not in line]

    def raw(self, said: bytes, *, port: int = 0, source: str = PROXY) -> Client:
        """Connect to the server itself, and say what a proxy might."""
        client = Client(port or self.server.port, greeted=False, source=source)
        self.addCleanup(client.close)
        client.send(said)
        return client

    def assertLogIn(self, client: Client, user: str = "alice") -> None:
        """Log in and quit, and check from where that was by the log."""
        client.log_in(user)
        client.expect(b"QUIT")
        client.close()
        self.assertLogged(user, CLIENT)

    def assertLogged(self, user: str, address: str) -> None:
        """Wait for a line in the log about a session."""
        line = f": user {user}@example.org, from {address}, "
        until(lambda: line in self.server.log, f"no {line}")


class HAProxyTests(ProxyCase):
    """HAProxy is trusted."""

    options = ("--proxy-protocol", PROXY, "--max-sessions-per-ip", "2")

    def start(self, *options: str) -> RunningServer:
        """Start the server, which has a user who can log in by SCRAM."""
        scram = self.site.root / "scram"
        keys = scramkeys.written("SCRAM-SHA-256", b"secret")
        scram.write_text(f"sam@example.org:{keys}\n", "ascii")
        return super().start("--auth", f"popd-passwd:{scram}", *options)

    def setUp(self) -> None:
        """Start both."""
        if HAPROXY is None:
            raise SkipTest("needs HAProxy: apt-get install haproxy")
        super().setUp()
        site, server = self.site, self.server
        pem = site.root / "haproxy.pem"
        pem.write_bytes(site.certificate.read_bytes() + site.private_key.read_bytes())
        self.ports = [free_port() for _ in range(3)]
        configuration = site.root / "haproxy.cfg"
        configuration.write_text(
            _HAPROXY.format(
                ports=self.ports, port=server.port, tls_port=server.tls_port, certificate=pem
            ),
            "ascii",
        )
        log = (site.root / "haproxy.log").open("wb")
        self.addCleanup(log.close)
        command = [HAPROXY, "-db", "-f", str(configuration)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        self.addCleanup(end, process)
        until(lambda: all(map(reachable, self.ports)), "HAProxy does not listen")

    def capabilities(self, client: Client) -> bytes:
        """Return what a client is offered."""
        client.expect(b"CAPA")
        return client.body()

    def capabilities_without_proxy(self) -> bytes:
        """Return what a client is offered who comes straight to the server, with TLS."""
        client = self.connect(self.server.tls_port, self.site.client_context(), OTHER)
        capabilities = self.capabilities(client)
        self.assertIn(b" SCRAM-SHA-256-PLUS", capabilities)
        return capabilities

    def test_version_1(self) -> None:
        """In front of STLS."""
        client = self.connect(self.ports[0])
        client.stls(self.site.client_context())
        self.assertLogIn(client)

    def test_version_2(self) -> None:
        """In front of TLS that ends in popd, with what can be bound to it."""
        client = self.connect(self.ports[1], self.site.client_context())
        self.assertEqual(self.capabilities(client), self.capabilities_without_proxy())
        self.assertLogIn(client)

    def test_tls_ends_there(self) -> None:
        """TLS that ends in HAProxy counts, but nothing is bound to it, and there is no STLS."""
        client = self.connect(self.ports[2], self.site.client_context())
        without = self.capabilities_without_proxy().replace(b" SCRAM-SHA-256-PLUS", b"")
        self.assertEqual(self.capabilities(client), without)
        self.assertLogIn(client)

    def test_limits(self) -> None:
        """The limits are those of the client's address."""
        for _ in range(2):
            self.assertTrue(self.connect(self.ports[0]).greeting.startswith(b"+OK"))
        self.assertEqual(self.connect(self.ports[0]).greeting, TOO_MANY)
        self.assertTrue(self.connect(self.ports[0], source=OTHER).greeting.startswith(b"+OK"))

    def test_health(self) -> None:
        """HAProxy's checks of the server's health leave nothing in the log."""
        time.sleep(0.5)  # until what came through HAProxy to see whether it listens is gone
        before = self.complaints()
        time.sleep(1)
        self.assertEqual(self.complaints(), before)

    def test_long_mail(self) -> None:
        """A long message comes through whole."""
        message = b"Subject: long\n\n" + b"0123456789\n" * 100_000
        self.site.deliver("alice", message)
        client = self.connect(self.ports[2], self.site.client_context())
        client.log_in()
        self.assertTrue(client.fetch(1).replace(b"\r\n", b"\n") == message)


class HeaderTests(ProxyCase):
    """What proxies say, and others."""

    options = ("--proxy-protocol", f"{PROXY},::1", "--cleartext-login", "always")

    def test_believed(self) -> None:
        """What follows the header in the same packet is carried out."""
        client = self.raw(b"PROXY TCP4 127.0.0.5 127.0.0.1 4321 110\r\nUSER alice\r\n")
        self.assertEqual(client.line(), b"+OK POP3 server ready")
        self.assertEqual(client.line(), b"+OK send PASS")
        client.expect(b"PASS " + PASSWORDS["alice"].encode())
        client.expect(b"QUIT")
        self.assertLogged("alice", CLIENT)

    def test_octet_by_octet(self) -> None:
        """A header that comes slowly is one, in front of TLS as well."""
        body = bytes([127, 0, 0, 5, 127, 0, 0, 1]) + struct.pack("!HH", 4321, 995)
        header = SIGNATURE + b"\x21\x11" + struct.pack("!H", len(body)) + body
        client = self.raw(b"", port=self.server.tls_port)
        for octet in header:
            client.send(bytes([octet]))
            time.sleep(0.005)
        client.secure(self.site.client_context())
        self.assertEqual(client.line(), b"+OK POP3 server ready")
        self.assertLogIn(client)

    def test_local(self) -> None:
        """A proxy may speak for itself, in both versions."""
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            client = self.raw(header)
            self.assertEqual(client.line(), b"+OK POP3 server ready")
            client.expect(b"QUIT")

    def test_required(self) -> None:
        """A proxy without a header is not served, be it quick or slow; others are meanwhile."""
        silent = self.raw(b"")
        self.assertEqual(self.raw(b"CAPA\r\n").rest(), b"")
        self.assertEqual(self.raw(b"\x16\x03\x01", port=self.server.tls_port).rest(), b"")
        begun = time.monotonic()
        self.connect(self.server.port, source=OTHER).expect(b"CAPA")
        self.assertEqual(silent.rest(), b"")
        self.assertTrue(1.5 < time.monotonic() - begun < 6)
        self.assertIn(f"The proxy at {PROXY} sent no PROXY header: it begins", self.server.log)
        self.assertIn(f"The proxy at {PROXY} sent no PROXY header within 3", self.server.log)

    def test_not_believed(self) -> None:
        """From anywhere else a header is a bad command, and changes nothing."""
        client = self.connect(self.server.port, source=OTHER)
        client.expect(b"PROXY TCP4 127.0.0.5 127.0.0.1 4321 110", b"-ERR unknown command")
        client.log_in()
        client.expect(b"QUIT")
        self.assertLogged("alice", OTHER)
        self.assertNotIn(CLIENT, self.server.log)

    def test_comes_and_goes(self) -> None:
        """Connections that are closed at once leave nothing in the log."""
        with self.raw(LOCAL) as client:
            client.line()  # all that is said at the start has been said
        before = self.complaints()
        for _ in range(20):
            self.raw(b"").close()
            self.raw(b"").reset()
        with self.raw(LOCAL) as client:
            client.line()
        self.assertEqual(self.complaints(), before)


class _AnyPopd(BaseHTTPRequestHandler):
    """Tells nginx that everybody's mail is where ``server.popd`` is, as a port."""

    def do_GET(self) -> None:
        """Answer what ``ngx_mail_auth_http_module`` asks."""
        self.send_response(200)
        self.send_header("Auth-Status", "OK")
        self.send_header("Auth-Server", "127.0.0.1")
        self.send_header("Auth-Port", str(self.server.popd))  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class NginxTests(ProxyCase):
    """nginx's mail proxy is trusted."""

    options = ("--proxy-protocol", PROXY, "--cleartext-login", "always")

    def setUp(self) -> None:
        """Start nginx, and whom it asks where mail is."""
        if NGINX is None or not NGINX_MAIL.exists():
            raise SkipTest("needs nginx: apt-get install nginx-light libnginx-mod-mail")
        super().setUp()
        asked = HTTPServer(("127.0.0.1", 0), _AnyPopd)
        asked.popd = self.server.port  # type: ignore[attr-defined]
        thread = threading.Thread(target=asked.serve_forever)
        thread.start()
        self.addCleanup(asked.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(asked.shutdown)
        self.port = free_port()
        configuration = self.site.root / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                module=NGINX_MAIL,
                home=self.site.root,
                asked=asked.server_address[1],
                own_port=self.port,
            ),
            "ascii",
        )
        process = subprocess.Popen([NGINX, "-c", str(configuration)])
        self.addCleanup(end, process)
        until(lambda: reachable(self.port), "nginx does not listen")

    def test_nginx(self) -> None:
        """The client's own address is in the log, and it gets its mail."""
        message = b"Subject: one\n\n..\n"
        self.site.deliver("alice", message)
        client = self.connect(self.port)
        client.log_in()
        self.assertEqual(stored(client.fetch(1)), message)
        client.expect(b"QUIT")
        self.assertLogged("alice", CLIENT)

    def test_wrong_password(self) -> None:
        """Popd's refusal reaches the client."""
        client = self.connect(self.port)
        client.expect(b"USER alice")
        self.assertTrue(client.ask(b"PASS wrong").startswith(b"-ERR [AUTH]"))
        self.assertIn(f"user alice, from {CLIENT}, ", self.server.log)


class DovecotTests(ProxyCase):
    """Dovecot's proxy is trusted."""

    options = ("--xclient", PROXY, "--cleartext-login", "always", "--max-sessions-per-ip", "2")

    def start_dovecot(self, more: str = "") -> int:
        """Start Dovecot in front of popd, and return its port."""
        if DOVECOT is None or not POP3_LOGIN.exists():
            raise SkipTest("needs Dovecot: apt-get install dovecot-pop3d")
        users = chroot = ""
        if os.geteuid() != 0:
            me = getpass.getuser()
            users = f"default_login_user = {me}\ndefault_internal_user = {me}"
            chroot = "  chroot ="
        own_port = free_port()
        configuration = self.site.root / "dovecot.conf"
        configuration.write_text(
            _DOVECOT.format(
                home=self.site.root,
                users=users,
                chroot=chroot,
                port=self.server.port,
                own_port=own_port,
                more=more,
            ),
            "ascii",
        )
        process = subprocess.Popen([DOVECOT, "-F", "-c", str(configuration)])
        self.addCleanup(end, process)
        until(lambda: reachable(own_port), "Dovecot does not listen")
        return own_port

    def test_dovecot(self) -> None:
        """The client's own address is in the log, and has the limits."""
        port = self.start_dovecot()
        self.site.deliver("alice", b"Subject: one\n\n")
        client, other = self.connect(port), self.connect(port)
        client.log_in()
        self.assertIn(b"Subject: one", client.fetch(1))
        other.log_in("bob")
        third = self.connect(port)
        third.expect(b"USER carol")
        self.assertTrue(third.ask(b"PASS " + PASSWORDS["carol"].encode()).startswith(b"-ERR"))
        self.connect(port, source=OTHER).log_in("carol")
        for one in (client, other):
            one.expect(b"QUIT")
        self.assertLogged("alice", CLIENT)
        self.assertLogged("bob", CLIENT)

    def test_stls(self) -> None:
        """Dovecot may start TLS with popd first."""
        port = self.start_dovecot("starttls=any-cert")
        self.assertLogIn(self.connect(port))

    def test_command(self) -> None:
        """So is whoever else comes from there, and nobody from elsewhere."""
        for source in (PROXY, OTHER):
            client = self.connect(self.server.port, source=source)
            trusted = source == PROXY
            self.assertEqual(client.greeting.startswith(b"+OK [XCLIENT] "), trusted)
            client.expect(
                b"XCLIENT ADDR=127.0.0.5 PORT=1", b"+OK" if trusted else b"-ERR unknown command"
            )
            client.log_in("alice" if trusted else "bob")
            client.expect(b"QUIT")
        self.assertLogged("alice", CLIENT)
        self.assertLogged("bob", OTHER)

    def test_ipv6(self) -> None:
        """An IPv6 client is one, though the proxy speaks IPv4."""
        client = self.connect(self.server.port, source=PROXY)
        client.expect(b"XCLIENT ADDR=2001:db8::1 PORT=1")
        client.log_in()
        client.expect(b"QUIT")
        self.assertLogged("alice", "2001:db8::1")
