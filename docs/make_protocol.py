"""Write ``docs/protocol.rst`` from the code: ``python docs/make_protocol.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from popd.protocol.authorization import Authorization
from popd.protocol.channel import Channel
from popd.protocol.events import Problem
from popd.protocol.lines import LINE_LIMIT
from popd.protocol.sasl.mechanisms import MECHANISMS
from popd.protocol.sasl.scram import BINDINGS
from popd.protocol.transaction import Transaction
from popd.server.connection import LINGER
from popd.server.limits import IDLE_TIMEOUT, LOGIN_SILENCE, LOGIN_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from popd.protocol.commands import Command

TARGET = Path(__file__).with_name("protocol.rst")

TEXT = """\
.. Written by docs/make_protocol.py from the code; change that, not this.

The protocol as popd speaks it
==============================

popd speaks POP3 (RFC 1939) with the extensions named below.  A session begins in the
AUTHORIZATION state, is in TRANSACTION after log-in, and is in UPDATE while QUIT removes
the messages that DELE marked.  A command that is not in the table for a state does not exist in it.

AUTHORIZATION
-------------

{authorization}

TRANSACTION
-----------

{transaction}

UPDATE
------

QUIT in TRANSACTION removes every marked message, makes that durable, unlocks the maildrop, and only
then answers: ``+OK``, or ``-ERR [SYS/TEMP]`` if a message could not be removed (the others are).
Without QUIT nothing is removed.  A client that closes the connection right behind QUIT gets its
deletions all the same, unless a message that it fetched in the same breath can not have reached it.

Capabilities
------------

CAPA (RFC 2449) gives the same list in both states.  Under TLS, or where log-in without it is
allowed:

::

{capabilities}

Without TLS, where log-in needs it:

::

{capabilities_cleartext}

Authentication mechanisms
-------------------------

popd knows these.  Which of them a server has depends on what its directories can verify and on what
its administrator allows; AUTH (RFC 5034) and CAPA list those that can be used on the connection,
the strongest first, and one that is not listed does not exist.

{mechanisms}

None of them, nor ``USER``, ``PASS`` and ``APOP``, can be used without TLS, unless log-in without it
is allowed.  Where APOP is on, the greeting has a timestamp; where USER is off, so is PASS.

A response may come with the command or by itself, except that CRAM-MD5 begins with the server;
``=`` is an empty one, ``*`` cancels.  It must be base64 to the letter.  A token that is refused is
answered by a challenge in JSON; the client's next line, whatever it says, by ``-ERR [AUTH]``.

SCRAM's channel bindings are {bindings}.  A client that
could bind (its first message begins with ``y``) but was not told of ``-PLUS`` is refused where
``-PLUS`` is on offer: somebody has changed the list on its way.

Errors
------

{errors}

After {authorization_errors} bad commands and refused log-ins before log-in, or
{transaction_errors} bad commands after it, popd closes the connection.  No reply repeats what the
client sent.

Limits and times
----------------

{limits}

What is tolerated
-----------------

Lower case, a bare LF as line end, spaces behind a command and between its arguments.  Spaces in
``PASS`` belong to the password.  A message number is ASCII digits without sign or leading zero.

Sizes and line ends
-------------------

LF and CRLF in a stored message both end a line; a CR that stands alone is an octet like any other.
A last line without an end gets one.  LIST, STAT and RETR count the octets that are then sent, each
line end as two, without the dots of byte-stuffing.  An empty message has 0 octets.
"""


SASL_MECHANISMS = {
    "EXTERNAL": ("the client's TLS certificate, if it has shown one", "RFC 4422 §A"),
    "SCRAM-SHA-256-PLUS": ("proof of a password, for this TLS connection alone", "RFC 7677"),
    "SCRAM-SHA-256": ("proof of a password, which is not sent", "RFC 7677"),
    "OAUTHBEARER": ("an OAuth 2.0 token", "RFC 7628"),
    "XOAUTH2": ("the same, as Google and Microsoft have it", ""),
    "SCRAM-SHA-1": ("proof of a password, for older clients", "RFC 5802"),
    "CRAM-MD5": ("a weak proof, for old clients", "RFC 2195"),
    "PLAIN": ("name and password", "RFC 4616"),
    "LOGIN": ("name and password, for older clients", ""),
}


def rst_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in reStructuredText."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, strict=True)
        return "  ".join(cell.ljust(width) for cell, width in pairs).rstrip()

    return "\n".join([rule, line(head), rule, *map(line, rows), rule])


def command_table(commands: Iterable[Command[Any]]) -> str:
    """Return the table of a state's commands."""
    return rst_table(
        ("Command", "What it does", "Defined in"),
        (
            (
                f"``{command.verb} {command.arguments}".rstrip() + "``",
                command.summary,
                command.source,
            )
            for command in commands
        ),
    )


def capabilities(channel: Channel) -> str:
    """Return a CAPA reply, indented."""
    lines = channel.capabilities().decode("ascii").split("\r\n")
    return "\n".join("    " + line for line in lines if line)


def render() -> str:
    """Return what ``docs/protocol.rst`` should say."""
    return TEXT.format(
        authorization=command_table(Authorization.commands.values()),
        transaction=command_table(Transaction.commands.values()),
        capabilities=capabilities(Channel(tls=True)),
        capabilities_cleartext=capabilities(Channel(stls=True)),
        mechanisms=rst_table(
            ("Mechanism", "What it is", "Defined in"),
            ((name, *SASL_MECHANISMS[name]) for name in MECHANISMS),
        ),
        bindings=" and ".join(f"``{name}``" for name in sorted(BINDINGS)),
        errors=rst_table(
            ("Reply", "When"),
            (
                (f"``{problem.value.decode('ascii').strip()}``", when)
                for problem, when in (
                    (Problem.CREDENTIALS, "wrong password, or no such user: nobody can tell which"),
                    (Problem.TOO_SOON, "the app password may be used only so often (RFC 2449)"),
                    (Problem.IN_USE, "another session holds the maildrop (RFC 2449 section 8.1.2)"),
                    (Problem.TEMPORARY, "disk or directory cannot be had now (RFC 3206 section 4)"),
                    (Problem.TOO_MANY, "``max-sessions`` or one of its kind is reached (RFC 3206)"),
                    (Problem.USED_UP, "``max-download-per-day`` is reached (RFC 3206 section 4)"),
                    (Problem.PERMANENT, "nothing but a change by a person will help (RFC 3206)"),
                    (Problem.GONE, "somebody else removed this message since log-in"),
                )
            ),
        ),
        authorization_errors=Authorization.max_errors,
        transaction_errors=Transaction.max_errors,
        limits=rst_table(
            ("Limit", "Value"),
            (
                ("longest command line, with its end", f"{LINE_LIMIT} octets"),
                ("without a command, before log-in", f"{LOGIN_SILENCE:.0f} seconds"),
                ("from connection to log-in, unless set otherwise", f"{LOGIN_TIMEOUT:.0f} seconds"),
                (
                    "without a command or an octet read, after log-in, unless set otherwise",
                    f"{IDLE_TIMEOUT:.0f} seconds",
                ),
                ("to close the connection, after the last reply", f"{LINGER:.0f} seconds"),
            ),
        ),
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
