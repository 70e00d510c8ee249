"""All mechanisms that popd knows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from popd.protocol.sasl.bearer import OAuthBearer, XOAuth2
from popd.protocol.sasl.digests import CramMD5
from popd.protocol.sasl.external import External
from popd.protocol.sasl.passwords import Login, Plain
from popd.protocol.sasl.scram import Scram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from popd.protocol.channel import Channel
    from popd.protocol.sasl.exchange import Mechanism

__all__ = ["MECHANISMS", "Begin"]

Begin: TypeAlias = "Callable[[Channel], Mechanism]"
"""Begins an exchange on a channel."""

MECHANISMS: Final[Mapping[str, Begin]] = {
    "EXTERNAL": lambda _: External(),
    "SCRAM-SHA-256-PLUS": partial(Scram, "SCRAM-SHA-256-PLUS"),
    "SCRAM-SHA-256": partial(Scram, "SCRAM-SHA-256"),
    "OAUTHBEARER": lambda _: OAuthBearer(),
    "XOAUTH2": lambda _: XOAuth2(),
    "SCRAM-SHA-1": partial(Scram, "SCRAM-SHA-1"),
    "CRAM-MD5": lambda channel: CramMD5(channel.offer),
    "PLAIN": lambda _: Plain(),
    "LOGIN": lambda _: Login(),
}
"""The mechanisms by their registered names, the strongest first."""
