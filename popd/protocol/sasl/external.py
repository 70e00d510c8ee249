"""EXTERNAL (RFC 4422 appendix A): TLS has shown already who the client is."""

from __future__ import annotations

from popd.protocol.credentials import CertificateCredentials
from popd.protocol.sasl.exchange import Challenge, Done, Failed, Outcome

__all__ = ["External"]


class External:
    """EXTERNAL: one message, which says for whom the client wants to act, or nothing."""

    __slots__ = ()

    def step(self, response: bytes | None) -> Outcome:
        """Take the message, or ask for it."""
        if response is None:
            return Challenge(b"")
        try:
            response.decode()
        except ValueError:
            return Failed()
        return Failed() if b"\0" in response else Done(CertificateCredentials(response))
