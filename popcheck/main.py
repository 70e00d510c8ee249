"""The command line of ``popcheck``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from popcheck import __version__
from popcheck.maildir import Maildir
from popcheck.rule import Failed
from popcheck.rules import load
from popcheck.runner import FAIL, PASS, SKIP, carry_out
from popcheck.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from popcheck.rule import Rule
    from popcheck.runner import Result

__all__ = ["main"]

_DESCRIPTION: Final = """\
Look whether a POP3 server keeps to the RFCs.  Rules that put mail into the user's Maildir need
--maildir; that mail is removed afterwards.  Give it an account that is for nothing else.
"""

_IDLE: Final = 598.0
"""Seconds; a server has to wait for ten minutes (RFC 1939 section 3)."""

_EPILOG: Final = """\
exit status:
  0  the server keeps to all rules that were checked
  1  it does not
  2  the command line is wrong, or the server, its user or the Maildir cannot be used
"""


class _Unusable(Exception):  # noqa: N818 - a line for the user
    """The server, the user or the Maildir cannot be used."""


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="popcheck",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "server",
        nargs="?",
        metavar="HOST[:PORT]",
        help="the port for cleartext and STLS, 110; 0 if there is none",
    )
    add("--tls-port", type=int, default=0, metavar="PORT", help="the port for implicit TLS")
    add("--user", metavar="NAME", help="who logs in")
    add("--password", metavar="PASSWORD", help="the user's password")
    add(
        "--password-file", type=Path, metavar="FILE", help="a file whose first line is the password"
    )
    add("--maildir", type=Path, metavar="PATH", help="the user's Maildir, which must be empty")
    add("--erase-maildir", action="store_true", help="remove the mail that is in the Maildir first")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--cafile",
        metavar="FILE",
        help="whose certificates are trusted, in PEM; as a default the system's",
    )
    trust.add_argument("--insecure", action="store_true", help="trust any certificate")
    add(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="check only the rules whose name matches, such as 'retr.*'",
    )
    add(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long a reply may take [30]",
    )
    add("--slow", action="store_true", help="check what takes ten minutes, too")
    add("--json", action="store_true", help="write JSON")
    add("--failed", action="store_true", help="do not show what was passed or skipped")
    add("--list", action="store_true", help="show the rules, a line each, and end")
    add("--explain", metavar="RULE", help="explain a rule, and end")
    add("--version", action="version", version=f"popcheck {__version__}")
    return parser


def _line(rule: Rule) -> str:
    mail = " (mail)" if rule.needs_mail else ""
    return f"{rule.name:<30} {rule.source:<22} {rule.level.value:<6} {rule.summary}{mail}"


def _explain(rule: Rule) -> str:
    mail = "It puts mail into the Maildir." if rule.needs_mail else ""
    about = f"{rule.source}, {rule.level.value}"
    return "\n\n".join(
        filter(None, (f"{rule.name}: {rule.summary}.", about, rule.explanation, mail))
    )


def _maildir(path: Path, *, erase: bool) -> Maildir:
    """Return the Maildir.

    :raises _Unusable: it is none, or holds mail that nobody said may go.
    """
    maildir = Maildir(path)
    try:
        if erase:
            maildir.erase()
        held = len(maildir.files())
        if not (path / "tmp").is_dir():
            raise _Unusable(f"{path} is no Maildir: there is no tmp in it")
    except OSError as error:
        raise _Unusable(f"{path} is no Maildir that can be used: {error}") from None
    if held:
        raise _Unusable(
            f"{path} holds {held} messages: take an account without mail, or remove them "
            "(--erase-maildir)"
        )
    return maildir


def _password(options: argparse.Namespace) -> str:
    if options.password_file is None:
        return str(options.password)
    try:
        return str(options.password_file.read_text(encoding="utf-8").split("\n")[0])
    except (OSError, ValueError) as error:
        raise _Unusable(str(error)) from None


def _target(options: argparse.Namespace) -> Target:
    host, colon, port = options.server.rpartition(":")
    if not colon or host.endswith(":") or port.endswith("]"):
        host, port = options.server, "110"
    if not port.isdecimal():
        raise _Unusable(f"{port} is no port")
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except OSError as error:
        raise _Unusable(f"{options.cafile}: {error}") from None
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    maildir = None
    if options.maildir is not None:
        maildir = _maildir(options.maildir, erase=options.erase_maildir)
    return Target(
        host=host.strip("[]"),
        port=int(port),
        tls_port=options.tls_port,
        user=options.user.encode(),
        password=_password(options).encode(),
        context=context,
        maildir=maildir,
        timeout=options.timeout,
        idle=_IDLE if options.slow else 0.0,
    )


def _introduce(target: Target) -> bytes:
    """Make sure that the user can log in; return the greeting.

    :raises _Unusable: that is not possible.
    """
    try:
        connection = target.session()
        try:
            if target.maildir is not None and connection.stat()[0]:
                raise _Unusable(
                    "the maildrop holds mail, so --maildir is not where the user's mail is"
                )
            connection.quit()
        finally:
            connection.close()
    except (Failed, OSError) as error:
        raise _Unusable(f"{target.user.decode()} cannot log in: {error}") from None
    return connection.greeting


def _report(target: Target, greeting: bytes, results: Sequence[Result]) -> dict[str, Any]:
    implementation = b" ".join(target.announced.get(b"IMPLEMENTATION", []))
    return {
        "popcheck": __version__,
        "server": {
            "greeting": greeting.decode("latin-1"),
            "implementation": implementation.decode("latin-1"),
            "log-in": target.way,
        },
        "results": [
            {
                "rule": result.rule.name,
                "source": result.rule.source,
                "level": result.rule.level.value,
                "summary": result.rule.summary,
                "outcome": result.outcome,
                "detail": result.detail,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def _chosen(patterns: Sequence[str], rules: Mapping[str, Rule]) -> list[Rule]:
    chosen = [
        rule
        for name, rule in rules.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if not chosen:
        raise _Unusable("there is no such rule")
    return chosen


def _run(options: argparse.Namespace, rules: Mapping[str, Rule]) -> int:
    chosen = _chosen(options.only, rules)
    target = _target(options)
    greeting = _introduce(target)
    results = []
    for rule in chosen:
        result = carry_out(rule, target)
        results.append(result)
        if not options.json and (result.outcome == FAIL or not options.failed):
            detail = f": {result.detail}" if result.detail else ""
            print(f"{result.outcome} {_line(rule).removesuffix(' (mail)')}{detail}", flush=True)
    if options.json:
        json.dump(_report(target, greeting, results), sys.stdout, indent=1)
        print()
    else:
        counts = {kind: sum(one.outcome == kind for one in results) for kind in (PASS, FAIL, SKIP)}
        print(f"{counts[PASS]} passed, {counts[FAIL]} failed, {counts[SKIP]} skipped")
    return int(any(result.outcome == FAIL for result in results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    try:
        return _main(arguments)
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    parser = _arguments()
    options = parser.parse_args(arguments)
    rules = load()
    if options.list:
        print("\n".join(map(_line, rules.values())), flush=True)
        return 0
    if options.explain is not None:
        if options.explain not in rules:
            parser.error(f"there is no rule {options.explain}; see --list")
        print(_explain(rules[options.explain]))
        return 0
    if not options.server or options.user is None:
        parser.error("HOST and --user are needed")
    if (options.password is None) == (options.password_file is None):
        parser.error("one of --password and --password-file is needed")
    try:
        return _run(options, rules)
    except _Unusable as error:
        print(f"popcheck: {error}", file=sys.stderr)
        return 2
