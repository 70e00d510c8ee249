"""Tests of the Twisted driver."""
