"""Which ways to log in a server offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from popd.protocol.sasl.mechanisms import MECHANISMS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["STANDARD", "Offer"]


def _not_unique() -> bytes:
    raise RuntimeError("this mechanism needs an offer with `unique`")


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered on any channel that is good enough for it; all sessions share one.

    :param sasl: names of `MECHANISMS`, the strongest first.
    :param user: whether there are USER and PASS.
    :param apop: whether there is APOP (RFC 1939 section 7), which the greeting announces.
    :param unique: returns what it never returned before and nobody can guess: 1 to 200 octets of
        printable ASCII without space, comma, ``<`` and ``>``.  It becomes SCRAM's nonces and, in
        angle brackets, the challenges of CRAM-MD5 and APOP, which should look like Message-IDs
        (RFC 2195 section 2): so it ends in ``@`` and a host name.
    """

    sasl: tuple[str, ...] = ("PLAIN", "LOGIN")
    user: bool = True
    apop: bool = False
    unique: Callable[[], bytes] = _not_unique

    @classmethod
    def of(cls, names: Collection[str], unique: Callable[[], bytes] = _not_unique) -> Offer:
        """Return the offer of these `MECHANISMS`, and of ``USER`` and ``APOP`` if named.

        :raises ValueError: there is no mechanism of such a name.
        """
        unknown = sorted(set(names) - WAYS)
        if unknown:
            raise ValueError(f"unknown authentication mechanism: {', '.join(unknown)}")
        sasl = tuple(name for name in MECHANISMS if name in names)
        return cls(sasl, "USER" in names, "APOP" in names, unique)


WAYS: Final = frozenset({*MECHANISMS, "USER", "APOP"})
"""Names of all ways to log in."""

STANDARD: Final = Offer()
"""What is offered unless another offer is made: ways that any checker of passwords can serve."""
