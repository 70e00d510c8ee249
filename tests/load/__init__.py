"""Load that lasts for minutes: not part of the test suite, but carried out by hand."""
