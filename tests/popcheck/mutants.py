"""A mutant for each rule: a server that breaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.popcheck import mutants_lines, mutants_login, mutants_mail, mutants_store

if TYPE_CHECKING:
    from tests.popcheck.toy import Session

__all__ = ["MUTANTS"]

MUTANTS: dict[str, type[Session]] = {
    **mutants_lines.MUTANTS,
    **mutants_login.MUTANTS,
    **mutants_mail.MUTANTS,
    **mutants_store.MUTANTS,
}
