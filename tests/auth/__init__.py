"""Tests of the credential chain."""
