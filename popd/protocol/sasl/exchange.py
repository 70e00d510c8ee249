"""What a SASL mechanism is: a stepper that knows neither framing nor users.

`Mechanism.step` takes a decoded response and says what comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from popd.protocol.credentials import Credentials

__all__ = ["Ask", "Challenge", "Done", "Failed", "Mechanism", "Outcome"]


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server's next words, not yet in base64."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody's SCRAM keys are needed to go on; give them to ``Scram.found``.

    :param username: whose, in UTF-8.
    :param mechanism: for what: ``SCRAM-SHA-256`` and the like, without ``-PLUS``.
    """

    username: bytes
    mechanism: str


@dataclass(frozen=True, slots=True)
class Done:
    """The exchange is over; whether the credentials are good is for others to say.

    :param regret: a last challenge that tells the client why, if they are not good.
    """

    credentials: Credentials
    regret: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """The client broke the rules of the mechanism.

    :param text: the reply, without ``-ERR``; it holds nothing that the client sent.
    """

    text: str = "[AUTH] malformed credentials"


Outcome: TypeAlias = Challenge | Ask | Done | Failed
"""What may come of a step."""


class Mechanism(Protocol):
    """One exchange with one client."""

    def step(self, response: bytes | None) -> Outcome:
        """Take the client's next response; None at the start if it sent no initial one."""
