"""Another configuration, other certificates, and an end: nobody is cut off, and nothing is lost."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from pathlib import Path
from typing import ClassVar

import trustme

from tests.e2e.crowd import Crowd
from tests.e2e.server import Client, RunningServer, ServerCase, until


class Load(Crowd):
    """Clients that come one after the other, in two threads; a context manager.

    :param case: whose server they come to.
    """

    def __init__(self, case: ServerCase) -> None:
        super().__init__()
        self._server = case.server
        self._context = case.site.client_context()
        self.done = 0
        self.problems: list[str] = []
        self.threads = [
            threading.Thread(target=self._run, args=(user,)) for user in ("alice", "bob")
        ]

    def _run(self, user: str) -> None:
        while not self.stop.is_set():
            try:
                with Client(self._server.tls_port, self._context) as client:
                    client.log_in(user)
                    client.expect(b"UIDL 1")
                    client.expect(b"QUIT")
                self.done += 1
            except Exception as error:  # noqa: BLE001 - all of them are counted
                self.problems.append(f"{type(error).__name__}: {error}")


class ReloadCase(ServerCase):
    """A server with a configuration file."""

    workers: ClassVar = "1"

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.server.stop()
        self.config = self.site.root / "popd.toml"
        self.configure()
        self.server = self.start("--workers", self.workers, "--config", str(self.config))
        self.settle()
        for user in ("alice", "bob"):
            self.site.deliver(user, b"Subject: x\n\nx\n")

    def settle(self) -> None:
        """Wait until the workers are there."""
        if self.workers != "1":
            until(lambda: self.server.log.count("accepts connections") == 2, "no workers")

    def configure(self, **more: str) -> None:
        """Write the configuration."""
        lines = {"drain_timeout": "30", **more}
        text = "\n".join(f"{name.replace('_', '-')} = {value}" for name, value in lines.items())
        self.config.write_text(text, encoding="utf-8")

    def reload(self, outcome: str = "Reloaded") -> None:
        """Reload, and wait for what becomes of it."""
        before = self.server.log.count(outcome)
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: self.server.log.count(outcome) > before, f"{outcome!r} is not in the log")

    def children(self) -> set[int]:
        """Return the processes of the workers."""
        pid = self.server.process.pid
        path = Path(f"/proc/{pid}/task/{pid}/children")
        return set(map(int, path.read_text(encoding="ascii").split()))


class AloneTests(ReloadCase):
    """One process."""

    def test_under_load(self) -> None:
        """Ten reloads refuse nobody and cut nobody off; who is there stays."""
        staying = self.logged_in("carol")
        self.site.deliver("carol", b"Subject: y\n\ny\n")
        with Load(self) as load:
            for _ in range(10):
                served = load.done
                self.reload()
                until(lambda served=served: load.done > served + 2, "nobody is served")  # type: ignore[misc]
        self.assertEqual(load.problems, [])
        self.assertGreater(load.done, 20)
        staying.expect(b"NOOP")
        staying.expect(b"QUIT")

    def test_new_setting(self) -> None:
        """New settings hold for who comes, and not for who is there."""
        self.assertIn(b"PLAIN", self.mechanisms())
        self.configure(sasl="'LOGIN,USER'")
        self.reload()
        self.assertNotIn(b"PLAIN", self.mechanisms())

    def mechanisms(self) -> bytes:
        """Return what a new client is offered."""
        client = self.tls_client()
        client.expect(b"CAPA")
        return client.body()

    def test_bad(self) -> None:
        """What cannot be used is said in a line, and all stays as it was."""
        for settings, said in (
            ({"no_such": "1"}, "there is no 'no-such'"),
            ({"default_domain": "'...'"}, "default-domain must be a domain"),
            ({"client_ca": "'/no/such/file'"}, "--client-ca: /no/such/file"),
            ({"log_format": "'json'"}, "--log-format cannot change without a restart"),
            ({"drain_timeout": "nonsense"}, "popd.toml: "),
        ):
            with self.subTest(said):
                self.configure(**settings)
                self.reload("Not reloaded: ")
                line = self.server.log.rpartition("Not reloaded: ")[2].splitlines()[0]
                self.assertIn(said, line)
                self.assertTrue(line.endswith("; all stays as it was"))
                self.logged_in().expect(b"QUIT")


class WorkersTests(AloneTests):
    """Several processes, of which new ones take over."""

    workers = "2"

    def test_generations(self) -> None:
        """Old workers serve whom they have, and end then; nobody calls that a death."""
        first = self.children()
        staying = self.logged_in()
        self.reload()
        until(lambda: len(self.children()) == 3, "the idle worker does not end")
        self.assertEqual(len(self.children() & first), 1)
        staying.expect(b"QUIT")
        until(lambda: len(self.children()) == 2, "the other worker does not end")
        self.assertFalse(self.children() & first)
        self.assertNotIn("died", self.server.log)

    def test_count(self) -> None:
        """There can be more workers, or fewer, but not one."""
        # The command line's --workers wins; so it is another server here.
        config = self.site.root / "more.toml"
        config.write_text("workers = 2", encoding="utf-8")
        self.server.stop()
        self.server = RunningServer(self.site, "--config", str(config), workers="")
        self.server.__enter__()
        self.addCleanup(self._finish, self.server)
        config.write_text("workers = 3", encoding="utf-8")
        self.reload()
        until(lambda: len(self.children()) == 3, "there are not three workers")
        config.write_text("workers = 1", encoding="utf-8")
        self.reload("Not reloaded: --workers")


class EndpointTests(ServerCase):
    """Where popd listens, from the configuration alone."""

    def test_endpoints(self) -> None:
        """Endpoints come and go; those that stay are not touched."""
        for workers in ("1", "2"):
            with self.subTest(workers):
                self.server.stop()
                config = self.site.root / "popd.toml"
                first, second = f"unix:{self.site.root}/first", f"unix:{self.site.root}/second"
                config.write_text(f"listen = '{first}'", encoding="utf-8")
                self.server = RunningServer(
                    self.site, "--config", str(config), workers=workers, listen=False
                )
                self.server.__enter__()
                self.addCleanup(self._finish, self.server)
                Client(str(self.site.root / "first")).close()
                config.write_text(f"listen = ['{first}', '{second}']", encoding="utf-8")
                self.hang_up("Reloaded")
                for name in ("first", "second"):
                    Client(str(self.site.root / name)).close()
                config.write_text(f"listen = ['{second}', 'unix:/no/such/place']", encoding="utf-8")
                self.hang_up("Not reloaded: --listen unix:/no/such/place: cannot listen: ")
                for name in ("first", "second"):
                    Client(str(self.site.root / name)).close()
                config.write_text(f"listen = '{second}'", encoding="utf-8")
                self.hang_up("Reloaded")
                Client(str(self.site.root / "second")).close()
                self.assertRaises(OSError, Client, str(self.site.root / "first"))

    def hang_up(self, outcome: str) -> None:
        """Reload."""
        before = self.server.log.count(outcome)
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: self.server.log.count(outcome) > before, f"{outcome!r} is not in the log")


class CertificateTests(ReloadCase):
    """Certificates that change while popd runs."""

    workers = "2"

    def serial(self, name: str = "localhost") -> int:
        """Return the serial number of the certificate that a client is shown."""
        return int(self.shown(name)["serialNumber"], 16)

    def shown(self, name: str = "localhost") -> dict[str, str]:
        """Return the certificate that a client that asks for *name* is shown."""
        context = ssl.create_default_context(cafile=str(self.authorities()))
        context.check_hostname = False
        client = Client(self.server.tls_port, greeted=False)
        self.addCleanup(client.close)
        connection = context.wrap_socket(client.socket, server_hostname=name)
        found = connection.getpeercert()
        connection.close()
        return found  # type: ignore[return-value]

    def authorities(self) -> Path:
        """Return a file with all authorities of this test."""
        path = self.site.root / "authorities.pem"
        path.write_bytes(self.site.ca.read_bytes() + self.authority.cert_pem.bytes())
        return path

    authority = trustme.CA()

    def renewed(self, *names: str) -> trustme.LeafCert:
        """Return a new certificate."""
        return self.authority.issue_cert(*(names or ("localhost",)))

    def test_renewal(self) -> None:
        """Files that are replaced are taken over by themselves, unless they do not match."""
        old = self.serial()
        new = self.renewed()
        fresh = self.site.root / "fresh.pem"
        fresh.write_bytes(b"".join(pem.bytes() for pem in new.cert_chain_pems))
        fresh.replace(self.site.certificate)
        until(lambda: "does not belong to the certificate" in self.server.log, "it is not noticed")
        self.assertEqual(self.serial(), old)
        fresh.write_bytes(new.private_key_pem.bytes())
        fresh.replace(self.site.private_key)
        until(lambda: self.serial() != old, "the new certificate is not used")
        self.logged_in_anyhow()

    def logged_in_anyhow(self) -> None:
        """Log in with the new certificate."""
        context = ssl.create_default_context(cafile=str(self.authorities()))
        with Client(self.server.tls_port, context) as client:
            client.log_in("alice")
            client.expect(b"QUIT")

    def test_links(self) -> None:
        """So are links that come to point elsewhere."""
        live = self.site.root / "live"
        for generation in ("1", "2"):
            directory = self.site.root / f"archive{generation}"
            directory.mkdir()
            leaf = self.renewed("mail.example.org")
            (directory / "fullchain.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
            (directory / "privkey.pem").write_bytes(leaf.private_key_pem.bytes())
        names = self.site.root / "names"
        names.mkdir()
        live.symlink_to(self.site.root / "archive1")
        (names / "mail.example.org").symlink_to(live)
        self.configure(certificate_dir=f"'{names}'")
        self.reload()
        old = self.serial("mail.example.org")
        self.assertNotEqual(old, self.serial())
        (self.site.root / "new").symlink_to(self.site.root / "archive2")
        (self.site.root / "new").replace(live)
        until(lambda: self.serial("mail.example.org") != old, "the new certificate is not used")

    def test_names(self) -> None:
        """Each name has its certificate; a wildcard is for one label; there is a default."""
        names = self.site.root / "names"
        names.mkdir()
        for file, *for_names in (
            ("one.pem", "one.example.org"),
            ("wild.pem", "*.example.net", "example.net"),
        ):
            leaf = self.renewed(*for_names)
            (names / file).write_bytes(
                leaf.cert_chain_pems[0].bytes() + leaf.private_key_pem.bytes()
            )
        self.configure(certificate_dir=f"'{names}'")
        self.reload()
        default = self.serial()
        wild = self.serial("a.example.net")
        self.assertEqual(self.serial("example.net"), wild)
        self.assertEqual(self.serial("A.EXAMPLE.NET"), wild)
        self.assertEqual(self.serial("a.b.example.net"), default)
        self.assertEqual(self.serial("two.example.org"), default)
        self.assertEqual(len({wild, default, self.serial("one.example.org")}), 3)


class DrainTests(ReloadCase):
    """The end."""

    workers = "2"

    def ended(self) -> bool:
        """Return whether popd has ended."""
        return self.server.process.poll() is not None

    def shut(self) -> bool:
        """Return whether nobody is let in any more."""
        try:
            self.tls_client()
        except (OSError, AssertionError):  # refused, or closed before the greeting
            return True
        return False

    def test_finish(self) -> None:
        """Who is logged in may finish, who is not may come again, and nobody else is let in."""
        waiting = self.tls_client()
        honest = self.logged_in()
        honest.expect(b"DELE 1")
        self.server.process.terminate()
        self.assertTrue(waiting.line().startswith(b"-ERR [SYS/TEMP] "))
        until(self.shut, "somebody is let in")  # of two workers one may be a moment later
        honest.expect(b"NOOP")
        honest.expect(b"QUIT")
        until(self.ended, "popd does not end")
        self.assertEqual(self.site.messages("alice"), [])

    def test_impatient(self) -> None:
        """A second signal ends the waiting, between commands, and removes nothing."""
        honest = self.logged_in()
        honest.expect(b"DELE 1")
        self.server.process.terminate()
        time.sleep(0.5)
        honest.expect(b"NOOP")
        self.server.process.terminate()
        self.assertTrue(honest.line().startswith(b"-ERR [SYS/TEMP] "))
        until(self.ended, "popd does not end")
        self.assertEqual(len(self.site.messages("alice")), 1)
        self.assertIn("drained", self.server.log)

    def test_timeout(self) -> None:
        """So does the end of the time, and a message that is being sent is sent whole."""
        self.configure(drain_timeout="1")
        self.reload()
        self.site.deliver("alice", b"Subject: big\n\n" + (b"x" * 70 + b"\n") * 300_000)
        client = self.tls_client(receive_buffer=4096)
        client.log_in("alice")
        client.send(b"RETR 2\r\n")
        client.line()
        self.server.process.terminate()
        time.sleep(2.5)
        self.assertEqual(client.body().count(b"\r\n"), 300_002)
        self.assertTrue(client.line().startswith(b"-ERR [SYS/TEMP] "))
        until(self.ended, "popd does not end")
