"""Tests of `popd.server.addresses`."""

from __future__ import annotations

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)

from popd.server.addresses import address_of, is_local
from tests.server.helpers import ServerCase


class LocalTests(ServerCase):
    """Who is on this machine."""

    def test_local(self) -> None:
        """Loopback addresses of every kind and UNIX sockets are."""
        for address in (
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv4Address("TCP", "127.9.9.9", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.1", 1),
            UNIXAddress(b"/run/popd"),
        ):
            self.assertTrue(is_local(address_of(address)), address)

    def test_remote(self) -> None:
        """Everybody else is not."""
        for address in (
            IPv4Address("TCP", "192.0.2.1", 1),
            IPv6Address("TCP", "2001:db8::1", 1),
            IPv6Address("TCP", "fe80::1%eth0", 1),
            IPv6Address("TCP", "::ffff:192.0.2.1", 1),
        ):
            self.assertFalse(is_local(address_of(address)), address)

    def test_unknown(self) -> None:
        """Nor is who comes in a way that popd does not know."""
        self.assertFalse(is_local(address_of(HostnameAddress(b"localhost", 1))))
