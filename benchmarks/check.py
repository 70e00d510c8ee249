"""Whether a server gives out what is stored, to the octet; looked at before anything is timed."""

from __future__ import annotations

import poplib
import ssl
from typing import TYPE_CHECKING, Final

from load import LoadError
from maildrops import PASSWORD

if TYPE_CHECKING:
    from maildrops import Mailset
    from servers import Server

_SAMPLE: Final = 50
_HOST: Final = "127.0.0.1"
poplib._MAXLINE = 8192  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way


def check(server: Server, mailset: Mailset, *, tls: bool) -> None:
    """Get the first messages of a maildrop, and compare them with what is stored.

    :raises LoadError: one differs.
    """
    client: poplib.POP3
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = poplib.POP3_SSL(_HOST, server.tls_port, context=context, timeout=120)
    else:
        client = poplib.POP3(_HOST, server.port, timeout=120)
    try:
        client.user(mailset.names()[0])
        client.pass_(PASSWORD)
        if client.stat() != (mailset.messages, mailset.messages * mailset.octets):
            raise LoadError(f"{server.name}: STAT says {client.stat()} of {mailset}")
        distinct = min(mailset.messages, mailset.distinct or mailset.messages)
        for number in range(min(_SAMPLE, mailset.messages)):
            lines = client.retr(number + 1)[1]
            if b"\n".join(lines) + b"\n" != mailset.message(number % distinct):
                raise LoadError(
                    f"{server.name}: message {number + 1} of {mailset} is not as stored"
                )
        client.quit()
    except poplib.error_proto as error:
        raise LoadError(f"{server.name}: {error}") from error
    finally:
        client.close()
