"""Tests of what processes that serve give up."""
