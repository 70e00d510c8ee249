"""Feed hostile input to popd's parsers: ``python -m tests.fuzz TARGET --inputs N``."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.mutator import mutants

if TYPE_CHECKING:
    from tests.fuzz.target import Target

TARGETS: Final = {
    "session": "sessions",
    "sasl": "sessions",
    "names": "parsers",
    "proxy": "parsers",
    "xclient": "parsers",
    "passwd": "parsers",
    "app": "parsers",
    "config": "parsers",
}
"""The targets, and in which module here each of them is."""

_LONGEST: Final = 40_000


def load(name: str) -> Target:
    """Return the target of this name."""
    module = importlib.import_module(f"tests.fuzz.{TARGETS[name]}")
    target: Target = getattr(module, name.upper())
    return target


def by_chance(target: Target, inputs: int, seed: int) -> None:
    """Feed *target* with inputs that are made by chance.

    :raises Exception: one of them did what none may do.  Its note is the input.
    """
    for number, data in enumerate(mutants(target, seed), 1):
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"input {number} of seed {seed}: {data!r}")
            raise
        if number >= inputs:
            return


def _by_coverage(name: str, inputs: int, seed: int) -> None:
    """Feed the target with what atheris thinks of, and end the process."""
    import atheris  # noqa: PLC0415 - it is optional

    with atheris.instrument_imports(include=["popd"]):
        target = load(name)
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for number, one in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(one)
        words = Path(directory, "words")
        words.write_text(
            "".join(
                '"{}"\n'.format("".join(f"\\x{octet:02x}" for octet in word))
                for word in target.words
                if 0 < len(word) <= 64
            )
        )
        arguments = [
            *(sys.argv[0], f"-runs={inputs}", f"-seed={seed}", f"-max_len={_LONGEST}"),
            *(f"-dict={words}", "-print_final_stats=1", "-verbosity=1", str(corpus)),
        ]
        atheris.Setup(arguments, target.check)
        atheris.Fuzz()


def main() -> int:
    """Do it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many, for each target")
    parser.add_argument("--seed", type=int, default=1, help="by what they are chosen")
    parser.add_argument(
        "--by", choices=["chance", "coverage"], default="chance",
        help="how they are chosen; coverage needs atheris: pip install atheris",
    )  # fmt: skip
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.by == "coverage":
        if len(names) > 1:
            parser.error("atheris takes one target at a time")
        try:
            _by_coverage(names[0], options.inputs, options.seed)
        except ImportError:
            parser.error("that needs atheris: pip install atheris")
    for name in names:
        target = load(name)
        begun = time.monotonic()
        by_chance(target, options.inputs, options.seed)
        print(
            f"{name}: {options.inputs} inputs, nothing found, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
