"""Popd on a machine with systemd: no unit tests, see ``run.py``."""
