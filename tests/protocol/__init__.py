"""Tests of the POP3 language."""
