"""Tests of ``popctl client-config``."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

from twisted.trial.unittest import SkipTest

from popd.ctl.clients import port_of
from tests.ctl.test_main import CommandTestCase

ADA = "ada@example.org"
HOST = ("--host", "mail.example.org")


class ClientConfigs(CommandTestCase):
    """What mail programs are told."""

    def setUp(self) -> None:
        """Have a site with TLS."""
        super().setUp()
        self.configure('certificate = "c.pem"', 'default-domain = "example.org"')

    def configure(self, *lines: str) -> None:
        """Write the configuration."""
        self.config.write_text("\n".join(lines) + "\n")

    def get(self, kind: str, user: str = ADA, host: tuple[str, ...] = HOST) -> str:
        """Return what a user's program is told."""
        return self.popctl("client-config", user, "--format", kind, *host)

    def test_text(self) -> None:
        """People are told what to type in."""
        said = self.get("text")
        for words in ("POP3", "mail.example.org", "995", "SSL/TLS", ADA):
            self.assertRegex(said, rf"(?m): +{re.escape(words)}$")
        self.assertEqual(self.get("text", "ada"), said)
        self.configure('certificate = "c.pem"', 'listen-tls = "none"', 'listen = "tcp:1110"')
        self.assertRegex(self.get("text"), r"(?s)1110\n.*STARTTLS\n")

    def test_thunderbird(self) -> None:
        """Thunderbird's file has both ports, TLS from the start first."""
        root = ET.fromstring(self.get("thunderbird"))  # noqa: S314 - popctl wrote it
        self.assertEqual((root.tag, root.get("version")), ("clientConfig", "1.1"))
        servers = root.findall("emailProvider/incomingServer")
        found = [[child.text for child in server] for server in servers]
        self.assertEqual(
            found,
            [
                ["mail.example.org", port, kind, "%EMAILADDRESS%", "password-cleartext"]
                for port, kind in (("995", "SSL"), ("110", "STARTTLS"))
            ],
        )
        self.assertEqual(root.findtext("emailProvider/domain"), "example.org")
        self.configure('certificate = "c.pem"')
        self.assertIn("<username>a&amp;b&lt;</username>", self.get("thunderbird", "a&b<"))

    def test_apple(self) -> None:
        """Apple's profile is a property list, and each time the same."""
        said = self.get("apple")
        self.assertEqual(said, self.get("apple"))
        profile = plistlib.loads(said.encode())
        self.assertEqual(profile["PayloadType"], "Configuration")
        (account,) = profile["PayloadContent"]
        self.assertEqual(account["IncomingMailServerHostName"], "mail.example.org")
        self.assertEqual(account["IncomingMailServerPortNumber"], 995)
        self.assertIs(account["IncomingMailServerUseSSL"], True)
        self.assertEqual(account["IncomingMailServerUsername"], ADA)
        self.assertNotIn("IncomingPassword", account)
        other = plistlib.loads(self.get("apple", "bob").encode())
        self.assertNotEqual(other["PayloadUUID"], profile["PayloadUUID"])

    def test_srv(self) -> None:
        """The DNS is told both services, and of one that is not there that it is not."""
        self.assertEqual(
            self.get("srv"),
            "_pop3s._tcp.example.org. 3600 IN SRV 0 1 995 mail.example.org.\n"
            "_pop3._tcp.example.org. 3600 IN SRV 10 1 110 mail.example.org.\n",
        )
        self.configure('certificate = "c.pem"', 'listen = "none"')
        self.assertIn("_pop3._tcp.example.org. 3600 IN SRV 0 0 0 .\n", self.get("srv"))
        self.assertIn("_pop3s._tcp.xn--bcher-kva.example. ", self.get("srv", "ada@bücher.example"))

    def test_zone(self) -> None:
        """A name server takes them."""
        program = shutil.which("named-checkzone", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SkipTest("there is no named-checkzone: apt-get install bind9-utils")
        zone = Path(self.mktemp())
        head = "$TTL 60\n@ IN SOA a. b. 1 2 3 4 5\n@ IN NS mail\nmail IN A 192.0.2.1\n"
        zone.write_text(head + self.get("srv"))
        command = [program, "example.org", str(zone)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout)

    def test_refused(self) -> None:
        """What is no host, or a popd without TLS, is refused."""
        for host in ("a b", "x_y", "mail..example", "münchen.example", "a/b", "<x>"):
            said = self.popctl("client-config", ADA, "--host", host, status=1)
            self.assertIn("no name of a host", said)
        self.configure('cleartext-login = "local"')
        said = self.popctl("client-config", ADA, *HOST, status=1)
        self.assertIn("no TCP port with TLS", said)

    def test_ports(self) -> None:
        """The port is that of an endpoint which others can reach."""
        for endpoints, port in (
            (("tcp:110",), 110),
            (("tcp:port=110:interface=192.0.2.1",), 110),
            (("unix:/x", "tcp:1:interface=127.0.0.1", "tcp6:2"), 2),
            ((r"tcp:1:interface=\:\:1", "systemd:domain=INET:name=x"), 0),
            (("haproxy:tcp:1110",), 1110),
            (("tcp:x",), 0),
            ((), 0),
        ):
            self.assertEqual(port_of(endpoints), port, endpoints)
