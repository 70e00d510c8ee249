"""Tests of popd; run them with ``trial tests``."""

from hypothesis import settings

# No property is about time, and machines are sometimes busy.
settings.register_profile("popd", settings.default, deadline=None)
settings.load_profile("popd")
