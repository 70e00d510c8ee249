"""Rules are carried out, one after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from popcheck.check import Check
from popcheck.rule import Failed, Skipped

if TYPE_CHECKING:
    from popcheck.rule import Rule
    from popcheck.target import Target

__all__ = ["FAIL", "PASS", "SKIP", "Result", "carry_out"]

PASS: Final = "PASS"  # noqa: S105 - no password
FAIL: Final = "FAIL"
SKIP: Final = "SKIP"


@dataclass(frozen=True)
class Result:
    """What became of a rule.

    :param rule: the rule.
    :param outcome: ``PASS``, ``FAIL`` or ``SKIP``.
    :param detail: what the server did, or why it was not asked; empty if all is well.
    :param seconds: how long it took.
    """

    rule: Rule
    outcome: str
    detail: str
    seconds: float


def _carry_out(rule: Rule, check: Check) -> None:
    if rule.needs_mail and check.target.maildir is None:
        raise Skipped("needs --maildir")
    rule.check(check)


def carry_out(rule: Rule, target: Target) -> Result:
    """Look whether the server keeps to a rule."""
    if target.maildir is not None:
        target.maildir.tidy()
    begin = time.monotonic()
    outcome, detail = PASS, ""
    check = Check(target)
    try:
        _carry_out(rule, check)
    except Skipped as skipped:
        outcome, detail = SKIP, str(skipped)
    except Failed as failed:
        outcome, detail = FAIL, str(failed)
    except (OSError, ValueError, LookupError) as error:
        outcome, detail = FAIL, f"{type(error).__name__}: {error}"
    finally:
        check.close()
    return Result(rule, outcome, " ".join(detail.split()), time.monotonic() - begin)
