"""Write ``docs/conformance.rst``: ``python docs/make_conformance.py``.

It is made of ``docs/conformance.json``, which ``python -m tests.popcheck.peers`` writes.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcheck.rule import Level
from popcheck.rules import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from popcheck.rule import Rule

SOURCE = Path(__file__).with_name("conformance.json")
TARGET = Path(__file__).with_name("conformance.rst")

TEXT = """\
.. Written by docs/make_conformance.py from conformance.json; change those, not this.

Conformance
===========

``popcheck`` (:doc:`man/popcheck`) looks whether a POP3 server keeps to {count} rules: what the RFCs
demand, what they recommend, and what none of them says and people lose mail over.  It is a client
and knows nothing of popd.  For every rule the tests have a small server that breaks it and is
found out.

This page has what it said of popd, and of Dovecot and Courier as Debian has them.  All were asked
by the same command, over TLS, with a Maildir on a local disk::

    popcheck 127.0.0.1:PORT --tls-port PORT --user USER --password PASSWORD \\
        --cafile FILE --maildir PATH --slow

{versions}

A rule about something that a server does not announce is left out there (*not asked*).  Where no
RFC says it (*robust*), the section is that which the rule goes with.

{totals}

Where they differ
-----------------

The rules that one of them does not keep to.  ``popcheck --explain RULE`` says what each is for.

{differences}

What they did
-------------

{details}

Every rule
----------

{all}

How they were set up
--------------------

{configurations}

To look at it all again, as root, with Dovecot installed and Courier in a tree of its own
(``tests/popcheck/peers.py`` says how to make one)::

    python -m tests.popcheck.peers popd dovecot courier=/srv/courier
    python docs/make_conformance.py
"""

WORDS = {"PASS": "yes", "FAIL": "**no**", "SKIP": "not asked"}

rst_table = runpy.run_path(str(Path(__file__).with_name("make_protocol.py")))["rst_table"]


def code(text: str) -> str:
    """Return a text of a server's as literal."""
    return "``" + text.replace("`", "'").strip() + "``"


def totals(servers: Iterable[Mapping[str, Any]], rules: Mapping[str, Rule]) -> str:
    """Return the table of how many rules of each level are kept."""
    rows = []
    for server in servers:
        cells = [server["name"]]
        for level in Level:
            outcomes = [
                server["results"][name][0] for name, rule in rules.items() if rule.level is level
            ]
            asked = [outcome for outcome in outcomes if outcome != "SKIP"]
            cells.append(f"{asked.count('PASS')} of {len(asked)}")
        outcomes = [server["results"][name][0] for name in rules]
        cells += [str(outcomes.count("FAIL")), str(outcomes.count("SKIP"))]
        rows.append(cells)
    head = ("", *(f"{level.value} kept" for level in Level), "not kept in all", "not asked")
    return str(rst_table(head, rows))


def matrix(
    names: Iterable[str], servers: list[Mapping[str, Any]], rules: Mapping[str, Rule]
) -> str:
    """Return the table of these rules."""
    rows = (
        [
            *(f"``{name}``", rules[name].source, rules[name].level.value),
            *(WORDS[server["results"][name][0]] for server in servers),
        ]
        for name in names
    )
    return str(rst_table(("Rule", "Source", "Level", *(one["name"] for one in servers)), rows))


def details(server: Mapping[str, Any], rules: Mapping[str, Rule]) -> str:
    """Return what a server did that it should not have done."""
    broken = [
        f"``{name}``: {rules[name].summary}.\n    {code(server['results'][name][1])}"
        for name in rules
        if server["results"][name][0] == "FAIL"
    ]
    listed = "\n\n".join(broken) or "Keeps to every rule that it was asked about."
    return f"{server['name']}\n{'~' * len(server['name'])}\n\n{listed}"


def render() -> str:
    """Return what ``docs/conformance.rst`` should say."""
    rules = load()
    kept = json.loads(SOURCE.read_text(encoding="utf-8"))
    servers = [kept[name] for name in ("popd", "dovecot", "courier") if name in kept]
    differing = [
        name for name in rules if any(one["results"][name][0] == "FAIL" for one in servers)
    ]
    return TEXT.format(
        count=len(rules),
        versions=rst_table(
            ("", "Version", "Asked on", "By"),
            [
                (one["name"], one["version"], one["date"], f"popcheck {one['popcheck']}")
                for one in servers
            ],
        ),
        totals=totals(servers, rules),
        differences=matrix(differing, servers, rules),
        details="\n\n".join(details(one, rules) for one in servers),
        all=matrix(rules, servers, rules),
        configurations="\n\n".join(
            f"{one['name']}, beside where it listens, certificates, and one account::\n\n"
            + "\n".join(f"    {line}".rstrip() for line in one["configuration"].splitlines())
            for one in servers
        ),
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
