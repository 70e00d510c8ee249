"""Tests of the realm."""

from __future__ import annotations

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from popd.auth.account import Account
from popd.auth.realm import MaildropRealm
from popd.maildrop.interfaces import IMaildrop, MaildropPermanentError
from popd.maildrop.maildir import Maildir
from popd.maildrop.template import MaildirStore
from popd.maildrop.user import UserName
from tests.auth.fakes import FakeMaildrop, FakeStore


class Avatars(SynchronousTestCase):
    """A user's avatar is his maildrop."""

    def setUp(self) -> None:
        """Make a realm."""
        self.store = FakeStore()
        self.realm = MaildropRealm(self.store)

    def test_interface(self) -> None:
        """It is a realm as twisted.cred knows it."""
        verifyObject(IRealm, self.realm)

    def test_maildrop(self) -> None:
        """It answers with the maildrop, not opened, and what releases it."""
        for avatar_id in (
            b"alice@example.org",
            "alice@example.org",
            b"Alice@EXAMPLE.org",
            Account("alice@example.org"),
        ):
            interface, maildrop, logout = self.realm.requestAvatar(avatar_id, None, IMaildrop)
            assert isinstance(maildrop, FakeMaildrop)
            self.assertIs(interface, IMaildrop)
            self.assertEqual(maildrop.user, UserName("alice", "example.org"))
            self.assertEqual(maildrop.calls, [])
            logout()
            self.assertEqual(maildrop.calls, ["release"])

    def test_one_of_several_interfaces(self) -> None:
        """Whoever wants a maildrop or something else gets the maildrop."""
        interface, _, _ = self.realm.requestAvatar(b"alice", None, Interface, IMaildrop)
        self.assertIs(interface, IMaildrop)

    def test_other_interfaces(self) -> None:
        """There are no other avatars."""
        for interfaces in ((), (Interface,)):
            self.assertRaises(
                NotImplementedError, self.realm.requestAvatar, b"alice", None, *interfaces
            )

    def test_nobody(self) -> None:
        """Neither anonymous users nor names that cannot exist have a maildrop."""
        names = (ANONYMOUS, b"", b"../alice", b"a/b", b"\xff", b".nobody", "a\0b", None)
        for avatar_id in (*names, Account("../alice"), Account("\udcff")):
            self.assertRaises(
                UnauthorizedLogin, self.realm.requestAvatar, avatar_id, None, IMaildrop
            )
        self.assertEqual(self.store.asked, [])

    def test_no_place(self) -> None:
        """What the store says of a name that it has no place for is passed on."""
        self.store.error = MaildropPermanentError("no such domain")
        self.assertRaises(
            MaildropPermanentError, self.realm.requestAvatar, b"alice", None, IMaildrop
        )

    def test_elsewhere(self) -> None:
        """A user's account may say where his maildrop is, if the store can look there."""
        alice = Account("alice", maildrop="maildir:/elsewhere/{local}/Maildir")
        self.assertRaises(MaildropPermanentError, self.realm.requestAvatar, alice, None, IMaildrop)
        self.assertEqual(self.store.asked, [])
        realm = MaildropRealm(MaildirStore.from_template("maildir:/srv/{user}", root="/"))
        _, maildrop, _ = realm.requestAvatar(alice, None, IMaildrop)
        assert isinstance(maildrop, Maildir)
        self.assertEqual(maildrop._root, b"/elsewhere/alice/Maildir")
