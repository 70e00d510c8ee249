"""Tests of `popd.operate.place`."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from popd.operate.place import MAX_PATH, Place, peer_of


class PlaceTests(SynchronousTestCase):
    """A socket gets its place, and takes nobody else's."""

    def setUp(self) -> None:
        """Have a directory; paths of sockets are short."""
        directory = tempfile.TemporaryDirectory(prefix="popd-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "control"

    def place(self) -> Place:
        """Take the place."""
        place = Place(str(self.path))
        self.addCleanup(place.close)
        return place

    def refused(self, path: str = "") -> str:
        """Return why the place cannot be had."""
        error = self.assertRaises(OSError, Place, path or str(self.path))
        return str(error.strerror)

    def test_new(self) -> None:
        """It is its owner's alone, can be connected to, and is removed."""
        place = self.place()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            server, _ = place.socket.accept()
            with server:
                self.assertEqual(peer_of(server), os.geteuid())
        place.close()
        self.assertEqual(list(self.path.parent.iterdir()), [])
        place.close()

    def test_live(self) -> None:
        """One that is in use is left alone."""
        first = self.place()
        self.assertEqual(self.refused(), "another popd listens there")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
        first.close()

    def test_busy(self) -> None:
        """One whose owner does not accept is in use all the same."""
        self.place()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertEqual(self.refused(), "another popd listens there")

    def test_stale(self) -> None:
        """One that nobody listens on any more is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        before = self.path.stat().st_ino
        self.place()
        self.assertNotEqual(self.path.stat().st_ino, before)

    def test_successor(self) -> None:
        """Who is replaced leaves the place of its successor alone."""
        first = self.place()
        first.socket.close()
        second = self.place()
        first.close()
        self.assertTrue(self.path.exists())
        second.close()
        self.assertFalse(self.path.exists())

    def test_something_else(self) -> None:
        """Files, links and directories are left alone."""
        self.path.write_text("precious")
        self.assertIn("no socket", self.refused())
        self.assertEqual(self.path.read_text(), "precious")
        link = self.path.with_name("link")
        link.symlink_to(self.path)
        self.assertIn("no socket", self.refused(str(link)))

    def test_no_way(self) -> None:
        """A path that is too long, or in no directory, is refused, and leaves nothing behind."""
        self.assertIn("at most", self.refused("/" + "x" * MAX_PATH))
        self.assertEqual(self.refused(str(self.path / "x")), "No such file or directory")
        self.assertEqual(list(self.path.parent.iterdir()), [])

    def test_foreign(self) -> None:
        """Another user's socket is left alone."""
        if os.geteuid():
            self.skipTest("only root can make another user's socket")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        os.chown(self.path, 65534, -1)
        self.assertIn("another user's", self.refused())
