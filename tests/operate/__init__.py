"""Tests of `popd.operate`."""
