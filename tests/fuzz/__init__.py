"""Hostile input, in large numbers: ``python -m tests.fuzz TARGET --inputs N``.

`tests.fuzz.sessions` and `tests.fuzz.parsers` have the targets: each takes an input and raises an
AssertionError if popd did with it what it must never do.  `tests.fuzz.__main__` feeds them, with
inputs that atheris finds by what code they reach, or that a `tests.fuzz.mutator.Mutator` makes.
"""
