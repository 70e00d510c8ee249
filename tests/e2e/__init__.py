"""End-to-end tests: real clients against a real, listening popd."""
