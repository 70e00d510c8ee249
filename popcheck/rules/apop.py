"""APOP, where the greeting announces it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from popcheck.check import need
from popcheck.client import shown
from popcheck.rule import MUST, Skipped, rule

if TYPE_CHECKING:
    from popcheck.check import Check
    from popcheck.client import Connection


def _announced(check: Check) -> tuple[Connection, bytes]:
    """Connect; return the connection and the greeting's timestamp."""
    connection = check.open()
    match = re.search(rb"<[^<> ]+@[^<> ]+>", connection.greeting)
    if match is None:
        raise Skipped("the greeting has no timestamp")
    check.target.free()
    return connection, match[0]


def _digest(stamp: bytes, password: bytes) -> bytes:
    return hashlib.md5(stamp + password, usedforsecurity=False).hexdigest().encode()


@rule("apop.log-in", "1939 7")
def log_in(check: Check) -> None:
    """APOP with the digest of timestamp and password logs in, if the greeting has a timestamp.

    Who has no secret to compare with announces no APOP.
    """
    connection, stamp = _announced(check)
    digest = _digest(stamp, check.target.password)
    connection.ok(b"APOP %s %s" % (check.target.user, digest))
    connection.ok(b"STAT")


@rule("apop.differs", "1939 7")
def differs(check: Check) -> None:
    """Each greeting has another timestamp.

    RFC 1939: otherwise who has heard a digest once can use it again.
    """
    first, second, third = (_announced(check)[1] for _ in range(3))
    need(len({first, second, third}) == 3, f"twice it is {shown(first)}")  # noqa: PLR2004


@rule("apop.wrong", "1939 7")
def wrong(check: Check) -> None:
    """A wrong digest is answered by -ERR.

    Nobody gets in who should not.
    """
    connection, stamp = _announced(check)
    connection.err(b"APOP %s %s" % (check.target.user, _digest(stamp, b"popcheck-wrong-password")))
    connection.err(b"STAT")


@rule("apop.heard-before", "1939 7", MUST)
def heard_before(check: Check) -> None:
    """A digest of another greeting is refused.

    It may have been heard on the line.
    """
    _, old = _announced(check)
    connection, _ = _announced(check)
    connection.err(b"APOP %s %s" % (check.target.user, _digest(old, check.target.password)))


@rule("apop.arguments", "1939 7")
def arguments(check: Check) -> None:
    """APOP without a digest, or without anything, is answered by -ERR.

    Whether the server has APOP or not.
    """
    connection = check.open()
    connection.err(b"APOP")
    connection.err(b"APOP " + check.target.user)
    connection.ok(b"QUIT")


@rule("apop.unannounced", "1939 7")
def unannounced(check: Check) -> None:
    """Without a timestamp in the greeting there is no APOP.

    A digest of nothing is the same each time.
    """
    connection = check.open()
    if re.search(rb"<[^<> ]+@[^<> ]+>", connection.greeting):
        raise Skipped("the greeting has a timestamp")
    digest = _digest(b"", check.target.password)
    connection.err(b"APOP %s %s" % (check.target.user, digest))
