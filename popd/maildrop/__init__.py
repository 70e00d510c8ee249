"""Floor 1: what a user's maildrop holds.  Synchronous Python, nothing of Twisted."""
