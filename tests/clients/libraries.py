"""Libraries: each is used by a script of a dozen lines, in its own language.

The scripts, in ``tests/clients/scripts``, know from their environment what to do (``POP_PORT``,
``POP_WAY``, which is ``stls`` or ``tls``, ``POP_CA``, ``POP_USER``, ``POP_PASSWORD``, ``POP_KEEP``,
``POP_MECHANISM``), and put each message into ``POP_INBOX``, in a file that is called by its
unique-id.
"""

from __future__ import annotations

import json
import os
import platform
import poplib
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.clients.contract import PopClient
from tests.e2e.server import LIMIT, stored

if TYPE_CHECKING:
    from tests.clients.contract import Errand

__all__ = ["LIBRARIES", "NODE_MODULES", "Poplib"]

SCRIPTS: Final = Path(__file__).parent / "scripts"

NODE_MODULES: Final = "POPD_CLIENTS_NODE_MODULES"
"""The environment variable that says where npm's packages are."""


class Library(PopClient):
    """A library, and a script that uses it; what it has is remembered for it."""

    script: str
    options: tuple[str, ...] = ()
    """For the language's interpreter."""

    probe: tuple[str, ...]
    """What the interpreter has to be told to print the library's version, and fails without it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._known: set[str] = set()

    @classmethod
    def paths(cls) -> dict[str, str]:
        """Return what the interpreter needs to find the library."""
        return {}

    @classmethod
    def _probed(cls) -> str:
        done = subprocess.run(
            [cls.program, *cls.probe],
            env=dict(os.environ) | cls.paths(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if not done.returncode else ""

    @classmethod
    def missing(cls) -> str:
        """See `PopClient.missing`."""
        if shutil.which(cls.program) is None:
            return cls.program
        return "" if cls._probed() else cls.name

    def version(self) -> str:
        """See `PopClient.version`."""
        return self._probed()

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        told = {
            "POP_PORT": str(errand.port),
            "POP_WAY": "tls" if errand.implicit else "stls",
            "POP_CA": str(errand.ca),
            "SSL_CERT_FILE": str(errand.ca),  # for libraries that know OpenSSL's own alone
            "NODE_EXTRA_CA_CERTS": str(errand.ca),
            "POP_USER": errand.user,
            "POP_PASSWORD": errand.password,
            "POP_KEEP": "yes" if errand.keep else "",
            "POP_MECHANISM": errand.mechanism,
            "POP_INBOX": str(self.inbox),
        }
        script = str(SCRIPTS / self.script)
        self.run(*self.options, script, environment=told | self.paths())
        new = {path.name for path in self.inbox.iterdir() if path.is_file()} - self._known
        if self.remembers:
            self._known |= new
        return [(self.inbox / name).read_bytes() for name in sorted(new)]

    def wire(self, message: bytes) -> Any:
        """Return what the client should have, if it has what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


class NetPop3(Library):
    """Perl's own."""

    name, language, program = "Net::POP3", "Perl", "perl"
    packages = ("libio-socket-ssl-perl", "libauthen-sasl-perl", "libdigest-hmac-perl")
    kept = Library.wire
    script = "net_pop3.pl"
    probe = ("-MNet::POP3", "-MIO::Socket::SSL", "-e", "print $Net::POP3::VERSION")
    mechanisms = ("CRAM-MD5", "APOP", "PLAIN", "USER")


class MailPop3Client(Library):
    """CPAN's Mail::POP3Client."""

    name, language, program = "Mail::POP3Client", "Perl", "perl"
    packages = ("libmail-pop3client-perl", "libio-socket-ssl-perl", "libdigest-hmac-perl")
    script = "mail_pop3client.pl"
    ways = (True,)
    remark = "knows no STLS"
    probe = ("-MMail::POP3Client", "-MIO::Socket::SSL", "-e", "print $Mail::POP3Client::VERSION")
    mechanisms = ("CRAM-MD5", "APOP", "USER")
    kept = Library.wire


class MailTransport(Library):
    """Mail::Box's."""

    name, language, program = "Mail::Transport::POP3", "Perl", "perl"
    packages = ("libmail-box-pop3-perl", "libio-socket-ssl-perl")
    script = "mail_transport.pl"
    probe = ("-MMail::Transport::POP3", "-e", "print $Mail::Transport::POP3::VERSION")
    ways = (True,)
    mechanisms = ("APOP", "USER")
    remark = "knows no STLS"
    kept = Library.wire


class RubyPop(Library):
    """Ruby's own."""

    name, language, packages, program = "net/pop", "Ruby", ("ruby",), "ruby"
    script, probe = "net_pop.rb", ("-rnet/pop", "-e", "puts Net::POP3::VERSION")
    ways = (True,)
    mechanisms = ("APOP", "USER")
    remark = "knows no STLS"
    kept = Library.wire


class PhpImap(Library):
    """PHP's imap extension, which is the University of Washington's c-client, as is alpine."""

    ways = (True,)
    remark = "for STLS speaks TLS 1.0, which popd does not"
    remembers = False

    name, language, packages, program = "imap (c-client)", "PHP", ("php-cli", "php-imap"), "php"
    script, probe = "imap.php", ("-r", "imap_alerts(); echo phpversion('imap');")
    kept = Library.wire


class JakartaMail(Library):
    """The Eclipse Foundation's, formerly JavaMail."""

    name, language, program = "Jakarta Mail", "Java", "java"
    packages = ("libjakarta-mail-java", "libjakarta-activation-java", "default-jdk-headless")
    script = "JakartaMail.java"
    probe = ("-version",)
    mechanisms = ("APOP", "PLAIN", "USER")
    jars = ("/usr/share/java/jakarta-mail.jar", "/usr/share/java/jakarta-activation.jar")
    kept = Library.wire

    @classmethod
    def paths(cls) -> dict[str, str]:
        """See `Library.paths`."""
        return {"CLASSPATH": ":".join(cls.jars)}

    @classmethod
    def missing(cls) -> str:
        """See `PopClient.missing`."""
        absent = [jar for jar in cls.jars if not Path(jar).exists()]
        return absent[0] if absent else "" if shutil.which("javac") else "javac"

    version = PopClient.version


class NodeLibrary(Library):
    """One of npm's.  None of them takes the dots away that are there twice."""

    language, program = "JavaScript", "node"
    packages = ("nodejs", "npm")
    ways = (True,)
    remark = "knows no STLS; leaves doubled dots"

    @classmethod
    def paths(cls) -> dict[str, str]:
        """See `Library.paths`."""
        return {"NODE_PATH": os.environ.get(NODE_MODULES, "")}

    @classmethod
    def _probed(cls) -> str:
        path = Path(os.environ.get(NODE_MODULES, ""), cls.modules[0], "package.json")
        return str(json.loads(path.read_bytes())["version"]) if path.exists() else ""

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`."""
        return re.sub(rb"^\.", b"..", self.wire(message), flags=re.MULTILINE).removesuffix(b"\r\n")


class NodePop3(NodeLibrary):
    """npm's node-pop3."""

    name, modules, script = "node-pop3", ("node-pop3",), "node_pop3.js"


class Yapople(NodeLibrary):
    """npm's yapople."""

    name, modules, script = "yapople", ("yapople",), "yapople.js"
    remembers = False


class NpmPoplib(NodeLibrary):
    """npm's poplib, the oldest of them."""

    name, modules, script = "poplib (npm)", ("poplib",), "poplib.js"
    mechanisms = ("CRAM-MD5", "USER")
    remark = f"{NodeLibrary.remark}; knows ASCII alone"

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`."""
        return bytes(octet & 0x7F for octet in super().kept(message))


class Poplib(PopClient):
    """Python's own, in this process; what it has is remembered for it."""

    name, language, program = "poplib", "Python", sys.executable
    mechanisms = ("APOP", "USER")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._known: set[bytes] = set()

    @classmethod
    def missing(cls) -> str:
        """See `PopClient.missing`."""
        return ""

    def version(self) -> str:
        """See `PopClient.version`."""
        return platform.python_version()

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        context = ssl.create_default_context(cafile=str(errand.ca))
        client: poplib.POP3
        if errand.implicit:
            client = poplib.POP3_SSL("localhost", errand.port, timeout=LIMIT, context=context)
        else:
            client = poplib.POP3("localhost", errand.port, timeout=LIMIT)
            client.stls(context)
        try:
            return self._fetched(client, errand)
        finally:
            client.close()

    def _fetched(self, client: poplib.POP3, errand: Errand) -> list[bytes]:
        if errand.mechanism == "APOP":
            client.apop(errand.user, errand.password)
        else:
            client.user(errand.user)
            client.pass_(errand.password)
        messages = []
        for item in client.uidl()[1]:
            number, uid = item.split(b" ")
            if uid not in self._known:
                self._known.add(uid)
                _, lines, octets = client.retr(int(number))
                message = b"".join(line + b"\r\n" for line in lines)
                assert len(message) == octets, item
                listed: Any = client.list(int(number))
                assert listed == b"+OK %s %d" % (number, octets), listed
                messages.append(message)
            if not errand.keep:
                client.dele(int(number))
        reply: Any = client.quit()
        assert reply == b"+OK bye", reply
        return messages

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`: it is what is on the wire."""
        return stored(message).replace(b"\n", b"\r\n")


LIBRARIES: Final = (
    Poplib,
    NetPop3,
    MailPop3Client,
    MailTransport,
    RubyPop,
    PhpImap,
    JakartaMail,
    NodePop3,
    Yapople,
    NpmPoplib,
)
