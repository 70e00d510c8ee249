"""Tests of `popd.maildrop.mounts`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.maildrop.interfaces import IPlacedMaildrop
from popd.maildrop.maildir import Maildir
from popd.maildrop.mounts import Mounts, disk_of

TABLE = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:25 / /srv/mail rw shared:2 master:3 - ext4 /dev/sdb1 rw
31 30 0:40 / /srv/mail/one rw - nfs4 files.example.org:/one rw,hard
32 30 0:41 / /srv/mail/two rw - nfs4 files.example.org:/two rw,hard
33 30 0:42 / /srv/mail/three rw - cifs //other.example.org/mail rw
34 30 0:43 / /srv/mail/a\\040b rw - fuse.hung hung rw
35 30 0:44 / /srv/mail/six rw - nfs [2001:db8::1]:/six rw
36 30 0:45 / /srv/mail/none rw - tmpfs  rw
this is no line
"""


class MountsTests(SynchronousTestCase):
    """What disk a path is on."""

    def setUp(self) -> None:
        """Write a table."""
        self.table = Path(self.mktemp())
        self.table.write_text(TABLE, encoding="ascii")

    def test_disks(self) -> None:
        """The longest mount point counts; what has one server is one disk."""
        mounts = Mounts(str(self.table))
        for path, disk in (
            (b"/home/x/Maildir", b"254:1"),
            (b"/srv/mail/x", b"0:25"),
            (b"/srv/mail", b"0:25"),
            (b"/srv/mailx", b"254:1"),
            (b"/srv/mail/one/joe", b"files.example.org"),
            (b"/srv/mail/two/joe", b"files.example.org"),
            (b"/srv/mail/three", b"//other.example.org"),
            (b"/srv/mail/a b/joe", b"0:43"),
            (b"/srv/mail/six/joe", b"[2001:db8::1]"),
            (b"/srv/mail/none/joe", b"0:45"),
        ):
            self.assertEqual(mounts.disk(path), disk, path)

    def test_above(self) -> None:
        """What is mounted there and above is told, not what is beneath or beside."""
        mounts = Mounts(str(self.table))
        for path, numbers in (
            (b"/srv/mail", {22, 30}),
            (b"/srv/mail/", {22, 30}),
            (b"/srv/mail/one/joe", {22, 30, 31}),
            (b"/srv/mailx", {22}),
            (b"/", {22}),
        ):
            found = {int(line.split()[0]) for line in mounts.above(path)}
            self.assertEqual(found, numbers, path)

    def test_nothing_mounted(self) -> None:
        """Where the table is empty, or says nothing of a path, all is one disk."""
        self.table.write_text("", encoding="ascii")
        self.assertEqual(Mounts(str(self.table)).disk(b"/srv/mail"), b"")

    def test_no_table(self) -> None:
        """So it is where there is none; it is looked for again."""
        mounts = Mounts(str(self.table) + ".not")
        self.assertEqual(mounts.disk(b"/srv/mail"), b"")
        self.table.rename(str(self.table) + ".not")
        self.assertEqual(mounts.disk(b"/srv/mail"), b"0:25")

    def test_maildir(self) -> None:
        """A Maildir says where it is, and stays there for its session."""
        maildrop = Maildir(b"/srv/mail/a\nb")
        self.assertTrue(verifyObject(IPlacedMaildrop, maildrop))
        self.assertEqual(maildrop.place, (disk_of(b"/srv/mail"), r"'/srv/mail/a\nb'"))
        self.assertIs(maildrop.place, maildrop.place)

    def test_mounted_meanwhile(self) -> None:
        """What is mounted or unmounted later is known at once."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        path = os.fsencode(place)
        before = disk_of(path)
        self.assertEqual(disk_of(path), before)
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise SkipTest("needs the right to mount")
        try:
            status = place.stat()
            device = b"%d:%d" % (os.major(status.st_dev), os.minor(status.st_dev))
            self.assertEqual(disk_of(path + b"/new"), device)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
        self.assertEqual(disk_of(path), before)
