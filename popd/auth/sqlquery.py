"""SQL with named parameters, ``:user`` and the like, for whatever a driver wants to see instead.

Parameters are bound by the driver; nothing here puts a value into a statement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "DEFAULT_QUERY",
    "MYSQL",
    "NAMES",
    "POSTGRESQL",
    "SCHEMA",
    "STANDARD",
    "Dialect",
    "Statement",
    "parse",
]

NAMES: Final = frozenset({"user", "local", "domain"})
"""What a query may ask about: a user's name, and its two parts."""

SCHEMA: Final = (
    """\
CREATE TABLE popd_users (
    name VARCHAR(255) NOT NULL,
    password VARCHAR(512),
    scram_sha_256 VARCHAR(512),
    disabled SMALLINT NOT NULL DEFAULT 0,
    require_tls SMALLINT NOT NULL DEFAULT 0,
    allow_nets VARCHAR(1024),
    maildrop VARCHAR(1024),
    quota VARCHAR(20),
    master SMALLINT NOT NULL DEFAULT 0,
    expires VARCHAR(40),
    no_delete SMALLINT NOT NULL DEFAULT 0,
    min_interval VARCHAR(20),
    PRIMARY KEY (name)
)""",
    """\
CREATE TABLE popd_app_passwords (
    name VARCHAR(255) NOT NULL,
    app VARCHAR(64) NOT NULL,
    password VARCHAR(512) NOT NULL,
    allow_nets VARCHAR(1024),
    expires VARCHAR(40),
    no_delete SMALLINT NOT NULL DEFAULT 0,
    min_interval VARCHAR(20),
    PRIMARY KEY (name, app),
    FOREIGN KEY (name) REFERENCES popd_users (name) ON DELETE CASCADE
)""",
)
"""The tables that `DEFAULT_QUERY` asks, for SQLite, PostgreSQL and MySQL alike."""

DEFAULT_QUERY: Final = """\
SELECT name, password, scram_sha_256, disabled, require_tls, allow_nets, maildrop, quota, master,
       expires, no_delete, min_interval AS "interval", NULL AS app
  FROM popd_users
 WHERE name = :user
 UNION ALL
SELECT name, password, NULL, 0, 0, allow_nets, NULL, NULL, 0,
       expires, no_delete, min_interval, app
  FROM popd_app_passwords
 WHERE name = :user"""
"""Finds a user and his app passwords."""

Dialect: TypeAlias = "re.Pattern[str]"
"""What to skip in a statement, and what is a parameter in it."""


def _dialect(*skipped: str) -> Dialect:
    return re.compile(
        "|".join(
            (
                *skipped,
                r"'(?:[^']|'')*'",
                r'"(?:[^"]|"")*"',
                r"`[^`]*`",
                r"--[^\n]*",
                r"/\*.*?\*/",
                "::",
                ":=",
                r"(?P<open>['\"`]|/\*)",
                r"(?<!\w):(?P<name>[A-Za-z_]\w*)",
            )
        ),
        re.DOTALL,
    )


STANDARD: Final = _dialect()
POSTGRESQL: Final = _dialect(
    r"(?<!\w)[Ee]'(?:[^'\\]|\\.|'')*'", r"(?<!\w)\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$"
)
MYSQL: Final = _dialect(r"'(?:[^'\\]|\\.|'')*'", r'"(?:[^"\\]|\\.|"")*"', r"#[^\n]*")

_MARKERS: Final = {
    "named": ":{name}",
    "pyformat": "%({name})s",
    "format": "%s",
    "qmark": "?",
    "numeric": ":{number}",
}
"""How a parameter is written in each of the DB-API's paramstyles (PEP 249)."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as a driver wants it.

    :param text: the statement in the driver's style.
    :param names: the parameters in it, as often and in the order as they occur.
    :param by_name: whether the driver takes them by name.
    """

    text: str
    names: tuple[str, ...]
    by_name: bool

    def bind(self, values: Mapping[str, object]) -> Any:
        """Return the second argument of a cursor's ``execute``."""
        if self.by_name:
            return {name: values[name] for name in self.names}
        return [values[name] for name in self.names]


def parse(sql: str, style: str, dialect: Dialect, known: Collection[str] = NAMES) -> Statement:
    """Return the statement that *sql* means.

    What is quoted or a comment remains as it is, and so do casts (``::``); comments are not nested.

    :param style: the driver's paramstyle.
    :param dialect: what quotes and comments look like.
    :param known: the parameters that there are.
    :raises ValueError: a quotation or a comment has no end, or a parameter is not *known*.
    """
    marker = _MARKERS[style]
    literal = (lambda text: text.replace("%", "%%")) if "%" in marker else str
    pieces: list[str] = []
    names: list[str] = []
    end = 0
    for token in dialect.finditer(sql):
        if token["open"]:
            raise ValueError(f"what begins with {token['open']} has no end")
        name = token["name"]
        if not name:
            continue
        if name not in known:
            raise ValueError(f":{name} is none of {', '.join(f':{one}' for one in sorted(known))}")
        names.append(name)
        pieces += literal(sql[end : token.start()]), marker.format(name=name, number=len(names))
        end = token.end()
    pieces.append(literal(sql[end:]))
    return Statement("".join(pieces), tuple(names), style in {"named", "pyformat"})
