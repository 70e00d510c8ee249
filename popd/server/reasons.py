"""Why log-ins did not succeed and sessions ended, as people say it."""

from __future__ import annotations

from typing import Final

from popd.server import visit

__all__ = ["WORDS", "explained"]

_CREDENTIALS: Final = "credentials"

WORDS: Final = {
    _CREDENTIALS: "wrong user name or password",
    "too-soon": "too soon after the last log-in",
    "in-use": "another session has the maildrop",
    "temporary": "popd could not do it just then",
    "permanent": "popd cannot do it",
    visit.IDLE: "the client said nothing for too long",
    visit.LOGIN_TIMEOUT_PASSED: "the client did not log in in time",
    visit.TOO_MANY_ERRORS: "too many commands that are wrong",
    visit.STLS_INJECTION: "commands in plaintext behind STLS",
    visit.HTTP_REQUEST: "the client spoke HTTP",
    visit.READ_ERROR: "a message could not be read",
    visit.TLS_ERROR: "the TLS handshake failed",
    visit.NOT_READING: "the client did not read what it was sent",
    visit.DRAINED: "popd was about to end",
    visit.KICKED: "an operator ended the session",
    visit.REPLACED: "all places were taken, and it had not logged in for longest",
    visit.LIMIT: "too many sessions",
    visit.INTERNAL_ERROR: "popd is broken there, and its log says where",
}
"""What stands in ``popd_logins_total`` and ``popd_sessions_ended_total`` for what went wrong."""


def explained(what: str, why: str) -> tuple[str, str]:
    """Return what went wrong, and more about it; the latter may be empty.

    Credentials may be right and an account disabled: then more is known, and said in their place.

    :param what: one of `WORDS`, or anything.
    :param why: what else is known, see `popd.server.journal.Failing`.
    """
    if what == _CREDENTIALS and why:
        return why, ""
    return WORDS.get(what, what), why
