"""Tests of ``popcheck``: a correct toy of a server, and mutants of it, one for each rule."""
