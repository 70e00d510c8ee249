"""Log-ins that an LDAP directory decides about: OpenLDAP's slapd, with TLS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import trustme
from twisted.trial.unittest import SkipTest

from tests.e2e.backends import DENIED, IN, TEMPORARY, BackendCase, end, freeze, reachable
from tests.e2e.launch import free_port
from tests.e2e.server import until

_PATH = shutil.which("slapd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/openldap")
_ADD = shutil.which("ldapadd")

_SETTINGS = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {home}/slapd.pid
TLSCertificateFile {home}/slapd-chain.pem
TLSCertificateKeyFile {home}/slapd-key.pem
security simple_bind=128
database mdb
directory {home}/db
maxsize 10485760
suffix "dc=example,dc=org"
rootdn "cn=root,dc=example,dc=org"
rootpw rootpassword
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=popd,dc=example,dc=org" read by * none
"""

_ENTRIES = """
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=popd,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: popd
userPassword: service password

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

"""

_PERSON = """
dn: uid={uid},ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: {uid}
cn: {uid}
sn: {uid}
mail: {mail}
userPassword: {uid}'s secret
{more}
"""

_SEARCH = """
uri = "{uri}"
ca = "{home}/ca-ldap.pem"
bind-dn = "cn=popd,dc=example,dc=org"
bind-password-file = "{home}/ldap-password"
base = "ou=people,dc=example,dc=org"
filter = "(&(objectClass=inetOrgPerson)(mail={{user}}))"
fields = {{ disabled = "employeeType", quota = "departmentNumber" }}
timeout = 2
"""

_TEMPLATE = """
uri = "{uri}"
ca = "{home}/ca-ldap.pem"
user-dn = "uid={{local}},ou=people,dc=example,dc=org"
timeout = 2
"""


class LdapTests(BackendCase):
    """The directory has users whom nobody else has."""

    def setUp(self) -> None:
        """Start slapd, and fill it."""
        super().setUp()
        if _PATH is None or _ADD is None or not Path("/etc/ldap/schema").is_dir():
            raise SkipTest("needs OpenLDAP: apt-get install slapd ldap-utils")
        self.port, self.tls_port = free_port(), free_port()
        (self.root / "db").mkdir()
        (self.root / "slapd.conf").write_text(_SETTINGS.format(home=self.root), "ascii")
        (self.root / "ldap-password").write_text("service password\n", "ascii")
        self.certify("localhost", "127.0.0.1")
        self.start_slapd()
        people = [
            _PERSON.format(uid="zoe", mail="zoe@example.org", more="departmentNumber: 10M"),
            _PERSON.format(uid="yan", mail="yan@example.org", more="employeeType: TRUE"),
            _PERSON.format(uid="xia", mail="both@example.org", more=""),
            _PERSON.format(uid="ute", mail="both@example.org", more=""),
        ]
        self.add(_ENTRIES + "\n".join(people))

    def certify(self, *names: str) -> None:
        """Give slapd a certificate for *names*, of an authority of its own."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.root / "ca-ldap.pem"))
        leaf = authority.issue_cert(*names)
        leaf.private_key_pem.write_to_path(str(self.root / "slapd-key.pem"))
        leaf.cert_chain_pems[0].write_to_path(str(self.root / "slapd-chain.pem"))

    def start_slapd(self) -> None:
        """Start it, and wait until it listens."""
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        with (self.root / "slapd.log").open("ab") as log:
            self.slapd = subprocess.Popen(
                [str(_PATH), "-d", "stats", "-h", urls, "-f", str(self.root / "slapd.conf")],
                stdout=log,
                stderr=log,
            )
        self.addCleanup(end, self.slapd)
        until(lambda: reachable(self.port), "slapd does not listen")

    def add(self, entries: str) -> None:
        """Add entries to the directory."""
        url = f"ldaps://127.0.0.1:{self.tls_port}"
        subprocess.run(
            [str(_ADD), "-x", "-H", url, "-D", "cn=root,dc=example,dc=org", "-w", "rootpassword"],
            env={**os.environ, "LDAPTLS_CACERT": str(self.root / "ca-ldap.pem")},
            input=entries.encode(),
            capture_output=True,
            check=True,
        )

    @property
    def slapd_log(self) -> str:
        """What slapd has been asked."""
        return (self.root / "slapd.log").read_text("utf-8", "replace")

    def start_popd(
        self,
        settings: str = _SEARCH,
        host: str = "localhost",
        scheme: str = "ldap",
        workers: int = 1,
    ) -> None:
        """Start popd with these settings."""
        port = self.tls_port if scheme == "ldaps" else self.port
        uri = f"{scheme}://{host}:{port}"
        (self.root / "ldap.toml").write_text(settings.format(uri=uri, home=self.root), "ascii")
        self.start(
            f"popd-ldap:{self.root}/ldap.toml",
            *("--default-domain", "example.org", "--workers", str(workers)),
        )

    def test_decides(self) -> None:
        """Who can bind as the one entry that is his gets in; nothing in a name finds another."""
        self.start_popd()
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        self.assertLogIn("ZOE", "zoe's secret", IN)
        self.assertLogIn("zoe@example.org", "Zoe's secret", DENIED)
        self.assertLogIn("nobody@example.org", "zoe's secret", DENIED)
        self.assertLogIn("yan@example.org", "yan's secret", DENIED)
        self.assertLogIn("both@example.org", "xia's secret", DENIED)
        self.assertIn("several entries for 'both@example.org'", self.popd.log)
        for name in ("zo*", "*", "zoe@example.org)(uid=*", "zoe@example.org\\2a", "(zoe)"):
            self.assertLogIn(name, "zoe's secret", DENIED)
        self.assertIn("STARTTLS", self.slapd_log)

    def test_workers(self) -> None:
        """Each of popd's processes has connections of its own."""
        self.start_popd(workers=2)
        for _ in range(6):
            self.assertLogIn("zoe", "zoe's secret", IN)

    def test_template(self) -> None:
        """Users may have names that need no search; a user of another domain has none of them."""
        self.start_popd(_TEMPLATE, "127.0.0.1", "ldaps")
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        self.assertLogIn("zoe@example.org", "wrong", DENIED)
        self.assertLogIn("zoe@example.net", "zoe's secret", DENIED)
        self.assertLogIn("zoe,ou=people", "zoe's secret", DENIED)
        self.assertNotIn("SRCH", self.slapd_log)

    def test_impostor(self) -> None:
        """A server with another's certificate sees no password, neither popd's nor a user's."""
        end(self.slapd)
        self.certify("ldap.example.net")
        self.start_slapd()
        before = len(self.slapd_log)
        for scheme in ("ldap", "ldaps"):
            for settings in (_SEARCH, _TEMPLATE):
                self.start_popd(settings, "localhost", scheme)
                self.assertLogIn("zoe@example.org", "zoe's secret", TEMPORARY)
                self.popd.stop()
        seen = self.slapd_log[before:]
        self.assertIn("ACCEPT", seen)
        self.assertNotIn("BIND dn", seen)

    def test_down(self) -> None:
        """Where it is down only its users are held up, and not once it is back."""
        self.start_popd()
        self.assertLogIn("zoe@example.org", "zoe's secret", IN)
        end(self.slapd)
        self.assertLogIn("zoe@example.org", "zoe's secret", TEMPORARY)
        self.assertOthersFast()
        self.start_slapd()
        self.wait_for("zoe@example.org", "zoe's secret")
        self.assertLogIn("zoe@example.org", "wrong", DENIED)

    def test_hangs(self) -> None:
        """One that says nothing costs one time-out, and is asked again when it speaks."""
        for settings in (_SEARCH, _TEMPLATE):
            self.start_popd(settings)
            self.assertLogIn("zoe@example.org", "zoe's secret", IN)
            freeze(self.slapd.pid)
            self.addCleanup(self.slapd.send_signal, signal.SIGCONT)
            self.assertLogIn("zoe@example.org", "zoe's secret", TEMPORARY)
            self.assertOthersFast()
            self.slapd.send_signal(signal.SIGCONT)
            self.wait_for("zoe@example.org", "zoe's secret")
            self.popd.stop()
