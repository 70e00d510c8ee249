"""Tests of popd; run them with ``trial tests``."""
