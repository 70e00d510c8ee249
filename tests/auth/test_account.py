"""Tests of what directories say about users."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.account import FIELDS, Account, Client


class Clients(SynchronousTestCase):
    """Where clients are."""

    def test_ip(self) -> None:
        """An address is the same by whichever protocol it came, and on whichever link."""
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(Client(text).ip, ip_address(address))
        self.assertIsNone(Client("").ip)


class Refusals(SynchronousTestCase):
    """Who may not log in."""

    def test_tls(self) -> None:
        """On a UNIX socket nobody listens in, so that an account that requires TLS may be used."""
        account = Account("alice", require_tls=True)
        outcomes = [
            bool(account.refusal(client))
            for client in (Client("192.0.2.1"), Client("192.0.2.1", tls=True), Client(""))
        ]
        self.assertEqual(outcomes, [True, False, False])

    def test_networks(self) -> None:
        """An address is in one of the networks; a UNIX socket is in all of them."""
        account = Account(
            "alice", networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
        )
        for address, refused in (
            ("192.0.2.255", False),
            ("::ffff:192.0.2.1", False),
            ("2001:db8:1::1", False),
            ("", False),
            ("192.0.3.0", True),
            ("2001:db9::1", True),
        ):
            self.assertIs(bool(account.refusal(Client(address))), refused, address)

    def test_disabled(self) -> None:
        """Who is disabled never may; who is not and has no restrictions always."""
        for client in (Client("192.0.2.1", tls=True), Client("")):
            self.assertTrue(Account("alice", disabled=True).refusal(client))
            self.assertEqual(Account("alice").refusal(client), "")


class Fields(SynchronousTestCase):
    """How the fields of an account are read."""

    def test_values(self) -> None:
        """Each kind of value may be written in several ways."""
        for field, text, attribute, value in (
            ("nologin", "", "disabled", True),
            ("disabled", "No", "disabled", False),
            ("require_tls", "1", "require_tls", True),
            ("master", " true ", "master", True),
            ("no_delete", "off", "no_delete", False),
            (
                "allow_nets",
                "192.0.2.1/24, 2001:db8::/32",
                "networks",
                (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
            ),
            ("maildrop", "maildir:/srv/{user}", "maildrop", "maildir:/srv/{user}"),
            ("quota", "2G", "quota", 2 << 30),
            ("quota", "5kB", "quota", 5 << 10),
            ("quota", "0", "quota", 0),
            ("interval", "90.5", "interval", 90.5),
            ("app", "phone", "program", "phone"),
        ):
            account = Account.read("alice", {field: text})
            self.assertEqual(account, Account("alice", **{attribute: value}), (field, text))  # type: ignore[arg-type]

    def test_nonsense(self) -> None:
        """What cannot be understood is an error that names the field and repeats no value."""
        for field, text in (
            ("disabled", "maybe"),
            ("require_tls", "2"),
            ("allow_nets", ""),
            ("allow_nets", "192.0.2.0/33"),
            ("allow_nets", "192.0.2.1,,"),
            ("maildrop", ""),
            ("maildrop", "mbox:/x"),
            ("maildrop", "maildir:relative"),
            ("quota", "-1"),
            ("quota", "1.5G"),
            ("quota", "9" * 20),
            ("interval", "-1"),
            ("interval", "nan"),
            ("interval", str(inf)),
        ):
            error = self.assertRaises(ValueError, Account.read, "alice", {field: text})
            self.assertEqual(str(error), f"the field {field} has a value that means nothing")

    def test_unknown(self) -> None:
        """An unknown field is an error; every known one can be read."""
        self.assertRaises(KeyError, Account.read, "alice", {"colour": "red"})
        for field in FIELDS:
            attribute = FIELDS[field][0]
            self.assertTrue(hasattr(Account("alice"), attribute))
