"""Database servers from the distribution, each in a directory of its own and on loopback only."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pymysql
from twisted.trial.unittest import SkipTest

from tests.e2e.launch import free_port
from tests.e2e.server import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PASSWORD", "MariaDB", "PostgreSQL"]

PASSWORD: Final = "the ' \\ database's %s own"
"""The password of the databases' users; none is easy to quote."""


class Program:
    """A database server, made anew.

    :param user: as whom it runs if the test runs as root, which it must not.
    :raises SkipTest: there is no such program.
    """

    user: str
    package: str

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.root = Path(self._directory.name)
        self.root.chmod(0o755)
        self.data = self.root / "data"
        self.port = free_port()
        self._as: dict[str, Any] = {}
        try:
            self._hand_over()
            self.make()
            self.start()
            self.prepare()
        except BaseException:
            self.close()
            raise

    def _hand_over(self) -> None:
        if os.getuid() == 0:
            entry = pwd.getpwnam(self.user)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.root, entry.pw_uid, entry.pw_gid)

    def run(self, *command: str) -> None:
        """Run a program of the server's to its end."""
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, check=False, timeout=60, **self._as
        )
        if done.returncode:
            raise AssertionError(f"{command[0]}: {done.stdout!r}{done.stderr!r}")

    def find(self, name: str, *places: str) -> str:
        """Return the path of a program."""
        path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *places]))
        if path is None:
            raise SkipTest(f"needs {name}: apt-get install {self.package}")
        return path

    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )
        until(self._answers, f"{type(self).__name__} does not answer")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.root / "log").read_text(errors="replace"))
        try:
            self.connect().close()
        except (psycopg.OperationalError, pymysql.OperationalError):
            return False
        return True

    def stop(self) -> None:
        """End it at once, with all connections.  A second call does nothing."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(self.stop_signal)
            self.process.wait(LIMIT)

    def freeze(self) -> None:
        """Let it neither answer nor end any connection."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [pid, *map(int, children.split())]

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        self._directory.cleanup()

    stop_signal = signal.SIGTERM

    def make(self) -> None:
        """Make the files that it works with."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Return the command that runs it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make a user ``popd`` and a database ``mail``."""
        raise NotImplementedError

    def connect(self) -> Any:
        """Return a connection of its administrator."""
        raise NotImplementedError

    def settings(self) -> str:
        """Return what popd's TOML file says about how to connect."""
        raise NotImplementedError

    def administrator(self) -> str:
        """Return what a TOML file says about how to connect as the administrator."""
        raise NotImplementedError

    def execute(self, *statements: str) -> None:
        """Execute statements as the administrator."""
        connection = self.connect()
        try:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
        finally:
            connection.close()


class PostgreSQL(Program):
    """PostgreSQL."""

    user = "postgres"
    package = "postgresql"
    stop_signal = signal.SIGINT

    def find(self, name: str, *places: str) -> str:
        """Look also where Debian keeps what is not for everybody."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        return super().find(name, *places, *map(str, versions))

    def make(self) -> None:
        """Run initdb."""
        secret = self.root / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        arguments = ("--auth=scram-sha-256", f"--pwfile={secret}", "--username=admin")
        self.run(self.find("initdb"), "-D", str(self.data), "--no-sync", "-E", "UTF8", *arguments)

    def command(self) -> Sequence[str]:
        """Return the command."""
        options = (f"unix_socket_directories={self.root}", f"port={self.port}", "fsync=off")
        flags = [part for option in options for part in ("-c", option)]
        return [self.find("postgres"), "-D", str(self.data), *flags]

    def prepare(self) -> None:
        """Make the user and the database."""
        with psycopg.connect(**self._address, dbname="postgres", autocommit=True) as connection:
            literal = psycopg.sql.Literal(PASSWORD)
            connection.execute(psycopg.sql.SQL("CREATE USER popd PASSWORD {}").format(literal))
            connection.execute("CREATE DATABASE mail")
        self.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO popd")

    @property
    def _address(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": "admin", "password": PASSWORD}

    def connect(self) -> Any:
        """Return a connection, to a database that is there from the beginning if need be."""
        try:
            return psycopg.connect(**self._address, dbname="mail")
        except psycopg.OperationalError as error:
            if "does not exist" not in str(error):
                raise
            return psycopg.connect(**self._address, dbname="postgres")

    def settings(self) -> str:
        """Return how to connect."""
        return f'host = "127.0.0.1"\nport = {self.port}\ndbname = "mail"\nuser = "popd"\n'

    def administrator(self) -> str:
        """Return how the administrator connects."""
        return f"host = '127.0.0.1'\nport = {self.port}\ndbname = 'mail'\nuser = 'admin'\n"


class MariaDB(Program):
    """MariaDB."""

    user = "mysql"
    package = "mariadb-server"

    def make(self) -> None:
        """Run mariadb-install-db."""
        self.run(
            self.find("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self) -> Sequence[str]:
        """Return the command."""
        return [
            self.find("mariadbd", "/usr/sbin"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.root}/socket",
            f"--pid-file={self.root}/pid",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
        ]

    def prepare(self) -> None:
        """Make the user and the database."""
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE USER popd@'127.0.0.1' IDENTIFIED BY %s", [PASSWORD])
            cursor.execute("ALTER USER root@localhost IDENTIFIED BY %s", [PASSWORD])
            cursor.execute("CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            cursor.execute("GRANT SELECT ON mail.* TO popd@'127.0.0.1'")
        connection.close()

    def connect(self) -> Any:
        """Return a connection."""
        address: dict[str, Any] = {"unix_socket": f"{self.root}/socket", "user": "root"}
        try:
            return pymysql.connect(**address, password=PASSWORD, database="mail")
        except pymysql.OperationalError:  # it is new
            return pymysql.connect(**address)

    def settings(self) -> str:
        """Return how to connect."""
        return f'host = "127.0.0.1"\nport = {self.port}\ndatabase = "mail"\nuser = "popd"\n'

    def administrator(self) -> str:
        """Return how the administrator connects."""
        return f"unix_socket = '{self.root}/socket'\ndatabase = 'mail'\nuser = 'root'\n"
