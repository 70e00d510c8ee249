"""Floor 0: the POP3 language: bytes in, events out.  Knows no network, clock, file or thread."""
