"""Where things are that a process needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import popd
from popd.sandbox.places import around, interpreter, python, socket_directory


class AroundTests(SynchronousTestCase):
    """The directories that decide what a file is."""

    def setUp(self) -> None:
        """Make a directory."""
        self.root = Path(os.path.realpath(self.mktemp()))
        self.root.mkdir()

    def around(self, name: str) -> set[str]:
        """Return them, as they are called from here."""
        return {os.path.relpath(path, self.root) for path in around(str(self.root / name))}

    def link(self, name: str, target: str) -> None:
        """Make a link."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).symlink_to(target)

    def test_plain(self) -> None:
        """Its own, whether it is there or not."""
        self.assertEqual(self.around("etc/passwd"), {"etc"})

    def test_acme(self) -> None:
        """A link into an archive, whose next file has another name."""
        self.link("live/name/cert.pem", "../../archive/name/cert1.pem")
        self.assertEqual(self.around("live/name/cert.pem"), {"live/name", "archive/name"})

    def test_directories(self) -> None:
        """A link from one release to the next."""
        self.link("current", "releases/5")
        self.assertEqual(self.around("current/cert.pem"), {"current", "releases", "releases/5"})

    def test_absolute(self) -> None:
        """A link that leads somewhere else altogether."""
        self.link("cert.pem", str(self.root / "far/away.pem"))
        self.assertEqual(self.around("cert.pem"), {".", "far"})

    def test_round(self) -> None:
        """Links that lead round and round."""
        self.link("one", "two")
        self.link("two", "one")
        self.assertEqual(self.around("one"), {"."})

    def test_never_all(self) -> None:
        """What is in the root directory, or at home, stands for itself."""
        self.assertEqual(around("/popd.toml"), {"/popd.toml"})
        home = os.path.expanduser("~")
        self.assertEqual(around(f"{home}/popd.toml"), {f"{home}/popd.toml"})

    def test_relative(self) -> None:
        """A relative path begins where the process is."""
        self.assertEqual(around("popd.toml"), {str(Path.cwd())})


class PythonTests(SynchronousTestCase):
    """Where Python is."""

    def test_modules(self) -> None:
        """All that is loaded is covered, and nothing covers everything."""
        places = {path.rstrip("/") for path in python()}
        self.assertEqual(places & {"", "/usr", "/usr/local", "/etc"}, set())
        covered = tuple(f"{path}/" for path in [*places, "/usr/lib", "/usr/local/lib"])
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if file and file.startswith("/"):
                self.assertTrue(file in places or file.startswith(covered), file)

    def test_in_place(self) -> None:
        """Of a popd that is installed in place its package is there, and not what it lies in."""
        package = str(Path(popd.__file__).parent)
        if "-packages/" not in package:
            self.assertIn(package, set(python()))
            self.assertNotIn(str(Path(package).parent), set(python()))

    def test_interpreter(self) -> None:
        """Python can be executed."""
        self.assertIn(os.path.realpath(sys.executable), set(interpreter()))


class SocketTests(SynchronousTestCase):
    """UNIX sockets of endpoints."""

    def test_directory(self) -> None:
        """The directory is told from what follows the path."""
        for endpoint, directory in (
            ("unix:/run/popd/pop3:mode=660", "/run/popd"),
            ("unix:address=/run/popd/pop3", "/run/popd"),
            (r"unix:/run/a\:b/pop3:mode=660", "/run/a:b"),
            ("tcp:110", ""),
            ("", ""),
        ):
            self.assertEqual(socket_directory(endpoint), directory)
