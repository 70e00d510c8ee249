"""The commands that Thunderbird sends, as it sends them."""

from __future__ import annotations

import base64

from tests.clients.contract import LATE, MAIL
from tests.e2e.server import PASSWORDS, Client, ServerCase, stored

MANY = 3_000
"""How many messages a big maildrop has."""


def plain(password: str) -> bytes:
    """Return alice's response to AUTH PLAIN."""
    return base64.b64encode(b"\0alice\0" + password.encode())


class ThunderbirdTests(ServerCase):
    """It probes, asks for everything, and does not wait for the last reply."""

    def setUp(self) -> None:
        """Deliver mail."""
        super().setUp()
        for message in MAIL:
            self.site.deliver("alice", message)

    def _authenticate(self, client: Client, status: bytes = b"+OK") -> None:
        """Log in as it likes best."""
        client.expect(b"CAPA")
        self.assertIn(b"SASL PLAIN LOGIN\r\n", client.body())
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(plain(PASSWORDS["alice"]), status)

    def _uids(self, client: Client, count: int) -> list[bytes]:
        """Ask what there is, and return the unique-ids."""
        self.assertTrue(client.ask(b"STAT").startswith(b"+OK %d " % count))
        client.expect(b"LIST")
        self.assertEqual(len(client.body().splitlines()), count)
        client.expect(b"UIDL")
        uids = [line.split()[1] for line in client.body().splitlines()]
        self.assertEqual(len(set(uids)), count)
        return uids

    def _leave(self, client: Client) -> None:
        """Say QUIT, and close without waiting for the reply."""
        client.send(b"QUIT\r\n")
        client.close()

    def _download(self, client: Client) -> None:
        """Fetch and delete everything."""
        self._uids(client, len(MAIL))
        for number, message in enumerate(MAIL, 1):
            client.expect(b"LIST %d" % number)
            self.assertEqual(stored(client.fetch(number)), stored(message))
        for number in range(1, len(MAIL) + 1):
            client.expect(b"DELE %d" % number)
        self._leave(client)
        self.log_in_when_free()
        self.assertEqual(self.site.messages("alice"), [])

    def test_download(self) -> None:
        """It gets and deletes all mail, though it never reads the reply to QUIT."""
        client = self.client()
        client.expect(b"AUTH")
        client.body()
        client.expect(b"CAPA")
        self.assertIn(b"STLS\r\n", client.body())
        client.stls(self.site.client_context())
        self._authenticate(client)
        self._download(client)

    def test_wrong_password(self) -> None:
        """It tries a wrong password in three ways, and then the right one, on one connection."""
        client = self.tls_client()
        client.expect(b"CAPA")
        client.body()
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(plain("wrong"), b"-ERR [AUTH]")
        self.assertEqual(client.ask(b"AUTH LOGIN"), b"+ VXNlcm5hbWU6")
        self.assertEqual(client.ask(base64.b64encode(b"alice")), b"+ UGFzc3dvcmQ6")
        client.expect(base64.b64encode(b"wrong"), b"-ERR [AUTH]")
        client.expect(b"USER alice")
        client.expect(b"PASS wrong", b"-ERR [AUTH]")
        self.assertEqual(client.ask(b"AUTH PLAIN"), b"+ ")
        client.expect(plain(PASSWORDS["alice"]))
        self._download(client)

    def test_leave_on_server(self) -> None:
        """Of a big maildrop it fetches what is new, and of large messages the beginning."""
        for number in range(MANY):
            self.site.deliver("alice", b"Subject: %d\n\n%d\n" % (number, number))
        client = self.tls_client()
        self._authenticate(client)
        known = self._uids(client, MANY + len(MAIL))
        for number in (1, MANY // 2, MANY + len(MAIL)):
            client.fetch(number)
        self._leave(client)
        self.site.deliver("alice", LATE)
        client = self.log_in_when_free()
        uids = self._uids(client, MANY + len(MAIL) + 1)
        self.assertEqual(uids[:-1], known)
        client.expect(b"TOP %d 20" % len(uids))
        self.assertEqual(stored(client.body()), LATE)
        self._leave(client)
        self.log_in_when_free()
        self.assertEqual(len(self.site.messages("alice")), len(uids))

    def test_several_connections(self) -> None:
        """Somebody checks for mail while it downloads: that is no wrong password."""
        first = self.tls_client()
        self._authenticate(first)
        self._authenticate(self.tls_client(), b"-ERR [IN-USE]")
        self._download(first)
