"""The mechanisms that send the password: PLAIN and LOGIN."""

from __future__ import annotations

from popd.protocol.credentials import PasswordCredentials
from popd.protocol.sasl.exchange import Challenge, Done, Failed, Outcome

__all__ = ["Login", "Plain"]


class Plain:
    """PLAIN (RFC 4616): one message, ``[authzid] NUL authcid NUL passwd``.

    Whether a user may act for somebody else is for others to say; to act for himself is no
    such thing.
    """

    __slots__ = ()

    def step(self, response: bytes | None) -> Outcome:
        """Take the message, or ask for it."""
        if response is None:
            return Challenge(b"")
        match response.split(b"\0"):
            case [authzid, username, password] if username and password:
                if authzid == username:
                    authzid = b""
                return Done(PasswordCredentials(username, password, authzid, "PLAIN"))
        return Failed()


class Login:
    """LOGIN (draft-murchison-sasl-login): user name and password, one after the other.

    Obsolete, but older mail programs know no other.  Some send the user name at once.
    """

    __slots__ = ("_username",)

    def __init__(self) -> None:
        self._username: bytes | None = None

    def step(self, response: bytes | None) -> Outcome:
        """Take the user name, then the password."""
        if response is None:
            return Challenge(b"Username:")
        if self._username is None:
            self._username = response
            return Challenge(b"Password:")
        if not self._username or not response:
            return Failed()
        return Done(PasswordCredentials(self._username, response, mechanism="LOGIN"))
