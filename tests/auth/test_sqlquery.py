"""Tests of SQL with named parameters."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path
from textwrap import indent

from twisted.trial.unittest import SynchronousTestCase

from popd.auth.sqlquery import DEFAULT_QUERY, MYSQL, POSTGRESQL, SCHEMA, STANDARD, parse

VALUES = {"user": "a@b", "local": "a", "domain": "b"}


class Parsing(SynchronousTestCase):
    """A statement is put into the words of a driver."""

    def test_styles(self) -> None:
        """Parameters are written as the driver wants them, and bound in its way."""
        sql = "SELECT :user, :local||:user"
        by_name = {"user": "a@b", "local": "a"}
        in_order = ["a@b", "a", "a@b"]
        for style, text, bound in (
            ("named", sql, by_name),
            ("pyformat", "SELECT %(user)s, %(local)s||%(user)s", by_name),
            ("format", "SELECT %s, %s||%s", in_order),
            ("qmark", "SELECT ?, ?||?", in_order),
            ("numeric", "SELECT :1, :2||:3", in_order),
        ):
            statement = parse(sql, style, STANDARD)
            self.assertEqual((statement.text, statement.bind(VALUES)), (text, bound))

    def test_untouched(self) -> None:
        """What is quoted, a comment or a cast is no parameter."""
        for dialect, sql in (
            (STANDARD, "':user' ' '':user''' \":user\" `:user` -- ' :user\n /* :user\n' */"),
            (STANDARD, "'\\' \":user\""),
            (POSTGRESQL, "a::text, 'x'::user, b:=1, t[1:2], '12:30'"),
            (POSTGRESQL, "E'\\':user' e'\\\\' $$ :user ' $$ $a_1$ :user $$ :user $a_1$ ':user'"),
            (MYSQL, "'\\':user' \"\\\":user\" # :user '\n '\\\\'"),
        ):
            for style in ("named", "format"):
                statement = parse(f"{sql} = :user", style, dialect)
                self.assertEqual(statement.names, ("user",), sql)
                self.assertTrue(statement.text.startswith(sql), sql)

    def test_percent(self) -> None:
        """A percent sign remains one, where drivers look for it."""
        self.assertEqual(parse("'%s' % :user", "format", STANDARD).text, "'%%s' %% %s")
        self.assertEqual(parse("'%s' % :user", "qmark", STANDARD).text, "'%s' % ?")

    def test_wrong(self) -> None:
        """What has no end and what is not known is said."""
        for sql, reason in (
            ("':user", "what begins with ' has no end"),
            ('"', 'what begins with " has no end'),
            ("/* :user", "what begins with /* has no end"),
            (":usr", ":usr is none of :domain, :local, :user"),
        ):
            error = self.assertRaises(ValueError, parse, sql, "named", STANDARD)
            self.assertEqual(str(error), reason)


class Default(SynchronousTestCase):
    """The query that comes with popd finds what is in the tables that come with it."""

    def test_documented(self) -> None:
        """The tables and the query are in the documentation."""
        docs = Path(__file__).parents[2] / "docs"
        text = "".join(path.read_text("utf-8") for path in docs.glob("authentication*.rst"))
        for sql in (*SCHEMA, DEFAULT_QUERY):
            self.assertIn(indent(sql, " " * 4), text)

    def test_rows(self) -> None:
        """It finds a user and his app passwords, and nobody else's."""
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        for table in SCHEMA:
            connection.execute(table)
        for name in ("alice", "bob"):
            connection.execute("INSERT INTO popd_users (name, password) VALUES (?, 'x')", [name])
            for app in ("phone", "scanner"):
                connection.execute(
                    "INSERT INTO popd_app_passwords (name, app, password) VALUES (?, ?, 'y')",
                    [name, app],
                )
        statement = parse(DEFAULT_QUERY, sqlite3.paramstyle, STANDARD)
        cursor = connection.execute(statement.text, ["alice"] * 2)
        columns = [column[0] for column in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
        self.assertEqual({row["name"] for row in rows}, {"alice"})
        self.assertEqual([row["app"] for row in rows], [None, "phone", "scanner"])
        self.assertTrue(all(a.keys() == b.keys() for a, b in pairwise(rows)))
