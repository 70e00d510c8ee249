"""Attacks on a running popd: ``python -m tests.attack NAME``.

Each module has an attack and what it must not achieve; the modules of tests run it in small.
"""
