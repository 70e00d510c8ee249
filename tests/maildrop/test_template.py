"""Tests of `popd.maildrop.template` and `popd.maildrop.ground`: where Maildirs are, and are not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from popd.maildrop.interfaces import (
    IRelocatingStore,
    MaildropPermanentError,
    MaildropTemporaryError,
)
from popd.maildrop.template import MaildirStore
from popd.maildrop.user import UserName
from tests.maildrop.helpers import MaildirTestCase

ALICE = UserName("alice", "example.org")
BOB = UserName("bob")


def place(template: str, user: UserName = ALICE) -> bytes:
    """Return the path of a user's Maildir."""
    return MaildirStore.from_template(template).maildrop(user)._root


class TemplateTests(SynchronousTestCase):
    """What a template means."""

    def test_placeholders(self) -> None:
        """Each placeholder gives way to its part of the name, wherever and however often."""
        for template, path in (
            ("/srv/{domain}/{local}/Maildir", b"/srv/example.org/alice/Maildir"),
            ("/srv/{user}", b"/srv/alice@example.org"),
            ("/{local}/x-{local}-{domain}", b"/alice/x-alice-example.org"),
            ("/srv/shared", b"/srv/shared"),
        ):
            self.assertEqual(place(f"maildir:{template}"), path)

    def test_bare_name(self) -> None:
        """A user without a domain has a Maildir where the template does not ask for one."""
        self.assertEqual(place("maildir:/srv/{local}/{user}", BOB), b"/srv/bob/bob")

    def test_no_domain(self) -> None:
        """A user without a domain has none where the template does."""
        with self.assertRaises(MaildropPermanentError) as caught:
            place("maildir:/srv/{domain}/{local}", BOB)
        self.assertIn("'bob'", str(caught.exception))

    def test_once(self) -> None:
        """A name that looks like a placeholder is taken as it is."""
        name = UserName("{domain}", "{local}")
        self.assertEqual(place("maildir:/srv/{domain}/{local}", name), b"/srv/{local}/{domain}")

    def test_any_alphabet(self) -> None:
        """Paths are UTF-8, and octets of the template that are not stay what they are."""
        template = "maildir:/srv/\udcff/{local}"
        self.assertEqual(place(template, UserName("j\xf6rg")), b"/srv/\xff/j\xc3\xb6rg")

    def test_hostile_names(self) -> None:
        """No name leads out of the tree, even one that was never checked before."""
        for template, names in (
            ("{local}", ["..", ".", "a/b", "../../etc", "/etc", "a\0b", ""]),
            ("{user}", ["..", ".", "a/b", "a/../../b", "/etc", "a\0b", ""]),
        ):
            for name in names:
                with self.assertRaises(MaildropPermanentError, msg=ascii(name)):
                    place(f"maildir:/srv/{template}/Maildir", UserName(name))
        for domain in ("..", ".", "a/b", "../b", "/etc", "a\0b", ""):
            with self.assertRaises(MaildropPermanentError):
                place("maildir:/srv/{domain}/Maildir", UserName("a", domain))

    def test_fixed(self) -> None:
        """The fixed part is the directory that every user's Maildir is in."""
        for template, fixed in (
            ("/srv/mail/{domain}/{local}/Maildir", "/srv/mail"),
            ("/srv/mail/x-{local}", "/srv/mail"),
            ("/srv/mail//{local}", "/srv/mail"),
            ("/{local}", "/"),
            ("/srv/shared/Maildir", "/srv/shared/Maildir"),
            ("/srv/shared/", "/srv/shared"),
        ):
            self.assertEqual(MaildirStore.from_template(f"maildir:{template}").fixed, fixed)

    def test_interface(self) -> None:
        """It provides IRelocatingStore."""
        self.assertTrue(verifyObject(IRelocatingStore, MaildirStore.from_template("maildir:/x")))

    def test_beneath(self) -> None:
        """Nobody's Maildir is anywhere but beneath the root, by default the fixed part."""
        store = MaildirStore.from_template("maildir:/srv/mail/{user}")
        self.assertEqual(store.root, "/srv/mail")
        for wide in ("/srv", "/srv/", "/"):
            wider = MaildirStore.from_template("maildir:/srv/mail/{user}", root=wide)
            self.assertEqual(wider.root, wide.rstrip("/") or "/")
            self.assertEqual(wider.path(BOB, "maildir:/srv/{user}"), b"/srv/bob")
        for place in (
            *("/srv/{user}", "/srv/mail{user}", "/srv/mailbox/{user}", "/{user}", "/etc/x"),
            *("/srv/mail/../{user}", "/srv/mail/x/../../{user}", "/srv/mail/{user}/.."),
        ):
            with self.assertRaises(MaildropPermanentError) as caught:
                store.maildrop_at(f"maildir:{place}", BOB)
            self.assertIn("--mail-root /srv/mail", str(caught.exception))
        for template in ("/srv/mail/{user}", "/srv/mai/{user}", "/srv/mail2/{user}"):
            self.assertRaises(
                ValueError, MaildirStore.from_template, f"maildir:{template}", root="/srv/mail/x"
            )
        self.assertRaises(ValueError, MaildirStore.from_template, "maildir:/srv/{user}/../../x")

    def test_linked_root(self) -> None:
        """Links down to the root are the site's, and resolved once."""
        real = Path(os.path.realpath(self.mktemp()))
        (real / "disk").mkdir(parents=True)
        (real / "mail").symlink_to("disk")
        for template, root, path in (
            ("mail/{user}", "", "disk/bob"),
            ("mail/users/{user}", "mail", "disk/users/bob"),
            ("mail/x-{user}", "", "disk/x-bob"),
            ("mail/{user}", ".", "mail/bob"),
        ):
            store = MaildirStore.from_template(
                f"maildir:{real}/{template}", root=root and os.path.normpath(real / root)
            )
            self.assertEqual(store.maildrop(BOB)._root, os.fsencode(real / path))

    def test_elsewhere(self) -> None:
        """One user's Maildir may be where another template says."""
        store = MaildirStore.from_template("maildir:/srv/{user}", root="/")
        for template, path in (
            ("/home/{local}/Maildir", b"/home/alice/Maildir"),
            ("/home/x/Maildir", b"/home/x/Maildir"),
        ):
            self.assertEqual(store.maildrop_at(f"maildir:{template}", ALICE)._root, path)
        for template in ("maildir:/{home}", "maildir:x", "mbox:/x", "maildir:/home/{domain}"):
            with self.assertRaises(MaildropPermanentError) as caught:
                store.maildrop_at(template, BOB)
            self.assertIn("'bob': ", str(caught.exception))


class WrongTemplateTests(SynchronousTestCase):
    """What a wrong template is told."""

    def test_each(self) -> None:
        """Each mistake is named, in one line, with the template."""
        for template, words in (
            ("/srv/{local}", ["does not begin with 'maildir:'"]),
            ("", ["does not begin"]),
            ("Maildir:/srv", ["does not begin"]),
            ("maildir:srv/{local}", ["relative"]),
            ("maildir:", ["relative"]),
            ("maildir:{local}", ["relative"]),
            ("maildir:/srv/{home}", ["unknown {home}", "{user}, {local}, {domain}"]),
            ("maildir:/srv/{}", ["unknown {}"]),
            ("maildir:/srv/{Local}", ["unknown {Local}"]),
            ("maildir:/srv/{local!r}", ["unknown"]),
            ("maildir:/srv/{local", ["brace"]),
            ("maildir:/srv/local}", ["brace"]),
            ("maildir:/srv/{{local}}", ["brace"]),
            ("maildir:/srv/\0{local}", ["control"]),
            ("maildir:/srv/\n{local}", ["control"]),
            ("maildir:/srv/{local}\x7f", ["control"]),
        ):
            with self.assertRaises(ValueError) as caught:
                MaildirStore.from_template(template)
            for word in [*words, repr(template)]:
                self.assertIn(word, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_policy(self) -> None:
        """A policy for missing Maildirs that does not exist is named."""
        with self.assertRaises(ValueError) as caught:
            MaildirStore.from_template("maildir:/srv", missing="create")
        self.assertIn("'create'", str(caught.exception))


class MissingTests(MaildirTestCase):
    """A Maildir that does not exist."""

    def setUp(self) -> None:
        """Make a store with a Maildir for Alice."""
        super().setUp()
        (self.ground / "example.org").mkdir()
        self.maildir = self.maildir.rename(self.ground / "example.org" / "alice")
        self.store = self.make("empty")

    def make(self, missing: str) -> MaildirStore:
        """Return a store."""
        return MaildirStore.from_template(
            f"maildir:{self.ground}/{{domain}}/{{local}}", missing=missing
        )

    def assert_empty(self, user: UserName) -> None:
        """Check that a user has an empty maildrop, and that nothing is made for it."""
        maildrop = self.store.maildrop(user)
        self.assertEqual(len(maildrop.open()), 0)
        self.assertEqual(len(maildrop.commit([])), 0)
        maildrop.release()
        self.assertEqual(sorted(os.listdir(self.ground)), ["example.org"])  # noqa: PTH208

    def assert_error(self, user: UserName) -> None:
        """Check that a user's maildrop cannot be opened."""
        self.assertRaises(MaildropTemporaryError, self.store.maildrop(user).open)

    def prove(self) -> None:
        """Have a maildrop opened."""
        maildrop = self.store.maildrop(ALICE)
        maildrop.open()
        maildrop.release()

    def test_empty(self) -> None:
        """It is empty, before and after another one was opened."""
        for user in (UserName("carol", "example.org"), UserName("carol", "example.net")):
            self.assert_empty(user)
        self.prove()
        for user in (UserName("carol", "example.org"), UserName("carol", "example.net")):
            self.assert_empty(user)

    def test_error(self) -> None:
        """It is an error where the site wants that."""
        self.store = self.make("error")
        self.assert_error(UserName("carol", "example.org"))
        self.prove()

    def test_no_ground(self) -> None:
        """Without the fixed part of the template it is an error, before and after."""
        ground = self.ground.rename(self.ground.with_name("unmounted"))
        self.assert_error(ALICE)
        ground.rename(self.ground)
        self.prove()
        self.ground.rename(ground)
        self.assert_error(ALICE)

    def test_ground_is_a_file(self) -> None:
        """A file in place of the fixed part is an error."""
        self.ground.rename(self.ground.with_name("unmounted"))
        self.ground.write_bytes(b"")
        self.assert_error(ALICE)

    def test_only_a_mount_point(self) -> None:
        """When the fixed part is not the one that mail was found on, the disk was unmounted."""
        self.prove()
        ground = self.ground.rename(self.ground.with_name("unmounted"))
        self.ground.mkdir()
        with self.assertRaises(MaildropTemporaryError) as caught:
            self.store.maildrop(ALICE).open()
        self.assertIn("unmounted?", str(caught.exception))
        self.ground.rmdir()
        ground.rename(self.ground)
        self.assert_empty(UserName("carol", "example.org"))

    def test_survey(self) -> None:
        """What was there at the start is the ground, though nobody has opened a maildrop yet."""
        self.assertTrue(self.store.survey())
        self.assert_empty(UserName("carol", "example.org"))
        self.ground.rename(self.ground.with_name("unmounted"))
        self.ground.mkdir()
        self.assert_error(ALICE)

    def test_survey_of_nothing(self) -> None:
        """An empty directory proves nothing: a disk may be mounted on it yet."""
        ground = self.ground.rename(self.ground.with_name("unmounted"))
        self.assertFalse(self.store.survey())
        self.ground.mkdir()
        self.assertTrue(self.store.survey())
        self.ground.rmdir()
        ground.rename(self.ground)
        self.assert_empty(UserName("carol", "example.org"))

    def test_reload(self) -> None:
        """Who takes a store's place knows which directory it was, if it is the same place."""
        self.store.survey()
        self.ground.rename(self.ground.with_name("unmounted"))
        self.ground.mkdir()
        before, template = self.store, f"maildir:{self.ground}/{{domain}}/{{local}}"
        self.store = MaildirStore.from_template(template)
        self.store.follow(MaildirStore.from_template("maildir:/elsewhere/{local}"))
        self.assertEqual(len(self.store.maildrop(ALICE).open()), 0)
        self.store.follow(before)
        self.assert_error(ALICE)

    def test_new_disk(self) -> None:
        """Once mail is found there, another directory in its place is the ground."""
        self.prove()
        self.ground.rename(self.ground.with_name("unmounted"))
        for directory in ("new", "cur"):
            (self.ground / "example.org" / "alice" / directory).mkdir(parents=True)
        self.assert_error(UserName("carol", "example.org"))
        self.prove()
        self.assert_empty(UserName("carol", "example.org"))

    def test_link(self) -> None:
        """A link on the way, to a disk or to one that is not there, is followed by nobody."""
        (self.ground / "example.org").rename(self.ground.with_name("disk"))
        (self.ground / "example.org").symlink_to(self.ground.with_name("disk"))
        self.assert_error(UserName("carol", "example.org"))
        self.assert_error(ALICE)
        self.ground.with_name("disk").rename(self.ground.with_name("unmounted"))
        self.assert_error(UserName("carol", "example.org"))

    def test_unclear(self) -> None:
        """When it cannot be told whether it exists, it is an error."""
        self.inject("lstat", errno.EACCES, "carol")
        self.assert_error(UserName("carol", "example.org"))

    def test_ground_unclear(self) -> None:
        """When the ground cannot be looked at, it is an error."""
        self.inject("stat", errno.EIO, str(self.ground))
        self.assert_error(UserName("carol", "example.org"))
        self.assert_error(ALICE)

    def test_elsewhere(self) -> None:
        """It is empty within the fixed part of the template, and an error outside."""
        carol = UserName("carol")
        self.store = MaildirStore.from_template(
            f"maildir:{self.ground}/{{domain}}/{{local}}", root=str(self.ground.parent)
        )
        for path, error in (
            (self.ground / "carol", False),
            (self.ground.with_name("carol"), True),
            (self.ground.with_name(f"{self.ground.name}-carol"), True),
        ):
            maildrop = self.store.maildrop_at(f"maildir:{path}", carol)
            if error:
                self.assertRaises(MaildropTemporaryError, maildrop.open)
            else:
                self.assertEqual(len(maildrop.open()), 0)
            maildrop.release()
