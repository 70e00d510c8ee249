"""Tests of `popd.protocol.sasl`."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.protocol.credentials import PasswordCredentials
from popd.protocol.sasl.exchange import Challenge, Done, Failed
from popd.protocol.sasl.framing import decode, encode
from popd.protocol.sasl.passwords import Login, Plain


class Base64Tests(SynchronousTestCase):
    """Responses are base64 to the letter (RFC 5034 section 4)."""

    def test_good(self) -> None:
        """Base64 is decoded; a lone equals sign is an empty response."""
        self.assertEqual(decode(b"AGpvZQBw"), b"\0joe\0p")
        self.assertEqual(decode(b"="), b"")
        self.assertEqual(decode(b""), b"")

    def test_bad(self) -> None:
        """Nothing is skipped, completed or ignored."""
        for response in (
            b"!!!!",
            b"AGpv!ZQBw",
            b"AGpvZQB",
            b"AG=v",
            b"AA==AA==",
            b"AA== ",
            b"AA\r",
        ):
            self.assertRaises(ValueError, decode, response)

    @given(st.binary())
    def test_round_trip(self, data: bytes) -> None:
        """What is encoded can be decoded, and stays on one line."""
        self.assertEqual(decode(encode(data)), data)
        self.assertNotIn(b"\n", encode(data))

    @given(st.binary())
    def test_arbitrary(self, data: bytes) -> None:
        """Arbitrary octets decode or raise ValueError, and nothing else."""
        with contextlib.suppress(ValueError):
            decode(data)


class PlainTests(SynchronousTestCase):
    """PLAIN (RFC 4616)."""

    def test_good(self) -> None:
        """Name and password are taken; the authorization identity may be left out or repeated."""
        done = Done(PasswordCredentials(b"joe", b" pass word ", mechanism="PLAIN"))
        self.assertEqual(Plain().step(b"\0joe\0 pass word "), done)
        self.assertEqual(Plain().step(b"joe\0joe\0 pass word "), done)

    def test_somebody_else(self) -> None:
        """For whom the user wants to act is handed on."""
        done = Done(PasswordCredentials(b"joe", b"p", b"ann", "PLAIN"))
        self.assertEqual(Plain().step(b"ann\0joe\0p"), done)

    def test_no_initial_response(self) -> None:
        """The client is asked with an empty challenge."""
        self.assertEqual(Plain().step(None), Challenge(b""))

    def test_bad(self) -> None:
        """Too few or many parts, an empty name or password fail."""
        for response in (
            b"",
            b"joe",
            b"\0joe",
            b"\0joe\0",
            b"\0\0p",
            b"\0joe\0p\0",
            b"\0\0\0",
        ):
            self.assertEqual(Plain().step(response), Failed(), response)


class LoginTests(SynchronousTestCase):
    """LOGIN."""

    def test_good(self) -> None:
        """The name is asked for, then the password."""
        exchange = Login()
        self.assertEqual(exchange.step(None), Challenge(b"Username:"))
        self.assertEqual(exchange.step(b"joe"), Challenge(b"Password:"))
        self.assertEqual(
            exchange.step(b"p"), Done(PasswordCredentials(b"joe", b"p", mechanism="LOGIN"))
        )

    def test_initial_name(self) -> None:
        """The name may come as initial response."""
        exchange = Login()
        self.assertEqual(exchange.step(b"joe"), Challenge(b"Password:"))
        self.assertEqual(
            exchange.step(b"p"), Done(PasswordCredentials(b"joe", b"p", mechanism="LOGIN"))
        )

    def test_empty(self) -> None:
        """An empty name or password fails."""
        for name, password in ((b"", b"p"), (b"joe", b"")):
            exchange = Login()
            exchange.step(name)
            self.assertEqual(exchange.step(password), Failed())


class SecrecyTests(SynchronousTestCase):
    """Passwords stay out of logs."""

    def test_repr(self) -> None:
        """No password is in the repr of what carries it."""
        done = Plain().step(b"\0joe\0hunter2")
        self.assertNotIn("hunter2", repr(done))
