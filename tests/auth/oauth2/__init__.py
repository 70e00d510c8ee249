"""Tests of popd.auth.oauth2."""
