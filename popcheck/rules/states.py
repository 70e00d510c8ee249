"""The states of a session: what exists when, and logging in with USER and PASS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from popcheck.check import MAIL, need
from popcheck.client import shown
from popcheck.rule import ROBUST, SHOULD, Skipped, rule, rules
from popcheck.target import WRONG

if TYPE_CHECKING:
    from popcheck.check import Check

_TRANSACTION: Final = {
    "stat": b"STAT",
    "list": b"LIST",
    "retr": b"RETR 1",
    "dele": b"DELE 1",
    "noop": b"NOOP",
    "rset": b"RSET",
    "uidl": b"UIDL",
    "top": b"TOP 1 0",
}

_AUTHORIZATION: Final = {
    "user": b"USER x",
    "pass": b"PASS x",
    "auth": b"AUTH PLAIN",
    "apop": b"APOP x c4c9334bac560ecc979e58001b3e22fb",
    "stls": b"STLS",
}


@rules(
    "state.before-log-in",
    {member: member.upper() for member in _TRANSACTION},
    "1939 4",
    summary="{} does not exist before log-in",
)
def before_log_in(check: Check, member: str) -> None:
    """Nobody has a maildrop before he has logged in (RFC 1939 section 3: a command in the wrong
    state is answered by -ERR).
    """
    connection = check.open()
    connection.err(_TRANSACTION[member])
    connection.ok(b"QUIT")


@rules(
    "state.after-log-in",
    {member: member.upper() for member in _AUTHORIZATION},
    "1939 5",
    summary="{} does not exist after log-in",
)
def after_log_in(check: Check, member: str) -> None:
    """Who could log in twice in a session would leave a maildrop locked, or be in somebody else's;
    STLS after log-in would protect what was said already.
    """
    session = check.log_in()
    session.err(_AUTHORIZATION[member])
    session.ok(b"STAT")


@rule("state.user-only", "1939 7")
def user_only(check: Check) -> None:
    """After USER alone there is no maildrop yet.

    A name is no password.
    """
    connection = check.open()
    connection.ok(b"USER " + check.target.user)
    connection.err(b"STAT")


@rule("user.ok", "1939 7")
def user_ok(check: Check) -> None:
    """USER with the name of a user is answered by +OK.

    Otherwise clients do not send PASS.
    """
    check.open().ok(b"USER " + check.target.user)


@rule("user.missing", "1939 7")
def user_missing(check: Check) -> None:
    """USER without a name is answered by -ERR, and there is no log-in behind it.

    There is no user without a name.
    """
    connection = check.open()
    connection.err(b"USER")
    connection.err(b"PASS x")


@rule("user.nobody", "1939 13", ROBUST)
def user_nobody(check: Check) -> None:
    """USER and PASS of somebody who does not exist get the same replies as a wrong password.

    Otherwise everybody can find out who has an account here, and guesses passwords of those only.
    """
    user, password = check.target.unknown_login
    wrong = check.target.wrong_login
    need(
        user == wrong["user"], f"USER: {shown(user)} for nobody, {shown(wrong['user'])} for a user"
    )
    need(
        password == wrong["pass"],
        f"PASS: {shown(password)} for nobody, {shown(wrong['pass'])} for a user",
    )


@rule("pass.wrong", "1939 7")
def pass_wrong(check: Check) -> None:
    """A wrong password is answered by -ERR.

    Nobody gets in who should not.
    """
    said = check.target.wrong_login["pass"]
    need(said.startswith(b"-ERR"), f"it was answered with {shown(said)}")


@rule("pass.wrong-no-maildrop", "1939 4")
def pass_wrong_no_maildrop(check: Check) -> None:
    """After a wrong password the session is where it was: STAT is answered by -ERR.

    Nobody gets in who should not.
    """
    said = check.target.wrong_login.get("stat", b"-ERR")
    need(not said.startswith(b"+OK"), f"STAT was answered with {shown(said)}")


@rule("pass.after-wrong", "1939 7")
def pass_after_wrong(check: Check) -> None:
    """After a wrong password PASS alone does not log in: USER has to come again.

    RFC 1939 has PASS immediately after USER; so passwords can not be tried without saying whose.
    """
    said = check.target.wrong_login.get("forgotten", b"-ERR")
    need(not said.startswith(b"+OK"), f"PASS was answered with {shown(said)}")


@rule("pass.try-again", "1939 4", SHOULD)
def pass_try_again(check: Check) -> None:
    """After a wrong password one may try again on the same connection.

    Clients ask their user once more and go on; RFC 1939 lets servers close, but then they start
    over.
    """
    said = check.target.wrong_login.get("again-pass", b"closed")
    need(said.startswith(b"+OK"), f"the right password was answered with {shown(said)}")


@rule("pass.first", "1939 7")
def pass_first(check: Check) -> None:
    """PASS without USER is answered by -ERR.

    There is nobody whose password it could be.
    """
    check.open().err(b"PASS " + check.target.password)


@rule("pass.missing", "1939 7")
def pass_missing(check: Check) -> None:
    """PASS without a password is answered by -ERR.

    An empty password lets nobody in; some directories think otherwise.
    """
    connection = check.open()
    connection.ok(b"USER " + check.target.user)
    connection.err(b"PASS")


@rule("pass.case", "1939 7")
def pass_case(check: Check) -> None:
    """A password in the wrong case is wrong.

    Commands have no case; passwords do.
    """
    password = check.target.password
    if password.swapcase() == password:
        raise Skipped("the password has no letters")
    connection = check.open()
    connection.ok(b"USER " + check.target.user)
    connection.err(b"PASS " + password.swapcase())


@rule("pass.auth-code", "3206 6")
def auth_code(check: Check) -> None:
    """Who announces AUTH-RESP-CODE says [AUTH] to a wrong password.

    Without it a client does not know whether to ask its user for another password or to try again
    later, and bothers him when a disk was busy.
    """
    check.capability(b"AUTH-RESP-CODE")
    said = check.target.wrong_login["pass"]
    need(said.upper().startswith(b"-ERR [AUTH]"), f"it was answered with {shown(said)}")


@rule("pass.code-announced", "3206 4")
def auth_code_announced(check: Check) -> None:
    """Who says [AUTH] or [SYS/...] announces AUTH-RESP-CODE, or RESP-CODES at least.

    A client may make nothing of a code that the server has not said it would use.
    """
    said = check.target.wrong_login["pass"].upper()
    announced = check.target.announced
    if said.startswith(b"-ERR [AUTH]"):
        need(b"AUTH-RESP-CODE" in announced, "[AUTH] is used and AUTH-RESP-CODE not announced")
    if said.startswith(b"-ERR ["):
        need(b"RESP-CODES" in announced, "codes are used and RESP-CODES not announced")


@rule("quit.before-log-in", "1939 4")
def quit_before_log_in(check: Check) -> None:
    """QUIT before log-in is answered by +OK, and the server closes the connection.

    Clients that find nothing to their liking leave this way, and wait for the reply.
    """
    connection = check.open()
    connection.ok(b"QUIT")
    said = connection.rest()
    need(not said, f"more came behind it: {shown(said)}")


@rule("quit.closes", "1939 6")
def quit_closes(check: Check) -> None:
    """QUIT after log-in is answered by +OK, and the server closes the connection.

    A client that waits for the end waits in vain otherwise.
    """
    session = check.log_in()
    session.ok(b"QUIT")
    said = session.rest()
    need(not said, f"more came behind it: {shown(said)}")


@rule("idle.ten-minutes", "1939 3")
def ten_minutes(check: Check) -> None:
    """A session that says nothing for almost ten minutes is still there; needs --slow.

    RFC 1939: the time-out is ten minutes at least.  A client that stores a large message, or asks
    its user whether to delete, finds its session gone, and what it had marked is not deleted.
    """
    if not check.target.idle:
        raise Skipped("needs --slow")
    session = check.log_in()
    time.sleep(check.target.idle)
    session.ok(b"STAT")


@rule("noop.ok", "1939 5")
def noop(check: Check) -> None:
    """NOOP is answered by +OK, one line, and does nothing.

    Clients send it so that the session does not end.
    """
    session = check.log_in()
    session.ok(b"NOOP")
    session.ok(b"NOOP")
    session.stat()


@rule("user.changed-mind", "1939 7", ROBUST, mail=True)
def user_twice(check: Check) -> None:
    """Of two USER in a row the second counts.

    Where the first did, one's password would open another's maildrop.
    """
    check.target.free()
    check.stage(MAIL)
    connection = check.open()
    connection.ok(b"USER popcheck-nobody")
    check.target.log_in(connection)
    need(connection.stat()[0] == 1, "that is another maildrop")


@rule("pass.with-space", "1939 7", ROBUST)
def user_password(check: Check) -> None:
    """Nobody is let in who gives a wrong password behind the right one.

    ``PASS secret x`` is a password with a space (RFC 1939 section 7), and another.
    """
    connection = check.open()
    connection.ok(b"USER " + check.target.user)
    connection.err(b"PASS " + check.target.password + b" " + WRONG)
