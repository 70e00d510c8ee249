"""Which ways to log in are offered: what can be verified, and what the administrator wants."""

from __future__ import annotations

import re
import secrets
import socket
from itertools import count
from typing import TYPE_CHECKING, Final

from popd.protocol.offer import WAYS, Offer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["choose", "unique_on"]

_OFF: Final = frozenset({"SCRAM-SHA-1", "CRAM-MD5", "APOP"})
"""What is too weak to be offered unless it is asked for."""


def choose(
    verifiable: frozenset[str], sasl: str = "", *, apop: bool = False, certificates: bool = False
) -> Offer:
    """Return which ways to log in are offered.

    :param verifiable: by which mechanisms users can be verified, without -PLUS.
    :param sasl: names of the only ones to be offered, separated by commas; USER is for USER and
        PASS.  Empty for all that can be, but for weak ones.
    :param apop: whether there is to be APOP.
    :param certificates: whether clients are asked for TLS certificates.
    :raises ValueError: there are none such; the text begins with the option that is wrong.
    """
    possible = {name for name in WAYS if name.removesuffix("-PLUS") in verifiable}
    if not certificates and "EXTERNAL" in possible:
        raise ValueError("--auth popd-certificate: needs --client-ca, to ask for certificates")
    if certificates and "EXTERNAL" not in possible:
        raise ValueError(
            "--client-ca: no --auth verifies certificates; add --auth popd-certificate"
        )
    chosen = _named(sasl, possible) if sasl else possible - _OFF
    if apop:
        if "APOP" not in possible:
            raise ValueError("--apop: no --auth can verify APOP, which takes plain passwords")
        chosen |= {"APOP"}
    if not chosen:
        raise ValueError(
            "--auth: nobody can log in; name what may be offered with --sasl"
            + (f", such as {', '.join(sorted(possible))}" if possible else "")
        )
    return Offer.of(chosen, unique_on(socket.gethostname()))


def _named(sasl: str, possible: set[str]) -> set[str]:
    names = {name.strip().upper() for name in sasl.split(",")} - {""}
    for name in sorted(names - WAYS):
        raise ValueError(f"--sasl: there is no {name!a}; there are {', '.join(sorted(WAYS))}")
    for name in sorted(names - possible):
        hint = "; it takes popd-certificate, and --client-ca" if name == "EXTERNAL" else ""
        raise ValueError(f"--sasl {name}: no --auth can verify it{hint}")
    return names


def unique_on(host: str) -> Callable[[], bytes]:
    """Return what `Offer.unique` has to be on the machine called *host*.

    It looks as in RFC 1939 section 7, digits with a dot between them in front of the host: there
    are clients that know nothing else.
    """
    suffix = re.sub(r"[^A-Za-z0-9.-]", "-", host).encode("ascii")[:100] or b"localhost"
    numbers = count()

    def unique() -> bytes:
        # Processes that part later count alike, but do not draw the same random numbers.
        return b"%d.%d@%b" % (secrets.randbits(128), next(numbers), suffix)

    return unique
