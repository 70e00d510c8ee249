"""Tests of popctl."""
