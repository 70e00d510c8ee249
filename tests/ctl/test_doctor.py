"""Tests of ``popctl doctor``: each check on a site that it has something to say about."""

from __future__ import annotations

import json
import os
import resource
import socket
import socketserver
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from popd import __version__
from popd.config import Settings
from popd.ctl.doctor import command, disks, finding, network, system
from popd.ctl.doctor.certificates import check_certificates, check_shown, is_for
from popd.ctl.doctor.command import examine
from popd.ctl.doctor.disks import check_mail, check_room
from popd.ctl.doctor.finding import Patient, output_of
from popd.ctl.doctor.network import check_login, check_ports
from popd.ctl.doctor.permissions import check_files, check_maildirs, check_state
from popd.ctl.doctor.system import (
    check_clock,
    check_fail2ban,
    check_limits,
    check_running,
    check_unit,
)
from popd.maildrop.look import look as look_at
from tests.ctl.test_configuration import ConfigurationCase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from popd.ctl.doctor.finding import Check

SOMEBODY = 4_000_000_000
"""The id of a user that there is not."""


class PatientCase(ConfigurationCase):
    """A site without a fault, as far as that goes."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        for path in (self.certificate, self.passwords, self.config):
            path.chmod(0o600)
        for path in (self.directory, self.state, self.mail):
            path.chmod(0o755)
        self.patient = Patient(
            str(self.config),
            Settings(
                certificate=(str(self.certificate),),
                auth=(f"popd-passwd:{self.passwords}",),
                maildrop=f"maildir:{self.mail}/{{local}}",
                state_directory=str(self.state),
            ),
            "mail.example.org",
            os.geteuid(),
            frozenset({os.getegid()}),
            deadline=time.monotonic() + 60,
        )

    def set(self, **settings: Any) -> None:
        """Change settings."""
        for key, value in settings.items():
            object.__setattr__(self.patient.settings, key, value)

    def found(self, check: Check) -> str:
        """Return what a check finds, a line each; each fault says what to do."""
        findings = list(check(self.patient))
        for one in findings:
            self.assertEqual(bool(one.remedy), one.level != "ok", one)
        return "\n".join(f"{one.level} {one.check}: {one.text}" for one in findings)

    def assertFine(self, check: Check) -> None:
        """Assert that a check finds nothing."""
        for line in self.found(check).splitlines():
            self.assertTrue(line.startswith("ok "), line)


class Server(socketserver.ThreadingTCPServer):
    """Says the same to everybody."""

    daemon_threads = True
    allow_reuse_address = True
    replies: ClassVar[dict[bytes, bytes]] = {}
    greeting = b"+OK hello\r\n"
    context: ssl.SSLContext | None = None
    implicit = False


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: Server

    def handle(self) -> None:
        """Answer."""
        connection = self.request
        if self.server.implicit:
            connection = self.start_tls(connection)
        connection.sendall(self.server.greeting)
        file = connection.makefile("rb")
        while line := file.readline(999):
            verb = line.split()[0]
            connection.sendall(self.server.replies.get(verb, b"+OK\r\n"))
            if verb == b"STLS":
                connection = self.start_tls(connection)
                file = connection.makefile("rb")
            if verb == b"QUIT":
                break
        connection.close()

    def start_tls(self, connection: socket.socket) -> socket.socket:
        """Speak TLS."""
        assert self.server.context is not None
        return self.server.context.wrap_socket(connection, server_side=True)


CAPA = b"+OK\r\nUIDL\r\nTOP\r\n%b.\r\n"


class Ports(PatientCase):
    """check_ports and check_login."""

    def serve(self, **attributes: Any) -> None:
        """Let somebody listen where popd should."""
        server = Server(("127.0.0.1", 0), Handler)
        server.replies = {b"CAPA": CAPA % b"STLS\r\n", b"STAT": b"+OK 3 120\r\n"}  # type: ignore[misc]
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(str(self.certificate))
        for key, value in attributes.items():
            setattr(server, key, value)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        endpoint = f"tcp:{server.server_address[1]}:interface=127.0.0.1"
        implicit = server.implicit
        self.set(listen=() if implicit else (endpoint,), listen_tls=(endpoint,) * implicit)

    def test_fine(self) -> None:
        """Ports that greet and speak TLS are fine, from the start or by STLS."""
        self.serve()
        self.assertIn("STLS starts TLS", self.found(check_ports))
        self.serve(implicit=True)
        self.assertIn("under TLS", self.found(check_ports))
        self.assertFine(check_ports)
        self.assertFine(check_shown)

    def test_wrong(self) -> None:
        """What does not answer as popd does is a problem."""
        self.serve(greeting=b"220 smtp\r\n")
        self.assertRegex(self.found(check_ports), r"\Aproblem .*: it said 220 smtp\Z")
        self.serve(greeting=b"")
        self.assertRegex(self.found(check_ports), "problem .*: no answer|it said")
        self.serve(replies={b"CAPA": b"+OK\r\nUSER\r\n.\r\n"})
        self.assertIn("but not popd", self.found(check_ports))
        self.serve(replies={b"CAPA": CAPA % b""})
        self.assertIn("problem port", self.found(check_ports))
        self.set(certificate=())
        self.assertRegex(self.found(check_ports), r"\Awarning .*: there is no TLS\Z")
        self.serve(replies={b"CAPA": b"-ERR no\r\n"})
        self.assertIn("it said -ERR no", self.found(check_ports))
        self.serve(replies={b"CAPA": b"+OK\r\n" + b"X%d\r\n" % 7 * 300 + b".\r\n"})
        self.assertIn("but not popd", self.found(check_ports))

    def test_nobody(self) -> None:
        """Where nobody listens, that is said; what cannot be reached is left out."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.set(
            listen=(f"tcp:{port}", f"tcp6:{port}", f"unix:{self.directory}/no"),
            listen_tls=("systemd:domain=INET:name=x", "haproxy:tcp:1"),
        )
        lines = self.found(check_ports).splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["problem"] * 3 + ["ok"] * 2)
        self.assertIn("nobody listens there", lines[0])

    def test_slow(self) -> None:
        """One that says nothing is given up."""
        self.patch(network, "_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.set(listen=(f"tcp:{server.getsockname()[1]}",), listen_tls=())
            self.assertIn("no answer: timed out", self.found(check_ports))
            self.patient.login = ("ada", b"x")
            self.assertIn("no answer: timed out", self.found(check_login))

    def test_login(self) -> None:
        """A log-in is tried if somebody says whose."""
        self.serve()
        self.assertIn("warning log-in: not tried", self.found(check_login))
        self.patient.login = ("ada", b"secret")
        self.assertIn("ada logs in at", self.found(check_login))
        self.serve(implicit=True)
        self.assertIn("and has 3 messages", self.found(check_login))
        self.serve(replies={b"CAPA": CAPA % b"", b"PASS": b"-ERR [AUTH] wrong\r\n"})
        self.assertIn("problem log-in: ada is refused: -ERR [AUTH] wrong", self.found(check_login))
        self.patient.login = ("ada", b"a\r\nDELE 1")
        self.assertIn("problem log-in: no such password", self.found(check_login))
        self.set(listen=("systemd:domain=INET:name=x",), listen_tls=())
        self.assertIn("warning log-in: not tried: no port", self.found(check_login))


class Certificates(PatientCase):
    """check_certificates and check_shown."""

    def put(self, *certificates: x509.Certificate) -> None:
        """Put certificates in the file."""
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
        self.certificate.write_bytes(pem)

    def make(self, begin: float, end: float, *, own: bool = False) -> x509.Certificate:
        """Make a certificate that is good from so many days on for so many."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.org")])
        other = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name if own else other)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now + timedelta(begin))
            .not_valid_after(now + timedelta(end))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("*.example.org")]), critical=False
            )
            .sign(key, hashes.SHA256())
        )

    def test_fine(self) -> None:
        """One with its chain, for the host, is fine."""
        authority = trustme.CA().create_child_ca()
        leaf = authority.issue_cert("mail.example.org")
        pems = leaf.cert_chain_pems
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in pems))
        self.assertFine(check_certificates)

    def test_dates(self) -> None:
        """One that has expired is a problem, one that soon will a warning."""
        for begin, end, text in (
            (-9.0, -0.5, "problem .*: it has expired on"),
            (-9.0, 5.5, "warning .*: it expires in 5 days"),
            (1.0, 90.0, "problem .*: not good before"),
            (-9.0, 90.5, "ok .*: good for 90 days"),
        ):
            self.put(self.make(begin, end))
            self.assertRegex(self.found(check_certificates), text)

    def test_chain(self) -> None:
        """A chain that is missing, wrong, or none is pointed out."""
        leaf = self.make(-1, 90)
        self.put(leaf)
        self.assertRegex(self.found(check_certificates), "warning .*: its issuer is not in the")
        self.put(leaf, self.make(-1, 90, own=True))
        self.assertIn("certificate 1 in it was not issued by", self.found(check_certificates))
        self.put(self.make(-1, 90, own=True))
        self.assertIn("it vouches for itself", self.found(check_certificates))

    def test_names(self) -> None:
        """One for another host is a problem."""
        self.patient.host = "pop.example.com"
        self.assertIn(
            "problem certificate names: they are for mail.example.org, not for pop.example.com",
            self.found(check_certificates),
        )
        for name, host, good in (
            ("*.example.org", "mail.example.org", True),
            ("*.example.org", "a.mail.example.org", False),
            ("*.example.org", ".example.org", False),
            ("*.example.org", "example.org", False),
            ("Mail.Example.ORG", "mail.example.org", True),
        ):
            self.assertIs(is_for(name, host), good, (name, host))

    def test_none(self) -> None:
        """None at all is a warning, one that cannot be read a problem."""
        self.certificate.write_text("x")
        self.assertRegex(self.found(check_certificates), "problem .*: cannot be read")
        self.set(certificate=())
        self.assertIn("warning certificate: there is none", self.found(check_certificates))

    def test_shown(self) -> None:
        """One that was renewed and is not shown yet is a problem; see `Ports` for the rest."""
        ports = Ports("test_fine")
        ports.certificate, ports.patient = self.certificate, self.patient
        ports.serve(implicit=True)
        self.addCleanup(ports.doCleanups)
        self.assertFine(check_shown)
        self.put(self.make(-1, 90))
        self.assertIn("problem certificate at", self.found(check_shown))
        self.certificate.unlink()
        self.assertIn("problem certificate at", self.found(check_shown))
        self.set(listen_tls=("tcp:1",))
        self.assertEqual(self.found(check_shown), "")


class Permissions(PatientCase):
    """check_files, check_state and check_maildirs."""

    def setUp(self) -> None:
        """Have a Maildir."""
        super().setUp()
        self.maildir = self.mail / "ada"
        for name in ("new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        for path in (self.maildir, *self.maildir.iterdir()):
            path.chmod(0o700)
        self.patient.maildirs = [("ada", os.fsencode(self.maildir)), ("bob", b"/nowhere/bob")]

    def test_fine(self) -> None:
        """A site as it should be."""
        for check in (check_files, check_state, check_maildirs):
            self.assertFine(check)

    def test_secrets(self) -> None:
        """Keys and passwords that everybody may read are a problem."""
        self.certificate.chmod(0o644)
        self.assertRegex(self.found(check_files), "problem private key .*: everybody may read it")
        self.set(private_key=(str(self.certificate),))
        self.assertIn("ok certificate file", self.found(check_files))
        self.passwords.chmod(0o604)
        self.assertRegex(self.found(check_files), "problem password file .*: everybody may read")

    def test_writable(self) -> None:
        """So is what everybody may change, be it by way of the directory."""
        self.config.chmod(0o646)
        self.assertRegex(self.found(check_files), "problem configuration .*: everybody may change")
        self.config.chmod(0o644)
        self.directory.chmod(0o777)
        self.assertRegex(self.found(check_files), f"everybody may change {self.directory}")
        self.directory.chmod(0o1777)
        self.assertFine(check_files)

    def test_groups(self) -> None:
        """A group that is not popd's and may write is a warning."""
        self.patient.gids = frozenset({7})
        self.config.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(self.config, 0, 8)
        self.assertRegex(self.found(check_files), "warning configuration .*: a group that is not")

    def test_unreadable(self) -> None:
        """What popd's user may not read is a problem; so is what somebody else owns."""
        self.patient.uid, self.patient.gids = SOMEBODY, frozenset()
        own = "belongs to" if os.geteuid() else "may not read it"
        self.assertRegex(self.found(check_files), f"problem private key .*: .*{own}")
        self.certificate.unlink()
        self.assertIn("problem private key", self.found(check_files))

    def test_group_may_read(self) -> None:
        """A key may be read by popd's group."""
        if os.geteuid():
            self.skipTest("only root can give files away")
        self.patient.uid, self.patient.gids = SOMEBODY, frozenset({7})
        for path in (self.certificate, self.passwords, self.config):
            os.chown(path, 0, 7)
            path.chmod(0o640)
        self.assertFine(check_files)
        os.chown(self.config, 65534, 7)
        self.assertRegex(self.found(check_files), "problem configuration .*: it belongs to ")

    def test_state(self) -> None:
        """Directories that popd cannot write to, or that everybody can, are a problem."""
        self.set(guess_table=f"{self.directory}/no/guesses")
        self.assertRegex(
            self.found(check_state), "problem directory of the guess table .*: No such"
        )
        self.state.chmod(0o777)
        self.assertIn("everybody may write to it", self.found(check_state))
        self.state.chmod(0o755)
        self.patient.uid = SOMEBODY
        self.assertIn("may not write", self.found(check_state))
        self.state.rmdir()
        self.state.write_text("")
        self.assertIn("it is no directory", self.found(check_state))

    def test_maildirs(self) -> None:
        """Maildirs that others can read or write, or popd cannot."""
        self.maildir.chmod(0o705)
        self.assertIn("warning Maildir of ada: everybody may list", self.found(check_maildirs))
        self.maildir.chmod(0o703)
        self.assertIn("problem Maildir of ada: everybody may write", self.found(check_maildirs))
        self.maildir.chmod(0o700)
        (self.maildir / "cur").rename(self.maildir / "old")
        self.assertRegex(self.found(check_maildirs), "problem Maildir of ada: .*/cur is missing")
        (self.maildir / "cur").symlink_to("old")
        self.assertRegex(self.found(check_maildirs), "problem .*/cur is no directory")
        self.patient.uid = SOMEBODY
        self.assertIn("may not read and write", self.found(check_maildirs))

    def test_many(self) -> None:
        """Of many that are wrong some are named."""
        self.maildir.chmod(0o703)
        self.patient.maildirs *= 50
        lines = self.found(check_maildirs).splitlines()
        self.assertEqual(len(lines), 21)
        self.assertIn("30 more", lines[-1])
        self.patient.maildirs = [("ada", os.fsencode(self.config) + b"/x")]
        self.assertIn("Not a directory", self.found(check_maildirs))


class Disks(PatientCase):
    """check_room and check_mail."""

    def setUp(self) -> None:
        """Have a Maildir."""
        super().setUp()
        self.maildir = self.mail / "ada"
        for name in ("new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        self.patient.maildirs = [("ada", os.fsencode(self.maildir)), ("bob", b"/nowhere/bob")]

    def deliver(self, name: str, content: bytes = b"Subject: x\n\nx\n") -> Path:
        """Put a message into the Maildir."""
        path = self.maildir / "new" / name
        path.write_bytes(content)
        return path

    def test_room(self) -> None:
        """Little room is a warning, none a problem; so with inodes; a large rest is enough."""

        class Status:
            f_bavail, f_blocks, f_frsize, f_favail, f_files = 50, 100, 4096, 50, 100

        self.patch(os, "statvfs", lambda _: Status)
        self.assertFine(check_room)
        Status.f_bavail = 4
        self.assertRegex(self.found(check_room), "warning disk of the mail .*: 4% of its room left")
        Status.f_bavail = 0
        Status.f_favail = 0
        self.assertEqual(self.found(check_room).count("problem "), 4)
        Status.f_bavail, Status.f_blocks, Status.f_files = 1 << 30, 1 << 40, 0
        self.assertFine(check_room)

    def test_not_there(self) -> None:
        """A disk that is not there is a problem."""
        self.set(state_directory="/nowhere")
        self.assertRegex(self.found(check_room), "problem disk of the state .*: No such file")
        self.assertIn("ok disk of the mail", self.found(check_room))

    def test_mail(self) -> None:
        """Names that tell the truth are fine."""
        self.deliver("1.a.host,S=14,W=17")
        self.deliver("2.b.host")
        self.assertEqual(
            self.found(check_mail),
            "ok maildrops: 2 messages in 1 maildrops looked at; for the other 1 there was no time,"
            " or no Maildir",
        )

    def test_sizes(self) -> None:
        """Names with wrong sizes are pointed out, some of them by name."""
        self.deliver("1.a.host,S=14,W=18")
        self.assertRegex(self.found(check_mail), r"problem .* has 17 octets on the wire, not W=18")
        for number in range(9):
            self.deliver(f"2.b{number}.host,S=15")
        lines = self.found(check_mail)
        self.assertRegex(lines, "warning .* has 14 octets, not S=15")
        self.assertIn("warning maildrops: and 4 more like that", lines)

    def test_duplicates(self) -> None:
        """Two files of one name are pointed out."""
        self.deliver("1.a.host")
        (self.maildir / "cur" / "1.a.host:2,S").write_bytes(b"Subject: y\n\ny\n")
        self.assertIn("2 files have a base name that another has", self.found(check_mail))

    def test_unique_ids(self) -> None:
        """Should two messages ever have one unique-id, that is a problem."""
        self.deliver("1.a.host")
        real = look_at

        def look(root: bytes) -> Any:
            stock = real(root)
            stock.snapshot.uids = [b"a", b"a"]
            return stock

        self.patch(disks, "look", look)
        self.assertIn("two messages have one unique-id", self.found(check_mail))

    def test_future(self) -> None:
        """Files from the future are pointed out."""
        os.utime(self.deliver("1.a.host"), (time.time() + 3600,) * 2)
        self.assertRegex(self.found(check_mail), "warning .*1.a.host is from the future")

    def test_unreadable(self) -> None:
        """A maildrop that cannot be read is a problem."""
        (self.maildir / "cur").rmdir()
        self.assertRegex(self.found(check_mail), "problem maildrop of ada: .*cur.*No such file")

    def test_vanished(self) -> None:
        """A message that vanishes meanwhile is none."""
        path = self.deliver("1.a.host,S=14,W=17")
        real = look_at

        def look(root: bytes) -> Any:
            stock = real(root)
            path.unlink()
            return stock

        self.patch(disks, "look", look)
        self.assertFine(check_mail)

    def test_time(self) -> None:
        """When the time is over, so is the look."""
        self.deliver("1.a.host")
        self.patient.deadline = 0
        self.assertIn("0 messages in 0 maildrops", self.found(check_mail))
        times = iter([0.0, 99.0, 99.0])
        self.patient.deadline = 1.0
        self.patch(time, "monotonic", lambda: next(times))
        self.assertIn("0 messages in 1 maildrops", self.found(check_mail))


class Systems(PatientCase):
    """The checks of what is around popd, with programs that say what the test says."""

    def setUp(self) -> None:
        """Have a place for programs."""
        super().setUp()
        self.programs = self.directory / "bin"
        self.programs.mkdir()
        self.patch(os, "environ", {**os.environ, "PATH": str(self.programs)})
        self.processes = [{"pid": os.getpid()}]
        self.patient.running = {"version": __version__, "processes": self.processes}

    def program(self, name: str, says: str, status: int = 0) -> None:
        """Make a program that says something."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
        path.chmod(0o755)

    def test_running(self) -> None:
        """A popd that does not answer, or is an old one, is pointed out."""
        self.assertFine(check_running)
        self.patient.running = {"version": "0.0", "processes": []}
        self.assertIn("warning popd: 0.0 runs", self.found(check_running))
        self.patient.running = None
        self.assertIn("warning popd: it does not answer", self.found(check_running))

    def test_clock(self) -> None:
        """A clock that is not kept right is pointed out."""
        self.program("timedatectl", "yes")
        self.assertFine(check_clock)
        self.program("timedatectl", "no")
        self.assertIn("warning clock: it is not synchronised", self.found(check_clock))
        self.program("timedatectl", "", 1)
        self.assertIn("cannot be told", self.found(check_clock))

    def unit(self, active: str, enabled: str, restarts: int = 0) -> str:
        """Return what is found if systemd says so."""
        self.program(
            "systemctl",
            f"LoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\nNRestarts={restarts}",
        )
        return self.found(check_unit)

    def test_unit(self) -> None:
        """A unit that is down, is not started at boot, or falls over is pointed out."""
        self.assertEqual(self.unit("active", "enabled"), "ok systemd: popd.service is active")
        self.assertIn("problem systemd: popd.service is failed", self.unit("failed", "enabled"))
        self.assertIn("warning systemd: popd.service is not st", self.unit("active", "disabled"))
        self.assertIn("restarted 3 times", self.unit("active", "enabled", 3))
        self.program("systemctl", "LoadState=not-found")
        self.assertFine(check_unit)
        self.program("systemctl", "", 1)
        self.assertFine(check_unit)

    def test_limits(self) -> None:
        """Too few open files are pointed out, and how many it takes is said."""
        self.patch(system, "_open_files", lambda _pid: 1024)
        self.processes *= 2
        self.assertIn(
            "warning limits: 1024 open files in each of 2 processes are enough for 616 sessions",
            self.found(check_limits),
        )
        (found,) = check_limits(self.patient)
        self.assertIn("LimitNOFILE=15100 ", found.remedy)
        self.patch(system, "_open_files", lambda _pid: 65_536)
        self.assertFine(check_limits)
        self.patient.running = None
        self.assertIn("popd does not run", self.found(check_limits))

    def test_open_files(self) -> None:
        """How many files a process may open the kernel says."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(system._open_files(os.getpid()), soft)
        self.assertEqual(system._open_files(1 << 30), 0)

    def test_fail2ban(self) -> None:
        """A fail2ban that does not look after popd is pointed out."""
        self.assertFine(check_fail2ban)
        self.program("fail2ban-client", "", 255)
        self.assertIn("does not run", self.found(check_fail2ban))
        self.program("fail2ban-client", "|- Number of jail: 1\n- Jail list: sshd, popd-x")
        self.assertIn("no jail popd", self.found(check_fail2ban))
        self.program("fail2ban-client", "`- Jail list:\tsshd, popd")
        filter_ = self.directory / "popd.conf"
        self.patch(system, "_FILTER", str(filter_))
        self.assertIn("there is no", self.found(check_fail2ban))
        filter_.write_text("")
        self.program("fail2ban-regex", "Lines: 1 lines, 0 ignored, 0 matched, 1 missed")
        self.assertIn("problem fail2ban: its filter", self.found(check_fail2ban))
        self.program("fail2ban-regex", "Lines: 1 lines, 0 ignored, 1 matched, 0 missed")
        self.assertFine(check_fail2ban)

    def test_programs(self) -> None:
        """Programs that are not there, fail or hang say nothing."""
        self.assertIsNone(output_of("there-is-no-such-program"))
        self.program("fails", "x", 1)
        self.assertIsNone(output_of("fails"))
        self.patch(finding, "_COMMAND_TIME", 0.05)
        (self.programs / "hangs").symlink_to("/bin/sleep")
        self.assertIsNone(output_of("hangs", "20"))


class Doctor(PatientCase):
    """popctl doctor."""

    def doctor(self, *options: str, status: int = 1) -> dict[str, dict[str, str]]:
        """Return what is found, by what was looked at."""
        ran = self.run_popctl("doctor", "--json", "--host", "mail.example.org", *options)
        self.assertEqual(ran.exit_code, status, ran.output)
        return {row["check"]: row for row in json.loads(ran.stdout)}

    def test_problem(self) -> None:
        """A popd that does not run is a problem, and the exit status says so."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        self.write(listen=f'"{endpoint}"', listen_tls='"none"')
        found = self.doctor()
        self.assertEqual(found[f"port {endpoint}"]["level"], "problem")
        self.assertEqual(found["configuration"]["level"], "ok")
        self.write(listen='"systemd:domain=INET:name=x"', listen_tls='"none"')
        found = self.doctor(status=0)
        self.assertNotIn("problem", {row["level"] for row in found.values()})
        self.assertIn("0 messages in 0", found["maildrops"]["text"])
        ran = self.run_popctl("doctor", "--host", "mail.example.org")
        self.assertRegex(ran.stdout, r"(?m)^warning +popd +it does not answer .*: start it")

    def test_configuration(self) -> None:
        """A configuration that popd does not start with ends the examination."""
        self.write(maildrop='"x"')
        found = self.doctor()
        self.assertEqual(list(found), ["configuration"])
        self.assertEqual(found["configuration"]["level"], "problem")

    def test_options(self) -> None:
        """As whom popd runs, and whose maildrop is looked at, can be said."""
        self.write(listen='"systemd:domain=INET:name=x"', listen_tls='"none"')
        (self.mail / "ada" / "new").mkdir(parents=True)
        (self.mail / "ada" / "cur").mkdir()
        for options in ((), ("--maildrop", "ada"), ("--", "--workers", "3")):
            self.assertIn("in 1 maildrops", self.doctor(*options, status=0)["maildrops"]["text"])
        self.assertIn("no such user", self.popctl("doctor", "--as", "nobody-at-all", status=1))
        password = self.directory / "password"
        password.write_text("secret\n")
        found = self.doctor("--user", "ada", "--password-file", str(password), status=0)
        self.assertIn("no port can be reached", found["log-in"]["text"])
        self.assertIn("give --password", self.popctl("doctor", "--user", "ada", status=2))

    def test_check_fails(self) -> None:
        """A check that fails itself is a finding, and the others are made."""

        def check_broken(_patient: Patient) -> Iterator[Any]:
            raise RuntimeError("oops")

        self.patch(command, "CHECKS", (check_broken, check_files))
        broken, *others = examine(self.patient)
        self.assertEqual((broken.check, broken.level), ("broken", "problem"))
        self.assertIn("RuntimeError: oops", broken.text)
        self.assertEqual(len(others), 3)
